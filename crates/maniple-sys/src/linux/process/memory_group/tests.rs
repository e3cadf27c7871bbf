#![allow(clippy::unwrap_used)]

use super::*;
use crate::AsHandle;
use crate::memory::{create, write_at};
use crate::process::leave;
use crate::testing::{Child, die_with_parent, fork};
use std::io::{Read, Write};
use std::time::Instant;

const MB: u64 = 1 << 20;
const LONG: Duration = Duration::from_secs(30);

/// A folder that a test uses as a file system of control groups.
struct Tree(PathBuf);

impl Tree {
    fn new(name: &str) -> Tree {
        let folder = std::env::temp_dir().join(format!("maniple-tree-{name}-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        Tree(folder)
    }

    fn file(&self, path: &str, text: &str) -> &Tree {
        let path = self.0.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
        self
    }

    fn text(&self, path: &str) -> String {
        fs::read_to_string(self.0.join(path)).unwrap()
    }

    /// What `/proc/self/mountinfo` contains if version 2 is mounted here.
    fn mounts(&self) -> String {
        let folder = self.0.display();
        format!("22 1 8:1 / / rw - ext4 /dev/sda rw\n41 31 0:38 / {folder} rw,relatime shared:9 - cgroup2 cgroup2 rw\n")
    }

    fn find(&self, delegated: fn(&Path, &Path) -> bool) -> Option<Place> {
        Place::found("0::/user/app\n", &self.mounts(), delegated)
    }

    /// A tree in which version 2 allows groups.
    fn two(name: &str) -> Tree {
        let tree = Tree::new(name);
        tree.file("user/cgroup.controllers", "cpu memory pids\n")
            .file("user/cgroup.subtree_control", "memory pids\n")
            .file("user/cgroup.procs", "")
            .file("user/app/cgroup.procs", "77\n")
            .file("user/app/memory.max", "max\n")
            .file("user/app/cpu.max", "max 100000\n");
        tree
    }

    fn groups(&self) -> MemoryGroups {
        let place = Arc::new(self.find(|_, _| true).unwrap());
        MemoryGroups { place, maker: format!("{PREFIX}1-2-3-"), left: Arc::default() }
    }

    /// Sets what a group of version 2 has, in MB.
    fn has(&self, group: &MemoryGroup, private: u64, shared: u64, used: u64) {
        fs::write(group.folder.join("memory.current"), (used * MB).to_string()).unwrap();
        let stat = format!("anon {}\nfile 9\nkernel {}\nshmem {}\n", private * MB, 2 * MB, shared * MB);
        fs::write(group.folder.join("memory.stat"), stat).unwrap();
    }

    fn limits(group: &MemoryGroup) -> (u64, u64) {
        let of = |file| group.number(file).unwrap() / MB;
        (of("memory.high"), of("memory.max"))
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

// ---- version 2, in a tree of ordinary files ----

#[test]
fn groups_of_version_2_are_beside_the_program_s_group() {
    let tree = Tree::two("beside");
    let place = tree.find(|parent, mount| parent.starts_with(mount) && parent.ends_with("user")).unwrap();
    let (groups, own) = (tree.0.join("user"), tree.0.join("user/app"));
    assert_eq!(place, Place { version: Version::Two, groups, own });
}

#[test]
fn version_2_is_refused_where_a_worker_would_escape_a_limit_or_is_not_delegated() {
    let tree = Tree::two("refused");
    assert_eq!(tree.find(|_, _| false), None);
    for (file, limit, none) in [
        ("memory.max", "100000\n", "max\n"),
        ("memory.high", "100000\n", "max\n"),
        ("pids.max", "12\n", "max\n"),
        ("cpu.max", "50000 100000\n", "max 100000\n"),
        ("cpuset.cpus", "0-1\n", "\n"),
    ] {
        tree.file(&format!("user/app/{file}"), limit);
        assert_eq!(tree.find(|_, _| true), None, "{file}");
        tree.file(&format!("user/app/{file}"), none);
        assert!(tree.find(|_, _| true).is_some(), "{file}");
    }
    // The root of a mount or of a namespace has no parent here, and a group outside has no folder.
    for group in ["0::/\n", "0::/../other\n", "4:cpu:/user/app\n", ""] {
        assert_eq!(Place::found(group, &tree.mounts(), |_, _| true), None, "{group}");
    }
    assert_eq!(Place::found("0::/user/app\n", "", |_, _| true), None);
}

#[test]
fn the_controller_is_turned_on_only_in_a_parent_without_processes() {
    let tree = Tree::two("controller");
    tree.file("user/cgroup.subtree_control", "pids\n").file("user/cgroup.procs", "5\n");
    assert_eq!(tree.find(|_, _| true), None);
    assert_eq!(tree.text("user/cgroup.subtree_control"), "pids\n");
    tree.file("user/cgroup.procs", "");
    assert!(tree.find(|_, _| true).is_some());
    assert_eq!(tree.text("user/cgroup.subtree_control"), "+memory");
    tree.file("user/cgroup.subtree_control", "").file("user/cgroup.controllers", "cpu\n");
    assert_eq!(tree.find(|_, _| true), None);
}

#[test]
fn a_group_of_version_2_has_room_for_shared_memory() {
    let tree = Tree::two("room");
    let groups = tree.groups();
    let mut group = groups.hold(4321).unwrap();
    assert_eq!(group.read(PROCS).unwrap(), "4321");
    assert_eq!(
        (group.read("memory.swap.max").unwrap(), group.read("memory.oom.group").unwrap()),
        ("0".into(), "1".into())
    );
    // It has no limit before it is confined.
    tree.has(&group, 500, 0, 502);
    assert_eq!((group.excess(), group.read("memory.max")), (None, None));
    tree.has(&group, 10, 30, 42);
    group.confine(100 * MB);
    assert_eq!(Tree::limits(&group), (196, 260));
    // Shared memory grows.
    tree.has(&group, 90, 100, 192);
    assert_eq!((group.excess(), Tree::limits(&group)), (None, (266, 330)));
    // It shrinks.
    tree.has(&group, 90, 0, 92);
    assert_eq!((group.excess(), Tree::limits(&group)), (None, (166, 230)));
    // The cache of files is no reason.
    tree.has(&group, 90, 0, 166);
    assert_eq!((group.excess(), Tree::limits(&group)), (None, (166, 230)));
    tree.has(&group, 101, 0, 160);
    assert_eq!(group.excess(), Some(101 * MB));
}

#[test]
fn kills_at_the_limit_of_version_2_are_distinguished_from_others() {
    let tree = Tree::two("kills");
    let mut group = tree.groups().hold(1).unwrap();
    tree.has(&group, 1, 0, 1);
    group.confine(100 * MB);
    let event = |text: &str| fs::write(group.folder.join("memory.events"), text).unwrap();
    assert_eq!(group.killed(), None);
    event("low 0\nhigh 3\nmax 0\noom 0\noom_kill 1\noom_group_kill 0\n");
    assert_eq!(group.killed(), None);
    event("low 0\nhigh 9\nmax 2\noom 1\noom_kill 2\noom_group_kill 1\n");
    // Before Linux 5.19 the peak is unknown.
    assert_eq!(group.killed(), Some(group.set));
    fs::write(group.folder.join("memory.peak"), "170000000\n").unwrap();
    assert_eq!(group.killed(), Some(170_000_000));
}

#[test]
fn a_limit_that_the_system_refuses_is_set_again() {
    let tree = Tree::two("again");
    let mut group = tree.groups().hold(1).unwrap();
    tree.has(&group, 1, 0, 1);
    // A folder in place of the file.
    fs::create_dir(group.folder.join("memory.high")).unwrap();
    group.confine(100 * MB);
    assert_eq!((group.set, group.excess()), (0, None));
    fs::remove_dir(group.folder.join("memory.high")).unwrap();
    assert_eq!((group.excess(), Tree::limits(&group)), (None, (166, 230)));
}

#[test]
fn only_groups_of_this_namespace_and_of_ended_processes_are_swept() {
    let ended = |name| ended_maker(name, 0xab, |pid, born| (pid, born) == (7, 0x1f));
    assert!(ended("maniple-ab-7-1f-0"));
    for name in ["maniple-ac-7-1f-0", "maniple-ab-8-1f-0", "maniple-ab-7-20-0", "maniple-ab-7-1f", "maniple-", "other"]
    {
        assert!(!ended(name), "{name}");
    }
    let tree = Tree::two("sweep");
    let me = holder::identity();
    let name = |pid: u32| tree.0.join(format!("user/{PREFIX}{:x}-{pid}-{:x}-0", me.space, me.born));
    let dead = fork().map_or_else(
        || leave(0),
        |child| {
            let pid = child.pid;
            child.wait();
            pid
        },
    );
    fs::create_dir(name(dead)).unwrap();
    fs::create_dir(name(me.pid)).unwrap();
    sweep(&tree.find(|_, _| true).unwrap(), me.space);
    assert!(!name(dead).exists() && name(me.pid).exists() && tree.0.join("user/app").exists());
}

// ---- version 1 ----

#[test]
fn groups_of_version_1_are_below_the_program_s_group() {
    let tree = Tree::new("one");
    let mounts = format!(
        "32 31 0:29 / /elsewhere rw - cgroup cgroup rw,cpu\n35 31 0:32 /outer {}/a\\040b rw - cgroup cgroup rw,memory\n{}",
        tree.0.display(),
        tree.mounts()
    );
    let find = |path: &str| Place::found(&format!("5:cpu:/x\n4:memory:{path}\n0::/user/app\n"), &mounts, |_, _| false);
    let place = |rest: &str| {
        let own = tree.0.join("a b").join(rest);
        Some(Place { version: Version::One, groups: own.clone(), own })
    };
    assert_eq!(find("/outer/app"), place("app"));
    assert_eq!(find("/other"), None);
    tree.file("a b/app/memory.use_hierarchy", "0\n");
    assert_eq!(find("/outer/app"), None);
    tree.file("a b/app/memory.use_hierarchy", "1\n");
    assert_eq!(find("/outer/app"), place("app"));
}

// ---- the groups of this machine; where it allows none, nothing is left to test ----

/// A child that does the work in its group, and ends with this process.
fn child(groups: &MemoryGroups, limit: u64, work: fn() -> i32) -> Option<(Child, MemoryGroup)> {
    let (mut wait, mut go) = std::io::pipe().unwrap();
    let Some(child) = fork() else {
        die_with_parent();
        let _ = wait.read_exact(&mut [0]);
        leave(work())
    };
    let group = groups.hold(child.pid).map(|mut group| {
        group.confine(limit);
        group
    });
    go.write_all(&[1]).unwrap();
    if group.is_none() {
        child.wait();
    }
    Some((child, group?))
}

fn touch(bytes: u64) -> Vec<u8> {
    std::hint::black_box(vec![1; bytes as usize])
}

fn excess_of(group: &mut MemoryGroup) -> u64 {
    let begun = Instant::now();
    loop {
        if let Some(bytes) = group.excess() {
            return bytes;
        }
        assert!(begun.elapsed() < LONG, "no excess");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// What the system counts of private and shared memory cannot be more than this beyond the limit.
fn most(limit: u64, shared: u64) -> u64 {
    // Version 2 ends the group a slack later. The kernel's own memory counts as well.
    limit + shared + 2 * SLACK + 8 * MB
}

#[test]
fn private_memory_stays_within_the_limit_and_the_slack() {
    let Some(groups) = MemoryGroups::new() else { return };
    let Some((child, mut group)) = child(&groups, 64 * MB, || {
        touch(1500 * MB);
        0
    }) else {
        return;
    };
    if group.place.version == Version::One {
        let excess = excess_of(&mut group);
        assert!(excess > 64 * MB && excess < most(64 * MB, 0));
        crate::process::end_by_number(child.pid);
    }
    assert!(child.ends_within(LONG));
    child.wait();
    assert!(group.number(group.place.version.peak()).is_none_or(|peak| peak <= most(64 * MB, 0)));
    let folder = group.folder.clone();
    assert!(folder.exists());
    drop(group);
    drop(groups);
    assert!(!folder.exists());
}

#[test]
fn shared_memory_does_not_count() {
    let Some(groups) = MemoryGroups::new() else { return };
    let Some((child, mut group)) = child(&groups, 64 * MB, || {
        let shared = create("test", 400 << 20).unwrap();
        let piece = vec![1; 1 << 20];
        for at in 0..400 {
            write_at(shared.as_handle(), &piece, at << 20).unwrap();
        }
        0
    }) else {
        return;
    };
    let begun = Instant::now();
    while !child.ends_within(Duration::from_millis(20)) {
        assert_eq!(group.excess(), None);
        assert!(begun.elapsed() < LONG);
    }
    child.wait();
    assert_eq!(group.killed(), None);
}

#[test]
fn a_kill_by_the_system_at_the_limit_is_recognised() {
    let Some(groups) = MemoryGroups::new() else { return };
    let Some((child, group)) = child(&groups, 64 * MB, || {
        touch(1500 * MB);
        0
    }) else {
        return;
    };
    // The kernel also ends a process that it has stopped before.
    group.write("memory.oom_control", "0");
    assert!(child.ends_within(LONG));
    child.wait();
    let peak = group.killed().unwrap();
    assert!((64 * MB..=most(64 * MB, 0)).contains(&peak), "{peak}");
}

#[test]
fn a_process_that_is_left_continues_in_the_program_s_group() {
    let Some(groups) = MemoryGroups::new() else { return };
    let Some((child, group)) = child(&groups, 64 * MB, || {
        touch(300 * MB);
        0
    }) else {
        return;
    };
    // It reaches the limit, and nothing looks.
    let begun = Instant::now();
    while group.number("memory.failcnt") == Some(0) {
        assert!(begun.elapsed() < LONG);
        std::thread::sleep(Duration::from_millis(5));
    }
    drop(group);
    assert!(child.ends_within(LONG));
    child.wait();
    drop(groups);
}
