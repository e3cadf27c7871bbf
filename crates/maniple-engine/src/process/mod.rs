//! Processes: start one, wait for it, signal it, learn how it ended, and ensure that it ends when its hub does.
//!
//! Two ways to start a worker. *spawn*: [`Launch`] runs a program (as a rule this one, once more) in a fresh process.
//! *forkserver*: a [`Server`] is such a process, does nothing but wait, and forks a worker whenever the hub asks; a restart
//! then costs a fork of a small single-threaded process instead of a program start.
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
//! Nothing in this folder names an operating system; what one must supply is in [`maniple_sys::process`].

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
