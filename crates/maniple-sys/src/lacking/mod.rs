//! The parts of the contract for systems that have nothing for them to do: no forks, no signals, no
//! numbers of handles that other code closes, no groups of processes, no limits that children inherit. The backends that lack the same share them.

#[cfg(not(unix))]
pub mod atfork;
#[cfg(not(unix))]
pub mod epoch;
pub mod limits;
pub mod memory_group;
#[cfg(not(unix))]
pub mod own;
pub mod signals;
