//! The identity of a holder: its process number, and the time at which the process began.

use super::system::Process;
use super::system::processes::look;

pub use crate::terms::Identity;

/// All processes of the machine have numbers and times of one space.
const SPACE: u64 = 1;

/// Returns the identity of this process. The caller keeps the result, and calls again after a fork.
pub fn identity() -> Identity {
    let pid = super::process_id();
    let born = match look(pid) {
        Process::Runs(since) => birth(since),
        _ => 0,
    };
    Identity { pid, born, space: SPACE }
}

/// Returns the birth of a process that runs since a moment; 0: the moment is not known.
fn birth(since: u64) -> u32 {
    if since == 0 { 0 } else { ((since >> 32) as u32 ^ since as u32).max(1) }
}

/// Returns whether the process with this number and birth has certainly ended, reaped or not.
pub fn is_gone(pid: u32, born_at: u32) -> bool {
    match look(pid) {
        Process::Gone | Process::Ended => true,
        Process::Runs(since) => born_at != 0 && since != 0 && birth(since) != born_at,
        Process::Unknown => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_recognises_itself_and_a_reused_number_is_another_process() {
        let me = identity();
        assert!(me.born != 0 && me.space != 0 && me == identity());
        assert!(!is_gone(me.pid, me.born) && !is_gone(me.pid, 0));
        assert!(is_gone(me.pid, me.born.wrapping_add(1)));
    }
}
