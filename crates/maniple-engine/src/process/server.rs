//! The fork server: a small single-threaded process that forks a child whenever the hub requests it.
//!
//! Only the Rust front uses it: Python's fork server forks an interpreter, and uses the standard package's protocol.
//!
//! # Protocol
//! One packet socket between hub and server. Every packet is three numbers, some with handles beside them:
//!
//! | from | numbers | handles | meaning |
//! | --- | --- | --- | --- |
//! | hub | `FORK`, serial, 0 | the child's permit, its handles | fork a child |
//! | server | `STARTED`, serial, pid | a watch on it | done |
//! | server | `REFUSED`, serial, error number | | the system refused |
//! | server | `ENDED`, serial, exit | | it ended with this exit, and is reaped |
//!
//! The hub numbers the children itself, because the system uses a process number again once it is reaped.
//!
//! # Deaths
//! If the hub dies, the socket closes and the server exits; its children die by their own lifelines. If the server
//! dies, its children continue, and their exit stays unknown; the next [`Server::fork`] fails, and the caller starts
//! another server. If a child dies, the server reaps it and reports its exit.
//!
//! A server may die after it has forked a child and before it reports the child. The caller then has another child forked
//! with the same handles. So a child does nothing before it has its *permit*: a byte that the hub sends it once the child
//! is reported. Without it, the child finds the end of the permit's stream, and exits.

use super::child::{Child, ExitWatch, Forked, Statuses, fork};
use super::launch::Launch;
use crate::error::{Doing, Result, unstarted};
use maniple_sys as sys;
use maniple_sys::atfork::{self, HubOnly};
use maniple_sys::process::limits::Soft;
use maniple_sys::process::packet;
use maniple_sys::process::{Cause, Exit};
use maniple_sys::{AsHandle, BorrowedHandle, OwnedHandle, stream};
use std::collections::HashMap;
use std::io::{self, IoSlice};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

const FORK: i64 = 1;
const STARTED: i64 = 2;
const REFUSED: i64 = 3;
const ENDED: i64 = 4;

/// The server's requests and answers.
type Packet = [i64; 3];

/// How long a server that met a shortage waits before it checks again.
const PAUSE: Duration = Duration::from_millis(20);

fn send(socket: impl AsHandle, packet: Packet, handles: &[BorrowedHandle<'_>]) -> io::Result<()> {
    let mut bytes = [0; 24];
    for (place, number) in bytes.chunks_exact_mut(8).zip(packet) {
        place.copy_from_slice(&number.to_ne_bytes());
    }
    packet::send(socket.as_handle(), &bytes, handles)
}

/// Receives a packet. Returns whether all of its handles arrived: handles for which this process has no descriptor left
/// are lost. `None`: the other side has closed.
fn receive(socket: impl AsHandle, handles: &mut Vec<OwnedHandle>) -> io::Result<Option<(Packet, bool)>> {
    let mut bytes = [0; 24];
    let (len, whole) = packet::receive(socket.as_handle(), &mut bytes, handles)?;
    match len {
        0 => Ok(None),
        24 => {
            let mut packet = [0; 3];
            for (number, place) in packet.iter_mut().zip(bytes.as_chunks::<8>().0) {
                *number = i64::from_ne_bytes(*place);
            }
            Ok(Some((packet, whole)))
        }
        _ => Err(io::Error::new(io::ErrorKind::InvalidData, "a packet of the fork server that is not 24 bytes long")),
    }
}

fn encode(exit: Exit) -> i64 {
    match exit {
        Exit::Code(code) => i64::from(code) << 1,
        Exit::Killed(cause) => i64::from(cause.number()) << 1 | 1,
        Exit::Unknown => i64::MAX,
    }
}

fn decode(number: i64) -> Exit {
    match i32::try_from(number >> 1) {
        Ok(code) if number & 1 == 0 => Exit::Code(code),
        Ok(number) => Exit::Killed(Cause::from_number(number)),
        Err(_) => Exit::Unknown,
    }
}

/// The hub's side of the socket: how the server's children ended.
#[derive(Debug)]
pub(super) struct Told {
    socket: HubOnly,
    ended: Mutex<HashMap<u64, Exit>>,
}

type Ended<'a> = MutexGuard<'a, HashMap<u64, Exit>>;

impl Told {
    fn lock(&self) -> Ended<'_> {
        self.ended.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the next packet that is not `ENDED`; `None` if it recorded the end of a child instead.
    fn step(&self, ended: &mut Ended<'_>, handles: &mut Vec<OwnedHandle>) -> io::Result<Option<Packet>> {
        match receive(&self.socket, handles)? {
            None => Err(io::Error::new(io::ErrorKind::BrokenPipe, "the fork server has ended")),
            Some(([ENDED, serial, exit], _)) => {
                ended.insert(serial as u64, decode(exit));
                Ok(None)
            }
            Some((packet, _)) => Ok(Some(packet)),
        }
    }
}

impl Statuses for Told {
    /// Returns how the ended child `serial` ended. The server has reported it or is about to.
    fn take(&self, serial: u64) -> Result<Exit> {
        let mut ended = self.lock();
        loop {
            if let Some(exit) = ended.remove(&serial) {
                return Ok(exit);
            }
            match self.step(&mut ended, &mut Vec::new()) {
                Ok(_) => {}
                Err(e) if matches!(e.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset) => {
                    return Ok(Exit::Unknown);
                }
                Err(e) => return Err(e).doing("read a child's exit status from the fork server"),
            }
        }
    }
}

/// How long a server may take to end by itself.
const FAREWELL: Duration = Duration::from_secs(2);

/// The hub's handle on its fork server. The server exits when this is dropped.
#[derive(Debug)]
pub struct Server {
    process: Child,
    /// The limits that it has.
    limits: Mutex<Soft>,
    // In this order: the server sees the socket close before it is waited for.
    statuses: Option<Arc<Told>>,
    next: AtomicU64,
}

impl Server {
    /// Starts a server. `launch` must lead its process to [`serve`], with the handles that it inherits.
    ///
    /// # Errors
    /// The process cannot be started.
    pub fn start(launch: Launch) -> Result<Server> {
        let (ours, theirs) = atfork::making(|| {
            let (ours, theirs) = packet::pair()?;
            Ok((HubOnly::new(ours)?, theirs))
        })
        .map_err(|e: io::Error| e)
        .doing("make the fork server's socket")?;
        let limits = Mutex::new(sys::process::limits::own());
        let process = launch.handles(vec![theirs]).start()?;
        let statuses = Arc::new(Told { socket: ours, ended: Mutex::default() });
        Ok(Server { process, limits, statuses: Some(statuses), next: AtomicU64::new(0) })
    }

    /// The server's own process number.
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Whether it still runs.
    pub fn is_alive(&self) -> bool {
        // What cannot be asked for lack of memory is not dead.
        self.process.try_wait().map_or_else(|e| e.is_shortage(), |exit| exit.is_none())
    }

    /// Forks a child, which returns from [`serve`] with its own copies of `handles`.
    ///
    /// # Errors
    /// The server is gone, or the system refuses another process.
    pub fn fork(&self, handles: &[OwnedHandle]) -> Result<Child> {
        self.ask(handles).map_err(|e| unstarted("fork in the fork server", e))
    }

    fn ask(&self, handles: &[OwnedHandle]) -> io::Result<Child> {
        let Some(statuses) = &self.statuses else { return Err(io::ErrorKind::NotConnected.into()) };
        let serial = self.next.fetch_add(1, Ordering::Relaxed);
        let mut ended = statuses.lock();
        let (permit, theirs) = atfork::making(|| {
            let (ours, theirs) = stream::pair()?;
            // A child of this program that held this end would keep the end of the stream from the forked child.
            io::Result::Ok((HubOnly::new(ours)?, theirs))
        })?;
        let mut passed = vec![theirs.as_handle()];
        passed.extend(handles.iter().map(AsHandle::as_handle));
        // The child runs before its watch arrives, so a number for the watch is reserved first.
        let reserved = sys::process::reserve_handle()?;
        // The children have the server's limits, and this program's may have been raised since the server began.
        let mut limits = self.limits.lock().unwrap_or_else(PoisonError::into_inner);
        *limits = sys::process::limits::lend(self.pid(), *limits);
        drop(limits);
        send(&statuses.socket, [FORK, serial as i64, 0], &passed)?;
        let mut watch = Vec::new();
        loop {
            match statuses.step(&mut ended, &mut watch)? {
                Some([STARTED, s, pid]) if s == serial as i64 => {
                    let Ok(pid) = u32::try_from(pid) else { return Err(io::ErrorKind::InvalidData.into()) };
                    // If no descriptor was left for the watch, a watch by the process number is as good: the server has
                    // not reaped the child, or it is about to report its end. A child that cannot be watched at all is
                    // ended, because its end could not be detected.
                    let watch = match watch.pop() {
                        Some(watch) => watch,
                        None => sys::process::open_child(pid, Some(reserved))
                            .inspect_err(|_| sys::process::end_by_number(pid))?,
                    };
                    let child = Child::of_server(pid, ExitWatch::by(pid, watch), serial, statuses.clone());
                    // A child that has died meanwhile cannot read it.
                    let _ = stream::write_now(permit.as_handle(), &[IoSlice::new(&[1])], &[]);
                    return Ok(child);
                }
                Some([REFUSED, s, error]) if s == serial as i64 => {
                    return Err(io::Error::from_raw_os_error(error as i32));
                }
                _ => {}
            }
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Children that are still waited for keep the socket; then the server has to be stopped by a signal.
        if self.statuses.take().and_then(Arc::into_inner).is_none() {
            let _ = self.process.kill();
        } else if !matches!(self.process.wait_timeout(FAREWELL), Ok(Some(_))) {
            // It was stopped.
            let _ = self.process.kill();
        }
        let _ = self.process.wait();
    }
}

/// The fork server's main loop. Returns in each forked child, with the child's handles. Exits when the hub has ended.
///
/// # Safety
/// This process has one thread, and starts no other before this returns.
///
/// # Errors
/// The inherited handle is not a server's socket.
#[allow(unsafe_code)]
pub unsafe fn serve(handles: Vec<OwnedHandle>) -> Result<Vec<OwnedHandle>> {
    let Ok([socket]) = <[OwnedHandle; 1]>::try_from(handles) else {
        return Err(crate::Error::BadHandles("a fork server inherits one socket"));
    };
    let mut children: Vec<(i64, Child)> = Vec::new();
    loop {
        let mut interests = vec![sys::ready::Interest::new(socket.as_handle())];
        interests.extend(children.iter().map(|(_, child)| sys::ready::Interest::new(child.watch().as_handle())));
        match sys::ready::wait(&mut interests, None) {
            Err(error) if sys::is_shortage(&error) => {
                std::thread::sleep(PAUSE);
                continue;
            }
            other => other.doing("wait for the hub")?,
        };
        let ready: Vec<bool> = interests.iter().map(sys::ready::Interest::ready).collect();
        let mut told = Ok(());
        let mut number = 0;
        children.retain(|(serial, child)| {
            number += 1;
            match ready[number].then(|| child.try_wait()) {
                Some(Ok(Some(exit))) => {
                    if told.is_ok() {
                        told = send(&socket, [ENDED, *serial, encode(exit)], &[]);
                    }
                    false
                }
                _ => true,
            }
        });
        if told.is_err() {
            std::process::exit(0);
        }
        if !ready[0] {
            continue;
        }
        let mut handles = Vec::new();
        match receive(&socket, &mut handles) {
            Ok(Some(([FORK, serial, _], whole))) => {
                // SAFETY: there is no other thread, as the caller promises; none is started here.
                let forked = if whole { unsafe { fork() } } else { Err(sys::wire::out_of_handles()) };
                match forked {
                    Ok(Forked::Child) => {
                        // First: the hub detects the server's death by the end of this stream.
                        drop(socket);
                        let has_permit = !handles.is_empty() && is_permitted(&handles.remove(0));
                        return if has_permit { Ok(handles) } else { std::process::exit(0) };
                    }
                    Ok(Forked::Parent(child)) => {
                        let packet = [STARTED, serial, i64::from(child.pid())];
                        // If the watch cannot be sent (too many handles are under way), the hub makes its own watch.
                        let told = send(&socket, packet, &[child.watch().as_handle()]);
                        if told.is_err() && send(&socket, packet, &[]).is_err() {
                            give_up(&child);
                        }
                        children.push((serial, child));
                    }
                    Err(error) => {
                        let number = error.raw_os_error().unwrap_or_default();
                        if send(&socket, [REFUSED, serial, i64::from(number)], &[]).is_err() {
                            std::process::exit(0);
                        }
                    }
                }
            }
            Err(error) if sys::is_shortage(&error) => std::thread::sleep(PAUSE),
            Ok(None) | Err(_) => std::process::exit(0),
            Ok(Some(_)) => {}
        }
    }
}

/// Waits until the hub has sent a forked child its permit. Returns false if the hub never does.
fn is_permitted(permit: &OwnedHandle) -> bool {
    loop {
        match stream::read_into(permit.as_handle(), &mut [0]) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            read => return read.is_ok_and(|read| read > 0),
        }
    }
}

/// The hub waits for a message about this child and cannot receive it: it must detect that the server has ended. Other
/// children continue.
fn give_up(child: &Child) -> ! {
    let _ = child.kill();
    std::process::exit(0);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exit_survives_its_way_through_a_packet() {
        for exit in [Exit::Code(0), Exit::Code(-1), Exit::Code(255), Exit::Killed(Cause::KILL), Exit::Unknown] {
            assert_eq!(decode(encode(exit)), exit);
        }
    }
}
