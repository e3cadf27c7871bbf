//! Where a program may make control groups for memory, and what the files of a group are called.
//!
//! **Version 1**: below the program's own group, if that counts its children (`memory.use_hierarchy`): a limit of the program is a
//! limit of its workers as well.
//!
//! **Version 2**: a group that has processes cannot limit the memory of its children. So the groups are beside the program's own group, in
//! its parent, and all of these must hold:
//! * The parent is delegated to this user: to root by the mark that systemd sets, to other users by their right to make folders.
//! * The parent can limit the memory of its children, or has no processes, so that this can be turned on.
//! * The program's own group has no limits, which a worker outside of it would escape.

use std::fs;
use std::path::{Component, Path, PathBuf};

/// The version of the kernel's interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Version {
    One,
    Two,
}

/// Where groups are made.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) version: Version,
    /// The folder in which groups are made.
    pub(super) groups: PathBuf,
    /// The folder of the program's own group.
    pub(super) own: PathBuf,
}

impl Version {
    /// The file with the memory that a group has.
    pub(super) fn used(self) -> &'static str {
        match self {
            Version::One => "memory.usage_in_bytes",
            Version::Two => "memory.current",
        }
    }

    /// The file with the most memory that a group has had.
    pub(super) fn peak(self) -> &'static str {
        match self {
            Version::One => "memory.max_usage_in_bytes",
            Version::Two => "memory.peak",
        }
    }

    /// The names of private and of shared memory in `memory.stat`, with those of groups below.
    pub(super) fn names(self) -> (&'static str, &'static str) {
        match self {
            Version::One => ("total_rss", "total_shmem"),
            Version::Two => ("anon", "shmem"),
        }
    }

    /// What is written into a new group. Memory that is moved to a swap device would no longer count.
    pub(super) fn preparations(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Version::One => &[("memory.oom_control", "1"), ("memory.swappiness", "0")],
            Version::Two => &[("memory.oom.group", "1"), ("memory.swap.max", "0")],
        }
    }

    /// What is written to set a limit.
    pub(super) fn limits(self, bytes: u64, slack: u64) -> Vec<(&'static str, String)> {
        // The files take signed numbers.
        let text = |bytes: u64| bytes.min(i64::MAX as u64).to_string();
        match self {
            Version::One => vec![("memory.limit_in_bytes", text(bytes))],
            Version::Two => {
                vec![("memory.max", text(bytes.saturating_add(slack))), ("memory.high", text(bytes))]
            }
        }
    }

    /// What is written to have no limit.
    pub(super) fn no_limits(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Version::One => &[("memory.limit_in_bytes", "-1")],
            Version::Two => &[("memory.max", "max"), ("memory.high", "max")],
        }
    }

    /// How often a group has reached its limit, and how many of its processes the kernel has ended for lack of memory.
    pub(super) fn kills(self, read: impl Fn(&str) -> Option<String>) -> Option<(u64, u64)> {
        let of = |text: &str, name: &str| {
            text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse::<u64>().ok())
        };
        match self {
            Version::One => {
                let reached = read("memory.failcnt")?.trim().parse().ok()?;
                Some((reached, of(&read("memory.oom_control")?, "oom_kill")?))
            }
            Version::Two => {
                let events = read("memory.events")?;
                Some((of(&events, "oom")?, of(&events, "oom_kill")?))
            }
        }
    }
}

impl Place {
    /// Finds the place of this process.
    pub(super) fn find() -> Option<Place> {
        let cgroup = fs::read_to_string("/proc/self/cgroup").ok()?;
        let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
        Place::found(&cgroup, &mounts, is_delegated)
    }

    /// As `find`, by the content of `/proc/self/cgroup` and of `/proc/self/mountinfo`. `is_delegated` tells for a folder and its mount
    /// whether this user may make groups there.
    pub(super) fn found(cgroup: &str, mounts: &str, is_delegated: fn(&Path, &Path) -> bool) -> Option<Place> {
        let groups: Vec<(&str, &str)> = cgroup
            .lines()
            .filter_map(|line| {
                let mut fields = line.splitn(3, ':').skip(1);
                Some((fields.next()?, fields.next()?))
            })
            .collect();
        if let Some(&(_, path)) = groups.iter().find(|(names, _)| names.split(',').any(|name| name == "memory")) {
            let (own, _) = folder_of(path, mounts, |kind, options| {
                kind == "cgroup" && options.split(',').any(|option| option == "memory")
            })?;
            let counts_children = read(&own, "memory.use_hierarchy").is_none_or(|text| text.trim() == "1");
            return counts_children.then(|| Place { version: Version::One, groups: own.clone(), own });
        }
        let (_, path) = groups.into_iter().find(|(names, _)| names.is_empty())?;
        let (own, mount) = folder_of(path, mounts, |kind, _| kind == "cgroup2")?;
        let parent = own.parent().filter(|_| own != mount)?.to_owned();
        let allowed = !is_limited(&own) && is_delegated(&parent, &mount) && limits_children(&parent);
        allowed.then_some(Place { version: Version::Two, groups: parent, own })
    }
}

fn read(folder: &Path, file: &str) -> Option<String> {
    fs::read_to_string(folder.join(file)).ok()
}

/// The folder of the group with this path, and where its file system is mounted.
fn folder_of(path: &str, mounts: &str, is_right: impl Fn(&str, &str) -> bool) -> Option<(PathBuf, PathBuf)> {
    mounts.lines().find_map(|line| {
        let (place, system) = line.split_once(" - ")?;
        let mut place = place.split(' ').skip(3);
        let (root, point) = (unescaped(place.next()?), PathBuf::from(unescaped(place.next()?)));
        let mut system = system.split(' ');
        let (kind, options) = (system.next()?, system.nth(1)?);
        if !is_right(kind, options) {
            return None;
        }
        // A group outside of the mounted part, or of this cgroup namespace, has no folder here.
        let rest = Path::new(path).strip_prefix(root).ok()?;
        if rest.components().any(|part| part == Component::ParentDir) {
            return None;
        }
        // Without a slash at the end.
        Some((point.components().chain(rest.components()).collect(), point))
    })
}

/// Undoes the escapes of `mountinfo`: a backslash and three octal digits.
fn unescaped(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('\\') {
        out.push_str(before);
        let byte = after.get(..3).and_then(|digits| u8::from_str_radix(digits, 8).ok()).filter(u8::is_ascii);
        out.push(byte.map_or('\\', char::from));
        rest = if byte.is_some() { &after[3..] } else { after };
    }
    out + rest
}

/// Whether a group of version 2 has a limit of its own.
fn is_limited(own: &Path) -> bool {
    let unlimited = [
        ("memory.max", "max"),
        ("memory.high", "max"),
        ("memory.swap.max", "max"),
        ("pids.max", "max"),
        ("cpu.max", "max"),
        ("cpuset.cpus", ""),
        ("cpuset.mems", ""),
        ("io.max", ""),
    ];
    // A file that is not there belongs to a controller that is off.
    unlimited.iter().any(|(file, word)| {
        read(own, file).is_some_and(|text| text.split_ascii_whitespace().next().unwrap_or_default() != *word)
    })
}

/// Whether the children of a group of version 2 can have limits of memory; turns that on if the group has no processes.
fn limits_children(parent: &Path) -> bool {
    let has =
        |file: &str| read(parent, file).is_some_and(|text| text.split_ascii_whitespace().any(|one| one == "memory"));
    if has("cgroup.subtree_control") {
        return true;
    }
    has("cgroup.controllers")
        && read(parent, super::PROCS).is_some_and(|text| text.trim().is_empty())
        && fs::write(parent.join("cgroup.subtree_control"), "+memory").is_ok()
}

/// Whether a group of version 2 was handed over to this user. Root may write everywhere, so for root only systemd's mark counts, on the
/// group or on one above it.
fn is_delegated(group: &Path, mount: &Path) -> bool {
    if !rustix::process::geteuid().is_root() {
        // The kernel refuses the first group if this user may not make one.
        return true;
    }
    let is_marked = |folder: &Path| {
        ["trusted.delegate", "user.delegate"].iter().any(|name| {
            let mut value = [0; 8];
            rustix::fs::getxattr(folder, *name, &mut value).is_ok_and(|length| value.get(..length) == Some(b"1"))
        })
    };
    group.ancestors().take_while(|folder| folder.starts_with(mount)).any(is_marked)
}
