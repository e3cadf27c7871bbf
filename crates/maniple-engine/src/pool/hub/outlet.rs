//! The way of what workers write to their standard error to this process's own.
//!
//! The keeper must not wait for a reader of the standard error, which may be a stopped terminal or a program that reads
//! later. So what cannot be written at once waits here for a thread that writes it. While much waits, the hub reads no
//! more, and a worker that writes waits for room, as it would if it wrote directly.

use maniple_sys::tap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// How many bytes may wait before the hub reads no more.
const MOST: usize = 64 << 10;

#[derive(Debug, Default)]
pub(super) struct Outlet(Arc<Backlog>);

#[derive(Debug, Default)]
struct Backlog(Mutex<Waiting>);

#[derive(Debug, Default)]
struct Waiting {
    bytes: Vec<u8>,
    /// Whether a thread writes.
    is_written: bool,
}

impl Backlog {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) {
        loop {
            let mut waiting = self.lock();
            let bytes = std::mem::take(&mut waiting.bytes);
            if bytes.is_empty() {
                waiting.is_written = false;
                return;
            }
            drop(waiting);
            tap::forward(&bytes);
        }
    }
}

impl Outlet {
    /// Writes what can be written at once, and has a thread write the rest. If there can be no thread, this one waits.
    pub fn forward(&self, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        let mut waiting = self.0.lock();
        let written = if waiting.is_written { 0 } else { tap::forward_at_once(bytes) };
        let rest = bytes.get(written..).unwrap_or_default();
        if rest.is_empty() {
            return;
        }
        waiting.bytes.extend_from_slice(rest);
        if std::mem::replace(&mut waiting.is_written, true) {
            return;
        }
        drop(waiting);
        let backlog = self.0.clone();
        let write = move || backlog.write();
        if std::thread::Builder::new().name("maniple-stderr".into()).spawn(write).is_err() {
            self.0.write();
        }
    }

    /// Whether the hub should read no more for now.
    pub fn is_full(&self) -> bool {
        self.0.lock().bytes.len() >= MOST
    }

    /// Whether everything was written.
    pub fn is_empty(&self) -> bool {
        !self.0.lock().is_written
    }
}
