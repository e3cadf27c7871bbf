//! Handles on processes.
//!
//! ```text
//! a process ends ─▶ the system's list of deaths ─▶ the thread `maniple-deaths` ─▶ a byte into the process's pipe
//! ```
//! The read end of the pipe is the handle. A byte, and not only the end of the writer: a forked child has copies of the
//! pipe. The thread begins with the first handle, and stays. A forked child has neither the thread nor the write ends
//! (`HubOnly`), and begins anew with its first handle.

use super::super::system::deaths::Deaths;
use super::super::{process_id, quiet, stream};
use crate::atfork::{HubOnly, hold_forks, making};
use crate::own::File;
use crate::{AsHandle, BorrowedHandle, OwnedHandle};
use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A process that this process waits for.
#[derive(Debug)]
struct Watched {
    pid: u32,
    /// The pipe of its handle.
    pipe: Option<File>,
    writer: HubOnly,
}

#[derive(Debug)]
struct State {
    process: u32,
    deaths: Option<Arc<Deaths>>,
    watched: HashMap<u64, Watched>,
    last: u64,
    /// The write ends of pipes that are reserved, by their read ends.
    reserved: Vec<(Option<File>, HubOnly)>,
}

static STATE: Mutex<Option<State>> = Mutex::new(None);

/// Runs `act` with the state of this process. No fork happens meanwhile, so a child finds the lock free.
fn with_state<R>(act: impl FnOnce(&mut State) -> R) -> R {
    fn held() -> MutexGuard<'static, Option<State>> {
        STATE.lock().unwrap_or_else(PoisonError::into_inner)
    }
    making(|| {
        let mut held = held();
        let me = process_id();
        if held.as_ref().is_some_and(|state| state.process != me) {
            // The parent's. Its list is not a descriptor of this process, and must not be closed.
            std::mem::forget(held.take());
        }
        let fresh = || State { process: me, deaths: None, watched: HashMap::new(), last: 0, reserved: Vec::new() };
        act(held.get_or_insert_with(fresh))
    })
}

/// How many write ends wait at most for the use of their reserved pipes. (A caller may drop a reserved pipe.)
const MOST_RESERVED: usize = 64;

/// Makes a pipe for a process that is about to start, and returns its read end.
pub(super) fn reserve() -> io::Result<OwnedHandle> {
    hold_forks()?;
    making(|| {
        let (reader, writer) = stream::pipe()?;
        let (pipe, writer) = (File::of(reader.as_handle()), HubOnly::new(writer)?);
        let old = with_state(|state| {
            state.reserved.push((pipe, writer));
            (state.reserved.len() > MOST_RESERVED).then(|| state.reserved.remove(0))
        });
        drop(old);
        Ok(reader)
    })
}

/// Makes `reader`, which [`reserve`] has returned, the handle on a process. `InvalidInput`: another process has
/// reserved it.
pub(super) fn begin(pid: u32, reader: OwnedHandle) -> io::Result<OwnedHandle> {
    let pipe = File::of(reader.as_handle());
    let (deaths, id) = with_state(|state| {
        let place = state.reserved.iter().rposition(|(other, _)| *other == pipe).ok_or(io::ErrorKind::InvalidInput)?;
        let deaths = match &state.deaths {
            Some(deaths) => Arc::clone(deaths),
            None => {
                let deaths = Arc::new(Deaths::new()?);
                let list = Arc::clone(&deaths);
                quiet::spawn("maniple-deaths", move || report(&list))?;
                state.deaths = Some(Arc::clone(&deaths));
                deaths
            }
        };
        state.last += 1;
        let writer = state.reserved.swap_remove(place).1;
        state.watched.insert(state.last, Watched { pid, pipe, writer });
        Ok::<_, io::Error>((deaths, state.last))
    })?;
    match deaths.watch(pid, id) {
        Ok(true) => {}
        Ok(false) => tell(id),
        Err(error) => {
            drop(with_state(|state| state.watched.remove(&id)));
            return Err(error);
        }
    }
    Ok(reader)
}

/// Returns the process of a handle that this process has made, as long as it runs.
pub(super) fn process_of(handle: BorrowedHandle<'_>) -> Option<u32> {
    let pipe = File::of(handle);
    with_state(|state| state.watched.values().find(|watched| watched.pipe == pipe).map(|watched| watched.pid))
}

/// The thread.
fn report(deaths: &Deaths) {
    loop {
        match deaths.next() {
            Ok(id) => tell(id),
            // A shortage of memory.
            Err(_) => std::thread::sleep(std::time::Duration::from_millis(20)),
        }
    }
}

/// Reports the end of a process.
fn tell(id: u64) {
    if let Some(watched) = with_state(|state| state.watched.remove(&id)) {
        let _ = rustix::io::write(watched.writer.as_handle(), b"!");
    }
}

/// Reports the end of a process that was reaped: its number may be used again.
pub(super) fn has_ended(pid: u32) {
    let ended = with_state(|state| state.watched.extract_if(|_, watched| watched.pid == pid).collect::<Vec<_>>());
    for (_, watched) in ended {
        let _ = rustix::io::write(watched.writer.as_handle(), b"!");
    }
}
