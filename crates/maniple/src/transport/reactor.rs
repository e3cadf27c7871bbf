//! Waiting for descriptors as futures: one thread for all of them, which polls and wakes.
//!
//! The first future that has to wait starts the thread. The thread ends when no future has waited for a while. It holds
//! a copy of each descriptor only as long as a future waits for it. A forked child has no such thread, and starts
//! another.

use crate::error::{Error, Result};
use maniple_sys::ready::{self, Interest, Kick};
use maniple_sys::{AsHandle, BorrowedHandle, OwnedHandle};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

/// How long the thread stays without a future that waits.
const LINGER: Duration = Duration::from_millis(500);
/// The interval at which a task that waits for room checks whether room can still come.
const LOOK: Duration = Duration::from_millis(500);

/// The wait of a future. Dropping it cancels the wait.
#[derive(Debug, Default)]
pub(crate) struct Watch(Option<u64>);

struct Watched {
    number: u64,
    fd: Arc<OwnedHandle>,
    room: bool,
    waker: Waker,
}

struct State {
    // The process of the thread.
    running: Option<(Arc<Kick>, u32)>,
    watched: Vec<Watched>,
    next: u64,
}

static STATE: Mutex<State> = Mutex::new(State { running: None, watched: Vec::new(), next: 1 });

fn state() -> MutexGuard<'static, State> {
    STATE.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Watch {
    /// Wakes the future once `fd` is readable, or has room.
    fn watch<T>(&mut self, fd: BorrowedHandle<'_>, room: bool, cx: &Context<'_>) -> Poll<Result<T>> {
        match self.arm(fd, room, cx.waker()) {
            Ok(()) => Poll::Pending,
            Err(source) => Poll::Ready(Err(failed(source))),
        }
    }

    fn arm(&mut self, fd: BorrowedHandle<'_>, room: bool, waker: &Waker) -> std::io::Result<()> {
        let mut state = state();
        if let Some(number) = self.0
            && let Some(watched) = state.watched.iter_mut().find(|w| w.number == number)
        {
            watched.waker.clone_from(waker);
            return Ok(());
        }
        if !matches!(state.running, Some((_, process)) if process == std::process::id()) {
            let kick = Arc::new(Kick::new()?);
            let its = kick.clone();
            // Waits of the parent's futures.
            state.watched.clear();
            std::thread::Builder::new().name("maniple-reactor".into()).spawn(move || run(&its))?;
            state.running = Some((kick, std::process::id()));
        }
        let (number, fd) = (state.next, Arc::new(fd.try_clone_to_owned()?));
        state.next += 1;
        state.watched.push(Watched { number, fd, room, waker: waker.clone() });
        state.kick();
        self.0 = Some(number);
        Ok(())
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let Some(number) = self.0 else { return };
        let mut state = state();
        let before = state.watched.len();
        state.watched.retain(|watched| watched.number != number);
        if state.watched.len() != before {
            // Wakes the thread, so that it drops the descriptor.
            state.kick();
        }
    }
}

impl State {
    fn kick(&self) {
        if let Some((kick, _)) = &self.running {
            kick.kick();
        }
    }
}

fn failed(source: std::io::Error) -> Error {
    maniple_engine::Error::Os { doing: "wait for a descriptor in the background", source }.into()
}

fn run(kick: &Arc<Kick>) {
    loop {
        let watched: Vec<(u64, Arc<OwnedHandle>, bool)> =
            state().watched.iter().map(|w| (w.number, w.fd.clone(), w.room)).collect();
        let mut interests = vec![Interest::new(kick.as_handle())];
        interests.extend(watched.iter().map(|(_, fd, room)| match room {
            true => Interest::room(fd.as_handle()),
            false => Interest::new(fd.as_handle()),
        }));
        let room = watched.iter().any(|(.., room)| *room);
        let limit = if watched.is_empty() { Some(LINGER) } else { room.then_some(LOOK) };
        let found = ready::wait(&mut interests, limit);
        if found.is_err() {
            // There is no memory, or there are more descriptors than may be polled. The futures try by themselves, and
            // wait again.
            std::thread::sleep(Duration::from_millis(10));
        }
        if interests[0].ready() {
            kick.clear();
        }
        let done: Vec<u64> = watched
            .iter()
            .zip(&interests[1..])
            .filter(|((.., room), interest)| match found {
                Err(_) => true,
                Ok(0) => *room && !interests[0].ready(),
                Ok(_) => interest.ready(),
            })
            .map(|((number, ..), _)| *number)
            .collect();
        let mut state = state();
        if matches!(found, Ok(0)) && watched.is_empty() && state.watched.is_empty() {
            state.running = None;
            return;
        }
        let (woken, rest) = std::mem::take(&mut state.watched).into_iter().partition(|w| done.contains(&w.number));
        state.watched = rest;
        drop(state);
        let woken: Vec<Watched> = woken;
        woken.into_iter().for_each(|watched| watched.waker.wake());
    }
}

/// Calls `attempt` until it returns a value, each time that `fd` is readable.
pub(super) async fn until_some<T>(fd: BorrowedHandle<'_>, mut attempt: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let mut watch = Watch::default();
    std::future::poll_fn(|cx| match attempt() {
        Ok(None) => watch.watch(fd, false, cx),
        Ok(Some(value)) => Poll::Ready(Ok(value)),
        Err(error) => Poll::Ready(Err(error)),
    })
    .await
}

/// As above, for one poll of a stream, with the watch that the stream keeps.
#[cfg(feature = "async")]
pub(super) fn poll_some<T>(
    watch: &mut Watch,
    fd: BorrowedHandle<'_>,
    cx: &Context<'_>,
    attempt: impl FnOnce() -> Result<Option<T>>,
) -> Poll<Result<T>> {
    match attempt() {
        Ok(None) => watch.watch(fd, false, cx),
        Ok(Some(value)) => Poll::Ready(Ok(value)),
        Err(error) => Poll::Ready(Err(error)),
    }
}

/// As above, each time that any of the descriptors is readable.
#[cfg(feature = "async")]
pub(super) async fn until_any<T>(
    fds: &[BorrowedHandle<'_>],
    mut attempt: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    let mut watches: Vec<Watch> = fds.iter().map(|_| Watch::default()).collect();
    std::future::poll_fn(|cx| match attempt() {
        Ok(Some(value)) => Poll::Ready(Ok(value)),
        Err(error) => Poll::Ready(Err(error)),
        Ok(None) => {
            let mut refused = fds.iter().zip(&mut watches).map(|(fd, watch)| watch.watch::<T>(*fd, false, cx));
            refused.find(Poll::is_ready).unwrap_or(Poll::Pending)
        }
    })
    .await
}

/// Calls `attempt` until it has succeeded, each time that `fd` has room, and twice a second.
pub(super) async fn until_done(fd: BorrowedHandle<'_>, mut attempt: impl FnMut() -> Result<bool>) -> Result<()> {
    let mut watch = Watch::default();
    std::future::poll_fn(|cx| match attempt() {
        Ok(false) => watch.watch(fd, true, cx),
        Ok(true) => Poll::Ready(Ok(())),
        Err(error) => Poll::Ready(Err(error)),
    })
    .await
}

/// Ready once `fd` is readable.
pub(crate) async fn until_readable(fd: BorrowedHandle<'_>) -> Result<()> {
    let ready = || ready::wait(&mut [Interest::new(fd)], Some(Duration::ZERO)).map_err(failed);
    until_some(fd, || Ok((ready()? > 0).then_some(()))).await
}
