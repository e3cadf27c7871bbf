//! Messages between processes: over a stream descriptor, and through a queue that lies in shared memory.
//!
//! | file | what it is for |
//! | --- | --- |
//! | `length_prefix` | the codec of frames, for all streams of bytes |
//! | `frame` | frames over a descriptor that several processes may share |
//! | `framed_stream` | requests and answers over a stream socket that only this process has |
//! | `packet_socket` | messages over a socket that keeps their boundaries, if both ends are maniple's |
//! | `stream_end` | one end of a connection over frames; `packet_end`: one end of a pipe of packets |
//! | `attendance` | which threads receive from an end, for a sender that waits |
//! | `readiness` | waiting until an end can be read or written |
//! | `room` | waiting for room in a socket, but not for an end that itself waits for this end |
//! | `parcel` | large buffers that travel beside a frame, in shared-memory blocks |
//! | `known` | blocks of middling size that have arrived more than once |
//! | `listener` | listeners and clients |
//! | `reception` | the authentication of a listening socket's clients, side by side |
//! | `address` | the address of a listener |
//! | `contact` | why there is no listener or connection |
//! | `auth` | the proof that both ends know the same key |
//! | `log` | a first-in first-out queue for any number of writers and readers |
//! | `window` | the mapped piece of a log's memory |
//! | `layout` | the words at the head of a log, and which side writes each |
//!
//! This module does not depend on what a message means, or on which language wrote it.

pub mod address;
pub mod attendance;
pub mod auth;
mod contact;
pub mod frame;
pub mod framed_stream;
mod known;
pub(crate) mod layout;
mod length_prefix;
pub mod listener;
pub mod log;
pub mod packet_end;
pub mod packet_socket;
pub mod parcel;
pub mod readiness;
pub mod reception;
pub mod room;
pub mod stream_end;
mod window;
