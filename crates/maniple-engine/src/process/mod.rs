//! Processes: starting, waiting, signals, exit status, and lifelines that end a process with its hub.
//!
//! There are two ways to start a worker. *spawn*: [`Launch`] runs a program (usually this program, once more) in a
//! fresh process. *forkserver*: a [`Server`] is such a process, which only waits, and forks a worker whenever the hub
//! requests it; a restart then costs a fork of a small single-threaded process instead of a program start.
//!
//! ```text
//!          Launch::start          handles + a marker in the environment
//!   hub ───────────────────▶ child ── inherited() ──▶ role, handles
//!    │
//!    │ Server::fork            fork
//!    └────────────▶ server ─────────▶ child          (pid, pidfd and exit status come back through the server)
//! ```
//!
//! Lifetimes: a child outlives its [`Child`] value unless it is killed; a worker that has armed a
//! [`lifeline`] does not outlive its hub. Descriptors of the hub that no forked child may keep are listed in [`maniple_sys::atfork`].
//!
//! Nothing in this folder names an operating system; [`maniple_sys::process`] defines what a system must supply.

mod child;
mod inherit;
mod launch;
pub mod lifeline;
mod server;
mod stdio;

pub use child::{Child, ExitWatch, Forked, fork};
pub use inherit::{Inherited, inherited};
pub use launch::Launch;
pub use maniple_sys::process::{Cause, Exit, Stdio};
pub use server::{Server, serve};
pub use stdio::{nothing, put_in_place};
