//! Processes and threads, by `libproc.h`. The facts are from bsd/kern/proc_info.c and bsd/sys/proc_info.h.

use super::super::Process;
use std::io;

/// `PROC_PIDTHREADID64INFO`.
const THREAD_INFO: i32 = 15;
/// `SZOMB` (bsd/sys/proc.h).
const ZOMBIE: u32 = 5;

fn info(pid: u32) -> io::Result<libc::proc_bsdinfo> {
    let pid = i32::try_from(pid).map_err(|_| io::Error::from_raw_os_error(libc::ESRCH))?;
    // SAFETY: all zero is a valid value of this structure of numbers.
    let mut info: libc::proc_bsdinfo = unsafe { std::mem::zeroed() };
    let room = size_of::<libc::proc_bsdinfo>() as i32;
    // The argument 1 finds processes that have ended and are not reaped.
    // SAFETY: there is as much room as the call receives as its size, which outlives the call.
    let got = unsafe { libc::proc_pidinfo(pid, libc::PROC_PIDTBSDINFO, 1, (&raw mut info).cast(), room) };
    if got == room { Ok(info) } else { Err(io::Error::last_os_error()) }
}

/// Returns the state of the process with this number.
pub fn look(pid: u32) -> Process {
    match info(pid) {
        Ok(info) if info.pbi_status == ZOMBIE => Process::Ended,
        Ok(info) => Process::Runs(info.pbi_start_tvsec.wrapping_mul(1_000_000).wrapping_add(info.pbi_start_tvusec)),
        Err(error) if error.raw_os_error() == Some(libc::ESRCH) => Process::Gone,
        // The process of another user.
        Err(error) if error.raw_os_error() == Some(libc::EPERM) => Process::Runs(0),
        Err(_) => Process::Unknown,
    }
}

/// Returns the parent of a process.
pub fn parent_of(pid: u32) -> Option<u32> {
    info(pid).ok().map(|info| info.pbi_ppid)
}

/// Returns the children of a process.
pub fn children_of(pid: u32) -> Vec<u32> {
    let Ok(pid) = i32::try_from(pid) else { return Vec::new() };
    let mut children = vec![0i32; 64];
    loop {
        let room = (children.len() * size_of::<i32>()) as i32;
        // SAFETY: there is as much room as the call receives as its size, which outlives the call.
        let got = unsafe { libc::proc_listchildpids(pid, children.as_mut_ptr().cast(), room) };
        // Some versions of the library return the number of bytes, and some the number of processes: unused places stay
        // 0.
        let found = usize::try_from(got).unwrap_or(0);
        if found < children.len() || children.len() >= 1 << 16 {
            return children
                .into_iter()
                .filter_map(|child| u32::try_from(child).ok().filter(|&child| child > 0))
                .collect();
        }
        children = vec![0; 4 * children.len()];
    }
}

fn usage(pid: u32) -> Option<libc::rusage_info_v4> {
    // SAFETY: all zero is a valid value of this structure of numbers.
    let mut usage: libc::rusage_info_v4 = unsafe { std::mem::zeroed() };
    // SAFETY: the flavor has this structure, which outlives the call.
    let failed =
        unsafe { libc::proc_pid_rusage(i32::try_from(pid).ok()?, libc::RUSAGE_INFO_V4, (&raw mut usage).cast()) };
    (failed == 0).then_some(usage)
}

/// Returns the memory that a process uses: its *footprint*, in which files and the memory of others do not count.
pub fn memory_of(pid: u32) -> Option<u64> {
    usage(pid).map(|usage| usage.ri_phys_footprint)
}

/// Returns the most that [`memory_of`] was.
pub fn peak_memory_of(pid: u32) -> Option<u64> {
    usage(pid).map(|usage| usage.ri_lifetime_max_phys_footprint)
}

/// Returns the number of the calling thread, which is never used again.
pub fn own_thread() -> u64 {
    let mut number = 0;
    // SAFETY: 0 is the calling thread; the pointer is to a value that outlives the call.
    unsafe { libc::pthread_threadid_np(0, &raw mut number) };
    number
}

/// Returns whether this process has a thread with this number.
pub fn is_thread(number: u64) -> bool {
    // SAFETY: all zero is a valid value of this structure of numbers.
    let mut info: libc::proc_threadinfo = unsafe { std::mem::zeroed() };
    let room = size_of::<libc::proc_threadinfo>() as i32;
    // SAFETY: there is as much room as the call receives as its size, which outlives the call.
    unsafe { libc::proc_pidinfo(libc::getpid(), THREAD_INFO, number, (&raw mut info).cast(), room) == room }
}

/// Returns whether the caller is the first thread of this process (`pthread.h`).
pub fn is_first_thread() -> bool {
    // SAFETY: no arguments.
    unsafe { libc::pthread_main_np() != 0 }
}

/// Returns whether this program runs with more rights than the process that started it.
pub fn privileged() -> bool {
    // SAFETY: no arguments.
    unsafe { libc::issetugid() != 0 }
}

/// Returns the name and the number of the system's limit of processes (`sysctl(3)`: `kern.maxproc`).
pub fn most_processes() -> Option<(&'static str, u64)> {
    let mut most: i32 = 0;
    let mut size = size_of::<i32>();
    // SAFETY: the name is a C string; the kernel writes at most `size` bytes to `most`; there is no new value.
    let done = unsafe {
        libc::sysctlbyname(c"kern.maxproc".as_ptr(), (&raw mut most).cast(), &raw mut size, std::ptr::null_mut(), 0)
    };
    (done == 0).then(|| Some(("the system (kern.maxproc)", u64::try_from(most).ok()?)))?
}
