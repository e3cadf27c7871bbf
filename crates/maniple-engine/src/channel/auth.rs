//! How two ends of a connection prove to each other that they know the same key, without sending it.
//!
//! One end *delivers* a challenge and the other *answers* it; then they exchange roles. A listener delivers first.
//!
//! ```text
//! challenger                                     responder
//!    ── #CHALLENGE# + challenge ─────────────────────▶
//!    ◀──────────────────────────────────── response ──
//!    ── #WELCOME#  or  #FAILURE# ────────────────────▶
//!
//! form         challenge                     response
//! modern       {digest} + 40 random bytes    {digest} + HMAC of the whole challenge    Python from 3.12 on, and this
//! MD5 only     20 random bytes               16 bytes: HMAC-MD5 of it                  Python up to 3.11
//! ```
//! This is the protocol of Python's `multiprocessing`, and either end may be stock Python of any version. The name of
//! the digest is inside the signed text, so a third party cannot change it. An old client signs a modern challenge with
//! MD5, as it signs any other, and that is accepted, too.
//!
//! This module has only the messages: a [`Handshake`] receives them one by one and returns what to send. It uses no
//! descriptor and no clock. No message is longer than [`MOST`] bytes. No other bytes are read before the last of these
//! messages is right; bytes that a rejected peer sends after them are never read.
//!
//! | the peer | what happens |
//! | --- | --- |
//! | has another key | it receives `#FAILURE#`; both ends fail |
//! | sends something else, or too much | the handshake fails; if a response was due, the peer receives `#FAILURE#` |
//! | dies or closes its end | the next read or write fails, see `listener` |

use hmac::{Hmac, KeyInit, Mac};
use md5::Md5;
use sha2::{Sha256, Sha384};
use sha3::{Sha3_256, Sha3_384};
use std::fmt;

/// Bytes that a message of a handshake has at most.
pub const MOST: usize = 256;
/// Random bytes in a challenge of this end.
pub const RANDOM: usize = 40;
/// Bytes of the shortest challenge that is answered, which is of the MD5 form.
const SHORTEST: usize = 20;
/// Bytes of HMAC-MD5.
const MD5_LENGTH: usize = 16;
/// The greatest number of a peer's bytes that an error quotes.
const QUOTED: usize = 24;

/// The beginning of a message with a challenge.
pub const CHALLENGE: &[u8] = b"#CHALLENGE#";
/// The message that accepts a response.
pub const WELCOME: &[u8] = b"#WELCOME#";
/// The message that rejects a response.
pub const FAILURE: &[u8] = b"#FAILURE#";

/// Why a peer failed to authenticate, or rejected this end.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// The peer's response to this end's challenge was wrong.
    #[error("digest received was wrong: the peer has another key; both ends need the same key")]
    WrongKey,
    /// The peer rejected this end's response to its challenge.
    #[error("digest sent was rejected: the peer has another key; both ends need the same key (the peer sent {0})")]
    Rejected(Quoted),
    /// The peer sent something else instead of a challenge.
    #[error("the peer sent {0} instead of a challenge; does it have a key?")]
    NoChallenge(Quoted),
    /// The peer's challenge is so short that it could be guessed.
    #[error("the peer's challenge has {0} bytes, too few to be safe")]
    ShortChallenge(usize),
    /// The challenge or response has no known form, or a digest that is not used here.
    #[error("the peer sent {0}, which is not an MD5 digest and does not name a known digest; does it have a key?")]
    UnknownForm(Quoted),
    /// The length of a message is out of bounds.
    #[error("the peer sent a message of {0} bytes, too long for an authentication; does it have a key?")]
    TooLong(u64),
    /// No message has the length that the peer sent.
    #[error("the peer sent an impossible message length; does it have a key?")]
    BadLength,
    /// The handshake had already ended.
    #[error("the peer sent a message after the end of the authentication")]
    OutOfTurn,
}

/// The beginning of what a peer sent, in printable form.
#[derive(Clone, PartialEq, Eq)]
pub struct Quoted(Box<[u8]>, bool);

impl Quoted {
    fn new(bytes: &[u8]) -> Quoted {
        Quoted(bytes[..bytes.len().min(QUOTED)].into(), bytes.len() > QUOTED)
    }
}

impl fmt::Display for Quoted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}{}\"", self.0.escape_ascii(), if self.1 { "…" } else { "" })
    }
}

impl fmt::Debug for Quoted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Which end of the connection this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The listener, which delivers first.
    Listener,
    /// The client, which answers first.
    Client,
}

/// What to do after a message.
#[derive(Debug, PartialEq, Eq)]
pub struct Turn {
    /// The message to send in any case, also before an error is reported.
    pub say: Option<Vec<u8>>,
    /// The state after that.
    pub state: State,
}

/// The state of a handshake.
#[derive(Debug, PartialEq, Eq)]
pub enum State {
    /// The handshake expects another message.
    Open,
    /// Each end knows that the other has the key.
    Done,
    /// The handshake failed. The connection is to be closed.
    Failed(Refusal),
}

/// The next expected message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Expected {
    Challenge,
    Response,
    Verdict,
    Nothing,
}

/// One end's part.
///
/// ```
/// use maniple_engine::channel::auth::{Handshake, RANDOM, Role, State};
///
/// let (mut listener, first) = Handshake::new(b"key", Role::Listener, [1; RANDOM]);
/// let (mut client, nothing) = Handshake::new(b"key", Role::Client, [2; RANDOM]);
/// assert!(nothing.is_none());
/// let mut to_client = first;
/// while let Some(message) = to_client {
///     let turn = client.hear(&message);
///     let Some(answer) = turn.say else { break };
///     let reply = listener.hear(&answer);
///     to_client = reply.say;
///     assert!(!matches!(reply.state, State::Failed(_)));
/// }
/// ```
pub struct Handshake {
    key: Box<[u8]>,
    role: Role,
    challenge: Vec<u8>,
    expected: Expected,
}

impl Handshake {
    /// Begins a handshake. The second part of the result is the message to send first, if it is this end's turn.
    /// `random` is unpredictable, and never used again.
    pub fn new(key: &[u8], role: Role, random: [u8; RANDOM]) -> (Handshake, Option<Vec<u8>>) {
        let challenge = Digest::OURS.challenge(random);
        let mut handshake = Handshake { key: key.into(), role, challenge, expected: Expected::Challenge };
        let first = (role == Role::Listener).then(|| handshake.deliver());
        (handshake, first)
    }

    /// Takes the peer's next message.
    pub fn hear(&mut self, message: &[u8]) -> Turn {
        if message.len() > MOST {
            return self.fail(Refusal::TooLong(message.len() as u64));
        }
        match self.expected {
            Expected::Challenge => match answer(&self.key, message) {
                Ok(response) => {
                    self.expected = Expected::Verdict;
                    Turn { say: Some(response), state: State::Open }
                }
                Err(why) => self.fail(why),
            },
            Expected::Verdict => match (accept(message), self.role) {
                (Err(why), _) => self.fail(why),
                (Ok(()), Role::Client) => Turn { say: Some(self.deliver()), state: State::Open },
                (Ok(()), Role::Listener) => self.finish(None),
            },
            Expected::Response => match verify(&self.key, &self.challenge, message) {
                Ok(()) if self.role == Role::Client => self.finish(Some(WELCOME.to_vec())),
                Ok(()) => {
                    self.expected = Expected::Challenge;
                    Turn { say: Some(WELCOME.to_vec()), state: State::Open }
                }
                Err(why) => self.fail(why),
            },
            Expected::Nothing => self.fail(Refusal::OutOfTurn),
        }
    }

    /// Whether this end waits for the first message of all.
    pub fn is_untouched(&self) -> bool {
        self.role == Role::Client && self.expected == Expected::Challenge
    }

    /// Reports that the peer sent the length of a message that is too long.
    pub fn hear_length(&mut self, len: u64) -> Turn {
        self.fail(Refusal::TooLong(len))
    }

    /// Reports that the peer sent an impossible length.
    pub fn hear_bad_length(&mut self) -> Turn {
        self.fail(Refusal::BadLength)
    }

    fn deliver(&mut self) -> Vec<u8> {
        self.expected = Expected::Response;
        [CHALLENGE, &self.challenge].concat()
    }

    fn finish(&mut self, say: Option<Vec<u8>>) -> Turn {
        self.expected = Expected::Nothing;
        Turn { say, state: State::Done }
    }

    fn fail(&mut self, why: Refusal) -> Turn {
        let was = std::mem::replace(&mut self.expected, Expected::Nothing);
        let say = (was == Expected::Response).then(|| FAILURE.to_vec());
        Turn { say, state: State::Failed(why) }
    }
}

// Without the key.
impl fmt::Debug for Handshake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handshake").field("role", &self.role).field("expected", &self.expected).finish_non_exhaustive()
    }
}

/// A message with a challenge whose response is to be signed with `digest`. `random` is unpredictable, and never used again.
///
/// # Errors
/// The digest is not used here.
pub fn challenge(digest: &[u8], random: [u8; RANDOM]) -> Result<Vec<u8>, Refusal> {
    let digest = Digest::by_name(digest).ok_or_else(|| Refusal::UnknownForm(Quoted::new(digest)))?;
    Ok([CHALLENGE, &digest.challenge(random)].concat())
}

/// Judges the response to a message that [`challenge`] made: the message to send, and the error if the response is wrong.
pub fn judge(key: &[u8], message: &[u8], response: &[u8]) -> (&'static [u8], Result<(), Refusal>) {
    let verified = verify(key, message.strip_prefix(CHALLENGE).unwrap_or(message), response);
    (if verified.is_ok() { WELCOME } else { FAILURE }, verified)
}

/// Reads the message that judges this end's response.
///
/// # Errors
/// The response was rejected.
pub fn accept(message: &[u8]) -> Result<(), Refusal> {
    if message == WELCOME { Ok(()) } else { Err(Refusal::Rejected(Quoted::new(message))) }
}

/// The names of the digests that are used here.
pub fn digests() -> impl Iterator<Item = &'static [u8]> {
    Digest::ALL.into_iter().map(Digest::name)
}

/// Returns the answer to a message with a challenge, in the challenge's form.
///
/// # Errors
/// The message is no challenge, or none that one would answer.
pub fn answer(key: &[u8], message: &[u8]) -> Result<Vec<u8>, Refusal> {
    let challenge = message.strip_prefix(CHALLENGE).ok_or_else(|| Refusal::NoChallenge(Quoted::new(message)))?;
    if challenge.len() < SHORTEST {
        return Err(Refusal::ShortChallenge(challenge.len()));
    }
    respond(key, challenge)
}

/// Returns the answer to a challenge, in the challenge's form.
///
/// # Errors
/// It has no known form.
pub fn respond(key: &[u8], challenge: &[u8]) -> Result<Vec<u8>, Refusal> {
    match form(challenge)? {
        (None, _) => Ok(Digest::Md5.sign(key, challenge)),
        (Some(digest), _) => Ok([b"{", digest.name(), b"}", &digest.sign(key, challenge)[..]].concat()),
    }
}

/// The name of the digest that a challenge or response names (`None`: it is of the MD5 form), and the rest of it.
///
/// # Errors
/// It has no known form.
pub fn name_and_payload(message: &[u8]) -> Result<(Option<&'static [u8]>, &[u8]), Refusal> {
    form(message).map(|(digest, payload)| (digest.map(Digest::name), payload))
}

fn form(message: &[u8]) -> Result<(Option<Digest>, &[u8]), Refusal> {
    if message.len() == SHORTEST || message.len() == MD5_LENGTH {
        return Ok((None, message));
    }
    named(message).map(|(digest, payload)| (Some(digest), payload))
}

/// Checks whether `response` answers `challenge`, in the same time for all wrong responses of a form.
///
/// # Errors
/// It does not.
pub fn verify(key: &[u8], challenge: &[u8], response: &[u8]) -> Result<(), Refusal> {
    let (digest, code) = if response.len() == MD5_LENGTH { (Digest::Md5, response) } else { named(response)? };
    if digest.is_signature(key, challenge, code) { Ok(()) } else { Err(Refusal::WrongKey) }
}

/// Splits `{digest}rest`.
fn named(message: &[u8]) -> Result<(Digest, &[u8]), Refusal> {
    let parts = message.strip_prefix(b"{").and_then(|rest| {
        let end = rest.iter().position(|&byte| byte == b'}')?;
        Some((Digest::by_name(&rest[..end])?, &rest[end + 1..]))
    });
    parts.ok_or_else(|| Refusal::UnknownForm(Quoted::new(message)))
}

/// The digests that sign.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Digest {
    Md5,
    Sha256,
    Sha384,
    Sha3With256,
    Sha3With384,
}

impl Digest {
    const ALL: [Digest; 5] = [Digest::Sha256, Digest::Md5, Digest::Sha384, Digest::Sha3With256, Digest::Sha3With384];
    /// In challenges of ours.
    const OURS: Digest = Digest::Sha256;

    const fn name(self) -> &'static [u8] {
        match self {
            Digest::Md5 => b"md5",
            Digest::Sha256 => b"sha256",
            Digest::Sha384 => b"sha384",
            Digest::Sha3With256 => b"sha3_256",
            Digest::Sha3With384 => b"sha3_384",
        }
    }

    fn challenge(self, random: [u8; RANDOM]) -> Vec<u8> {
        [b"{", self.name(), b"}", &random].concat()
    }

    fn by_name(name: &[u8]) -> Option<Digest> {
        Digest::ALL.into_iter().find(|digest| digest.name() == name)
    }

    fn sign(self, key: &[u8], message: &[u8]) -> Vec<u8> {
        fn sign<M: Mac + KeyInit>(key: &[u8], message: &[u8]) -> Vec<u8> {
            keyed::<M>(key, message).finalize().into_bytes().to_vec()
        }
        match self {
            Digest::Md5 => sign::<Hmac<Md5>>(key, message),
            Digest::Sha256 => sign::<Hmac<Sha256>>(key, message),
            Digest::Sha384 => sign::<Hmac<Sha384>>(key, message),
            Digest::Sha3With256 => sign::<Hmac<Sha3_256>>(key, message),
            Digest::Sha3With384 => sign::<Hmac<Sha3_384>>(key, message),
        }
    }

    fn is_signature(self, key: &[u8], message: &[u8], code: &[u8]) -> bool {
        // `verify_slice` compares in constant time.
        fn verify<M: Mac + KeyInit>(key: &[u8], message: &[u8], code: &[u8]) -> bool {
            keyed::<M>(key, message).verify_slice(code).is_ok()
        }
        match self {
            Digest::Md5 => verify::<Hmac<Md5>>(key, message, code),
            Digest::Sha256 => verify::<Hmac<Sha256>>(key, message, code),
            Digest::Sha384 => verify::<Hmac<Sha384>>(key, message, code),
            Digest::Sha3With256 => verify::<Hmac<Sha3_256>>(key, message, code),
            Digest::Sha3With384 => verify::<Hmac<Sha3_384>>(key, message, code),
        }
    }
}

fn keyed<M: Mac + KeyInit>(key: &[u8], message: &[u8]) -> M {
    match <M as KeyInit>::new_from_slice(key) {
        Ok(mac) => mac.chain_update(message),
        Err(_) => unreachable!("HMAC takes a key of any length"),
    }
}
