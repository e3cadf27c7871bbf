//! Which process holds something.

pub use crate::terms::Identity;

/// This process's number; what else it takes is not to be found out.
pub fn identity() -> Identity {
    Identity { pid: std::process::id(), born: 0, space: 0 }
}

/// Returns false: no process is known to have ended.
pub fn is_gone(_pid: u32, _born_at: u32) -> bool {
    false
}
