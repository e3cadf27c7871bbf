//! Parcels: large buffers that travel beside a frame, in shared-memory blocks.
//!
//! **The frame.** It is an ordinary frame, but the handles of its blocks are attached to its first byte, and its
//! content is
//!
//! ```text
//! MAGIC  n: u32  m: u32  (bytes: u64, room: u64) * n   stream
//! ```
//!
//! (little-endian). The handles of the n blocks are followed by m others, which the front defines (0 from a front that
//! has none). Only a frame with attached handles is read in this way, so no content can be mistaken for a parcel.
//!
//! **Receivers.** A sender sends a parcel only to an end whose reader can take it: the reader *marks* its end
//! ([`stream::mark`]) when it first receives an object, and the sender checks for the mark before each parcel until it
//! has seen it. The mark belongs to the socket, so it is valid for all processes that read from it later or at the same
//! time.
//!
//! **Life of a block.** A memfd, whose size is sealed: `room` bytes of data, and behind them a word with its state. A
//! buffer of middling size is copied out on arrival (`channel/known.rs`), and costs its receiver only memory. A block
//! whose size may change, or that cannot be mapped, is copied out as well.
//!
//! | state | word | holders of a handle or mapping |
//! | --- | --- | --- |
//! | under way or in use | USED, by the sender before it sends | the sender (to use it again), the socket's queue, the reader |
//! | no longer used | FREE, by the reader with its last view | the sender |
//! | never to be used again | SPENT, by a reader that has forked meanwhile | the sender, until it checks |
//!
//! All senders of a process together keep handles of at most [`MOST`] blocks and [`KEEP`] bytes, and use them again
//! (`parcel/kept.rs`). They release the oldest blocks beyond that, blocks that were not used for a second, all blocks
//! before a fork, and all when descriptors run out; a released block belongs to the reader alone. Nothing has to be
//! unlinked: the system frees a block with its last handle and mapping. So
//!
//! * a reader killed before or after it took a block: the block stays USED, is never used again, and is released like the others;
//! * a sender killed: the reader's mapping keeps the block for as long as a view of it exists;
//! * both killed, or a frame that is never read: the kernel frees the block with the socket.
//!
//! A forked child starts without blocks.

mod arrived;
mod kept;

pub use kept::{KEEP, MOST};

use crate::error::{Doing, Error, Result};
use crate::shm::region::Region;
use kept::{Block, is_worth_a_block};
use maniple_sys::epoch;
use maniple_sys::memory;
use maniple_sys::{self as sys, AsHandle, BorrowedHandle, OwnedHandle, stream, wire};

/// The greatest number of buffers in a parcel.
pub const MOST_BUFFERS: usize = 64;
/// The greatest number of other handles in a parcel.
pub const MOST_OTHERS: usize = stream::MOST_HANDLES - MOST_BUFFERS - 1;

const MAGIC: &[u8; 16] = b"maniple parcel 1";
const PAGE: usize = memory::PAGES;
const USED: u32 = 1;
const FREE: u32 = 2;
const SPENT: u32 = 3;

/// Buffers in blocks, to be sent. It must end with [`Load::sent`] or [`Load::unsent`], otherwise its blocks cannot be
/// used again.
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

    /// Removes and returns all but the first `count`.
    pub fn split_off(&mut self, count: usize) -> Load {
        Load(self.0.split_off(count.min(self.0.len())))
    }

    /// Appends the blocks of another load.
    pub fn append(&mut self, mut other: Load) {
        self.0.append(&mut other.0);
    }

    /// The reader has the blocks, or may have them. Its last view frees a block, which is then used again.
    pub fn sent(self) {
        kept::keep(self.0.into_iter().map(|(block, _)| block));
    }

    /// No other process has seen the blocks: they are free.
    pub fn unsent(self) {
        self.0.iter().for_each(|(block, _)| block.free());
        self.sent();
    }
}

/// A message with large buffers and handles beside its bytes. It must end with [`Parcel::sent`] or [`Parcel::unsent`],
/// as a [`Load`] must.
#[derive(Debug)]
pub struct Parcel {
    content: Vec<u8>,
    load: Load,
    others: Vec<OwnedHandle>,
}

impl Parcel {
    /// Makes a parcel of a message's `bytes`. `before` is the part of a packet that precedes it.
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

    /// Makes a parcel, and copies the buffers into blocks. Returns `None` if the buffers should be sent within the
    /// message: they are too many, there is no memory or descriptor for a block, or readers release no block (see
    /// `is_worth_a_block` in `parcel/kept.rs`).
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

    /// Whether the error of an attempt to send it says that too many handles of this user are under way. A message
    /// without some of them may then be sent.
    pub fn is_crowded(&self, error: &Error) -> bool {
        matches!(error, Error::Os { source, .. } if wire::is_crowded(source)) && !self.load.is_empty()
    }
}

/// What was attached to a frame.
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

/// The parts of a frame that arrived with handles.
#[derive(Debug)]
pub struct Opened {
    /// The large buffers.
    pub buffers: Vec<Region>,
    /// The other handles.
    pub others: Vec<OwnedHandle>,
    /// The position in the content at which the stream begins.
    pub at: usize,
}

/// Bytes at a frame's start that describe all of its buffers.
pub const HEAD: usize = 24 + 16 * MOST_BUFFERS;

/// Returns the length and room of the buffers of a frame that begins with these bytes, if it has only buffers.
fn buffers_alone(content: &[u8]) -> Option<Vec<(usize, usize)>> {
    let number = |at: usize| Some(u64::from_le_bytes(*content.get(at..at + 8)?.first_chunk()?));
    let count = number(16)? as usize; // the upper half are the others
    if !content.starts_with(MAGIC) || !(1..=MOST_BUFFERS).contains(&count) {
        return None;
    }
    let length = |at: usize| usize::try_from(number(at)?).ok();
    (0..count).map(|i| Some((length(24 + 16 * i)?, length(32 + 16 * i)?))).collect()
}

/// Receives the start of a frame into `bytes`, and its buffers, if this process has no number left for their handles.
/// `begins` is the visible part of the frame.
///
/// # Errors
/// There are other handles among them, or the system refuses a thread with a separate descriptor table: the frame stays
/// in the socket.
pub(crate) fn receive_aside(
    fd: BorrowedHandle<'_>,
    bytes: &mut [u8],
    begins: &[u8],
) -> std::io::Result<(usize, Vec<Came>)> {
    let Some(buffers) = buffers_alone(begins) else { return Err(wire::out_of_handles()) };
    let received = sys::aside(&[fd], || {
        let mut handles = Vec::new();
        // If there is nothing, another reader has been faster: wait again.
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
        Err(Error::Damaged("a message arrived with unexpected descriptors"))
    }
}

fn damaged() -> Error {
    Error::Damaged("a message arrived with descriptors, but it is not a parcel")
}

/// Opens a frame that arrived with handles.
pub fn open_all(content: &[u8], came: Vec<impl Into<Came>>) -> Result<Opened> {
    let number = |at: usize| -> Result<u64> {
        let bytes = content.get(at..at + 8).and_then(|b| b.first_chunk::<8>()).ok_or_else(damaged)?;
        Ok(u64::from_le_bytes(*bytes))
    };
    if !content.starts_with(MAGIC) {
        return Err(damaged());
    }
    let (count, others) = (number(16)? as u32 as usize, (number(16)? >> 32) as usize);
    // On a 32-bit processor the sum may have more bits than a word.
    let named = count.saturating_add(others);
    if named > came.len() {
        // The kernel drops the handles for which this process has no number left.
        return Err(Error::Damaged("descriptors of a message are missing: this process has too many open descriptors"));
    }
    if named != came.len() {
        return Err(damaged());
    }
    epoch::count_forks().doing("watch for forks")?;
    let mut came = came.into_iter().map(Into::into);
    let mut buffers = Vec::with_capacity(count);
    for (index, came) in came.by_ref().take(count).enumerate() {
        let length = |at: usize| usize::try_from(number(at)?).map_err(|_| damaged());
        let (len, room) = (length(24 + 16 * index)?, length(32 + 16 * index)?);
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
