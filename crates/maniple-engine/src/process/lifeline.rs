//! The lifeline: a pipe whose write end only the hub holds. When the hub dies, for any reason, the kernel closes that
//! end, and all workers, which hold the other end, end at once. One pipe serves all workers of a hub.
//!
//! A worker need not check: [`arm`] asks the kernel to kill it when the pipe hangs up. So a worker that computes,
//! sleeps, or hangs in foreign code dies as well, and no thread watches. The request belongs to an open file and not to
//! a descriptor, so each worker opens the pipe's end again (by `/proc/self/fd`). If the system cannot do that, a thread
//! waits at the pipe and kills the worker.
//!
//! A worker's work is lost with its hub, so it is killed. Other processes get SIGTERM first, and time to clean up:
//! [`arm_gently`].
//!
//! The hub's death ends all its workers, and through their lifelines the workers of their pools. A worker's death
//! closes its read end, which has no effect. If a hub dies before the worker has armed its end, [`arm`] finds the pipe
//! hung up and ends the worker.

use crate::error::{Doing, Result};
use crate::wait::retry;
use maniple_sys as sys;
use maniple_sys::atfork::{self, HubOnly};
use maniple_sys::{AsHandle, BorrowedHandle, OwnedHandle};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The hub's end. As long as it is open, the workers may run.
#[derive(Debug)]
pub struct LifelineHub {
    end: HubOnly,
}

/// A hub's lifeline, with the read end of which each worker gets a copy.
#[derive(Debug)]
pub struct Lifelines {
    hub: LifelineHub,
    workers: HubOnly,
}

impl Lifelines {
    /// A new one.
    ///
    /// # Errors
    /// No descriptor left.
    pub fn new() -> Result<Lifelines> {
        atfork::making(|| {
            let (hub, workers) = pair()?;
            Ok(Lifelines { hub, workers: HubOnly::new(workers).doing("make the workers' lifeline")? })
        })
    }

    /// The end for one more worker.
    ///
    /// # Errors
    /// No descriptor left; or the program has closed the pipe, as one does that becomes a daemon. Then all workers are killed.
    pub fn share(&self) -> Result<OwnedHandle> {
        if !self.hub.end.is_there() || !self.workers.is_there() {
            return Err(sys::own::not_there())
                .doing("start a worker of this pool, because the program has closed the pool's descriptors (make another pool)");
        }
        sys::memory::duplicate(&self.workers).doing("copy the workers' lifeline")
    }
}

/// A new lifeline: the hub's end, and the end to be passed to the worker.
///
/// # Errors
/// No descriptor left.
pub fn pair() -> Result<(LifelineHub, OwnedHandle)> {
    atfork::making(|| {
        let (worker, hub) = sys::process::lifeline()?;
        Ok((LifelineHub { end: HubOnly::new(hub)? }, worker))
    })
    .map_err(|e: std::io::Error| e)
    .doing("make a worker's lifeline")
}

/// Ties this process's life to the hub's: it is killed when the hub's end is closed, and at once if it already is.
///
/// Call it in the worker, before anything that takes time.
///
/// # Errors
/// `handle` is not a lifeline, or neither the kernel's help nor a thread is available.
pub fn arm(handle: OwnedHandle) -> Result<()> {
    match sys::process::die_when_hung_up(handle.as_handle()) {
        Ok(own) => {
            if retry::while_short(|| sys::process::hung_up(own.as_handle()).doing("check the lifeline"))? {
                sys::process::die();
            }
            // Kept until this process ends: closing it would disarm the lifeline.
            atfork::hold_until_the_end(own).doing("hold the lifeline")
        }
        Err(_) => watch(handle),
    }
}

/// Ties this process's life to its maker's, whose pid is `maker` here: when the last holder of the maker's end has
/// closed it, and the maker has ended, this process gets SIGTERM, and SIGKILL after `grace`. It gets them at once if
/// that has already happened.
///
/// The caller keeps the pipe. Closing all descriptors of this process separates the two.
///
/// # Errors
/// `pipe` is not a lifeline, or neither the kernel's help nor a thread is available.
pub fn arm_gently(pipe: BorrowedHandle<'_>, maker: i32, grace: Duration) -> Result<()> {
    if sys::process::maker::end_after(pipe, maker, grace).is_ok() {
        return Ok(());
    }
    let copy = Arc::new(pipe.try_clone_to_owned().doing("copy the lifeline")?);
    watch_by(move || {
        sys::process::until_hung_up(copy.as_handle());
        while sys::process::maker::runs(maker) {
            std::thread::sleep(LOOK);
        }
        sys::process::terminate_itself();
        std::thread::sleep(grace);
        sys::process::die();
    })
}

/// How long a process waits for the end of a shortage that its watcher meets: its maker would only start another
/// process, which meets it as well.
const PATIENCE: Duration = Duration::from_secs(8);

/// Starts a thread that watches the lifeline.
fn watch_by(watcher: impl FnOnce() + Clone + Send + 'static) -> Result<()> {
    let since = Instant::now();
    let mut nap = Duration::from_millis(10);
    loop {
        let builder = std::thread::Builder::new().name("maniple-lifeline".into());
        match builder.spawn(watcher.clone()) {
            Err(error) if sys::is_shortage(&error) && since.elapsed() < PATIENCE => std::thread::sleep(nap),
            started => return started.map(drop).doing("start the thread that watches the lifeline"),
        }
        nap = (2 * nap).min(Duration::from_secs(1));
    }
}

/// How often a thread looks whether a maker still runs that has closed its end.
const LOOK: Duration = Duration::from_millis(200);

/// As [`arm`], by a thread that waits for the pipe to hang up.
fn watch(handle: OwnedHandle) -> Result<()> {
    let handle = Arc::new(handle);
    watch_by(move || {
        sys::process::until_hung_up(handle.as_handle());
        sys::process::die();
    })
}

// These fork; `tests/it/lifelines.rs` starts programs, on Windows as well.
#[cfg(not(windows))]
#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::{Cause, Exit};
    use crate::process::{Forked, fork as try_fork};
    use maniple_sys::testing;

    fn fork() -> Forked {
        // SAFETY: the children do little, with an allocator that is fit for use after a fork.
        #[allow(unsafe_code)]
        unsafe { try_fork() }.unwrap()
    }

    /// Forks a worker that arms its end and then does `work`, drops the hub's end when it has, and returns its exit.
    fn killed_worker(armed: fn(OwnedHandle) -> Result<()>, work: fn()) -> Exit {
        let (hub, worker) = pair().unwrap();
        let (told, tell) = sys::process::lifeline().unwrap();
        let child = match fork() {
            Forked::Child => {
                if armed(worker).is_ok() {
                    testing::tell(tell.as_handle());
                    work();
                }
                sys::process::leave(1);
            }
            Forked::Parent(child) => child,
        };
        drop(worker);
        assert_eq!(testing::told(told.as_handle()), 1, "the worker could not arm");
        drop(hub);
        child.wait_timeout(Duration::from_secs(20)).unwrap().expect("the worker outlived its hub")
    }

    fn busy() {
        loop {
            std::hint::black_box(0);
        }
    }

    fn idle() {
        std::thread::sleep(Duration::from_secs(600));
    }

    #[test]
    fn an_idle_worker_dies_with_the_hub() {
        assert_eq!(killed_worker(arm, idle), Exit::Killed(Cause::KILL));
    }

    #[test]
    fn a_busy_worker_dies_with_the_hub() {
        assert_eq!(killed_worker(arm, busy), Exit::Killed(Cause::KILL));
    }

    #[test]
    fn the_kernel_does_it_without_a_thread() {
        fn kernel_only(handle: OwnedHandle) -> Result<()> {
            std::mem::forget(sys::process::die_when_hung_up(handle.as_handle()).doing("arm")?);
            Ok(())
        }
        assert_eq!(killed_worker(kernel_only, busy), Exit::Killed(Cause::KILL));
    }

    #[test]
    fn the_thread_does_it_where_the_kernel_cannot() {
        assert_eq!(killed_worker(watch, busy), Exit::Killed(Cause::KILL));
    }

    #[test]
    fn a_worker_that_arms_after_the_hub_died_ends_there() {
        let (hub, worker) = pair().unwrap();
        drop(hub);
        let child = match fork() {
            Forked::Child => {
                let _ = arm(worker);
                idle();
                sys::process::leave(0);
            }
            Forked::Parent(child) => child,
        };
        assert_eq!(child.wait_timeout(Duration::from_secs(20)).unwrap(), Some(Exit::Killed(Cause::KILL)));
    }

    #[test]
    fn one_lifeline_ends_all_workers() {
        let hub = Lifelines::new().unwrap();
        let (told, tell) = sys::process::lifeline().unwrap();
        let children: Vec<_> = (0..3)
            .map(|number| {
                // The second forks from a process that has armed nothing; each is on its own.
                let worker = hub.share().unwrap();
                match fork() {
                    Forked::Child => {
                        if arm(worker).is_ok() {
                            testing::tell(tell.as_handle());
                            if number == 1 { idle() } else { busy() }
                        }
                        sys::process::leave(1);
                    }
                    Forked::Parent(child) => child,
                }
            })
            .collect();
        let mut armed = 0;
        while armed < 3 {
            armed += testing::told(told.as_handle());
        }
        drop(hub);
        for child in children {
            assert_eq!(child.wait_timeout(Duration::from_secs(20)).unwrap(), Some(Exit::Killed(Cause::KILL)));
        }
    }

    /// A pid that was a process's a moment ago.
    fn ended_maker() -> i32 {
        match fork() {
            Forked::Child => sys::process::leave(0),
            Forked::Parent(child) => {
                let pid = child.pid();
                child.wait().unwrap();
                pid as i32
            }
        }
    }

    fn gently(handle: OwnedHandle, maker: i32) -> Result<()> {
        let armed = arm_gently(handle.as_handle(), maker, Duration::from_millis(50));
        std::mem::forget(handle);
        armed
    }

    #[test]
    fn a_gently_armed_process_gets_sigterm() {
        assert_eq!(killed_worker(|handle| gently(handle, ended_maker()), busy), Exit::Killed(Cause::TERMINATE));
    }

    #[test]
    fn a_gently_armed_process_that_ignores_sigterm_is_killed() {
        fn deaf(handle: OwnedHandle) -> Result<()> {
            testing::ignore(testing::Signal::TERM);
            gently(handle, ended_maker())
        }
        assert_eq!(killed_worker(deaf, idle), Exit::Killed(Cause::KILL));
    }

    #[test]
    fn a_process_stays_while_its_maker_runs_without_the_lifeline() {
        let (hub, worker) = pair().unwrap();
        let (maker, maker_ends) = sys::process::lifeline().unwrap();
        let (told, tell) = sys::process::lifeline().unwrap();
        let maker_process = match fork() {
            Forked::Child => {
                drop(maker_ends);
                sys::process::until_hung_up(maker.as_handle());
                sys::process::leave(0);
            }
            Forked::Parent(child) => child,
        };
        let maker_pid = maker_process.pid() as i32;
        let child = match fork() {
            Forked::Child => {
                drop(maker_ends);
                if gently(worker, maker_pid).is_ok() {
                    testing::tell(tell.as_handle());
                    idle();
                }
                sys::process::leave(1);
            }
            Forked::Parent(child) => child,
        };
        drop(worker);
        assert_eq!(testing::told(told.as_handle()), 1, "the process could not arm");
        drop(hub);
        assert_eq!(child.wait_timeout(Duration::from_millis(300)).unwrap(), None);
        drop(maker_ends);
        maker_process.wait().unwrap();
        assert_eq!(child.wait_timeout(Duration::from_secs(20)).unwrap(), Some(Exit::Killed(Cause::TERMINATE)));
    }
}
