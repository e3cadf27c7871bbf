//! The limits of processes, by the system call itself: a sandbox may refuse it, and its numbers have 64 bits on every
//! processor, while those of the C library's `prlimit` have as many as a C long.
#![allow(unsafe_code)]

/// The type of the C library's numbers of resources.
#[cfg(target_env = "gnu")]
pub(crate) type Resource = libc::__rlimit_resource_t;
#[cfg(not(target_env = "gnu"))]
pub(crate) type Resource = libc::c_int;

/// A limit, as the kernel has it; `u64::MAX` is none.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Limit {
    pub soft: u64,
    pub hard: u64,
}

/// Returns a soft limit of this process. `None`: there is none, or a sandbox refuses the question.
pub(crate) fn soft(resource: Resource) -> Option<u64> {
    get(0, resource).map(|limit| limit.soft).filter(|&limit| limit != u64::MAX)
}

/// Returns a limit of process `pid`; 0 is this process.
pub(crate) fn get(pid: i32, resource: Resource) -> Option<Limit> {
    let mut limit = Limit { soft: 0, hard: 0 };
    // SAFETY: the pointer is to a value that outlives the call; a null means no new limit.
    let answer =
        unsafe { libc::syscall(libc::SYS_prlimit64, pid, resource, std::ptr::null::<Limit>(), &raw mut limit) };
    (answer == 0).then_some(limit)
}

/// Sets a limit of process `pid`, unless the system refuses it.
pub(crate) fn set(pid: i32, resource: Resource, limit: Limit) {
    // SAFETY: the pointer is to a value that outlives the call; a null means that the old limit is not wanted.
    unsafe {
        libc::syscall(libc::SYS_prlimit64, pid, resource, &raw const limit, std::ptr::null_mut::<Limit>());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_has_64_bits_on_every_processor() {
        let file = get(0, libc::RLIMIT_FSIZE).unwrap();
        let wanted = Limit { soft: file.hard.min(1 << 40), ..file };
        set(0, libc::RLIMIT_FSIZE, wanted);
        assert_eq!(soft(libc::RLIMIT_FSIZE), Some(wanted.soft).filter(|&limit| limit != u64::MAX));
        set(0, libc::RLIMIT_FSIZE, file);
        assert_eq!(get(0, libc::RLIMIT_FSIZE).unwrap().soft, file.soft);
    }
}
