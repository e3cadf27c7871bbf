//! Plain memory for buffers of middling size, used again while it is warm.
//!
//! The allocator gives such memory back to the system as soon as it is freed, and each page that comes anew costs a fault, which takes
//! longer than the copy that fills it.

use crate::error::{Error, Result};
use std::sync::Mutex;

/// Buffers that are kept have between so many and so many bytes.
const SIZES: std::ops::RangeInclusive<usize> = 8 * 1024..=256 * 1024;
/// Bytes that are kept at most in this process.
const KEPT: usize = 4 << 20;

static POOL: Mutex<Pool> = Mutex::new(Pool { free: Vec::new(), bytes: 0 });

#[derive(Debug)]
struct Pool {
    free: Vec<Vec<u8>>,
    bytes: usize,
}

/// Bytes in memory that is used again.
#[derive(Debug, Default)]
pub struct Buffer(Vec<u8>);

impl Buffer {
    /// Empty, with room for `len` bytes.
    ///
    /// # Errors
    /// No memory.
    pub fn with_capacity(len: usize) -> Result<Buffer> {
        // Not waited for: another thread is at it, or was when this process was forked.
        if SIZES.contains(&len)
            && let Ok(mut pool) = POOL.try_lock()
            && let Some(at) = pool.free.iter().rposition(|b| b.capacity() >= len && b.capacity() <= 2 * len)
        {
            let buffer = pool.free.remove(at);
            pool.bytes -= buffer.capacity();
            return Ok(Buffer(buffer));
        }
        let mut buffer = Vec::new();
        buffer.try_reserve_exact(len).map_err(|_| Error::out_of_memory("copy a large buffer"))?;
        Ok(Buffer(buffer))
    }

    /// These bytes.
    pub fn from_vec(bytes: Vec<u8>) -> Buffer {
        Buffer(bytes)
    }

    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// The bytes, to be changed.
    pub fn bytes_mut(&mut self) -> &mut Vec<u8> {
        &mut self.0
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let size = self.0.capacity();
        if SIZES.contains(&size)
            && let Ok(mut pool) = POOL.try_lock()
            && pool.bytes + size <= KEPT
        {
            self.0.clear();
            pool.bytes += size;
            pool.free.push(std::mem::take(&mut self.0));
        }
    }
}

/// Gives all that is kept back to the system.
pub fn trim() {
    if let Ok(mut pool) = POOL.try_lock() {
        pool.bytes = 0;
        let free = std::mem::take(&mut pool.free);
        drop(pool);
        drop(free);
    }
}

/// Bytes that are kept.
pub fn kept() -> usize {
    POOL.try_lock().map_or(0, |pool| pool.bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_used_again_and_bounded() {
        let mut first = Buffer::with_capacity(100_000).unwrap();
        first.bytes_mut().extend_from_slice(&[1; 100_000]);
        drop(first);
        assert!(Buffer::with_capacity(90_000).unwrap().bytes().is_empty());
        drop((0..100).map(|_| Buffer::with_capacity(100_000).unwrap()).collect::<Vec<_>>());
        assert!(kept() <= KEPT);
    }
}
