//! Parcels: large buffers that travel beside a frame, in shared-memory blocks.
//!
//! **The frame.** It is an ordinary one, but the handles of its blocks come with its first byte, and its content is
//!
//! ```text
//! MAGIC  n: u32  m: u32  (bytes: u64, room: u64) * n   stream
//! ```
//!
//! (little-endian). Behind the handles of the n blocks come m others, which are the front's business (0 from a front that has none).
//! Only a frame that comes with handles is looked at that way, so no content can be mistaken for it.
//!
//! **Receivers.** Only an end whose reader can take a parcel gets one: the reader *marks* its end ([`stream::mark`]) when it first asks for an
//! object, and the sender looks for the mark before each parcel until it has seen it. The mark belongs to the socket, so
//! it holds for all processes that read there later or at the same time.
//!
//! **Life of a block.** A memfd, whose size is sealed: `room` bytes of data, and behind them a word with its state. A buffer of
//! middling size is copied out on arrival (`channel/known.rs`), and costs its receiver memory alone; so is a block whose size may change,
//! and one that cannot be mapped.
//!
//! | state | word | holders of a handle or mapping |
//! | --- | --- | --- |
//! | under way or in use | USED, by the sender before it sends | the sender (to use it again), the socket's queue, the reader |
//! | done with | FREE, by the reader with its last view | the sender |
//! | never to be used again | SPENT, by a reader that has forked meanwhile | the sender, until it looks |
//!
//! All senders of a process together keep handles of at most [`MOST`] blocks and [`KEEP`] bytes, and use them again (`parcel/kept.rs`).
//! They release the oldest beyond that, those that were not used for a second, all before a fork, and all when descriptors run
//! out; a released block belongs to the reader alone. Nothing has to be unlinked: a block is gone with its last handle and mapping. So
//!
//! * a reader killed before or after it took a block: the block stays USED, is never used again, and is released like the others;
//! * a sender killed: the reader's mapping keeps the block for as long as it is looked at;
//! * both killed, or a frame that is never read: the kernel frees the block with the socket.
//!
//! A forked child starts with none.

mod arrived;
mod kept;

pub use kept::{KEEP, MOST, is_worth_a_block};

use crate::error::{Doing, Error, Result};
use crate::shm::region::Region;
use kept::Block;
use maniple_sys::epoch;
use maniple_sys::memory;
use maniple_sys::{self as sys, AsHandle, BorrowedHandle, OwnedHandle, stream, wire};

/// Buffers in one parcel at most.
pub const MOST_BUFFERS: usize = 64;
/// Other handles that can go with it.
pub const MOST_OTHERS: usize = stream::MOST_HANDLES - MOST_BUFFERS - 1;

const MAGIC: &[u8; 16] = b"maniple parcel 1";
const PAGE: usize = memory::PAGES;
const USED: u32 = 1;
const FREE: u32 = 2;
const SPENT: u32 = 3;

/// Buffers in blocks, to be sent. It must come to [`Load::sent`] or [`Load::unsent`], or its blocks are lost to further use.
#[derive(Debug, Default)]
pub struct Load(Vec<(Block, usize)>);

impl Load {
    /// Copies a buffer into a block.
    ///
    /// # Errors
    /// There is no memory or descriptor for a block; the load is as before.
    pub fn add(&mut self, buffer: &[u8]) -> Result<()> {
        self.0.push((Block::filled(buffer)?, buffer.len()));
        Ok(())
    }

    /// Blocks.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Bytes in them.
    pub fn volume(&self) -> usize {
        self.0.iter().map(|(_, len)| len).sum()
    }

    /// Takes all but the first `count` out.
    pub fn split_off(&mut self, count: usize) -> Load {
        Load(self.0.split_off(count.min(self.0.len())))
    }

    /// Adds those of another behind its own.
    pub fn append(&mut self, mut other: Load) {
        self.0.append(&mut other.0);
    }

    /// The reader has them, or may have: its last view frees a block, which is then used again.
    pub fn sent(self) {
        kept::keep(self.0.into_iter().map(|(block, _)| block));
    }

    /// No other process has seen them: they are free.
    pub fn unsent(self) {
        self.0.iter().for_each(|(block, _)| block.free());
        self.sent();
    }
}

/// A message with large buffers and handles beside its bytes. It must come to [`Parcel::sent`] or [`Parcel::unsent`], as a [`Load`] must.
#[derive(Debug)]
pub struct Parcel {
    content: Vec<u8>,
    load: Load,
    others: Vec<OwnedHandle>,
}

impl Parcel {
    /// Of a message's `bytes`. `before`: what of a packet goes before all of it.
    pub fn new(before: &[u8], bytes: &[u8], load: Load, others: Vec<OwnedHandle>) -> Parcel {
        let mut content = Vec::with_capacity(before.len() + Parcel::head_len(&load) + bytes.len());
        content.extend_from_slice(before);
        content.extend_from_slice(MAGIC);
        content.extend_from_slice(&(load.len() as u32).to_le_bytes());
        content.extend_from_slice(&(others.len() as u32).to_le_bytes());
        for (block, len) in &load.0 {
            content.extend_from_slice(&(*len as u64).to_le_bytes());
            content.extend_from_slice(&(block.room() as u64).to_le_bytes());
        }
        content.extend_from_slice(bytes);
        Parcel { content, load, others }
    }

    /// The same of buffers that are copied into blocks now. `None`: they are best sent within the message. They are too many, there is no
    /// memory or descriptor for a block, or readers let no block go (see [`is_worth_a_block`]).
    pub fn of_buffers(bytes: &[u8], buffers: &[&[u8]]) -> Option<Parcel> {
        let longest = buffers.iter().map(|buffer| buffer.len()).max()?;
        if buffers.len() > MOST_BUFFERS || !is_worth_a_block(longest) {
            return None;
        }
        let mut load = Load::default();
        for buffer in buffers {
            if load.add(buffer).is_err() {
                load.unsent();
                return None;
            }
        }
        Some(Parcel::new(&[], bytes, load, Vec::new()))
    }

    /// Bytes that a parcel with this load has before those of the message.
    pub fn head_len(load: &Load) -> usize {
        24 + 16 * load.len()
    }

    /// The content of the frame or packet.
    pub fn content(&self) -> &[u8] {
        &self.content
    }

    /// The handles to send with it.
    pub fn handles(&self) -> Vec<BorrowedHandle<'_>> {
        let blocks = self.load.0.iter().map(|(block, _)| block.as_handle());
        blocks.chain(self.others.iter().map(AsHandle::as_handle)).collect()
    }

    /// See [`Load::sent`].
    pub fn sent(self) {
        self.load.sent();
    }

    /// See [`Load::unsent`].
    pub fn unsent(self) {
        self.load.unsent();
    }

    /// Whether a failed try to send it says that too many handles of this user are under way. A message without some of them may be sent.
    pub fn is_crowded(&self, error: &Error) -> bool {
        matches!(error, Error::Os { source, .. } if wire::is_crowded(source)) && !self.load.is_empty()
    }
}

/// What came with a frame.
#[derive(Debug)]
pub enum Came {
    /// A handle.
    Handle(OwnedHandle),
    /// A buffer that is opened already, since this process had no number left for its handle; or what it lacked besides.
    Buffer(Result<Region>),
}

impl From<OwnedHandle> for Came {
    fn from(handle: OwnedHandle) -> Came {
        Came::Handle(handle)
    }
}

/// A frame that came with handles, taken apart.
#[derive(Debug)]
pub struct Opened {
    /// The large buffers.
    pub buffers: Vec<Region>,
    /// The other handles.
    pub others: Vec<OwnedHandle>,
    /// Where in the content the stream begins.
    pub at: usize,
}

/// Bytes at a frame's start that say all of the buffers that came with it.
pub const HEAD: usize = 24 + 16 * MOST_BUFFERS;

/// The buffers of a frame that begins so, as length and room, if it came with nothing else.
fn buffers_alone(content: &[u8]) -> Option<Vec<(usize, usize)>> {
    let number = |at: usize| Some(u64::from_le_bytes(*content.get(at..at + 8)?.first_chunk()?));
    let count = number(16)? as usize; // the upper half are the others
    if !content.starts_with(MAGIC) || !(1..=MOST_BUFFERS).contains(&count) {
        return None;
    }
    (0..count).map(|i| Some((number(24 + 16 * i)? as usize, number(32 + 16 * i)? as usize))).collect()
}

/// Receives the start of a frame, into `bytes`, and its buffers, where this process has no number left for their handles. `begins`: the
/// frame as far as it can be seen.
///
/// # Errors
/// There is something else among them, or the system refuses a thread with descriptors of its own: all stays where it is.
pub(crate) fn receive_aside(
    fd: BorrowedHandle<'_>,
    bytes: &mut [u8],
    begins: &[u8],
) -> std::io::Result<(usize, Vec<Came>)> {
    let Some(buffers) = buffers_alone(begins) else { return Err(wire::out_of_handles()) };
    let received = sys::aside(&[fd], || {
        let mut handles = Vec::new();
        // Another reader has been faster, if there is nothing: look for it again.
        let got = stream::read_now(fd, bytes, Some(&mut handles))?.ok_or(std::io::ErrorKind::Interrupted)?;
        let open = |(handle, &(len, room)): (&OwnedHandle, _)| Came::Buffer(arrived::open(handle, len, room));
        Ok((got, handles.iter().zip(&buffers).map(open).collect()))
    });
    received.unwrap_or_else(|_| Err(wire::out_of_handles()))
}

/// Opens a frame that came with the handles of buffers alone: these, and where in `content` the stream begins.
pub fn open(content: &[u8], came: Vec<impl Into<Came>>) -> Result<(Vec<Region>, usize)> {
    let opened = open_all(content, came)?;
    if opened.others.is_empty() {
        Ok((opened.buffers, opened.at))
    } else {
        Err(Error::Damaged("a message came with descriptors that this program does not know what to do with"))
    }
}

fn damaged() -> Error {
    Error::Damaged("a message came with descriptors, but is no parcel")
}

/// Opens a frame that came with handles.
pub fn open_all(content: &[u8], came: Vec<impl Into<Came>>) -> Result<Opened> {
    let number = |at: usize| -> Result<u64> {
        let bytes = content.get(at..at + 8).and_then(|b| b.first_chunk::<8>()).ok_or_else(damaged)?;
        Ok(u64::from_le_bytes(*bytes))
    };
    if !content.starts_with(MAGIC) {
        return Err(damaged());
    }
    let (count, others) = (number(16)? as u32 as usize, (number(16)? >> 32) as usize);
    if count + others > came.len() {
        // The kernel drops those for which this process has no number left.
        return Err(Error::Damaged("descriptors that came with a message are missing: this process has too many open"));
    }
    if count + others != came.len() {
        return Err(damaged());
    }
    epoch::count_forks().doing("watch for forks")?;
    let mut came = came.into_iter().map(Into::into);
    let mut buffers = Vec::with_capacity(count);
    for (index, came) in came.by_ref().take(count).enumerate() {
        let (len, room) = (number(24 + 16 * index)? as usize, number(32 + 16 * index)? as usize);
        buffers.push(match came {
            Came::Handle(handle) => arrived::open(&handle, len, room)?,
            Came::Buffer(Ok(arrived)) if arrived.len() != len => return Err(damaged()),
            Came::Buffer(arrived) => arrived?,
        });
    }
    let others = came.map(|came| match came {
        Came::Handle(handle) => Ok(handle),
        Came::Buffer(_) => Err(damaged()),
    });
    let others = others.collect::<Result<Vec<_>>>()?;
    let at = 24 + 16 * buffers.len();
    if at > content.len() { Err(damaged()) } else { Ok(Opened { buffers, others, at }) }
}
