//! A lock in shared memory that survives its holders.
#![allow(unsafe_code)]

use super::unsupported;
use std::io;
use std::time::Duration;

pub use crate::terms::Found;

/// The lock.
#[derive(Debug)]
#[repr(transparent)]
pub struct Mutex([u64; 5]);

impl Mutex {
    /// Returns the error "not supported".
    ///
    /// # Safety
    /// `at` is aligned, valid for writes, and not in use yet.
    pub unsafe fn init(_at: *mut Mutex) -> io::Result<()> {
        Err(unsupported())
    }

    /// Returns the error "not supported".
    pub fn try_lock(&self) -> io::Result<Found> {
        Err(unsupported())
    }

    /// Returns the error "not supported".
    pub fn lock_within(&self, _limit: Duration) -> io::Result<Found> {
        Err(unsupported())
    }

    /// Does nothing: no thread holds the lock.
    ///
    /// # Safety
    /// This thread holds it.
    pub unsafe fn unlock(&self) {}
}
