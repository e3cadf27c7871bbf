//! A system without signals.

/// Does nothing: the system has no signals.
#[cfg_attr(windows, allow(dead_code))]
pub fn worker_signals() {}

/// Does nothing: the system has no signals.
pub fn program_signals() {}

/// Does nothing: the system has no signals.
pub fn ignore_broken_pipes() {}

/// Does nothing: a crash ends a process at once.
#[cfg_attr(windows, allow(dead_code))]
pub fn crash_at_once() {}
