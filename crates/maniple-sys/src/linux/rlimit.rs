//! The limits of processes, by the system call itself: a sandbox may refuse it.
#![allow(unsafe_code)]

/// Returns a soft limit of this process. `None`: there is none, or a sandbox refuses the question.
pub(crate) fn soft(resource: libc::__rlimit_resource_t) -> Option<u64> {
    get(0, resource).map(|limit| limit.rlim_cur).filter(|&limit| limit != libc::RLIM_INFINITY)
}

/// Returns a limit of process `pid`; 0 is this process.
pub(crate) fn get(pid: i32, resource: libc::__rlimit_resource_t) -> Option<libc::rlimit> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the pointer is to a value that outlives the call; a null means no new limit.
    (unsafe { libc::prlimit(pid, resource, std::ptr::null(), &raw mut limit) } == 0).then_some(limit)
}
