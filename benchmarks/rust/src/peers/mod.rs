//! One file per library, each with a type that is its [`Peer`].

mod crossmist;
pub mod ipc_channel;
mod maniple;
mod procspawn;
mod rayon;
mod std;

use crate::case::Peer;

/// The one that the others are held against.
pub const SUBJECT: &str = "maniple";

/// In the order in which a round asks them.
pub const NAMES: [&str; 7] = [SUBJECT, "procspawn", "crossmist", "ipc-channel", "ipc-channel-raw", "rayon", "std"];

/// The library of that name.
pub fn named(name: &str) -> Option<Box<dyn Peer>> {
    Some(match name {
        "maniple" => Box::new(maniple::Maniple),
        "procspawn" => Box::new(procspawn::Procspawn),
        "crossmist" => Box::new(crossmist::Crossmist),
        "ipc-channel" => Box::new(ipc_channel::Typed),
        "ipc-channel-raw" => Box::new(ipc_channel::Raw),
        "rayon" => Box::new(rayon::Rayon),
        "std" => Box::new(std::Std),
        _ => return None,
    })
}

/// Lets the libraries whose children start by re-entering `main` take over in such a child.
pub fn init() {
    ::procspawn::init();
    ::crossmist::init();
}
