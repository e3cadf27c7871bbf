//! System calls for tests: forks, limits, signals, hostile memory. Not part of the contract; for Linux.
#![allow(unsafe_code, missing_docs, clippy::unwrap_used)]

use crate::process::{Exit, Forked, leave, reap};
use crate::{AsHandle, BorrowedHandle, OwnedHandle, RawHandle, ready};
use std::io;
use std::ops::Deref;
use std::path::Path;
use std::time::Duration;

pub use rustix::process::{Resource, Rlimit, Signal, getrlimit, setrlimit};
pub use std::os::fd::{AsRawFd, OwnedFd};
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
pub fn pages_of_reaped_children() -> i64 {
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

/// Returns the number of its file.
pub fn inode(handle: impl AsHandle) -> u64 {
    rustix::fs::fstat(handle.as_handle()).unwrap().st_ino
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

pub fn set_nonblocking(handle: impl AsHandle) {
    rustix::io::ioctl_fionbio(handle.as_handle(), true).unwrap();
}

pub fn page_size() -> usize {
    rustix::param::page_size()
}

/// Reports to the other end of a pipe; the other end detects a failure.
pub fn tell(pipe: BorrowedHandle<'_>) {
    let _ = rustix::io::write(pipe, b"!");
}

/// Waits for reports and returns their number; 0: all reporters have ended.
pub fn told(pipe: BorrowedHandle<'_>) -> usize {
    rustix::io::read(pipe, &mut [0; 16]).unwrap()
}

/// Sends bytes over a socket of any kind.
pub fn send(socket: impl AsHandle, bytes: &[u8]) {
    rustix::net::send(socket.as_handle(), bytes, rustix::net::SendFlags::DONTWAIT).unwrap();
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
