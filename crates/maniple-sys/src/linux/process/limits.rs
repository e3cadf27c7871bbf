//! The limits on the number of processes, and on the memory of a control group.

use super::super::rlimit::{Limit, Resource, get, set, soft};
use rustix::process::getuid;
use std::path::Path;

/// `CAP_SYS_ADMIN` and `CAP_SYS_RESOURCE`: with one of them, `RLIMIT_NPROC` does not apply (fork(2)).
const EXEMPT: u64 = 1 << 21 | 1 << 24;

/// Returns the limits on the number of processes and threads, each with the name of what sets it.
pub fn most_processes() -> Vec<(String, u64)> {
    Limits { read, of_user: soft(libc::RLIMIT_NPROC), is_root: getuid().is_root() }.processes()
}

/// Returns the number of bytes that the control groups of this process allow; `None` if they have no limit.
pub fn most_memory() -> Option<u64> {
    Limits { read, of_user: None, is_root: false }.memory()
}

/// The limits that a shortage is about: descriptors, processes, memory, and the size of files.
const RESOURCES: [Resource; 5] =
    [libc::RLIMIT_NOFILE, libc::RLIMIT_NPROC, libc::RLIMIT_AS, libc::RLIMIT_DATA, libc::RLIMIT_FSIZE];

/// The soft limits of a process, as its children inherit them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Soft([u64; RESOURCES.len()]);

/// Returns the soft limits of this process.
pub fn own() -> Soft {
    Soft(RESOURCES.map(|resource| get(0, resource).map_or(u64::MAX, |limit| limit.soft)))
}

/// Raises the limits of process `pid`, a child that began with the limits `before`, to those of this process. A limit that
/// the child has changed itself, or that cannot be raised, stays. Returns the limits that it has now if it has changed none.
pub fn lend(pid: u32, before: Soft) -> Soft {
    let ours = own();
    let Ok(pid @ 1..) = i32::try_from(pid) else { return before };
    for (at, resource) in RESOURCES.into_iter().enumerate().filter(|&(at, _)| ours.0[at] > before.0[at]) {
        if let Some(theirs) = get(pid, resource).filter(|theirs| theirs.soft == before.0[at]) {
            set(pid, resource, Limit { soft: ours.0[at].min(theirs.hard), ..theirs });
        }
    }
    Soft(std::array::from_fn(|at| before.0[at].max(ours.0[at])))
}

fn read(path: &str) -> Option<String> {
    std::fs::read_to_string(path).ok()
}

/// What states the limits.
struct Limits<R> {
    /// Returns the content of a file.
    read: R,
    /// `RLIMIT_NPROC`.
    of_user: Option<u64>,
    is_root: bool,
}

impl<R: Fn(&str) -> Option<String>> Limits<R> {
    fn processes(&self) -> Vec<(String, u64)> {
        let mut limits = Vec::new();
        if let Some(most) = self.of_user.filter(|_| !self.is_exempt()) {
            limits.push(("RLIMIT_NPROC of this user (ulimit -u)".to_owned(), most));
        }
        for name in ["pid_max", "threads-max"] {
            let most = self.number_in(&format!("/proc/sys/kernel/{name}"));
            limits.extend(most.map(|most| (format!("the system (kernel.{name})"), most)));
        }
        for folder in self.control_groups("pids") {
            let file = format!("{folder}/pids.max");
            let most = self.number_in(&file);
            limits.extend(most.map(|most| (format!("the control group of this process ({file})"), most)));
        }
        limits
    }

    fn memory(&self) -> Option<u64> {
        // Versions 2 and 1.
        let names = ["memory.max", "memory.limit_in_bytes"];
        let folders = self.control_groups("memory");
        folders.iter().flat_map(|folder| names.map(|name| self.number_in(&format!("{folder}/{name}")))).flatten().min()
    }

    /// Whether the limit on the user's processes does not apply to this process.
    fn is_exempt(&self) -> bool {
        let capabilities = || {
            let text = (self.read)("/proc/self/status")?;
            let line = text.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
            u64::from_str_radix(line.trim(), 16).ok()
        };
        self.is_root || capabilities().is_some_and(|held| held & EXEMPT != 0)
    }

    /// Returns the folders of the control groups in which a controller counts this process, from the innermost to the
    /// outermost.
    fn control_groups(&self, controller: &str) -> Vec<String> {
        let text = (self.read)("/proc/self/cgroup").unwrap_or_default();
        let mut folders = Vec::new();
        // Lines of `number:controllers:path`.
        for line in text.lines() {
            let mut parts = line.splitn(3, ':').skip(1);
            let (Some(controllers), Some(path)) = (parts.next(), parts.next()) else { continue };
            // Version 2 has one hierarchy without a name; version 1 has one for each controller.
            let top = match controllers {
                "" => "/sys/fs/cgroup".to_owned(),
                _ if controllers.split(',').any(|one| one == controller) => format!("/sys/fs/cgroup/{controller}"),
                _ => continue,
            };
            let groups = Path::new(path).ancestors().filter_map(Path::to_str);
            folders.extend(groups.map(|group| format!("{top}{}", group.trim_end_matches('/'))));
        }
        folders
    }

    /// Returns the number in a file; `None` if there is no such file, or no limit.
    fn number_in(&self, path: &str) -> Option<u64> {
        (self.read)(path)?.trim().parse().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The limits that these files state.
    fn limits<'a>(files: &'a [(&str, &str)]) -> Limits<impl Fn(&str) -> Option<String> + 'a> {
        let read = |path: &str| files.iter().find(|(name, _)| *name == path).map(|(_, text)| format!("{text}\n"));
        Limits { read, of_user: None, is_root: false }
    }

    #[test]
    fn each_limit_on_processes_is_found() {
        let groups = ("/proc/self/cgroup", "4:memory:/x\n8:pids:/c\n9:cpu,pids:/d:e\nnonsense\n0::/a/b");
        for (path, name) in [
            ("/proc/sys/kernel/pid_max", "kernel.pid_max"),
            ("/proc/sys/kernel/threads-max", "kernel.threads-max"),
            ("/sys/fs/cgroup/a/b/pids.max", "/a/b/pids.max"),
            ("/sys/fs/cgroup/a/pids.max", "/a/pids.max"),
            ("/sys/fs/cgroup/pids/c/pids.max", "/pids/c/pids.max"),
            ("/sys/fs/cgroup/pids/d:e/pids.max", "/pids/d:e/pids.max"),
        ] {
            let files = [groups, (path, "5000")];
            let [(whose, 5000)] = &limits(&files).processes()[..] else { panic!("{path}") };
            assert!(whose.contains(name), "{whose}");
        }
        // Another controller's group does not count processes.
        assert!(limits(&[groups, ("/sys/fs/cgroup/pids/x/pids.max", "5000")]).processes().is_empty());
    }

    #[test]
    fn files_without_a_number_are_no_limit() {
        let files = [("/proc/self/cgroup", "0::/"), ("/sys/fs/cgroup/pids.max", "max")];
        assert!(limits(&files).processes().is_empty() && limits(&[]).processes().is_empty());
    }

    #[test]
    fn the_limit_of_a_user_does_not_apply_to_privileged_processes() {
        for (capabilities, is_root, is_limited) in [
            ("0000000000000000", false, true),
            ("000001ffffffffff", false, false),
            ("0000000000200000", false, false),
            ("0000000001000000", false, false),
            ("0000000000000000", true, false),
        ] {
            let status = format!("Name:\tx\nCapEff:\t{capabilities}");
            let files = [("/proc/self/status", status.as_str())];
            let limits = Limits { of_user: Some(1000), is_root, ..limits(&files) };
            let [] = &limits.processes()[..] else {
                assert!(is_limited);
                assert_eq!(limits.processes()[0], ("RLIMIT_NPROC of this user (ulimit -u)".to_owned(), 1000));
                continue;
            };
            assert!(!is_limited, "{capabilities}");
        }
    }

    #[test]
    fn the_smallest_limit_on_memory_counts() {
        let second = ("/proc/self/cgroup", "0::/a/b");
        let inner = ("/sys/fs/cgroup/a/b/memory.max", "70");
        assert_eq!(limits(&[second, ("/sys/fs/cgroup/a/b/memory.max", "max")]).memory(), None);
        assert_eq!(limits(&[second, inner]).memory(), Some(70));
        assert_eq!(limits(&[second, inner, ("/sys/fs/cgroup/a/memory.max", "60")]).memory(), Some(60));
        let first = [
            ("/proc/self/cgroup", "5:pids:/p\n4:memory:/m"),
            ("/sys/fs/cgroup/memory/m/memory.limit_in_bytes", "50"),
            ("/sys/fs/cgroup/pids/p/memory.limit_in_bytes", "40"),
        ];
        assert_eq!(limits(&first).memory(), Some(50));
        assert_eq!(limits(&[]).memory(), None);
    }

    #[test]
    fn this_system_states_limits() {
        assert!(most_processes().iter().all(|(whose, most)| !whose.is_empty() && *most > 0));
        assert!(most_processes().iter().any(|(whose, _)| whose.contains("kernel.pid_max")));
        assert!(most_memory().is_none_or(|bytes| bytes > 0));
    }
}
