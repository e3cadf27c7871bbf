//! The server: a process that holds objects, with a thread for each connection.
//!
//! The thread of a control connection keeps the references of one client process, and ends its session when the process
//! is gone. The thread of a line makes the calls of one thread of a client, so a call that waits delays only its
//! caller. The first thread accepts the connections.
//!
//! | end of | effect |
//! | --- | --- |
//! | a client process, anywhere | its connections end: threads that wait for it here stop waiting, its references go |
//! | a thread of a client, or its line | its locks are released, and marked as abandoned |
//! | the parent | this process is a daemon: it is ended at once |
//! | this process | every connection ends, and so does every call that waits |

use super::protocol::{Ask, Hello, Note, PROTOCOL, Purpose, Trouble, Welcome};
use super::registry::{Object, Registry, Served, Session, current_line, locked, serve_here, serve_no_more};
use super::rpc::{Answer, receive_call, receive_make};
use super::{ManagerError, names};
use crate::chunk::{Input, Output};
use crate::error::{Error, ProcessError, Result};
use crate::failure::Failure;
use crate::handle::Handle;
use crate::panic::{caught, install_hook};
use crate::transport::{Address, Authkey};
use maniple_engine::channel::framed_stream::FramedStream;
use maniple_engine::channel::listener::{self, ContactError, Listener, connect};
use maniple_sys::AsHandle;
use maniple_sys::process::{image::image, worker_signals};
use maniple_sys::{OwnedHandle, socket, stream};
use serde::{Deserialize, Serialize};
use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

/// The settings that a server receives.
#[derive(Serialize, Deserialize)]
pub(super) struct Start {
    /// The address. Without an address the server chooses one that no other program uses.
    pub address: Option<Address>,
    pub key: Vec<u8>,
    /// The pipe on which it reports its start.
    pub report: Handle<OwnedHandle>,
}

/// The greatest number of clients that may wait to be accepted.
const BACKLOG: u32 = 128;
/// How often the acceptor checks for other work.
const ROUND: Duration = Duration::from_secs(60);
/// The pause after an error that may pass: no descriptor is left.
const PAUSE: Duration = Duration::from_millis(10);
/// How long the server waits for a thread to become available for a client.
const SHORTAGE: Duration = Duration::from_secs(1);

pub(super) struct Server {
    pub token: u64,
    pub address: Address,
    pub key: Authkey,
    pub registry: Arc<Registry>,
    sessions: Mutex<HashMap<u64, Arc<Session>>>,
    // Set before the connection is made that wakes the acceptor.
    stopping: AtomicBool,
    _names: Arc<Object>,
}

static HERE: OnceLock<Arc<Server>> = OnceLock::new();

/// The server that this process runs, if it is a server.
pub(super) fn here() -> Option<&'static Arc<Server>> {
    HERE.get()
}

/// Returns unpredictable bytes.
pub(super) fn random<const LEN: usize>() -> Result<[u8; LEN]> {
    let mut bytes = [0; LEN];
    socket::random(&mut bytes)
        .map_err(|e| Error::Process(ProcessError::Start(format!("no random bytes for a manager: {e}"))))?;
    Ok(bytes)
}

/// Returns a name outside of the file system, if the system has such names: it disappears with its listener. Otherwise
/// a path that only this user can access.
fn listen_anywhere() -> Result<Listener> {
    let name = socket::own_name("maniple-manager", random()?);
    let bound = name.and_then(|name| Listener::bind(&listener::Address::Local(name), BACKLOG).ok());
    Ok(bound.map_or_else(|| Listener::temporary(BACKLOG), Ok)?)
}

/// Runs a server until it is ordered to stop. Returns the process's exit code.
pub(super) fn run(start: Start) -> i32 {
    install_hook();
    worker_signals();
    let report = start.report;
    let begun = begin(start.address, start.key.into());
    let said = begun.as_ref().map(|(server, _)| server.address.clone()).map_err(ToString::to_string);
    let mut output = Output::plain();
    let _ = output.item(&said);
    let told = stream::write_all(report.as_handle(), output.bytes());
    drop(report);
    match begun {
        // If its maker cannot be informed, no process will ever use it.
        Ok((server, listener)) if told.is_ok() => {
            server.accept(listener);
            server.end();
            0
        }
        _ => 1,
    }
}

/// The report of [`run`].
pub(super) fn read_report(bytes: &[u8]) -> Result<Address> {
    Input::plain(bytes).item::<Result<Address, String>>()??.map_err(|why| ProcessError::Start(why).into())
}

fn begin(address: Option<Address>, key: Authkey) -> Result<(Arc<Server>, Listener)> {
    let mut listener = match address {
        Some(address) => Listener::bind(&address.0, BACKLOG)?,
        None => listen_anywhere()?,
    };
    listener.set_keep_alive(true);
    // A client needs two descriptors, for its control connection and for a line. The caller closes the report, which
    // has the other.
    let doing = "reserve a descriptor for a client of a manager";
    drop(listener.as_handle().try_clone_to_owned().map_err(|source| maniple_engine::Error::Os { doing, source })?);
    let registry = Arc::<Registry>::default();
    let server = Arc::new(Server {
        token: u64::from_ne_bytes(random()?),
        address: Address(listener.address().clone()),
        key,
        // The first object, so its number is `names::NAMES`.
        _names: registry.add(names::names()),
        registry,
        sessions: Mutex::default(),
        stopping: AtomicBool::new(false),
    });
    let _ = HERE.set(server.clone());
    Ok((server, listener))
}

thread_local! {
    static BUSY: RefCell<Vec<u64>> = const { RefCell::new(Vec::new()) };
}

/// Records that this thread works with an object. If it called the same object again, by a proxy in the code that it
/// runs, it would wait for itself.
struct Busy;

impl Busy {
    fn with(id: u64) -> Result<Busy, ManagerError> {
        BUSY.with_borrow_mut(|busy| match busy.contains(&id) {
            true => Err(ManagerError::Reentrant),
            false => {
                busy.push(id);
                Ok(Busy)
            }
        })
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        BUSY.with_borrow_mut(Vec::pop);
    }
}

impl Server {
    fn accept(self: &Arc<Self>, listener: Listener) {
        while !self.stopping.load(Ordering::SeqCst) {
            match listener.accept(Some(self.key.as_bytes()), Some(Instant::now() + ROUND), &mut || false) {
                Ok(Some(socket)) => {
                    self.serve_in_thread(socket);
                }
                Ok(None) => {}
                Err(why) if ContactError::of(&why).is_some_and(ContactError::is_one_client) => {}
                Err(_) => std::thread::sleep(PAUSE),
            }
            self.registry.sweep(Instant::now());
        }
    }

    /// Serves a client in a thread of its own. If no thread can be started for [`SHORTAGE`], the client finds its connection closed.
    fn serve_in_thread(self: &Arc<Self>, socket: OwnedHandle) {
        let socket = Arc::new(Mutex::new(Some(socket)));
        let end = Instant::now() + SHORTAGE;
        loop {
            let (server, taken) = (self.clone(), socket.clone());
            let serve = move || {
                let socket = locked(&taken).take();
                drop(socket.map(|socket| server.serve(socket)));
            };
            if std::thread::Builder::new().name("maniple-manager".into()).spawn(serve).is_ok() || Instant::now() > end {
                return;
            }
            std::thread::sleep(PAUSE);
        }
    }

    fn stop(&self) {
        self.stopping.store(true, Ordering::SeqCst);
        // A client that connects and disconnects wakes the acceptor.
        let _ = connect(&self.address.0, None, Some(Instant::now() + ROUND), &mut || false);
    }

    /// Drops the objects that are held for clients. The rest ends with the process.
    fn end(&self) {
        let sessions = std::mem::take(&mut *locked(&self.sessions));
        sessions.values().for_each(|session| session.end(&self.registry));
    }

    /// Serves a connection from its first message to its end. The end is an error for its reader.
    fn serve(&self, socket: OwnedHandle) -> maniple_engine::Result<()> {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let mut stream = FramedStream::new(socket);
        let Ok(Ok(hello)) = Input::plain(stream.receive(&mut || false)?).item::<Hello>() else { return Ok(()) };
        let session = match hello.purpose {
            // The numbers only have to differ.
            Purpose::Control => Some(Arc::new(Session::new(NEXT.fetch_add(1, Ordering::Relaxed)))),
            Purpose::Line(number) => locked(&self.sessions).get(&number).cloned(),
        };
        let Some(session) = session else { return Ok(()) };
        let welcome = Welcome { protocol: PROTOCOL, token: self.token, build: image().build, session: session.number };
        let mut output = Output::plain();
        let _ = output.item(&welcome);
        if hello.protocol != PROTOCOL {
            return stream.send(output.bytes(), &mut || false);
        }
        match hello.purpose {
            Purpose::Control => {
                locked(&self.sessions).insert(session.number, session.clone());
                let served = stream
                    .send(output.bytes(), &mut || false)
                    .and_then(|()| caught(|| self.keep_books(&mut stream, &session)).unwrap_or(Ok(())));
                locked(&self.sessions).remove(&session.number);
                let _ = caught(|| session.end(&self.registry));
                served
            }
            Purpose::Line(_) => {
                stream.send(output.bytes(), &mut || false)?;
                serve_here(Served::begin(session));
                let served = self.serve_line(&mut stream);
                serve_no_more();
                served
            }
        }
    }

    fn keep_books(&self, stream: &mut FramedStream, session: &Session) -> maniple_engine::Result<()> {
        loop {
            let bytes = stream.receive(&mut || false)?;
            let Ok(Ok(note)) = Input::plain(bytes).item::<Note>() else { return Ok(()) };
            let done = match note {
                Note::Release(id) => {
                    // A panic in an object's destructor has no effect on the server.
                    let _ = caught(|| session.release(id));
                    continue;
                }
                Note::Shutdown => {
                    self.stop();
                    continue;
                }
                Note::Pass(id) => self
                    .registry
                    .find(id)
                    .map(|object| self.registry.pass(object, session.number))
                    .map_err(Trouble::from),
                Note::Claim { object, passage } => {
                    let claimed = self.registry.claim(object, passage).map(|object| session.hold(object));
                    claimed.map(|()| object).map_err(Trouble::from)
                }
            };
            let mut output = Output::plain();
            let _ = output.item(&done);
            stream.send(output.bytes(), &mut || false)?;
        }
    }

    fn serve_line(&self, stream: &mut FramedStream) -> maniple_engine::Result<()> {
        loop {
            let mut answer = self.answer(stream.receive(&mut || false)?);
            let sent = stream.send(answer.bytes(), &mut || false);
            answer.sent(sent.is_ok());
            sent?;
        }
    }

    /// Returns the answer to a request of a line, or of this process itself.
    pub(super) fn answer(&self, request: &[u8]) -> Answer {
        let mut answer = Answer::new(self.address.is_local());
        let outcome = caught(|| self.perform(&mut Input::plain(request), &mut answer));
        let trouble = match outcome {
            Ok(Ok(())) => return answer,
            Ok(Err(trouble)) => trouble,
            Err(panicked) => Trouble::Failed(Failure::Panicked(*panicked)),
        };
        Answer::refuse(trouble, answer)
    }

    fn perform(&self, input: &mut Input<'_>, answer: &mut Answer) -> Result<(), Trouble> {
        match input.item::<Ask>()?? {
            Ask::Call(id) => {
                let object = self.registry.find(id)?;
                let _busy = Busy::with(id)?;
                receive_call(&object, input, answer)
            }
            Ask::Make => {
                let object = self.registry.add(receive_make(input)?);
                answer.give(&object.id)?;
                current_line().session.hold(object);
                Ok(())
            }
        }
    }
}
