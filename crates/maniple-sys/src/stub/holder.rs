//! The identity of a holder.

pub use crate::terms::Identity;

/// Returns this process's number; its birth and space are unknown.
pub fn identity() -> Identity {
    Identity { pid: std::process::id(), born: 0, space: 0 }
}

/// Returns false: no process is known to have ended.
pub fn is_gone(_pid: u32, _born_at: u32) -> bool {
    false
}
