//! Messages between processes: pipes, channels and queues.
//!
//! | file | what it is for |
//! | --- | --- |
//! | `endpoint` | one end of a pipe or connection, for messages of any type |
//! | `message` | decoding messages, and converting the engine's errors |
//! | `connection` | [`Connection`] and [`pipe`]: an end that sends and receives values; `bytes`: an end that sends and receives bytes |
//! | `channel` | [`Sender`], [`Receiver`] and [`channel()`]: one direction |
//! | `queue` | [`Queue`]: any number of processes on both sides; `queues`: [`JoinableQueue`], [`SimpleQueue`] |
//! | `iter` | messages and values one by one |
//! | `fd_queue` | the descriptors of a queue's messages |
//! | `listener`, `client` | [`Listener`] and [`Client`]: connections between unrelated processes |
//! | `address`, `authkey` | the address of a listener, and the key of both ends |
//! | `wait` | [`wait()`] for any of several ends, queues and processes |
//! | `reactor` | the waits of futures |
//! | `futures`, `streams` | futures of puts and clients; streams of messages, values and clients |
//!
//! This module does not depend on how processes are started, or on what they call. An end travels as its descriptor.

mod address;
mod authkey;
mod bytes;
mod channel;
mod client;
mod connection;
mod endpoint;
mod fd_queue;
#[cfg(feature = "async")]
mod futures;
mod iter;
mod listener;
mod message;
mod queue;
mod queues;
mod reactor;
#[cfg(feature = "async")]
mod streams;
mod wait;

pub use address::Address;
pub use authkey::Authkey;
pub use channel::{Receiver, Sender, channel};
pub use client::{Client, ClientBuilder};
pub use connection::{Connection, pipe};
pub use iter::{QueueIter, ReceiverIntoIter, ReceiverIter};
pub use listener::{Incoming, Listener, ListenerBuilder};
pub use queue::Queue;
pub use queues::{JoinableQueue, SimpleQueue};
pub(crate) use reactor::until_readable;
#[cfg(feature = "async")]
pub use streams::{IncomingStream, QueueStream, ReceiverStream};
#[cfg(feature = "async")]
pub use wait::wait_async;
pub use wait::{wait, wait_timeout};
