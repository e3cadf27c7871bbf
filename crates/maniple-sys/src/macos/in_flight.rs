//! Sockets that are in a message which has not been received.
//!
//! XNU searches for sockets that only messages refer to, and destroys them, because such messages may be in each
//! other's buffers. It does not find a socket in the buffer of a socket that is itself in no message, so it destroys a
//! socket in flight whose sender has closed its own descriptor (bsd/kern/uipc_usrreq.c: `unp_gc`; for the standard
//! package this is issue 14669, and its receivers acknowledge each descriptor). Files, pipes and memory are not
//! affected.
//!
//! So the sender keeps a descriptor of each socket that it sends until the receiver has taken the message. The
//! acknowledgement is the kernel's own: the number of bytes at the other end that are not received. A thread asks for
//! it, and ends when there is nothing to keep. A process that ends before that closes its descriptors.

use super::system::sockets;
use super::{memory, quiet};
use crate::atfork::{HubOnly, hold_forks, making};
use crate::terms::Kind;
use crate::unix::bytes::kind;
use crate::{AsHandle, BorrowedHandle};
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Sockets, and the socket through which they were sent.
#[derive(Debug)]
struct Kept {
    carrier: HubOnly,
    _sockets: Vec<HubOnly>,
}

#[derive(Debug)]
struct State {
    process: u32,
    kept: Vec<Kept>,
    has_thread: bool,
}

static STATE: Mutex<State> = Mutex::new(State { process: 0, kept: Vec::new(), has_thread: false });

/// Returns the state of this process. Call it inside `making`: a forked child finds no lock that another thread holds.
fn state() -> MutexGuard<'static, State> {
    let mut state = STATE.lock().unwrap_or_else(PoisonError::into_inner);
    let me = super::process_id();
    if state.process != me {
        // The copies of a parent's descriptors are closed here.
        *state = State { process: me, kept: Vec::new(), has_thread: false };
    }
    state
}

/// Keeps the sockets among `handles`, which were just sent through `carrier`, until they are received. If this process
/// has no number left, they are not kept.
pub(super) fn keep(carrier: BorrowedHandle<'_>, handles: &[BorrowedHandle<'_>]) {
    if handles.iter().any(|handle| kind(*handle) != Kind::Other) {
        let _ = keep_sockets(carrier, handles);
    }
}

fn keep_sockets(carrier: BorrowedHandle<'_>, handles: &[BorrowedHandle<'_>]) -> io::Result<()> {
    hold_forks()?;
    making(|| {
        let copy = |handle| HubOnly::new(memory::duplicate(handle)?);
        let sockets = handles.iter().filter(|handle| kind(**handle) != Kind::Other);
        let kept = Kept { _sockets: sockets.map(copy).collect::<io::Result<_>>()?, carrier: copy(&carrier)? };
        let mut state = state();
        state.kept.push(kept);
        if !state.has_thread {
            quiet::spawn("maniple-flight", sweep)?;
            state.has_thread = true;
        }
        Ok(())
    })
}

/// Drops what was received, until there is nothing left.
fn sweep() {
    const FIRST: Duration = Duration::from_millis(1);
    const LONGEST: Duration = Duration::from_millis(50);
    let mut pause = FIRST;
    loop {
        std::thread::sleep(pause);
        let done = making(|| {
            let mut state = state();
            let before = state.kept.len();
            let done = drop_received(&mut state.kept);
            pause = if done.is_empty() { (pause * 2).min(LONGEST) } else { FIRST };
            state.has_thread = before > done.len();
            (done, state.has_thread)
        });
        if !done.1 {
            return;
        }
    }
}

fn drop_received(kept: &mut Vec<Kept>) -> Vec<Kept> {
    let is_there = |kept: &mut Kept| !sockets::unread_there(kept.carrier.as_handle()).is_ok_and(|unread| unread > 0);
    kept.extract_if(.., is_there).collect()
}

#[cfg(test)]
mod tests {
    use super::super::stream;
    use super::*;
    use std::time::Instant;

    #[test]
    fn a_socket_is_kept_until_its_message_is_received() {
        let (here, there) = stream::pair().unwrap();
        let (sent, other) = stream::pair().unwrap();
        stream::write_with(here.as_handle(), b"s", &[sent.as_handle()]).unwrap();
        drop(sent);
        std::thread::sleep(Duration::from_millis(20));
        let is_kept = || making(|| !state().kept.is_empty());
        assert!(is_kept());
        let (mut bytes, mut handles) = ([0; 4], Vec::new());
        assert_eq!(stream::read_with(there.as_handle(), &mut bytes, &mut handles).unwrap(), 1);
        drop(handles);
        // The last descriptor is the kept copy.
        let until = Instant::now() + Duration::from_secs(30);
        let mut interest = [super::super::ready::Interest::new(other.as_handle())];
        while super::super::ready::wait(&mut interest, Some(Duration::from_millis(100))).unwrap() == 0 {
            assert!(Instant::now() < until);
        }
    }
}
