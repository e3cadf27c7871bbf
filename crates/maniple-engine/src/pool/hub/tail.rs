//! The last words of a worker.

use std::collections::VecDeque;

/// How much of a worker's standard error is kept.
const KEPT: usize = 4096;
/// How many of its last lines go into an error.
const LINES: usize = 20;

/// The end of what a worker wrote to its standard error.
#[derive(Debug, Default)]
pub(super) struct Tail(VecDeque<u8>);

impl Tail {
    pub fn add(&mut self, bytes: &[u8]) {
        self.0.extend(bytes);
        let over = self.0.len().saturating_sub(KEPT);
        self.0.drain(..over);
    }

    /// The last lines.
    pub fn lines(&self) -> String {
        let bytes: Vec<u8> = self.0.iter().copied().collect();
        let text = String::from_utf8_lossy(&bytes);
        let text = text.trim_end();
        let start = text.rmatch_indices('\n').nth(LINES - 1).map_or(0, |(at, _)| at + 1);
        text[start..].to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_last_lines_are_kept() {
        let mut tail = Tail::default();
        for i in 0..10_000 {
            tail.add(format!("line {i}\n").as_bytes());
        }
        let lines = tail.lines();
        assert_eq!(lines.lines().count(), LINES);
        assert!(lines.ends_with("line 9999") && lines.starts_with("line 9980"), "{lines}");
    }
}
