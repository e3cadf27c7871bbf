//! Messages between processes: pipes, channels and queues.
//!
//! | file | what it is for |
//! | --- | --- |
//! | `endpoint` | one end of a pipe or connection, for messages of any type |
//! | `message` | how a message is decoded, and what the engine's errors mean |
//! | `connection` | [`Connection`] and [`pipe`]: an end that sends and receives; `bytes`: the same with bytes |
//! | `channel` | [`Sender`], [`Receiver`] and [`channel()`]: one direction |
//! | `queue` | [`Queue`]: any number of processes on both sides; `queues`: [`JoinableQueue`], [`SimpleQueue`] |
//! | `iter` | messages and values one by one |
//! | `fd_queue` | the descriptors of a queue's messages |
//! | `listener`, `client` | [`Listener`] and [`Client`]: connections between processes that did not start each other |
//! | `address`, `authkey` | where a listener is, and what both ends have to know |
//! | `wait` | [`wait()`] for any of several ends, queues and processes |
//! | `reactor` | the same for futures |
//! | `futures`, `streams` | puts and clients as futures; what comes one by one as streams |
//!
//! What may not be known here: what starts the processes, and what is called in them. An end travels as its descriptor.

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
