//! What a worker gets at its start, besides its link: its place in the pool, and the calls that it makes for itself.
//!
//! The setup is memory of its own, and handles:
//! ```text
//! memory    encoded Head · the initializer · the finalizer
//! handles   the pipe for events, if any are wanted · those in the initializer's argument · those in the finalizer's
//! ```

use crate::call;
use crate::chunk::{Input, Output};
use crate::error::{CallError, Error, Result};
use maniple_sys::{self as sys, AsHandle, OwnedHandle, memory};
use serde::{Deserialize, Serialize};
use std::sync::OnceLock;

/// A call that each worker makes for itself, encoded; no bytes if there is none.
#[derive(Debug, Default)]
pub(crate) struct OwnCall {
    pub bytes: Vec<u8>,
    pub handles: Vec<OwnedHandle>,
}

impl OwnCall {
    /// Makes the call. Returns its panic as an error.
    pub(crate) fn run(self) -> Result<()> {
        if self.bytes.is_empty() {
            return Ok(());
        }
        let mut input = Input::with_handles(&self.bytes, self.handles);
        let mut output = Output::plain();
        call::receive(&mut input)?.run(&mut input, &mut output)?;
        let mut result = Input::plain(output.bytes());
        result.chunk::<()>()?;
        result.outcome::<()>()?
    }

    fn copy_handles(&self) -> maniple_engine::Result<Vec<OwnedHandle>> {
        self.handles.iter().map(|handle| memory::duplicate(handle).map_err(doing)).collect()
    }
}

/// The place of a worker in its pool.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Place {
    pub number: usize,
    /// How many workers the pool has.
    pub count: usize,
    /// The processors of the worker; none: those of the pool's process.
    pub processors: Vec<usize>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Head {
    place: Place,
    /// The greatest level of events that the pool wants. 0 means none, and then there is no pipe for them.
    events: u8,
    /// The bytes and the handles of the initializer.
    initializer: (usize, usize),
}

/// The setup of a worker, in the worker.
#[derive(Debug)]
pub(crate) struct WorkerSetup {
    pub place: Place,
    /// The pipe for events, and their greatest level.
    pub events: Option<(OwnedHandle, u8)>,
    pub initializer: OwnCall,
    pub finalizer: OwnCall,
}

fn doing(source: std::io::Error) -> maniple_engine::Error {
    maniple_engine::Error::Os { doing: "store the initializer's arguments", source }
}

/// Returns the handles of a worker's setup, which [`read()`] reads once.
pub(crate) fn write(
    place: Place,
    events: Option<(OwnedHandle, u8)>,
    initializer: &OwnCall,
    finalizer: &OwnCall,
) -> maniple_engine::Result<Vec<OwnedHandle>> {
    let mut output = Output::plain();
    let level = events.as_ref().map_or(0, |&(_, level)| level);
    // Numbers can always be encoded.
    let _ =
        output.item(&Head { place, events: level, initializer: (initializer.bytes.len(), initializer.handles.len()) });
    let parts = [output.bytes(), &initializer.bytes, &finalizer.bytes];
    let memory = memory::create("maniple-setup", parts.iter().map(|part| part.len()).sum()).map_err(doing)?;
    let mut at = 0;
    for part in parts {
        memory::write_at(memory.as_handle(), part, at).map_err(doing)?;
        at += part.len() as u64;
    }
    let mut handles = vec![memory];
    handles.extend(events.map(|(pipe, _)| pipe));
    handles.extend(initializer.copy_handles()?);
    handles.extend(finalizer.copy_handles()?);
    Ok(handles)
}

/// Reads what [`write()`] has written.
///
/// # Errors
/// The memory cannot be read, or is damaged.
pub(crate) fn read(handles: Vec<OwnedHandle>) -> Result<WorkerSetup> {
    let damaged = || Error::Call(CallError::Remote("the setup of a worker is not whole".into()));
    let mut handles = handles.into_iter();
    let memory = handles.next().ok_or_else(damaged)?;
    let bytes = memory::read_all(memory.as_handle())
        .map_err(|e| Error::Call(CallError::Remote(format!("the initializer's arguments cannot be read: {e}"))))?;
    let mut input = Input::plain(&bytes);
    let Head { place, events, initializer: (length, count) } = input.item()??;
    let events = match events {
        0 => None,
        level => Some((handles.next().ok_or_else(damaged)?, level)),
    };
    let (first, last) = input.rest().split_at_checked(length).ok_or_else(damaged)?;
    let initializer = OwnCall { bytes: first.to_vec(), handles: handles.by_ref().take(count).collect() };
    let finalizer = OwnCall { bytes: last.to_vec(), handles: handles.collect() };
    Ok(WorkerSetup { place, events, initializer, finalizer })
}

/// The process that has the place, its number, and how many workers there are. A process that a worker forks is no
/// worker.
static PLACE: OnceLock<(u32, usize, usize)> = OnceLock::new();

impl Place {
    /// Takes the place in this process.
    pub(crate) fn take(&self) -> std::io::Result<()> {
        let _ = PLACE.set((sys::process_id(), self.number, self.count));
        if self.processors.is_empty() { Ok(()) } else { sys::keep_to_cores(&self.processors) }
    }
}

fn place() -> Option<(usize, usize)> {
    PLACE.get().filter(|(pid, ..)| *pid == sys::process_id()).map(|&(_, number, count)| (number, count))
}

/// Returns the number of this worker in its pool, from 0 on; `None` in a process that is no worker.
///
/// The worker that replaces another has the same number. Two workers of a pool never have the same number at once, so the
/// number may name a file, a port or a device of the worker. Spare workers have numbers, too.
///
/// ```
/// # fn main() -> maniple::Result<()> {
/// let pool = maniple::Pool::new(2)?;
/// let log = pool.apply(|()| format!("log-{}.txt", maniple::worker_id().unwrap()), ())?;
/// assert!(log == "log-0.txt" || log == "log-1.txt");
/// assert_eq!(maniple::worker_id(), None);
/// # Ok(())
/// # }
/// ```
pub fn worker_id() -> Option<usize> {
    place().map(|(number, _)| number)
}

/// Returns the number of workers, with the spare ones, that the pool of this worker had when the worker started; `None` in a
/// process that is no worker.
///
/// ```
/// # fn main() -> maniple::Result<()> {
/// assert_eq!(maniple::Pool::new(2)?.apply(|()| maniple::worker_count(), ())?, Some(2));
/// # Ok(())
/// # }
/// ```
pub fn worker_count() -> Option<usize> {
    place().map(|(_, count)| count)
}
