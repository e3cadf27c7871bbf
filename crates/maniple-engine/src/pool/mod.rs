//! A pool of workers: who runs what, and what becomes of it when somebody dies.
//!
//! ```text
//!  caller ── job ──▶ hub: scheduler (pure state machine) ◀── exits, time, results
//!                     │ link 1          │ link 2            (no lock is shared between workers)
//!                     ▼                 ▼
//!                  worker 1          worker 2
//! ```
//!
//! | file | what it is for |
//! | --- | --- |
//! | `scheduler` | events in, commands out; no clock, no thread, no I/O |
//! | `packet` | payloads on their way out and in |
//! | `link` | the shared-memory layout, and the hub's end of a link |
//! | `worker` | the worker's end of a link |
//! | `job` | what the hub keeps for each call: outcomes until they are collected |
//! | `ticket` | the caller's handle on a job: waiting (which drives the hub), taking outcomes |
//! | `hub` | ties these together, under one lock that is never held while a front's code runs |
//! | `keeper` | the chores that no caller is there to do: deaths, restarts, callbacks, unattended work |
//!
//! What a payload means is not known here, nor how a worker is started: a front starts it and hands over its pid.

mod deaths;
mod hub;
mod job;
mod keeper;
mod link;
mod packet;
pub mod scheduler;
mod spin;
mod ticket;
mod worker;

pub use hub::{Filling, Func, Hub, HubConfig, JobSpec, Source, SourceKind};
pub use job::{Collect, Loss, LossCause, Outcome, Settled};
pub use keeper::Chore;
pub use link::worker_handles;
pub use packet::{Bytes, Incoming, Packet, Packer};
pub use scheduler::{Chunk, JobId, WorkerId};
pub use ticket::Ticket;
pub use worker::{Message, Task, WorkerLink};
