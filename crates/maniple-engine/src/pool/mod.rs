//! A pool of workers: which worker runs which task, and how tasks end when a process dies.
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
//! | `packet` | payloads to send, and received payloads |
//! | `link` | the hub's connection to a worker: a trait, and its form in shared memory |
//! | `worker` | the worker's end of a link |
//! | `job` | what the hub keeps for each call: outcomes until they are collected |
//! | `spec` | a front's description of a job, and the source of its tasks |
//! | `hub` | ties these together, under one lock that is never held while a front's code runs |
//! | `hub/ticket` | the caller's handle on a job: waiting (which drives the hub), taking outcomes |
//! | `hub/slots` | its workers: links are made, adopted, dropped |
//! | `hub/jobs` | submission, input and cancellation of jobs |
//! | `hub/room` | the backlog: calls that wait until few others wait |
//! | `affinity` | which processors each worker may use; pure |
//! | `size_limits` | the sizes that no pool can have |
//! | `policy` | how much, how often, how long: the numbers of every pool |
//! | `starts` | which starts are due, and when they are retried; pure |
//! | `ending` | how the workers of a terminated pool are ended; pure |
//! | `seats` | the thread that drives the hub, and the threads that wait for that |
//! | `hub/forks` | hubs across forks of their process |
//! | `hub/drive` | which thread drives the hub, and when it sleeps |
//! | `hub/fill` | calling the sources of jobs, which may take any time |
//! | `hub/listen` | receiving the workers' messages |
//! | `hub/act` | executing the scheduler's commands |
//! | `hub/statistics` | what the pool counts |
//! | `hub/limits` | limits of tasks and workers: what exceeds one is ended |
//! | `hub/starting`, `hub/terminate` | starts of workers, and the end of a pool that does not wait for its work |
//! | `burst` | calls in quick succession, by threads that do not wait for them |
//! | `hub/outlet` | what workers write to their standard error, on its way to that of the program |
//! | `hub/deaths` | the exit of a worker; `hub/tail`: its last words |
//! | `hub/ends` | the ends of jobs of one task, reported in batches |
//! | `hub/keeper` | the chores that no caller is there to do: deaths, restarts, callbacks, unattended work |
//!
//! What a payload means is not known here, nor how a worker is started: a front starts it and hands over its pid.

mod affinity;
mod burst;
pub mod ending;
mod hub;
mod job;
pub(crate) mod link;
pub(crate) mod packet;
pub mod policy;
pub mod scheduler;
pub mod seats;
mod size_limits;
mod spec;
pub mod starts;
mod worker;

pub use affinity::Affinity;
pub use ending::{End, EndTerms};
pub(crate) use hub::watch_forks;
pub use hub::{
    Chore, Collector, Hub, HubConfig, LACKING, Latency, Name, PoolStats, Room, Size, SlowTask, Ticket, WorkerLimits,
    WorkerState, WorkerStats,
};
pub use job::{Loss, LossCause, Outcome, Settled, Tries};
pub use link::worker_handles;
pub use packet::{Bytes, MOST_BLOBS, Packer, Packet, ReceivedPacket};
pub use scheduler::{Chunk, JobId, Retries, Terms, WorkerId};
pub use size_limits::{ImpossibleSize, check_growth, check_size};
pub use spec::{Collect, Filling, Func, JobSpec, Source, SourceKind};
pub use worker::{Answer, Message, PoolEnd, Task, WorkerLink};
