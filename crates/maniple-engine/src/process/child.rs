//! A child process, and a watch on any process.

use crate::error::{Doing, Result};
use maniple_sys::own::{Lent, Own};
use maniple_sys::process::Exit;
use maniple_sys::{self as sys, AsHandle, BorrowedHandle, OwnedHandle, atfork};
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Reports when a process has ended, also a child of another process. Its descriptor becomes readable then and stays
/// so, so that it can be waited for together with other descriptors.
#[derive(Debug)]
pub struct ExitWatch {
    handle: Held,
    // 0: unknown. If the descriptor is not a handle on the process, signals are sent by this number.
    pid: u32,
}

/// A descriptor that the watch owns, or another owner's descriptor that stays open for longer.
#[derive(Debug)]
enum Held {
    Own(Own),
    Lent(Lent),
}

impl ExitWatch {
    /// Watches the process `pid`.
    ///
    /// # Errors
    /// No descriptor is left, or the kernel (before 5.3) or a sandbox refuses handles on processes. It is not an error
    /// if the process has ended.
    pub fn of(pid: u32) -> Result<ExitWatch> {
        if pid == sys::process_id() && !sys::process::has_handles() {
            return of_this_process(pid);
        }
        Ok(ExitWatch::by(pid, sys::process::open(pid).doing(WATCH)?))
    }

    /// Creates a watch on child `pid` by a handle of its parent that becomes readable when the child ends.
    pub fn by(pid: u32, handle: OwnedHandle) -> ExitWatch {
        ExitWatch { handle: Held::Own(Own::new(handle)), pid }
    }

    /// Creates a watch by a handle of another owner, which keeps it open for as long as this watch is used.
    pub fn by_lent(pid: u32, handle: BorrowedHandle<'_>) -> ExitWatch {
        // SAFETY: it is only waited for, and a signal by it reaches no process if it is not a handle on a process.
        #[allow(unsafe_code)]
        let lent = unsafe { Lent::new(handle) };
        ExitWatch { handle: Held::Lent(lent), pid }
    }

    /// A watch from another process, which made it with [`ExitWatch::into_handle`].
    pub fn from_inherited(handle: OwnedHandle) -> ExitWatch {
        ExitWatch { handle: Held::Own(Own::new(handle)), pid: 0 }
    }

    /// The descriptor, to be sent to another process.
    ///
    /// # Errors
    /// It has another owner, and no descriptor is left for a copy.
    pub fn into_handle(self) -> Result<OwnedHandle> {
        match self.handle {
            Held::Own(own) => Ok(own.into_handle()),
            Held::Lent(lent) => lent.as_handle().try_clone_to_owned().doing("copy a handle on a process"),
        }
    }

    /// A second watch on the same process.
    ///
    /// # Errors
    /// No descriptor left.
    pub fn try_clone(&self) -> Result<ExitWatch> {
        Ok(ExitWatch::by(self.pid, self.as_handle().try_clone_to_owned().doing("watch a process twice")?))
    }

    /// Whether the process has ended.
    ///
    /// # Errors
    /// The operating system's.
    pub fn ended(&self) -> Result<bool> {
        self.wait(Some(Duration::ZERO))
    }

    /// Waits until the process has ended. Returns `false` if the time limit expired first.
    ///
    /// # Errors
    /// The operating system's.
    pub fn wait(&self, timeout: Option<Duration>) -> Result<bool> {
        let deadline = timeout.and_then(|t| Instant::now().checked_add(t));
        loop {
            let left = deadline.map(|d| d.saturating_duration_since(Instant::now()));
            let mut interest = [sys::ready::Interest::new(self.as_handle())];
            if sys::ready::wait(&mut interest, left).doing("wait for a process to end")? > 0 {
                return Ok(true);
            }
            if left.is_some_and(|l| l.is_zero()) {
                return Ok(false);
            }
        }
    }

    /// Ends only this process, at once. If it has ended, no process is affected, even if its number is in use again.
    ///
    /// # Errors
    /// This user is not permitted to.
    pub fn kill(&self) -> Result<()> {
        sys::process::kill(self.as_handle(), self.pid).doing("kill a process")
    }

    /// Ends this process, and the processes that it has started, as far as they can be found: a process whose parent has
    /// ended cannot.
    ///
    /// # Errors
    /// As [`ExitWatch::kill`].
    pub fn kill_family(&self) -> Result<()> {
        sys::process::family::kill_family(self.as_handle(), self.pid).doing("kill a process and its children")
    }

    /// Sends the signal that interrupts a worker's task ([`sys::process::family::interrupt_number`]).
    ///
    /// # Errors
    /// As [`ExitWatch::kill`].
    pub fn interrupt(&self) -> Result<()> {
        sys::process::family::interrupt(self.as_handle(), self.pid).doing("interrupt a process")
    }

    /// Asks only this process to end.
    ///
    /// # Errors
    /// As [`ExitWatch::kill`].
    pub fn terminate(&self) -> Result<()> {
        sys::process::terminate(self.as_handle(), self.pid).doing("terminate a process")
    }
}

/// Without handles on processes: a pipe's end that becomes readable when this process closes the other end, which it
/// holds until its own end.
fn of_this_process(pid: u32) -> Result<ExitWatch> {
    static MADE: Mutex<Option<(u32, OwnedHandle)>> = Mutex::new(None);
    let mut made = MADE.lock().unwrap_or_else(PoisonError::into_inner);
    // A forked child inherits its parent's end, which does not report the child's end.
    let watch = match made.take() {
        Some((maker, watch)) if maker == pid => watch,
        _ => {
            let (watch, held) = sys::process::lifeline().doing(WATCH)?;
            atfork::hold_until_the_end(held).doing(WATCH)?;
            watch
        }
    };
    let copy = watch.try_clone().doing(WATCH);
    *made = Some((pid, watch));
    Ok(ExitWatch::by(pid, copy?))
}

maniple_sys::as_handle!(impl[] for ExitWatch, |this| match &this.handle {
    Held::Own(own) => own.as_handle(),
    Held::Lent(lent) => lent.as_handle(),
});

const WATCH: &str = "get a handle on a process (pidfd_open, Linux 5.3 and newer)";

/// Where the exit status of children is reported that another process has forked.
pub(super) trait Statuses: std::fmt::Debug + Send + Sync {
    /// Returns how the ended child of this number ended.
    fn take(&self, serial: u64) -> Result<Exit>;
}

/// Which part of the program learns how a child ended.
#[derive(Debug)]
enum Parent {
    /// This process.
    Us,
    /// The server that forked it as its child of this number, and passes it on.
    Server(u64, Arc<dyn Statuses>),
}

/// A started process. Dropping it neither ends nor reaps it: the code that starts a process reaps it with [`Child::wait`].
#[derive(Debug)]
pub struct Child {
    pid: u32,
    watch: Arc<ExitWatch>,
    parent: Parent,
    exit: Mutex<Option<Exit>>,
}

impl Child {
    pub(crate) fn ours(pid: u32, handle: OwnedHandle) -> Child {
        Child { pid, watch: Arc::new(ExitWatch::by(pid, handle)), parent: Parent::Us, exit: Mutex::new(None) }
    }

    pub(super) fn of_server(pid: u32, watch: ExitWatch, serial: u64, statuses: Arc<dyn Statuses>) -> Child {
        Child { pid, watch: Arc::new(watch), parent: Parent::Server(serial, statuses), exit: Mutex::new(None) }
    }

    /// Its process number. The system may use it again once the child is reaped.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// The watch that reports its end.
    pub fn watch(&self) -> &Arc<ExitWatch> {
        &self.watch
    }

    /// Returns how the child ended, if it has, and reaps it.
    ///
    /// # Errors
    /// The operating system's.
    pub fn try_wait(&self) -> Result<Option<Exit>> {
        let mut exit = self.exit.lock().unwrap_or_else(PoisonError::into_inner);
        if exit.is_none() {
            *exit = match &self.parent {
                Parent::Us => sys::process::reap(self.watch.as_handle(), self.pid).doing("reap a child")?,
                Parent::Server(serial, statuses) if self.watch.ended()? => Some(statuses.take(*serial)?),
                Parent::Server(..) => None,
            };
        }
        Ok(*exit)
    }

    /// Waits until it ends, and reaps it.
    ///
    /// # Errors
    /// The operating system's.
    pub fn wait(&self) -> Result<Exit> {
        loop {
            match self.watch.wait(None) {
                // A waiting thread has time, and a process that is not reaped stays as a zombie.
                Err(error) if error.is_shortage() => std::thread::sleep(Duration::from_millis(10)),
                other => drop(other?),
            }
            if let Some(exit) = self.try_wait()? {
                return Ok(exit);
            }
        }
    }

    /// As [`Child::wait`], for at most `timeout`. Returns `None` if the child still runs.
    ///
    /// # Errors
    /// The operating system's.
    pub fn wait_timeout(&self, timeout: Duration) -> Result<Option<Exit>> {
        if let Some(exit) = self.try_wait()? {
            return Ok(Some(exit));
        }
        self.watch.wait(Some(timeout))?;
        self.try_wait()
    }

    /// Ends the child at once, also while it is busy. It is not an error if it has ended.
    ///
    /// # Errors
    /// This user may not (the child has changed its user).
    pub fn kill(&self) -> Result<()> {
        self.watch.kill()
    }

    /// Asks the child to end. It is not an error if it has ended.
    ///
    /// # Errors
    /// As [`Child::kill`].
    pub fn terminate(&self) -> Result<()> {
        self.watch.terminate()
    }
}

/// Which side of a fork this is.
pub enum Forked {
    /// The new process.
    Child,
    /// The process that forked, with the new process.
    Parent(Child),
}

/// Forks.
///
/// # Safety
/// As [`sys::process::fork`].
///
/// # Errors
/// The operating system's.
#[allow(unsafe_code)]
pub unsafe fn fork() -> io::Result<Forked> {
    // SAFETY: as the caller promises.
    Ok(match unsafe { sys::process::fork() }? {
        sys::process::Forked::Child => Forked::Child,
        sys::process::Forked::Parent(pid, handle) => Forked::Parent(Child::ours(pid, handle)),
    })
}
