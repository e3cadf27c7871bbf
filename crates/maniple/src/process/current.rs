//! Data of this process, its parent and its children.

use super::{Process, Shared};
use crate::error::{InTime, Result};
use maniple_engine::process::ExitWatch;
use maniple_sys::{AsHandle, BorrowedHandle};
use std::sync::{Arc, Mutex, PoisonError, RwLock, Weak};
use std::time::Duration;

/// The name of a process, and whether it ends with its parent.
///
/// ```
/// use maniple::{Exit, Process, current_process};
///
/// # fn main() -> maniple::Result<()> {
/// let process = Process::builder()
///     .name("scanner")
///     .build(|()| i32::from(current_process().name() != "scanner"), ())?;
/// process.start()?;
/// assert_eq!(process.join()?, Exit::Code(0));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CurrentProcess {
    name: String,
    daemon: bool,
    pid: u32,
}

impl CurrentProcess {
    /// Returns `MainProcess`, or the name of the [`Process`].
    ///
    /// ```
    /// assert_eq!(maniple::current_process().name(), "MainProcess");
    /// ```
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns whether the process ends with its parent.
    ///
    /// ```
    /// assert!(!maniple::current_process().is_daemon());
    /// ```
    #[must_use]
    pub fn is_daemon(&self) -> bool {
        self.daemon
    }

    /// Returns the process number.
    ///
    /// ```
    /// assert_eq!(maniple::current_process().pid(), std::process::id());
    /// ```
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid
    }
}

/// The process that started this one as its [`Process`].
///
/// ```
/// use maniple::{Exit, Process, parent_process};
///
/// fn child(pid: u32) -> i32 {
///     let parent = parent_process().unwrap();
///     i32::from(parent.name() != "MainProcess" || parent.pid() != pid || !parent.is_alive())
/// }
///
/// # fn main() -> maniple::Result<()> {
/// let process = Process::new(child, std::process::id())?;
/// process.start()?;
/// assert_eq!(process.join()?, Exit::Code(0));
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct ParentProcess {
    name: String,
    pid: u32,
    watch: ExitWatch,
}

impl ParentProcess {
    /// Returns the name of the process.
    ///
    /// ```
    /// use maniple::{Exit, Process, parent_process};
    ///
    /// # fn main() -> maniple::Result<()> {
    /// let process = Process::new(|()| parent_process().unwrap().name().len() as i32, ())?;
    /// process.start()?;
    /// assert_eq!(process.join()?, Exit::Code("MainProcess".len() as i32));
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the process number.
    ///
    /// ```
    /// use maniple::{Exit, Process, parent_process};
    ///
    /// # fn main() -> maniple::Result<()> {
    /// let process = Process::new(|pid: u32| i32::from(parent_process().unwrap().pid() != pid), std::process::id())?;
    /// process.start()?;
    /// assert_eq!(process.join()?, Exit::Code(0));
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Returns whether the process still runs.
    ///
    /// ```
    /// use maniple::{Exit, Process, parent_process};
    ///
    /// # fn main() -> maniple::Result<()> {
    /// let process = Process::new(|()| i32::from(parent_process().unwrap().is_alive()), ())?;
    /// process.start()?;
    /// assert_eq!(process.join()?, Exit::Code(1));
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn is_alive(&self) -> bool {
        self.watch.ended().map_or_else(|e| e.is_shortage(), |ended| !ended)
    }

    /// Waits until the process has ended.
    ///
    /// ```
    /// use maniple::{Process, Sender, channel, parent_process};
    ///
    /// fn watch(sender: Sender<String>) -> maniple::Result<()> {
    ///     let parent = parent_process().unwrap();
    ///     parent.join()?;
    ///     sender.send(&format!("{} has ended", parent.name()))
    /// }
    ///
    /// fn start_and_end(sender: Sender<String>) {
    ///     let watcher = Process::new(watch, sender).unwrap();
    ///     watcher.start().unwrap();
    ///     std::process::exit(0)
    /// }
    ///
    /// # fn main() -> maniple::Result<()> {
    /// let (sender, receiver) = channel()?;
    /// let process = Process::builder().name("short").build(start_and_end, sender)?;
    /// process.start()?;
    /// assert_eq!(receiver.recv()?, "short has ended");
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// The operating system's error.
    pub fn join(&self) -> Result<()> {
        self.watch.wait(None)?;
        Ok(())
    }

    /// As [`join`](Self::join), for at most `timeout`.
    ///
    /// ```
    /// use maniple::{Error, Exit, Process, parent_process};
    /// use std::time::Duration;
    ///
    /// # fn main() -> maniple::Result<()> {
    /// let process = Process::new(
    ///     |()| match parent_process().unwrap().join_timeout(Duration::from_millis(1)) {
    ///         Err(Error::Timeout(_)) => 0,
    ///         _ => 1,
    ///     },
    ///     (),
    /// )?;
    /// process.start()?;
    /// assert_eq!(process.join()?, Exit::Code(0));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::Timeout`](crate::Error::Timeout), or the operating system's error.
    pub fn join_timeout(&self, timeout: Duration) -> Result<()> {
        self.watch.wait(Some(timeout))?.in_time("the parent process to end", timeout)
    }

    /// Returns a descriptor that becomes readable when the process ends.
    ///
    /// ```
    /// use maniple::{Connection, Exit, Process, parent_process, pipe, wait};
    ///
    /// /// Waits for a message, or for the end of its parent.
    /// fn child(connection: Connection<i32>) -> maniple::Result<i32> {
    ///     match wait(&[&connection, &parent_process().unwrap().sentinel()])?[..] {
    ///         [0, ..] => connection.recv(),
    ///         _ => Ok(1),
    ///     }
    /// }
    ///
    /// # fn main() -> maniple::Result<()> {
    /// let (here, there) = pipe::<i32>()?;
    /// let process = Process::new(child, there)?;
    /// process.start()?;
    /// here.send(&3)?;
    /// assert_eq!(process.join()?, Exit::Code(3));
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn sentinel(&self) -> BorrowedHandle<'_> {
        self.watch.as_handle()
    }
}

static CURRENT: RwLock<Option<CurrentProcess>> = RwLock::new(None);
static PARENT: RwLock<Option<Arc<ParentProcess>>> = RwLock::new(None);
static CHILDREN: Mutex<Vec<Weak<Shared>>> = Mutex::new(Vec::new());

/// Returns the description of this process.
///
/// ```
/// assert_eq!(maniple::current_process().name(), "MainProcess");
/// ```
pub fn current_process() -> CurrentProcess {
    let known = CURRENT.read().unwrap_or_else(PoisonError::into_inner).clone();
    known.unwrap_or_else(|| CurrentProcess { name: "MainProcess".into(), daemon: false, pid: std::process::id() })
}

/// Returns the process that started this one, if it is a [`Process`].
///
/// ```
/// use maniple::{Exit, Process, parent_process};
///
/// # fn main() -> maniple::Result<()> {
/// assert!(parent_process().is_none());
/// let process = Process::new(|pid: u32| i32::from(parent_process().unwrap().pid() != pid), std::process::id())?;
/// process.start()?;
/// assert_eq!(process.join()?, Exit::Code(0));
/// # Ok(())
/// # }
/// ```
pub fn parent_process() -> Option<Arc<ParentProcess>> {
    PARENT.read().unwrap_or_else(PoisonError::into_inner).clone()
}

/// Returns the running children of this process, and reaps those that have ended.
///
/// ```
/// use maniple::{Process, active_children};
///
/// # fn main() -> maniple::Result<()> {
/// let process = Process::builder().daemon(true).build(|()| loop { std::thread::park() }, ())?;
/// process.start()?;
/// assert_eq!(active_children().len(), 1);
/// process.kill()?;
/// process.join()?;
/// assert!(active_children().is_empty());
/// # Ok(())
/// # }
/// ```
pub fn active_children() -> Vec<Process> {
    let mut children = CHILDREN.lock().unwrap_or_else(PoisonError::into_inner);
    let there: Vec<Process> = children.iter().filter_map(Weak::upgrade).map(|shared| Process { shared }).collect();
    children.retain(|child| child.strong_count() > 0);
    // A drop may be that of the last handle on a process, and then waits for the process. So the list is not locked.
    drop(children);
    there.into_iter().filter(Process::is_alive).collect()
}

/// Returns the number of processors that this process may use, by its affinity and its control group's share.
///
/// ```
/// # fn main() -> maniple::Result<()> {
/// let pool = maniple::Pool::new(maniple::cpu_count())?;
/// assert_eq!(pool.pids().len(), maniple::cpu_count());
/// # Ok(())
/// # }
/// ```
pub fn cpu_count() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

pub(super) fn remember(child: &Arc<Shared>) {
    let mut children = CHILDREN.lock().unwrap_or_else(PoisonError::into_inner);
    children.retain(|child| child.strong_count() > 0);
    children.push(Arc::downgrade(child));
}

/// Called in a forked child: the processes in the list belong to its parent.
pub(super) fn forget_children() {
    CHILDREN.lock().unwrap_or_else(PoisonError::into_inner).clear();
}

pub(super) fn become_child(name: String, daemon: bool, parent: u32, parent_name: String, watch: ExitWatch) {
    let current = CurrentProcess { name, daemon, pid: std::process::id() };
    *CURRENT.write().unwrap_or_else(PoisonError::into_inner) = Some(current);
    *PARENT.write().unwrap_or_else(PoisonError::into_inner) =
        Some(Arc::new(ParentProcess { name: parent_name, pid: parent, watch }));
}
