//! The memory that processes use.

/// The resident memory of a process without files and shared memory, in bytes; `None` if it is unknown. Pages that it has
/// from its parent, and that neither has written to since, count.
pub fn memory_of(pid: u32) -> Option<u64> {
    // It waits for no lock of the process, as the detailed files do.
    let text = std::fs::read_to_string(format!("/proc/{pid}/statm")).ok()?;
    let mut pages = text.split_ascii_whitespace().skip(1).map_while(|pages| pages.parse::<u64>().ok());
    let (resident, shared) = (pages.next()?, pages.next()?);
    Some(resident.saturating_sub(shared) * rustix::param::page_size() as u64)
}

/// About the most of the memory of [`memory_of`] that a process has had, in bytes; `None` if it is unknown.
pub fn peak_memory_of(pid: u32) -> Option<u64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let bytes_of = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024)
    };
    // The system does not keep the greatest size of each kind.
    Some(bytes_of("VmHWM")?.saturating_sub(bytes_of("RssFile")?.saturating_add(bytes_of("RssShmem")?)))
}

/// How many processes the system has ended so far because memory ran out; `None` if it is unknown.
pub fn memory_kills() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/vmstat").ok()?;
    text.lines().find_map(|line| line.strip_prefix("oom_kill "))?.trim().parse().ok()
}
