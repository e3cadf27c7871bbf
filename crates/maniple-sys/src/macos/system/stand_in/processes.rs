//! Processes and threads, by `/proc`.

use super::super::Process;

#[allow(dead_code)]
#[path = "../../../linux/process/usage.rs"]
mod usage;

pub use usage::{memory_of, peak_memory_of};

/// Returns the fields behind a process's name: its state is the first.
fn fields(pid: u32) -> std::io::Result<Vec<String>> {
    let stat = std::fs::read(format!("/proc/{pid}/stat"))?;
    let end = stat.iter().rposition(|&byte| byte == b')').unwrap_or(0);
    Ok(String::from_utf8_lossy(&stat[end + 1..]).split_ascii_whitespace().map(str::to_owned).collect())
}

/// Returns the state of the process with this number.
pub fn look(pid: u32) -> Process {
    match fields(pid) {
        Ok(fields) if fields.first().is_some_and(|state| matches!(state.as_str(), "Z" | "X" | "x")) => Process::Ended,
        Ok(fields) => Process::Runs(fields.get(19).and_then(|begun| begun.parse().ok()).unwrap_or(0)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Process::Gone,
        Err(_) => Process::Unknown,
    }
}

/// Returns the parent of a process.
pub fn parent_of(pid: u32) -> Option<u32> {
    fields(pid).ok()?.get(1)?.parse().ok()
}

/// Returns the children of a process.
pub fn children_of(pid: u32) -> Vec<u32> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let numbers = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    numbers.filter(|&other| parent_of(other) == Some(pid)).collect()
}

/// Returns the number of the calling thread.
pub fn own_thread() -> u64 {
    rustix::thread::gettid().as_raw_nonzero().get() as u64
}

/// Returns whether this process has a thread with this number.
pub fn is_thread(number: u64) -> bool {
    // SAFETY: signal 0 only checks whether the thread exists.
    unsafe { libc::syscall(libc::SYS_tgkill, libc::getpid(), number as i32, 0) == 0 }
}

/// Returns whether the caller is the first thread of this process.
pub fn is_first_thread() -> bool {
    rustix::thread::gettid() == rustix::process::getpid()
}

/// Returns whether this program runs with more rights than the process that started it.
pub fn privileged() -> bool {
    // SAFETY: reads a number from the list that the kernel passed to this program.
    unsafe { libc::getauxval(libc::AT_SECURE) != 0 }
}

/// Returns the name and the number of the system's limit of processes.
pub fn most_processes() -> Option<(&'static str, u64)> {
    let most = std::fs::read_to_string("/proc/sys/kernel/pid_max").ok()?.trim().parse().ok()?;
    Some(("the system (kernel.pid_max)", most))
}
