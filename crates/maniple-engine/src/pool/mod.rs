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
//! | `spec` | what a front says of a job, and where its tasks come from |
//! | `hub` | ties these together, under one lock that is never held while a front's code runs |
//! | `hub/ticket` | the caller's handle on a job: waiting (which drives the hub), taking outcomes |
//! | `hub/peers` | its workers: links made, adopted, thrown away |
//! | `seats` | who drives the hub, and who waits to |
//! | `hub/forks` | hubs across forks of their process |
//! | `hub/drive` | taking in what workers say, and acting on it |
//! | `hub/deaths` | what is left of a worker: its exit; `hub/tail`: its last words |
//! | `hub/keeper` | the chores that no caller is there to do: deaths, restarts, callbacks, unattended work |
//!
//! What a payload means is not known here, nor how a worker is started: a front starts it and hands over its pid.

mod hub;
mod job;
pub(crate) mod link;
pub(crate) mod packet;
mod rush;
pub mod scheduler;
pub mod seats;
mod spec;
mod worker;

pub use hub::{Chore, Ended, Hub, HubConfig, LACKING, Ticket};
pub use job::{Loss, LossCause, Outcome, Settled};
pub use link::worker_handles;
pub use packet::{Bytes, Incoming, MOST_BLOBS, Packer, Packet};
pub use scheduler::{Chunk, JobId, WorkerId};
pub use spec::{Collect, Filling, Func, JobSpec, Source, SourceKind};
pub use worker::{Message, PoolEnd, Task, WorkerLink};
