//! One end's part of an authentication, without waiting.

use crate::channel::auth::{Handshake, MOST, RANDOM, Role, State, Turn};
use crate::channel::contact::Cause;
use crate::channel::length_prefix::{self, Begin, Length};
use maniple_sys::atfork::{self, HubOnly};
use maniple_sys::{AsHandle, BorrowedHandle, socket, stream};
use std::io::{self, ErrorKind};
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

/// One end's part of an authentication, with its socket.
#[derive(Debug)]
pub(super) struct Guest<S> {
    pub(super) socket: S,
    handshake: Handshake,
    inbox: Vec<u8>,
    // The attended time that is left, as of `since`.
    pub(super) left: Duration,
    pub(super) since: Instant,
}

/// The state of a guest after the messages that it has sent so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    Waits,
    IsIn,
}

impl<S: AsHandle> Guest<S> {
    pub(super) fn new(socket: S, key: &[u8], role: Role, patience: Duration) -> Result<Guest<S>, Cause> {
        let mut random = [0; RANDOM];
        socket::random(&mut random).map_err(Cause::Os)?;
        let (handshake, first) = Handshake::new(key, role, random);
        let guest = Guest { socket, handshake, inbox: Vec::new(), left: patience, since: Instant::now() };
        first.map_or(Ok(()), |message| guest.say(&message))?;
        Ok(guest)
    }

    pub(super) fn into_socket(self) -> S {
        self.socket
    }

    /// When its time limit expires, if it is attended until then.
    pub(super) fn end(&self) -> Option<Instant> {
        self.since.checked_add(self.left)
    }

    pub(super) fn pause(&mut self) {
        self.left = self.left.saturating_sub(self.since.elapsed());
    }

    /// So few bytes are ever under way that they have room, unless the other end misbehaves.
    fn say(&self, message: &[u8]) -> Result<(), Cause> {
        let bytes = [Length::of(message).bytes(), message].concat();
        match socket::send_now(self.socket.as_handle(), &bytes) {
            Ok(sent) if sent == bytes.len() => Ok(()),
            Ok(_) => Err(Cause::Os(ErrorKind::WouldBlock.into())),
            Err(e) => Err(cause(e)),
        }
    }

    /// Reads the bytes that have arrived, without waiting, and no byte beyond the authentication.
    pub(super) fn hear(&mut self) -> Result<Standing, Cause> {
        loop {
            let turn = match self.next() {
                ControlFlow::Break(turn) => turn,
                ControlFlow::Continue(missing) => {
                    let mut bytes = [0; MOST];
                    match stream::read_now(self.socket.as_handle(), &mut bytes[..missing], None) {
                        Ok(None) => return Ok(Standing::Waits),
                        // Between two frames as well: the other end has not finished.
                        Ok(Some(0)) => return Err(Cause::Gone),
                        Ok(Some(got)) => self.inbox.extend_from_slice(&bytes[..got]),
                        Err(e) if e.kind() == ErrorKind::Interrupted => {}
                        Err(e) => return Err(cause(e)),
                    }
                    continue;
                }
            };
            self.inbox.clear();
            let said = turn.say.map_or(Ok(()), |message| self.say(&message));
            match turn.state {
                State::Failed(why) => return Err(Cause::Refusal(why)),
                State::Done => return said.map(|()| Standing::IsIn),
                State::Open => said?,
            }
        }
    }

    /// What follows from the bytes that have arrived, or how many bytes, at most [`MOST`], the message lacks.
    fn next(&mut self) -> ControlFlow<Turn, usize> {
        match length_prefix::begin(&self.inbox) {
            Ok(Begin::Missing(missing)) => ControlFlow::Continue(missing),
            Ok(Begin::Known { len, .. }) if len > MOST => ControlFlow::Break(self.handshake.hear_length(len as u64)),
            Ok(Begin::Known { body, len }) => match body + len - self.inbox.len() {
                0 => ControlFlow::Break(self.handshake.hear(&self.inbox[body..])),
                missing => ControlFlow::Continue(missing),
            },
            Err(_) => ControlFlow::Break(self.handshake.hear_bad_length()),
        }
    }

    /// Whether the other end has not sent a byte.
    pub(super) fn has_heard_nothing(&self) -> bool {
        self.inbox.is_empty() && self.handshake.is_untouched()
    }
}

fn cause(e: io::Error) -> Cause {
    match e.kind() {
        ErrorKind::BrokenPipe | ErrorKind::ConnectionReset => Cause::Gone,
        _ => Cause::Os(e),
    }
}

/// One client's authentication for a server that has its own loop: the server waits for the socket, and calls
/// [`hear`](Greeting::hear) when the socket can be read.
#[derive(Debug)]
pub struct Greeting(Guest<HubOnly>);

impl Greeting {
    /// Begins an authentication over a connected socket, which it duplicates. Forked children do not keep the
    /// duplicate.
    ///
    /// # Errors
    /// [`Cause`]; the client has disconnected, or no descriptor is left.
    pub fn new(socket: BorrowedHandle<'_>, key: &[u8]) -> Result<Greeting, Cause> {
        let own = atfork::making(|| HubOnly::new(socket.try_clone_to_owned()?)).map_err(Cause::Os)?;
        Guest::new(own, key, Role::Listener, super::PATIENCE).map(Greeting)
    }

    /// Reads the bytes that have arrived, without waiting. Returns true once the client has proved that it has the key.
    ///
    /// # Errors
    /// [`Cause`]; the connection is to be closed.
    pub fn hear(&mut self) -> Result<bool, Cause> {
        self.0.hear().map(|standing| standing == Standing::IsIn)
    }
}
