//! The first moments of a process: is it the program, or one of its workers?
//!
//! A worker is this program started once more. With the feature `auto-init` (the default) a function that the linker puts
//! before `main` finds that out, so neither `main` nor a test harness is ever reached in a worker. Without it, the program
//! calls [`init`] itself.
#![allow(unsafe_code)]

use crate::process::child;
use crate::worker;
use maniple_engine::process::{Launch, inherited, serve};
use maniple_sys::OwnedHandle;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

/// What workers are started as.
pub(crate) const WORKER: &str = concat!("maniple-worker-", env!("CARGO_PKG_VERSION"));
/// What fork servers are started as.
pub(crate) const SERVER: &str = concat!("maniple-server-", env!("CARGO_PKG_VERSION"));

/// What a [`Process`](crate::Process) is started as.
pub(crate) const PROCESS: &str = concat!("maniple-process-", env!("CARGO_PKG_VERSION"));
/// What the fork server of such is started as.
pub(crate) const PROCESS_SERVER: &str = concat!("maniple-process-server-", env!("CARGO_PKG_VERSION"));

/// Another start of this program, or a start of another one.
pub(crate) fn launch(program: Option<&Path>) -> Launch {
    program.map_or_else(Launch::this_program, Launch::program)
}

/// How processes are started.
///
/// ```
/// use maniple::{Pool, StartMethod};
///
/// # fn main() -> maniple::Result<()> {
/// assert_eq!(StartMethod::default(), StartMethod::Spawn);
/// let pool = Pool::builder().processes(2).start_method(StartMethod::ForkServer).build()?;
/// assert_eq!(pool.map(u32::count_ones, [3, 4])?, [2, 1]);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum StartMethod {
    /// The program is started once more for each process.
    #[default]
    Spawn,
    /// The program is started once more, once; that process forks whenever one is needed. Starting and replacing processes is
    /// then cheap, which pays with [`PoolBuilder::max_tasks_per_child`](crate::PoolBuilder::max_tasks_per_child).
    ForkServer,
}

static DONE: AtomicBool = AtomicBool::new(false);

#[cfg(feature = "auto-init")]
ctor::declarative::ctor! {
    // Unsafe, because code before `main` may rely on little of the runtime. A worker uses what is there by then: memory,
    // threads, panics, the arguments and the environment. Constructors of the crates that use this one have run before.
    #[ctor(unsafe)]
    fn before_main() {
        init();
    }
}

/// Runs this process as a worker if it was started as one, and then does not return.
///
/// Programs built without the feature `auto-init` call this at the very beginning of `main`, before they start a thread.
/// Where the feature is on it has been done already, and calling it again does no harm.
///
/// ```
/// # fn f() -> maniple::Result<()> {
/// maniple::init();
/// let pool = maniple::Pool::new(2)?;
/// # Ok(())
/// # }
/// ```
pub fn init() {
    if !DONE.swap(true, Ordering::AcqRel)
        // SAFETY: before `main`, or first thing in it, as the documentation asks for: there is no other thread.
        && let Some(inherited) = unsafe { inherited() }
    {
        match inherited.role.as_str() {
            WORKER => worker::run(inherited.handles),
            SERVER => worker::run(forked(inherited.handles)),
            PROCESS => child::run(inherited.handles),
            PROCESS_SERVER => {
                let handles = forked(inherited.handles);
                maniple_sys::process::program_signals();
                child::run(handles)
            }
            role if role.starts_with("maniple-") => {
                eprintln!(
                    "maniple: this program was started as {role} and has maniple {}: both sides need the same version",
                    env!("CARGO_PKG_VERSION")
                );
                std::process::exit(1)
            }
            _ => {}
        }
    }
}

/// Lives as a fork server. Returns in its children, with the handles that are theirs.
fn forked(handles: Vec<OwnedHandle>) -> Vec<OwnedHandle> {
    maniple_sys::process::worker_signals();
    maniple_sys::process::take_name();
    // SAFETY: `init` runs before the program has a second thread.
    unsafe { serve(handles) }.unwrap_or_else(|error| {
        eprintln!("maniple: the fork server ends: {error}");
        std::process::exit(1)
    })
}

/// Whether [`init`] was called.
pub(crate) fn is_done() -> bool {
    DONE.load(Ordering::Acquire)
}
