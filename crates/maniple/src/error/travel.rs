//! How errors are sent to another process.
//!
//! serde carries their fields. Three kinds of fields have no form of their own there: texts of the program, ends of
//! processes, and errors of the operating system.

use maniple_engine::process::{Cause, Exit};
use serde::{Deserialize, Deserializer};
use std::collections::BTreeSet;
use std::fmt;
use std::io;
use std::sync::{Mutex, PoisonError};

/// A text of the program. The alias hides the reference from serde's derive, which would borrow it from the message.
pub(super) type Fixed = &'static str;

/// The number of different texts that this process keeps for errors that arrive, and their greatest length. The crate has
/// some 150 such texts of up to 300 bytes; the rest is for names of types. The limits are for a peer that sends others.
const MOST: usize = 1000;
const LONGEST: usize = 1000;

/// Reads a text of the program. A text that has not arrived before is kept until the process ends.
pub(super) fn fixed<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Fixed, D::Error> {
    static KEPT: Mutex<BTreeSet<Fixed>> = Mutex::new(BTreeSet::new());
    let text = String::deserialize(deserializer)?;
    let mut kept = KEPT.lock().unwrap_or_else(PoisonError::into_inner);
    Ok(keep(&mut kept, text))
}

fn keep(kept: &mut BTreeSet<Fixed>, text: String) -> Fixed {
    if let Some(known) = kept.get(text.as_str()) {
        return known;
    }
    if kept.len() >= MOST || text.len() > LONGEST {
        return "an error of another process, whose text could not be kept";
    }
    let text: Fixed = text.leak();
    kept.insert(text);
    text
}

/// The end of a process, as its code and the number of its cause.
type Parts = (Option<i32>, Option<i32>);

fn parts(exit: Exit) -> Parts {
    match exit {
        Exit::Code(code) => (Some(code), None),
        Exit::Killed(cause) => (None, Some(cause.number())),
        _ => (None, None),
    }
}

fn joined(parts: Parts) -> Exit {
    match parts {
        (Some(code), _) => Exit::Code(code),
        (None, Some(number)) => Exit::Killed(Cause::from_number(number)),
        (None, None) => Exit::Unknown,
    }
}

pub(super) mod exit {
    use super::{Exit, joined, parts};
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(in super::super) fn serialize<S: Serializer>(exit: &Exit, serializer: S) -> Result<S::Ok, S::Error> {
        parts(*exit).serialize(serializer)
    }

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Exit, D::Error> {
        Deserialize::deserialize(deserializer).map(joined)
    }
}

pub(super) mod option_exit {
    use super::{Exit, Parts, joined, parts};
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(in super::super) fn serialize<S: Serializer>(exit: &Option<Exit>, serializer: S) -> Result<S::Ok, S::Error> {
        exit.map(parts).serialize(serializer)
    }

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Exit>, D::Error> {
        Ok(Option::<Parts>::deserialize(deserializer)?.map(joined))
    }
}

/// An error of the operating system or the engine that another process met: its text, and its number if it has one.
#[derive(Debug)]
pub(super) struct Arrived {
    text: String,
    system: Option<io::Error>,
}

impl Arrived {
    pub(super) fn new(text: String, number: Option<i32>) -> Arrived {
        Arrived { text, system: number.map(io::Error::from_raw_os_error) }
    }
}

impl fmt::Display for Arrived {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for Arrived {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.system.as_ref().map(|error| error as _)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_kept_once_and_a_peer_cannot_fill_the_memory() {
        let mut kept = BTreeSet::new();
        let first = keep(&mut kept, "the event to be set".into());
        assert!(std::ptr::eq(first, keep(&mut kept, "the event to be set".into())));
        assert!(keep(&mut kept, "x".repeat(LONGEST + 1)).contains("could not be kept"));
        for n in 0..2 * MOST {
            keep(&mut kept, n.to_string());
        }
        assert_eq!(kept.len(), MOST);
        assert_eq!(keep(&mut kept, "the event to be set".into()), "the event to be set");
    }
}
