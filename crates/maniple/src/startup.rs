//! How processes of this program are started, and their roles.
//!
//! A worker is this program, started once more. With the feature `auto-init` (the default) a function that the linker
//! puts before `main` detects that, so a worker reaches neither `main` nor a test harness. Without the feature, the
//! program calls [`init`](crate::init()) itself (`init.rs`).

use crate::error::{Error, ProcessError, Result};
use maniple_engine::process::Launch;
use maniple_sys::process::image::image;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

/// The role of workers.
pub(crate) const WORKER: &str = concat!("maniple-worker-", env!("CARGO_PKG_VERSION"));
/// The role of fork servers of workers.
pub(crate) const SERVER: &str = concat!("maniple-server-", env!("CARGO_PKG_VERSION"));

/// The role of a [`Process`](crate::Process).
pub(crate) const PROCESS: &str = concat!("maniple-process-", env!("CARGO_PKG_VERSION"));
/// The role of the fork server of such processes.
pub(crate) const PROCESS_SERVER: &str = concat!("maniple-process-server-", env!("CARGO_PKG_VERSION"));

/// Returns the start of this program again, or of another program.
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
    /// The program is started once more as a server, which forks itself for each process. Starting and replacing
    /// processes is then cheap, which is useful with
    /// [`PoolBuilder::max_tasks_per_child`](crate::PoolBuilder::max_tasks_per_child).
    ForkServer,
}

/// Has an element if the program calls [`init`](crate::init()) itself, see [`explicit_init!`](crate::explicit_init!).
#[cfg(feature = "auto-init")]
#[doc(hidden)]
#[linkme::distributed_slice]
pub static EXPLICIT: [u8];

static DONE: AtomicBool = AtomicBool::new(false);

/// Records that this process knows its role. Returns whether that is new.
pub(crate) fn begin() -> bool {
    !DONE.swap(true, Ordering::AcqRel)
}

/// Returns whether another start of this program would become a worker, instead of running the program again.
///
/// # Errors
/// [`ProcessError::Start`] says what to do.
pub(crate) fn check(program: Option<&Path>) -> Result<()> {
    let refused = |why: &str| Err(Error::Process(ProcessError::Start(why.into())));
    // The other program runs this code, too.
    let here = (begin as fn() -> bool as *const ()).addr();
    if program.is_none() && !image().text.iter().any(|range| range.contains(&here)) {
        return refused(
            "this code is in a shared library, and another start of the program that loaded it would run that program again; name a \
             program that links maniple, by program(path), and functions of it, by #[maniple::task]",
        );
    }
    if !DONE.load(Ordering::Acquire) {
        // Otherwise its `main` would start a process, whose `main` would start a process, without an end.
        return refused("call maniple::init() at the beginning of main, or enable the feature auto-init");
    }
    Ok(())
}
