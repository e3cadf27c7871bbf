//! System calls for tests: forks, limits, signals, hostile memory.
#![allow(unsafe_code, missing_docs, clippy::unwrap_used)]

use crate::process::{Exit, Forked, leave, reap};
use crate::testing::Stream;
use crate::{AsHandle, OwnedHandle, RawHandle, ready};
use std::io;
use std::ops::Deref;
use std::path::Path;
use std::time::Duration;

pub use rustix::process::{Resource, Rlimit, Signal, getrlimit, setrlimit};
pub use std::os::fd::OwnedFd;
pub use std::os::unix::fs::PermissionsExt;
pub use std::os::unix::net::{UnixListener, UnixStream};
pub use std::os::unix::process::{CommandExt, ExitStatusExt};

/// A forked child, which its parent reaps by `wait`.
pub struct Child {
    pub pid: u32,
    pub handle: OwnedHandle,
}

impl Child {
    /// Returns whether it ends within the time.
    pub fn ends_within(&self, limit: Duration) -> bool {
        ready::wait(&mut [ready::Interest::new(self.handle.as_handle())], Some(limit)).unwrap() > 0
    }

    pub fn wait(&self) -> Exit {
        loop {
            self.ends_within(Duration::from_secs(60));
            if let Some(exit) = reap(self.handle.as_handle(), self.pid).unwrap() {
                return exit;
            }
        }
    }
}

/// Forks: `None` in the child, which does little.
pub fn fork() -> Option<Child> {
    // SAFETY: the children of tests only allocate, check and exit, and glibc's allocator may be used after a fork.
    match unsafe { crate::process::fork() }.unwrap() {
        Forked::Child => None,
        Forked::Parent(pid, handle) => Some(Child { pid, handle }),
    }
}

/// Runs `f` in a forked child and returns its exit code.
pub fn in_forked_child(f: impl FnOnce() -> i32) -> i32 {
    match fork() {
        None => leave(f()),
        Some(child) => match child.wait() {
            Exit::Code(code) => code,
            other => panic!("the forked child {other}"),
        },
    }
}

/// Returns the number of pages that this process's reaped children have touched: it grows with each child.
pub fn pages_of_reaped_children() -> libc::c_long {
    let mut usage = std::mem::MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: the pointer is to memory for the answer, which zeros are valid for.
    unsafe {
        assert_eq!(libc::getrusage(libc::RUSAGE_CHILDREN, usage.as_mut_ptr()), 0);
        usage.assume_init().ru_minflt
    }
}

fn number(pid: u32) -> rustix::process::Pid {
    rustix::process::Pid::from_raw(pid as i32).unwrap()
}

pub fn kill(pid: u32, signal: Signal) -> io::Result<()> {
    Ok(rustix::process::kill_process(number(pid), signal)?)
}

pub fn kill_group(pid: u32, signal: Signal) -> io::Result<()> {
    Ok(rustix::process::kill_process_group(number(pid), signal)?)
}

pub fn kill_self(signal: Signal) {
    rustix::process::kill_process(rustix::process::getpid(), signal).unwrap();
}

/// Returns the process that started this one.
pub fn parent() -> u32 {
    rustix::process::getppid().map_or(0, |pid| pid.as_raw_nonzero().get() as u32)
}

/// Makes the kernel kill this process when the thread that started it ends.
pub fn die_with_parent() {
    let _ = rustix::process::set_parent_process_death_signal(Some(Signal::KILL));
}

/// Makes this process ignore a signal.
pub fn ignore(signal: Signal) {
    // SAFETY: installs no handler, and passes no pointers.
    unsafe { libc::signal(signal.as_raw(), libc::SIG_IGN) };
}

/// Restores the default action of a signal. Async-signal-safe.
pub fn by_default(signal: Signal) {
    // SAFETY: installs no handler, and passes no pointers.
    unsafe { libc::signal(signal.as_raw(), libc::SIG_DFL) };
}

/// Sets a limit of this process to `current`.
pub fn limit(resource: Resource, current: Option<u64>) {
    setrlimit(resource, Rlimit { current, maximum: getrlimit(resource).maximum }).unwrap();
}

/// Sets a limit of another process.
pub fn limit_of(pid: u32, resource: Resource, limit: Rlimit) {
    rustix::process::prlimit(Some(number(pid)), resource, limit).unwrap();
}

/// Makes the next child the first process of a new pid namespace. False: this user may not do that.
pub fn new_pid_namespace() -> bool {
    // SAFETY: it affects only future children, and passes no pointers.
    unsafe { libc::unshare(libc::CLONE_NEWPID) == 0 }
}

/// Makes control groups read-only for this thread and for the threads and processes that it starts. A user who may not do that may not make
/// control groups either.
pub fn refuse_control_groups() {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    // SAFETY: it concerns only the view of files, and passes no pointers.
    if unsafe { libc::unshare(libc::CLONE_NEWNS) } != 0 {
        return;
    }
    let mount = |point: &str, flags| {
        let point = std::ffi::CString::new(point).unwrap();
        // SAFETY: the text lives longer than the call; these flags need no other words, so those are null.
        unsafe { libc::mount(std::ptr::null(), point.as_ptr(), std::ptr::null(), flags, std::ptr::null()) }
    };
    // The view of other processes stays.
    assert_eq!(mount("/", libc::MS_REC | libc::MS_PRIVATE), 0);
    for line in mounts.lines().filter(|line| line.contains(" - cgroup")) {
        let point = line.split(' ').nth(4).unwrap();
        assert_eq!(mount(point, libc::MS_REMOUNT | libc::MS_BIND | libc::MS_RDONLY), 0);
    }
}

/// Makes the kernel refuse these calls with ENOSYS, in this process and its children. False: it does not support such a
/// filter.
fn refuse(calls: &[libc::c_long]) -> bool {
    let row = |code, jt, jf, k| libc::sock_filter { code, jt, jf, k };
    // Load the call's number; for each refused call, skip the refusal if the number differs; allow all other calls.
    let mut rows = vec![row(0x20, 0, 0, 0)];
    for &call in calls {
        rows.extend([row(0x15, 0, 1, call as u32), row(0x06, 0, 0, 0x0005_0000 | libc::ENOSYS as u32)]);
    }
    rows.push(row(0x06, 0, 0, 0x7FFF_0000));
    let program = libc::sock_fprog { len: rows.len() as u16, filter: rows.as_mut_ptr() };
    // SAFETY: the program and its rows outlive the call.
    unsafe {
        libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
            && libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) == 0
    }
}

/// Makes the kernel refuse handles on processes to this process. False: it does not support such a filter.
pub fn refuse_process_handles() -> bool {
    refuse(&[libc::SYS_pidfd_open, libc::SYS_pidfd_send_signal, libc::SYS_waitid])
}

/// The system's numbers of the errors that shortages and deaths cause.
pub const SHORTAGES: [i32; 12] = [
    libc::EMFILE,
    libc::ENFILE,
    libc::ENOMEM,
    libc::EAGAIN,
    libc::ENOSPC,
    libc::EFBIG,
    libc::ENOBUFS,
    libc::ETOOMANYREFS,
    libc::ECONNREFUSED,
    libc::ECONNRESET,
    libc::EPIPE,
    libc::ENOENT,
];

/// Returns whether a number is an open descriptor.
pub fn is_open(number: RawHandle) -> bool {
    // SAFETY: reads the flags of a number; changes nothing.
    unsafe { libc::fcntl(number, libc::F_GETFD) != -1 }
}

/// Returns whether programs that this process starts inherit the handle.
pub fn is_inherited(handle: impl AsHandle) -> bool {
    !rustix::io::fcntl_getfd(handle.as_handle()).unwrap().contains(rustix::io::FdFlags::CLOEXEC)
}

pub fn set_inherited(handle: impl AsHandle, is_inherited: bool) {
    let flags = if is_inherited { rustix::io::FdFlags::empty() } else { rustix::io::FdFlags::CLOEXEC };
    rustix::io::fcntl_setfd(handle.as_handle(), flags).unwrap();
}

/// Returns the bytes of memory that the file occupies.
pub fn taken(handle: impl AsHandle) -> u64 {
    rustix::fs::fstat(handle.as_handle()).unwrap().st_blocks as u64 * 512
}

/// Creates shared memory whose size any process can change, as a malicious process may send it.
pub fn unsealed_memory(len: u64) -> OwnedHandle {
    let made = rustix::fs::memfd_create("unsealed", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
    rustix::fs::ftruncate(&made, len).unwrap();
    made.into()
}

pub fn set_len(memory: impl AsHandle, len: u64) {
    rustix::fs::ftruncate(memory.as_handle(), len).unwrap();
}

pub fn page_size() -> usize {
    rustix::param::page_size()
}

/// Returns whether a process of this number exists, and has not ended as a zombie of another parent.
pub fn exists(pid: u32) -> bool {
    let Ok(stat) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else { return false };
    stat.rsplit_once(") ").is_none_or(|(_, rest)| !rest.starts_with('Z'))
}

/// Returns whether anything of this number is there, were it a zombie.
pub fn is_listed(pid: u32) -> bool {
    Path::new(&format!("/proc/{pid}")).exists()
}

/// Prepares the start of a program that gets a process group of its own, and Ctrl-C with its default action: a shell
/// without job control starts what it puts in the background with Ctrl-C ignored, and that is inherited.
pub fn in_own_group(program: &mut std::process::Command) {
    program.process_group(0);
    // SAFETY: `signal` is async-signal-safe, and nothing else is done between fork and exec.
    unsafe {
        program.pre_exec(|| {
            by_default(Signal::INT);
            Ok(())
        })
    };
}

/// Limits the address space of a program that is started next to `most` bytes.
pub fn bound(program: &mut std::process::Command, most: u64) {
    let limits = move || {
        setrlimit(Resource::As, Rlimit { current: Some(most), maximum: Some(most) })?;
        // A core file would not be read.
        Ok(setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })?)
    };
    // SAFETY: the two calls in the child are async-signal-safe.
    unsafe { program.pre_exec(limits) };
}

/// Returns the number of this process's handles.
pub fn handles() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

/// Returns how many mappings of shared memory with this label this process has, and how many handles on such memory.
pub fn shared_memory(label: &str) -> (usize, usize) {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let links =
        std::fs::read_dir("/proc/self/fd").unwrap().filter_map(|fd| std::fs::read_link(fd.unwrap().path()).ok());
    let ours = |text: &str| text.contains(label);
    (maps.lines().filter(|line| ours(line)).count(), links.filter(|link| ours(&link.to_string_lossy())).count())
}

/// Returns the names of this process's threads.
pub fn threads() -> Vec<String> {
    // A thread that ends just now has no name any more.
    let names = std::fs::read_dir("/proc/self/task")
        .unwrap()
        .filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("comm")).ok());
    names.map(|name| name.trim().to_owned()).collect()
}

/// Returns an open file of `len` bytes without a name.
pub fn temporary_file(len: u64) -> std::fs::File {
    OwnedFd::from(unsealed_memory(len)).into()
}

/// Returns the number of a process's handles.
pub fn handles_of(pid: u32) -> usize {
    std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count()
}

/// Returns the number of a process's threads.
pub fn threads_of(pid: u32) -> usize {
    std::fs::read_dir(format!("/proc/{pid}/task")).unwrap().count()
}

/// Returns what the handles of this process lead to.
pub fn handle_names() -> Vec<String> {
    let list = std::fs::read_dir("/proc/self/fd").unwrap();
    list.filter_map(|e| std::fs::read_link(e.unwrap().path()).ok())
        .map(|p| p.to_string_lossy().into_owned())
        .filter(|name| !name.starts_with("/proc/"))
        .collect()
}

/// Returns the children of this process's first thread.
pub fn children() -> Vec<u32> {
    let list = std::fs::read_to_string(format!("/proc/self/task/{}/children", std::process::id())).unwrap();
    list.split_whitespace().map(|pid| pid.parse().unwrap()).collect()
}

/// Returns whether a process is stopped, which it is a moment after the signal.
pub fn is_stopped(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('T'))
}

/// Stops this process.
pub fn stop_self() {
    kill_self(Signal::STOP);
}

/// Sends bytes over a socket of any kind.
pub fn send(socket: impl AsHandle, bytes: &[u8]) {
    rustix::net::send(socket.as_handle(), bytes, rustix::net::SendFlags::DONTWAIT).unwrap();
}

impl From<Stream> for OwnedFd {
    fn from(stream: Stream) -> OwnedFd {
        stream.into_owned().into()
    }
}

impl From<OwnedFd> for Stream {
    fn from(end: OwnedFd) -> Stream {
        Stream::from_owned(end.into())
    }
}

/// A mapping of a file.
pub struct MappedFile {
    start: *mut u8,
    len: usize,
}

// SAFETY: the mapping belongs to this value, and `deref` shows its bytes only as atomics.
unsafe impl Send for MappedFile {}
// SAFETY: as above.
unsafe impl Sync for MappedFile {}

impl MappedFile {
    pub fn open(path: &Path, len: usize) -> io::Result<MappedFile> {
        use rustix::mm::{MapFlags, ProtFlags, mmap};
        let file = std::fs::OpenOptions::new().read(true).write(true).open(path)?;
        let access = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a fresh mapping at an address of the kernel's choice.
        let start = unsafe { mmap(std::ptr::null_mut(), len, access, MapFlags::SHARED, &file, 0)? };
        Ok(MappedFile { start: start.cast(), len })
    }
}

impl Deref for MappedFile {
    type Target = [std::sync::atomic::AtomicU8];

    fn deref(&self) -> &Self::Target {
        // SAFETY: `open` mapped `len` bytes, and this process accesses them only as atomic bytes.
        unsafe { std::slice::from_raw_parts(self.start.cast(), self.len) }
    }
}

impl Drop for MappedFile {
    fn drop(&mut self) {
        // SAFETY: no reference outlives the value that is dropped here.
        let _ = unsafe { rustix::mm::munmap(self.start.cast(), self.len) };
    }
}
