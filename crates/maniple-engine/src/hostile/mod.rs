//! Tests of the parsers of another process's bytes: one function for each parser. The fuzzer (`fuzz/`) calls it, and
//! the test below calls it with all inputs of the corpus. Not part of an ordinary build.
//!
//! A function takes any bytes. It returns normally whether the parser refuses or accepts them; a panic, a signal, an endless
//! wait or an allocation beyond [`MEMORY`] is a fault of the parser.

#![allow(clippy::unwrap_used)]

mod link;
mod log;
mod streams;

/// Bytes of address space that suffice for any input of some kilobytes, with any lengths in it.
pub const MEMORY: u64 = 1 << 30;

/// A parser's name, and what feeds it.
pub type Target = (&'static str, fn(&[u8]));

/// All of them.
pub const TARGETS: [Target; 8] = [
    ("frames", streams::frames),
    ("framed_stream", streams::framed_stream),
    ("packets", streams::packets),
    ("parcel", streams::parcel),
    ("handshake", streams::handshake),
    ("greeting", streams::greeting),
    ("link", link::link),
    ("log", log::log),
];

/// An input as a list of steps: numbers and bytes, zeros behind its end.
struct Script<'a>(&'a [u8]);

impl<'a> Script<'a> {
    fn is_over(&self) -> bool {
        self.0.is_empty()
    }

    fn byte(&mut self) -> u8 {
        self.bytes(1).first().copied().unwrap_or(0)
    }

    /// At most `len` bytes.
    fn bytes(&mut self, len: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(len.min(self.0.len()));
        self.0 = rest;
        taken
    }

    fn number(&mut self, width: usize) -> u64 {
        self.bytes(width).iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte))
    }

    /// A number that may break a protocol: small, next to a power of two, or any.
    fn odd_number(&mut self) -> u64 {
        match self.byte() {
            small @ 0..128 => small.into(),
            power @ 128..192 => 1u64 << (power - 128),
            power @ 192..253 => (1u64 << (power - 192)).wrapping_sub(1),
            253 => self.number(2),
            254 => self.number(4),
            255 => self.number(8),
        }
    }
}

/// As [`odd_number`](Script::odd_number), or one near `now`.
fn near(script: &mut Script<'_>, now: u64) -> u64 {
    match script.byte() {
        0..64 => now.wrapping_add(script.odd_number()),
        64..128 => now.wrapping_sub(script.odd_number()),
        _ => script.odd_number(),
    }
}

#[cfg(test)]
#[path = "../../../../fuzz/replay.rs"]
#[allow(unsafe_code)]
mod replay;

#[cfg(test)]
mod tests {
    use super::{MEMORY, TARGETS, replay};

    #[test]
    fn inputs_that_were_of_interest_once_are_harmless() {
        let test = "hostile::tests::inputs_that_were_of_interest_once_are_harmless";
        replay::replay(test, &TARGETS, MEMORY);
    }

    #[test]
    fn an_input_that_hangs_crashes_or_takes_memory_is_told() {
        replay::assert_that_faults_are_told("hostile::tests::an_input_that_hangs_crashes_or_takes_memory_is_told");
    }
}
