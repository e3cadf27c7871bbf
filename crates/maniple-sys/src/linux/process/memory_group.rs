//! Control groups that limit the memory of workers.
//!
//! A group counts the pages that its processes are the first to touch: their own, shared ones, and the kernel's. A page stays with the
//! group that it was counted for. So shared memory that a worker has filled counts for its group even when only another process uses it.
//! Such memory must not end a worker, so the group's limit is
//!
//! ```text
//! the limit of private memory + the group's shared memory + the kernel's memory for the group + SLACK
//! ```
//! and [`MemoryGroup::excess`], which the pool calls in its own period, raises and lowers it. What the kernel can take back, such as the
//! cache of files, does not count.
//!
//! | | version 1 | version 2 |
//! | --- | --- | --- |
//! | a process at the limit | the kernel stops it (`oom_kill_disable`) until the limit is raised or the process is killed | the kernel slows it down (`memory.high`) |
//! | beyond the limit by [`SLACK`] | cannot be | the kernel ends all processes of the group (`memory.max`, `memory.oom.group`) |
//!
//! So a pool that looks late delays a worker whose shared memory grows, and does not lose it. Where version 1 refuses `oom_kill_disable`,
//! the kernel ends a process of the group at the limit.
//!
//! Groups of a program that was killed stay. Each name has the identity of the process that made the group, and the next process that
//! makes groups in the same place removes those of processes that have ended ([`MemoryGroups::new`]).

mod place;

use self::place::{Place, Version};
use crate::holder;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// How much more than its limit a group may have. A process touches 1 to 4 GB of new memory a second, and the pool looks every 20 ms: so the
/// pool usually detects an excess before the group's limit is reached, and usually raises the limit before shared memory reaches it.
pub const SLACK: u64 = 64 << 20;

const PREFIX: &str = "maniple-";
const PROCS: &str = "cgroup.procs";

/// Where this process makes groups.
#[derive(Debug)]
pub struct MemoryGroups {
    place: Arc<Place>,
    /// The identity of this process, as the names of its groups begin.
    maker: String,
    /// Groups that could not be removed yet, because a process in them was still ending.
    left: Arc<Mutex<Vec<PathBuf>>>,
}

impl MemoryGroups {
    /// Finds the place for groups of this process, and removes there the groups of processes that have ended. `None`: the system has no
    /// control groups for memory, or does not allow this process to make any.
    pub fn new() -> Option<MemoryGroups> {
        let place = Place::find()?;
        let me = holder::identity();
        sweep(&place, me.space);
        let maker = format!("{PREFIX}{:x}-{}-{:x}-", me.space, me.pid, me.born);
        Some(MemoryGroups { place: Arc::new(place), maker, left: Arc::default() })
    }

    /// Makes a group for a process, and moves the process there. The group has no limit yet. `None`: the system refuses it.
    pub fn hold(&self, pid: u32) -> Option<MemoryGroup> {
        /// All hubs of this process take their numbers from it.
        static NEXT: AtomicU64 = AtomicU64::new(0);
        remove_left(&self.place, &self.left);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let folder = self.place.groups.join(format!("{}{number}", self.maker));
        fs::create_dir(&folder).ok()?;
        let group =
            MemoryGroup { folder, place: self.place.clone(), left: self.left.clone(), limit: u64::MAX, set: u64::MAX };
        for (file, value) in group.place.version.preparations() {
            let _ = group.write(file, value);
        }
        // Without it, the group is dropped, and thereby removed.
        group.write(PROCS, &pid.to_string()).then_some(group)
    }
}

impl Drop for MemoryGroups {
    fn drop(&mut self) {
        /// Killed processes with much memory take a while to end.
        const WAITS: u32 = 20;
        for _ in 0..WAITS {
            if remove_left(&self.place, &self.left) {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

/// The group of one process and of those that it starts. A drop removes it; processes that are still in it go to the group of this program.
#[derive(Debug)]
pub struct MemoryGroup {
    folder: PathBuf,
    place: Arc<Place>,
    left: Arc<Mutex<Vec<PathBuf>>>,
    /// How much private memory the processes may have.
    limit: u64,
    /// The limit that the kernel has; 0: it has refused the limit.
    set: u64,
}

/// What a group has, in bytes.
#[derive(Debug, PartialEq, Eq)]
struct Held {
    private: u64,
    /// Memory that is not private, and that the kernel cannot take back.
    other: u64,
}

impl MemoryGroup {
    /// Limits the private memory of the group's processes together, in bytes.
    pub fn confine(&mut self, limit: u64) {
        self.limit = limit;
        let other = self.held().map_or(0, |held| held.other);
        self.set(limit.saturating_add(other).saturating_add(SLACK));
    }

    /// Returns how much private memory the group has if that is more than its limit, and otherwise lets the group's shared memory grow. A
    /// group that is far from its limit costs one read of a small file.
    pub fn excess(&mut self) -> Option<u64> {
        if self.limit == u64::MAX {
            return None;
        }
        let base = self.limit.saturating_add(SLACK);
        let used = self.number(self.place.version.used())?;
        let near = used.saturating_add(SLACK / 2) >= self.set;
        if !near && self.set <= base {
            return None;
        }
        let held = self.held()?;
        if held.private > self.limit {
            return Some(held.private);
        }
        let wanted = base.saturating_add(held.other);
        // A lower limit must leave room: the kernel would have to make it at once.
        if wanted > self.set || self.set - wanted > SLACK / 2 && used.saturating_add(SLACK / 2) < wanted {
            self.set(wanted);
        }
        None
    }

    /// Returns the most memory that the group has had, in bytes, if the kernel has ended a process of it because the group had reached its
    /// limit.
    pub fn killed(&self) -> Option<u64> {
        let (reached, kills) = self.place.version.kills(|file| self.read(file))?;
        // A shortage of the whole system ends processes as well.
        (reached > 0 && kills > 0).then(|| self.number(self.place.version.peak()).unwrap_or(self.set))
    }

    fn set(&mut self, bytes: u64) {
        let done = self.place.version.limits(bytes, SLACK).iter().all(|(file, value)| self.write(file, value));
        self.set = if done { bytes } else { 0 };
    }

    fn held(&self) -> Option<Held> {
        let version = self.place.version;
        let stat = self.read("memory.stat")?;
        let of = |name: &str| {
            let line = stat.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
            line.and_then(|number| number.trim().parse::<u64>().ok())
        };
        let (private, shared) = version.names();
        let kernel = match version {
            Version::One => self.number("memory.kmem.usage_in_bytes"),
            Version::Two => of("kernel"),
        };
        Some(Held { private: of(private)?, other: of(shared)?.saturating_add(kernel.unwrap_or(0)) })
    }

    fn read(&self, file: &str) -> Option<String> {
        fs::read_to_string(self.folder.join(file)).ok()
    }

    fn number(&self, file: &str) -> Option<u64> {
        self.read(file)?.trim().parse().ok()
    }

    fn write(&self, file: &str, value: &str) -> bool {
        fs::write(self.folder.join(file), value).is_ok()
    }
}

impl Drop for MemoryGroup {
    fn drop(&mut self) {
        if !remove(&self.place, &self.folder) {
            self.left.lock().unwrap_or_else(PoisonError::into_inner).push(std::mem::take(&mut self.folder));
        }
    }
}

/// Removes groups that could not be removed before. Returns whether none is left.
fn remove_left(place: &Place, left: &Mutex<Vec<PathBuf>>) -> bool {
    let mut left = left.lock().unwrap_or_else(PoisonError::into_inner);
    left.retain(|folder| !remove(place, folder));
    left.is_empty()
}

/// Removes a group, and the groups that a pool in it has left. Processes in it go to the program's group. Returns false if one of them
/// cannot, because it is ending.
fn remove(place: &Place, folder: &Path) -> bool {
    let gone = || match fs::remove_dir(folder) {
        Ok(()) => true,
        Err(error) => error.kind() == std::io::ErrorKind::NotFound,
    };
    if gone() {
        return true;
    }
    // A process that the kernel has stopped at the limit continues.
    for (file, value) in place.version.no_limits() {
        let _ = fs::write(folder.join(file), value);
    }
    groups_in(folder).for_each(|(inner, _)| {
        remove(place, &inner);
    });
    for pid in fs::read_to_string(folder.join(PROCS)).unwrap_or_default().lines() {
        let _ = fs::write(place.own.join(PROCS), pid);
    }
    gone()
}

/// Removes the groups of processes that have ended. A process of another pid namespace cannot be found, so its groups stay.
fn sweep(place: &Place, space: u64) {
    for (folder, name) in groups_in(&place.groups) {
        if space != 0 && ended_maker(&name, space, holder::is_gone) {
            remove(place, &folder);
        }
    }
}

/// Whether the process that has made a group with this name has ended.
fn ended_maker(name: &str, space: u64, is_gone: fn(u32, u32) -> bool) -> bool {
    let mut parts = name.strip_prefix(PREFIX).unwrap_or_default().split('-');
    let mut next = |radix| u64::from_str_radix(parts.next()?, radix).ok();
    let (Some(of), Some(pid), Some(born), Some(_)) = (next(16), next(10), next(16), next(10)) else { return false };
    let (Ok(pid), Ok(born)) = (u32::try_from(pid), u32::try_from(born)) else { return false };
    of == space && is_gone(pid, born)
}

/// The folders and names of the groups that this package has made in a folder.
fn groups_in(folder: &Path) -> impl Iterator<Item = (PathBuf, String)> + use<> {
    fs::read_dir(folder).into_iter().flatten().flatten().filter_map(|entry| {
        let name = entry.file_name().into_string().ok()?;
        (name.starts_with(PREFIX) && entry.file_type().is_ok_and(|kind| kind.is_dir())).then(|| (entry.path(), name))
    })
}

#[cfg(test)]
#[path = "memory_group/tests.rs"]
mod tests;
