//! A manager's server from the side of a client process: a control connection for the process, and a line for each
//! thread.
//!
//! A line is made when a thread first calls, and is used for its further calls. It ends with its thread, with the last
//! proxy and manager of this process, or with the server. A call that the thread makes while it decodes an answer has a
//! line of its own.
//!
//! A forked child has none of its parent's connections (`atfork` closes them), and makes its own. The server detects
//! the end of a process by its connections, so none may stay open in a child. A connection that was made while another
//! thread forked is closed.

use super::ManagerError;
use super::protocol::{Hello, Note, PROTOCOL, Purpose, Trouble, Welcome};
use super::{registry::locked, rpc};
use crate::chunk::{Input, Output};
use crate::error::{ChannelError, Error, ManagerLost, ProcessError, Result, was};
use crate::process::Process;
use crate::transport::{Address, Authkey};
use maniple_engine::channel::framed_stream::FramedStream;
use maniple_engine::channel::listener::{ContactError, connect};
use maniple_engine::process::Exit;
use maniple_sys::AsHandle;
use maniple_sys::atfork;
use maniple_sys::epoch::{Epoch, Since, count_forks};
use maniple_sys::ready;
use maniple_sys::stream::hang_up;
use serde::de::DeserializeOwned;
use std::cell::RefCell;
use std::collections::HashMap;
use std::fmt::Display;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, Weak};
use std::thread::ThreadId;
use std::time::{Duration, Instant};

/// How long a server has for the authentication of a client.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long the end of a server may take to become visible after its connections have ended.
const MOMENT: Duration = Duration::from_secs(1);

/// A connection of this process.
#[derive(Debug)]
struct Connection {
    stream: Option<FramedStream>,
    process: u32,
}

impl Connection {
    fn new(address: &Address, key: &Authkey) -> Result<Connection> {
        let failed = |doing, source| maniple_engine::Error::Os { doing, source };
        count_forks().map_err(|e| failed("watch for forks", e))?;
        loop {
            let epoch = Epoch::now();
            let socket = connect(&address.0, Some(key.as_bytes()), Some(Instant::now() + PATIENCE), &mut || false)?;
            atfork::making(|| atfork::register(socket.as_handle())).map_err(|e| failed("connect to a manager", e))?;
            let connection = Connection { stream: Some(FramedStream::new(socket)), process: std::process::id() };
            match (epoch.since(), &connection.stream) {
                (Since::Nothing, _) | (_, None) => return Ok(connection),
                (_, Some(stream)) => hang_up(stream.as_handle()),
            }
        }
    }

    fn open(address: &Address, key: &Authkey, purpose: Purpose) -> Result<(Connection, Welcome)> {
        let mut connection = Connection::new(address, key)?;
        let mut hello = Output::plain();
        hello.item(&Hello { protocol: PROTOCOL, purpose })?;
        let answer = connection.ask(hello.bytes());
        let Ok(bytes) = answer else {
            // A server that has ended admits no other client.
            return Err(match Connection::new(address, key) {
                Ok(_) => ManagerError::NoThread.into(),
                Err(_) => lost(address, None, "it closed the connection before it sent its greeting"),
            });
        };
        match Input::plain(bytes).item::<Welcome>()?? {
            welcome if welcome.protocol == PROTOCOL => Ok((connection, welcome)),
            _ => Err(ManagerError::WrongVersion.into()),
        }
    }

    fn is_ours(&self) -> bool {
        self.process == std::process::id()
    }

    fn say(&mut self, bytes: &[u8]) -> maniple_engine::Result<()> {
        self.stream.as_mut().map_or(Ok(()), |stream| stream.send(bytes, &mut || false))
    }

    /// Returns whether a message can be sent without waiting for the other end to read.
    fn has_room(&self) -> bool {
        self.stream.as_ref().is_none_or(|stream| {
            let mut room = [ready::Interest::room(stream.as_handle())];
            ready::wait(&mut room, Some(Duration::ZERO)).is_ok_and(|ready| ready > 0)
        })
    }

    /// Receives a message.
    fn hear(&mut self) -> maniple_engine::Result<&[u8]> {
        match &mut self.stream {
            Some(stream) => stream.receive(&mut || false),
            None => Err(maniple_engine::Error::EndOfStream),
        }
    }

    /// Sends a request and receives its answer, within `limit`.
    fn ask_within(&mut self, bytes: &[u8], limit: Option<Duration>) -> maniple_engine::Result<&[u8]> {
        self.say(bytes)?;
        if let (Some(limit), Some(stream)) = (limit, &self.stream) {
            let doing = |source| maniple_engine::Error::Os { doing: "wait for a manager's answer", source };
            let mut answer = [ready::Interest::new(stream.as_handle())];
            if ready::wait(&mut answer, Some(limit)).map_err(doing)? == 0 {
                return Err(doing(std::io::ErrorKind::TimedOut.into()));
            }
        }
        self.hear()
    }

    /// Sends a request and receives its answer.
    fn ask(&mut self, bytes: &[u8]) -> maniple_engine::Result<&[u8]> {
        self.say(bytes)?;
        self.hear()
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        let Some(stream) = self.stream.take() else { return };
        if !self.is_ours() {
            // A forked child's copy is closed already, and another file may have its number.
            return std::mem::forget(stream);
        }
        // One step: a fork in between would find it open and not registered.
        atfork::making(|| {
            atfork::unregister(stream.as_handle().as_raw());
            drop(stream);
        });
    }
}

struct Control {
    connection: Connection,
    session: u64,
}

/// A server, from the side of this process.
pub(super) struct RemoteServer {
    pub token: u64,
    pub address: Address,
    pub key: Authkey,
    build: u64,
    control: Mutex<Control>,
    // The references that were released and not reported to the server yet.
    released: Mutex<Vec<u64>>,
    lines: Mutex<HashMap<ThreadId, Connection>>,
    // The child process, with the process whose child it is.
    process: OnceLock<(u32, Weak<Process>)>,
    // Whether this process has requested the server's end.
    shut_down: AtomicBool,
}

static SITES: Mutex<Vec<Weak<RemoteServer>>> = Mutex::new(Vec::new());

/// The lines of a thread end with the thread.
struct Mine {
    thread: ThreadId,
    sites: Vec<Weak<RemoteServer>>,
}

impl Drop for Mine {
    fn drop(&mut self) {
        for remote in self.sites.iter().filter_map(Weak::upgrade) {
            let line = locked(&remote.lines).remove(&self.thread);
            drop(line);
        }
    }
}

thread_local! {
    static MINE: RefCell<Mine> = RefCell::new(Mine { thread: std::thread::current().id(), sites: Vec::new() });
}

impl RemoteServer {
    /// Returns the remote with that token, if this process knows it.
    pub(super) fn known(token: u64) -> Option<Arc<RemoteServer>> {
        let mut sites = locked(&SITES);
        sites.retain(|remote| remote.strong_count() > 0);
        let all: Vec<Arc<RemoteServer>> = sites.iter().filter_map(Weak::upgrade).collect();
        // A drop may be that of the last owner of a remote. So the list is not locked.
        drop(sites);
        all.into_iter().find(|remote| remote.token == token)
    }

    /// Returns the remote at that address, with that token, if one is passed.
    pub(super) fn open(address: &Address, key: &Authkey, token: Option<u64>) -> Result<Arc<RemoteServer>> {
        let (connection, welcome) = Connection::open(address, key, Purpose::Control)?;
        if token.is_some_and(|token| token != welcome.token) {
            return Err(lost(address, None, REPLACED));
        }
        if let Some(remote) = RemoteServer::known(welcome.token) {
            return Ok(remote);
        }
        let remote = Arc::new(RemoteServer {
            token: welcome.token,
            address: address.clone(),
            key: key.clone(),
            build: welcome.build,
            control: Mutex::new(Control { connection, session: welcome.session }),
            lines: Mutex::default(),
            released: Mutex::default(),
            process: OnceLock::new(),
            shut_down: AtomicBool::new(false),
        });
        locked(&SITES).push(Arc::downgrade(&remote));
        Ok(remote)
    }

    /// Returns the remote of a child process, which listens at that address already.
    pub(super) fn of_process(process: &Arc<Process>, address: &Address, key: &Authkey) -> Result<Arc<RemoteServer>> {
        let remote = RemoteServer::open(address, key, None).map_err(|error| {
            let is_other_end = match &error {
                Error::Channel(ChannelError::Authentication(_)) | Error::ManagerLost(_) => true,
                Error::System(error) => ContactError::of(error.engine()).is_some(),
                _ => false,
            };
            // The server has died in the meantime; the key and the address are correct.
            match process.join_timeout(if is_other_end { MOMENT } else { Duration::ZERO }) {
                Ok(Some(exit)) => {
                    let what = format!("a manager's server {}{exit} before it was connected to", was(exit));
                    Error::Process(ProcessError::Start(format!("{what}: {error}")))
                }
                _ => error,
            }
        })?;
        let _ = remote.process.set((std::process::id(), Arc::downgrade(process)));
        Ok(remote)
    }

    /// Returns whether functions of this program mean the same there.
    pub(super) fn check_build(&self) -> Result<()> {
        if self.build == maniple_sys::process::image::image().build {
            return Ok(());
        }
        Err(ManagerError::WrongBuild.into())
    }

    /// Calls `work` with the control connection of this process.
    fn control<R>(&self, act: impl FnOnce(&mut Control) -> Result<R>) -> Result<R> {
        let mut control = locked(&self.control);
        if !control.connection.is_ours() {
            // The parent reports the references that it released.
            locked(&self.released).clear();
            let opened = Connection::open(&self.address, &self.key, Purpose::Control);
            let (connection, welcome) = opened.map_err(|e| self.not_opened(e))?;
            if welcome.token != self.token {
                return Err(lost(&self.address, None, REPLACED));
            }
            *control = Control { connection, session: welcome.session };
        }
        self.tell_released(&mut control);
        let done = act(&mut control);
        drop(control);
        self.flush_released();
        done
    }

    /// Reports references to the server.
    pub(super) fn note(&self, note: Note) -> Result<u64> {
        let mut output = Output::plain();
        output.item(&note)?;
        self.control(|control| match control.connection.ask(output.bytes()) {
            Ok(bytes) => Ok(Input::plain(bytes).item::<Result<u64, Trouble>>()???),
            Err(error) => Err(self.lost(error)),
        })
    }

    /// Releases one reference, without waiting. If another thread waits for the server, or the server reads nothing any
    /// more, the next message of this process reports it. A server that is gone needs no report.
    pub(super) fn release(&self, id: u64) {
        locked(&self.released).push(id);
        self.flush_released();
    }

    fn flush_released(&self) {
        // Repeated for references that were released while the lock was held.
        while !locked(&self.released).is_empty() {
            let Ok(mut control) = self.control.try_lock() else { return };
            if !self.tell_released(&mut control) {
                return;
            }
        }
    }

    /// Reports all released references. Returns false if the server takes no more now.
    fn tell_released(&self, control: &mut Control) -> bool {
        let released = std::mem::take(&mut *locked(&self.released));
        if !control.connection.is_ours() {
            // They belong to the parent.
            return true;
        }
        for (told, &id) in released.iter().enumerate() {
            if !control.connection.has_room() {
                locked(&self.released).extend_from_slice(&released[told..]);
                return false;
            }
            let mut output = Output::plain();
            if output.item(&Note::Release(id)).is_ok() {
                let _ = control.connection.say(output.bytes());
            }
        }
        true
    }

    /// Requests the end of the server, and waits until it has hung up.
    pub(super) fn shut_down(&self) -> Result<()> {
        let mut output = Output::plain();
        output.item(&Note::Shutdown)?;
        self.control(|control| {
            control.connection.say(output.bytes()).map_err(|e| self.lost(e))?;
            self.shut_down.store(true, Ordering::Relaxed);
            let _ = control.connection.hear();
            Ok(())
        })
    }

    /// Requests the end of the server, and does not wait: not even for another thread that waits for a server that does
    /// nothing any more.
    pub(super) fn ask_to_end(&self) -> Result<()> {
        let mut output = Output::plain();
        output.item(&Note::Shutdown)?;
        let end = Instant::now() + MOMENT;
        loop {
            match self.control.try_lock() {
                Ok(mut control) => {
                    control.connection.say(output.bytes()).map_err(|e| self.lost(e))?;
                    self.shut_down.store(true, Ordering::Relaxed);
                    return Ok(());
                }
                Err(_) if Instant::now() > end => return Ok(()),
                Err(_) => std::thread::sleep(Duration::from_millis(1)),
            }
        }
    }

    /// Sends a request over this thread's line.
    pub(super) fn ask<R: DeserializeOwned>(self: &Arc<Self>, request: &[u8], limit: Option<Duration>) -> Result<R> {
        let mut line = match self.own_line() {
            Some(line) => line,
            // The end of the line has released it.
            None if limit.is_some() => return Err(self.lost("this thread's connection was closed")),
            None => self.open_line()?,
        };
        let answer = match line.ask_within(request, limit) {
            Ok(bytes) => rpc::read(bytes),
            Err(error) => return Err(self.lost(error)),
        };
        self.keep_line(line);
        answer
    }

    fn own_line(&self) -> Option<Connection> {
        locked(&self.lines).remove(&std::thread::current().id()).filter(Connection::is_ours)
    }

    fn open_line(&self) -> Result<Connection> {
        let session = self.control(|control| Ok(control.session))?;
        let opened = Connection::open(&self.address, &self.key, Purpose::Line(session));
        let (line, welcome) = opened.map_err(|e| self.not_opened(e))?;
        if welcome.token != self.token {
            return Err(lost(&self.address, None, REPLACED));
        }
        Ok(line)
    }

    fn keep_line(self: &Arc<Self>, line: Connection) {
        // A thread that is ending has no thread-local in which to keep it.
        let kept = MINE.try_with(|mine| {
            let mut mine = mine.borrow_mut();
            mine.sites.retain(|remote| remote.strong_count() > 0);
            if !mine.sites.iter().any(|remote| std::ptr::eq(remote.as_ptr(), Arc::as_ptr(self))) {
                mine.sites.push(Arc::downgrade(self));
            }
            mine.thread
        });
        if let Ok(thread) = kept {
            let before = locked(&self.lines).insert(thread, line);
            drop(before);
        }
    }

    /// Returns the error of a connection that could not be opened.
    fn not_opened(&self, error: Error) -> Error {
        match error {
            Error::Manager(_) => error,
            Error::ManagerLost(lost) => self.lost(lost.why),
            other => self.lost(other),
        }
    }

    fn lost(&self, why: impl Display) -> Error {
        let process = self.process.get().filter(|(parent, _)| *parent == std::process::id());
        let process = process.and_then(|(_, process)| process.upgrade());
        let exit = process.and_then(|process| process.join_timeout(MOMENT).ok().flatten());
        if self.shut_down.load(Ordering::Relaxed) {
            return lost(&self.address, exit, "this process has shut it down");
        }
        lost(&self.address, exit, why)
    }
}

const REPLACED: &str = "another server has its address";

fn lost(address: &Address, exit: Option<Exit>, why: impl Display) -> Error {
    Error::ManagerLost(Box::new(ManagerLost { address: address.to_string(), exit, why: why.to_string() }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use maniple_engine::channel::listener::Listener;

    /// Admits each client as this server.
    fn impostor(welcome: Welcome) -> Address {
        let listener = Listener::temporary(2).unwrap();
        let address = Address(listener.address().clone());
        let serve = move |socket| {
            let mut stream = FramedStream::new(socket);
            stream.receive(&mut || false)?;
            let mut output = Output::plain();
            output.item(&welcome)?;
            stream.send(output.bytes(), &mut || false)?;
            Ok::<_, Error>(())
        };
        // A client hangs up and connects again if its process was forked in the meantime, which other tests in this
        // program do.
        std::thread::spawn(move || {
            let accept = || listener.accept(Some(b"key"), None, &mut || false).unwrap().unwrap();
            while serve(accept()).is_err() {}
        });
        address
    }

    fn welcome() -> Welcome {
        let build = maniple_sys::process::image::image().build;
        Welcome { protocol: PROTOCOL, token: 1, build, session: 0 }
    }

    #[test]
    fn another_build_is_known_before_anything_is_called_in_it() {
        let remote = RemoteServer::open(&impostor(Welcome { build: 1, ..welcome() }), &"key".into(), None).unwrap();
        assert!(remote.check_build().unwrap_err().to_string().contains("another build"));
        let same = RemoteServer::open(&impostor(Welcome { token: 2, ..welcome() }), &"key".into(), None).unwrap();
        same.check_build().unwrap();
    }

    #[test]
    fn a_server_that_dies_before_its_maker_has_connected_is_an_error_that_says_so() {
        let process = Process::new(|_: u8| std::process::exit(3), 0).unwrap();
        process.start().unwrap();
        process.join().unwrap();
        let listener = Listener::temporary(2).unwrap();
        let address = Address(listener.address().clone());
        std::thread::scope(|scope| {
            // The server's end of the connection exists, and is closed in the middle of the authentication.
            scope.spawn(|| drop(listener.accept(None, None, &mut || false)));
            let error = RemoteServer::of_process(&Arc::new(process), &address, &"key".into()).err().unwrap();
            let Error::Process(ProcessError::Start(why)) = error else { panic!("{error:?}") };
            assert!(why.contains("exited with code 3 before it was connected to"), "{why}");
        });
    }

    #[test]
    fn another_version_and_another_server_at_the_address_are_refused() {
        let error =
            RemoteServer::open(&impostor(Welcome { protocol: 0, ..welcome() }), &"key".into(), None).err().unwrap();
        assert!(error.to_string().contains("another version"), "{error}");
        let error = RemoteServer::open(&impostor(welcome()), &"key".into(), Some(7)).err().unwrap();
        assert!(error.to_string().contains("another server has its address"), "{error}");
    }
}
