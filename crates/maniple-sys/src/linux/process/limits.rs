//! The limits on the number of processes, and on the memory of a control group.

use rustix::process::{Resource, getrlimit, getuid};
use std::path::Path;

/// `CAP_SYS_ADMIN` and `CAP_SYS_RESOURCE`: with one of them, `RLIMIT_NPROC` does not apply (fork(2)).
const EXEMPT: u64 = 1 << 21 | 1 << 24;

/// Returns the limits on the number of processes and threads, each with the name of what sets it.
pub fn most_processes() -> Vec<(String, u64)> {
    let mut limits = Vec::new();
    if let Some(most) = getrlimit(Resource::Nproc).current.filter(|_| !is_exempt()) {
        limits.push(("RLIMIT_NPROC of this user (ulimit -u)".to_owned(), most));
    }
    for name in ["pid_max", "threads-max"] {
        let most = number_in(Path::new(&format!("/proc/sys/kernel/{name}")));
        limits.extend(most.map(|most| (format!("the system (kernel.{name})"), most)));
    }
    for folder in control_groups("pids") {
        let most = number_in(&Path::new(&folder).join("pids.max"));
        limits.extend(most.map(|most| (format!("the control group of this process ({folder}/pids.max)"), most)));
    }
    limits
}

/// Returns the number of bytes that the control groups of this process allow; `None` if they have no limit.
pub fn most_memory() -> Option<u64> {
    // Versions 2 and 1.
    let names = ["memory.max", "memory.limit_in_bytes"];
    let folders = control_groups("memory");
    folders.iter().flat_map(|folder| names.map(|name| number_in(&Path::new(folder).join(name)))).flatten().min()
}

/// Whether the limit on the user's processes does not apply to this process.
fn is_exempt() -> bool {
    let capabilities = || {
        let text = std::fs::read_to_string("/proc/self/status").ok()?;
        let line = text.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
        u64::from_str_radix(line.trim(), 16).ok()
    };
    getuid().is_root() || capabilities().is_some_and(|held| held & EXEMPT != 0)
}

/// Returns the folders of the control groups in which a controller counts this process, from the innermost to the
/// outermost.
fn control_groups(controller: &str) -> Vec<String> {
    let text = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    groups_in(&text, controller)
}

/// As above, from the text of `/proc/self/cgroup`: lines of `number:controllers:path`.
fn groups_in(text: &str, controller: &str) -> Vec<String> {
    let mut folders = Vec::new();
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
fn number_in(path: &Path) -> Option<u64> {
    std::fs::read_to_string(path).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_groups_are_found_from_the_innermost_to_the_outermost() {
        let second = groups_in("0::/user.slice/one\n", "pids");
        assert_eq!(second, ["/sys/fs/cgroup/user.slice/one", "/sys/fs/cgroup/user.slice", "/sys/fs/cgroup"]);
        let first = groups_in("5:cpu,pids:/a:b\n4:memory:/c\nnonsense\n", "pids");
        assert_eq!(first, ["/sys/fs/cgroup/pids/a:b", "/sys/fs/cgroup/pids"]);
        assert_eq!(groups_in("0::/\n", "memory"), ["/sys/fs/cgroup"]);
        assert!(groups_in("", "memory").is_empty());
    }

    #[test]
    fn a_limit_is_a_number() {
        assert!(most_processes().iter().all(|(whose, most)| !whose.is_empty() && *most > 0));
        assert!(number_in(Path::new("/proc/sys/kernel/pid_max")).is_some_and(|most| most > 0));
        assert_eq!(number_in(Path::new("/proc/self/comm")), None);
        assert_eq!(number_in(Path::new("/nowhere")), None);
    }
}
