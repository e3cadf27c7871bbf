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
//! **Who may send one.** Only to an end whose reader can take it: the reader *marks* its end ([`stream::mark`]) when it first asks for an
//! object, and the sender looks for the mark before each parcel until it has seen it. The mark belongs to the socket, so
//! it holds for whoever reads there later or at the same time.
//!
//! **Life of a block.** A memfd, whose size is sealed: `room` bytes of data, and behind them a word that says how it stands. A buffer of
//! middling size is copied out on arrival (`channel/known.rs`), and costs its receiver memory alone; so is a block whose size may change, and one that cannot be
//! mapped.
//!
//! | state | word | who holds a handle or mapping |
//! | --- | --- | --- |
//! | under way or in use | USED, by the sender before it sends | the sender (to use it again), the socket's queue, the reader |
//! | done with | FREE, by the reader with its last view | the sender |
//! | never to be used again | SPENT, by a reader that has forked meanwhile | the sender, until it looks |
//!
//! All senders of a process together keep handles of at most [`MOST`] blocks and [`KEEP`] bytes, on a *shelf*. They let go of the oldest
//! beyond that, of those that were not used for a second, of all before a fork, and of all where descriptors run out; what they have
//! let go of is the reader's alone. Nobody unlinks anything: a block is gone with its last
//! handle and mapping. So
//!
//! * a reader killed before or after it took a block: the block stays USED, is never used again, and is let go of like the others;
//! * a sender killed: the reader's mapping keeps the block for as long as it is looked at;
//! * both killed, or a frame that nobody ever read: the kernel frees the block with the socket.
//!
//! A forked child starts with none.
#![allow(unsafe_code)]

use super::known;
use crate::error::{Doing, Error, Result};
use crate::idle;
use crate::shm::blocks::LONG;
use crate::shm::buffers::Buffer;
use crate::shm::seen::Seen;
use maniple_sys::atfork;
use maniple_sys::epoch::{self, Epoch, Since};
use maniple_sys::memory::{self, Mapping, Share};
use maniple_sys::own::File;
use maniple_sys::{self as sys, AsHandle, BorrowedHandle, OwnedHandle, stream, wire};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::{Duration, Instant};

/// Blocks that the senders of a process keep.
pub const MOST: usize = 16;
/// How many buffers are under way at once before a sender lets its readers catch up: fresh blocks cost several times what those cost that
/// were used before. Of short ones there are more, since a sender sleeps longer than a reader takes for a few.
const AT_ONCE: usize = 6;
const SHORT_AT_ONCE: usize = 14;
const SHORT: usize = 400_000;
/// For how long, and how often it looks. Where readers keep what they have, no sender waits again before one of them has let go of something.
const PATIENCE: Duration = Duration::from_millis(5);
const LOOK: Duration = Duration::from_micros(50);
/// Bytes of blocks that they keep.
pub const KEEP: usize = 256 << 20;
/// Buffers in one parcel at most.
pub const MOST_BUFFERS: usize = 64;
/// Other handles that can go with it.
pub const MOST_OTHERS: usize = stream::MOST_HANDLES - MOST_BUFFERS - 1;

const MAGIC: &[u8; 16] = b"maniple parcel 1";
const PAGE: usize = memory::PAGES;
const USED: u32 = 1;
const FREE: u32 = 2;
const SPENT: u32 = 3;

/// The word behind a block's data.
#[derive(Debug)]
struct State(Mapping);

impl State {
    fn of(handle: &OwnedHandle, room: usize) -> Result<State> {
        let mapping = Mapping::at(handle, room as u64, PAGE, Share::All).doing("map a shared-memory block")?;
        Ok(State(mapping))
    }

    fn word(&self) -> &AtomicU32 {
        // SAFETY: a page's first word, only ever touched as an atomic, mapped as long as `self`.
        unsafe { AtomicU32::from_ptr(self.0.start().cast().as_ptr()) }
    }
}

#[derive(Debug)]
struct Block {
    handle: OwnedHandle,
    state: State,
    room: usize,
    // From its second use on. Copying into memory that is mapped is several times faster than writing to the handle; but mapping
    // fresh memory is slower than that.
    mapping: Option<Mapping>,
    since: Instant,
}

/// What the senders of this process have under way, and keep to use again.
#[derive(Debug)]
struct Shelf {
    // The longest unused first.
    blocks: Mutex<(Vec<Block>, Option<Epoch>)>,
    is_watched: AtomicBool,
    // It was waited for readers in vain.
    is_stalled: AtomicBool,
}

impl Shelf {
    fn get() -> &'static Arc<Shelf> {
        static SHELF: OnceLock<Arc<Shelf>> = OnceLock::new();
        SHELF.get_or_init(|| {
            Arc::new(Shelf {
                blocks: Mutex::default(),
                is_watched: AtomicBool::new(false),
                is_stalled: AtomicBool::new(false),
            })
        })
    }

    /// Works on the blocks. No fork comes meanwhile, so a child finds the lock free.
    fn with<T>(&self, work: impl FnOnce(&mut Vec<Block>) -> T) -> T {
        atfork::making(|| {
            let mut guard: MutexGuard<'_, _> = self.blocks.lock().unwrap_or_else(PoisonError::into_inner);
            let (blocks, epoch) = &mut *guard;
            if epoch.is_some_and(|epoch| epoch.since() == Since::Born) {
                blocks.clear();
            }
            *epoch = Some(Epoch::now());
            work(blocks)
        })
    }

    /// Whether a buffer finds a block that was used before, or few are under way.
    fn is_open_to(&self, len: usize) -> bool {
        let is_free = |b: &Block| b.state.word().load(Ordering::Acquire) == FREE;
        let (free, used) = self.with(|blocks| {
            let free = blocks.iter().any(|b| b.room >= len && b.room / 2 <= rounded(len) && is_free(b));
            (free, blocks.iter().filter(|b| !is_free(b)).count())
        });
        if free {
            self.is_stalled.store(false, Ordering::Relaxed);
        }
        free || used < if len <= SHORT { SHORT_AT_ONCE } else { AT_ONCE }
    }

    /// Lets readers catch up. False: they do not.
    fn wait_for_room(&self, len: usize) -> bool {
        let since = Instant::now();
        while !self.is_open_to(len) {
            if since.elapsed() > PATIENCE {
                self.is_stalled.store(true, Ordering::Relaxed);
            }
            if self.is_stalled.load(Ordering::Relaxed) {
                return false;
            }
            std::thread::sleep(LOOK);
        }
        true
    }

    /// Takes the block that fits best, if one is free.
    fn take(&self, len: usize) -> Option<Block> {
        self.with(|blocks| {
            // Partner: `Arrived::drop`; the reader's last access to the data comes before.
            blocks.retain(|b| b.state.word().load(Ordering::Acquire) != SPENT);
            let fits = |b: &Block| {
                b.room >= len && b.room / 2 <= rounded(len) && b.state.word().load(Ordering::Acquire) == FREE
            };
            let best = (0..blocks.len()).filter(|&i| fits(&blocks[i])).min_by_key(|&i| blocks[i].room)?;
            Some(blocks.remove(best))
        })
    }

    fn keep(this: &Arc<Shelf>, new: impl Iterator<Item = Block>) {
        let mut gone = Vec::new();
        this.with(|blocks| {
            blocks.extend(new);
            let mut bytes = blocks.iter().map(|b| b.room).sum::<usize>();
            while blocks.len() > MOST || bytes > KEEP {
                let oldest = blocks.remove(0);
                bytes -= oldest.room;
                gone.push(oldest);
            }
        });
        // Freeing memory takes a while: not under the lock.
        drop(gone);
        let weak: Weak<dyn idle::Kept> = Arc::downgrade(this) as Weak<dyn idle::Kept>;
        if !this.is_watched.swap(true, Ordering::Relaxed) && !idle::watch(weak) {
            this.is_watched.store(false, Ordering::Relaxed);
            this.clear();
        }
    }

    fn clear(&self) -> bool {
        !self.with(std::mem::take).is_empty()
    }
}

impl idle::Kept for Shelf {
    fn trim(&self, unused: Duration) -> bool {
        let now = Instant::now();
        // Before a fork it is waited for: who has the lock lets go of it in a moment.
        let guard = if unused.is_zero() { self.blocks.lock().ok() } else { self.blocks.try_lock().ok() };
        let Some(mut guard) = guard else { return true };
        let blocks = &mut guard.0;
        let stay = blocks.iter().position(|b| now.duration_since(b.since) < unused).unwrap_or(blocks.len());
        let gone: Vec<Block> = blocks.drain(..stay).collect();
        let has_more = !blocks.is_empty();
        self.is_watched.store(has_more, Ordering::Relaxed);
        drop(guard);
        drop(gone);
        has_more
    }
}

/// Makes blocks, and hands them back.
#[derive(Debug)]
pub struct Outbox(());

/// Blocks that were filled and are to be sent. They must be handed to [`Outbox::sent`] or [`Outbox::unsent`], or are lost to
/// further use.
#[derive(Debug, Default)]
pub struct Load(Vec<(Block, usize)>);

/// A parcel that was packed. It must be sent, or the blocks are lost to further use.
#[derive(Debug)]
pub struct Packed {
    content: Vec<u8>,
    load: Load,
}

fn rounded(len: usize) -> usize {
    len.next_multiple_of((len.next_power_of_two() / 16).max(PAGE)).next_multiple_of(PAGE)
}

/// Waits a moment for a block that was used before. Whether a buffer of so many bytes is better sent in a block than among the bytes of its
/// message.
pub fn is_worth_a_block(len: usize) -> bool {
    Shelf::get().wait_for_room(len) || len >= LONG
}

impl Outbox {
    /// An empty one.
    ///
    /// # Errors
    /// When forks cannot be counted.
    pub fn new() -> Result<Outbox> {
        epoch::count_forks().doing("watch for forks")?;
        Ok(Outbox(()))
    }

    /// Copies buffers into blocks, and makes the frame's content of `stream` and them.
    pub fn pack(&mut self, stream: &[u8], buffers: &[&[u8]]) -> Result<Packed> {
        let mut load = Load::default();
        for buffer in buffers {
            self.load(&mut load, buffer)?;
        }
        let mut content = Vec::with_capacity(load.head_len() + stream.len());
        load.write_head(0, &mut content);
        content.extend_from_slice(stream);
        Ok(Packed { content, load })
    }

    /// Copies a buffer into a block, which is added to `load`.
    pub fn load(&mut self, load: &mut Load, buffer: &[u8]) -> Result<()> {
        let block = Outbox::block(buffer.len())?;
        match &block.mapping {
            // SAFETY: the block has room for it, and is nobody else's: its last reader is done with it.
            Some(room) => unsafe { room.start().copy_from_nonoverlapping(NonNull::from(buffer).cast(), buffer.len()) },
            None => {
                memory::write_at(block.handle.as_handle(), buffer, 0)
                    .doing("copy a large buffer into shared memory")?;
            }
        }
        load.0.push((block, buffer.len()));
        Ok(())
    }

    fn block(len: usize) -> Result<Block> {
        let block = match Shelf::get().take(len) {
            Some(mut block) => {
                if block.mapping.is_none() {
                    // Where it cannot be mapped, it is written to as before.
                    block.mapping = Mapping::new(&block.handle, block.room, Share::All).ok();
                    if let Some(mapping) = &block.mapping {
                        mapping.map_in(len);
                        mapping.prepare(0, len).doing("make a shared-memory block")?;
                    }
                }
                block
            }
            None => {
                let room = rounded(len);
                let make = || memory::create("maniple-parcel", room + PAGE);
                // What is kept for later may be what is missing now.
                let made = make().or_else(|error| if Shelf::get().clear() { make() } else { Err(error) });
                let handle = made.doing("make a shared-memory block")?;
                Block { state: State::of(&handle, room)?, handle, room, mapping: None, since: Instant::now() }
            }
        };
        // Ordered by the sending of the frame.
        block.state.word().store(USED, Ordering::Relaxed);
        Ok(block)
    }

    /// Keeps the blocks of a parcel that was sent, to use them again.
    pub fn sent(&mut self, packed: impl Into<Load>) {
        let since = Instant::now();
        Shelf::keep(Shelf::get(), packed.into().0.into_iter().map(|(block, _)| Block { since, ..block }));
    }

    /// Keeps the blocks of a parcel that was not sent after all.
    pub fn unsent(&mut self, load: Load) {
        for (block, _) in &load.0 {
            // Nobody else has seen it.
            block.state.word().store(FREE, Ordering::Relaxed);
        }
        self.sent(load);
    }
}

impl Load {
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

    /// Bytes of [`Load::write_head`].
    pub fn head_len(&self) -> usize {
        24 + 16 * self.0.len()
    }

    /// Writes what comes before the stream in a frame; `others`: handles that go along behind those of the blocks.
    pub fn write_head(&self, others: u32, content: &mut Vec<u8>) {
        content.extend_from_slice(MAGIC);
        content.extend_from_slice(&(self.0.len() as u32).to_le_bytes());
        content.extend_from_slice(&others.to_le_bytes());
        for (block, len) in &self.0 {
            content.extend_from_slice(&(*len as u64).to_le_bytes());
            content.extend_from_slice(&(block.room as u64).to_le_bytes());
        }
    }

    /// The handles to send with it.
    pub fn handles(&self) -> Vec<BorrowedHandle<'_>> {
        self.0.iter().map(|(block, _)| block.handle.as_handle()).collect()
    }
}

impl From<Packed> for Load {
    fn from(packed: Packed) -> Load {
        packed.load
    }
}

impl Packed {
    /// The frame's content.
    pub fn content(&self) -> &[u8] {
        &self.content
    }

    /// The handles to send with it.
    pub fn handles(&self) -> Vec<BorrowedHandle<'_>> {
        self.load.handles()
    }
}

/// A buffer that arrived, in memory of this process's own: it may be written to, and no other process sees what is written.
#[derive(Debug)]
pub struct Arrived(Content);

#[derive(Debug)]
enum Content {
    Plain(Buffer),
    // In this order: the mapping goes before the block is free.
    Mapped(Seen, #[allow(dead_code)] PutBack),
}

/// What says that a block is done with.
#[derive(Debug)]
struct PutBack {
    state: State,
    epoch: Epoch,
}

impl Drop for PutBack {
    fn drop(&mut self) {
        let word = match self.epoch.since() {
            Since::Nothing => FREE,
            Since::Forked => SPENT,
            Since::Born => return,
        };
        // Partner: `Shelf::take`.
        self.state.word().store(word, Ordering::Release);
    }
}

/// A frame that came with handles, taken apart.
#[derive(Debug)]
pub struct Opened {
    /// The large buffers.
    pub buffers: Vec<Arrived>,
    /// The other handles.
    pub others: Vec<OwnedHandle>,
    /// Where in the content the stream begins.
    pub at: usize,
}

/// What came with a frame.
#[derive(Debug)]
pub enum Came {
    /// A handle.
    Handle(OwnedHandle),
    /// A buffer that is opened already, since this process had no number left for its handle; or what it lacked besides.
    Buffer(Result<Arrived>),
}

impl From<OwnedHandle> for Came {
    fn from(handle: OwnedHandle) -> Came {
        Came::Handle(handle)
    }
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
        // Somebody else has been faster, where there is nothing: it is looked for again.
        let got = stream::read_now(fd, bytes, Some(&mut handles))?.ok_or(std::io::ErrorKind::Interrupted)?;
        let open = |(handle, &(len, room)): (&OwnedHandle, _)| Came::Buffer(Arrived::checked(handle, len, room));
        Ok((got, handles.iter().zip(&buffers).map(open).collect()))
    });
    received.unwrap_or_else(|_| Err(wire::out_of_handles()))
}

/// Opens a frame that came with the handles of buffers alone: these, and where in `content` the stream begins.
pub fn open(content: &[u8], came: Vec<impl Into<Came>>) -> Result<(Vec<Arrived>, usize)> {
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
            Came::Handle(handle) => Arrived::checked(&handle, len, room)?,
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

impl Arrived {
    /// As a frame describes it, which may be wrong.
    fn checked(handle: &OwnedHandle, len: usize, room: usize) -> Result<Arrived> {
        let (file, whole) = File::and_len(handle.as_handle()).doing("measure a shared-memory block")?;
        if len == 0 || len > room || !room.is_multiple_of(PAGE) || room.checked_add(PAGE) != Some(whole) {
            return Err(damaged());
        }
        if len < LONG
            && room < 2 * LONG
            && let Some(bytes) = known::copy(handle, file, len, room, whole, FREE)
        {
            return Ok(Arrived(Content::Plain(bytes)));
        }
        Arrived::of(handle, len, room)
    }

    fn of(handle: &OwnedHandle, len: usize, room: usize) -> Result<Arrived> {
        if len >= LONG
            && Seen::is_room(len)
            && memory::is_fixed(handle)
            && let (Ok(state), Ok(data)) = (State::of(handle, room), Mapping::new(handle, len, Share::CopyOnWrite))
        {
            return Ok(Arrived(Content::Mapped(data.into(), PutBack { state, epoch: Epoch::now() })));
        }
        let mut bytes = Buffer::default();
        memory::read_at(handle.as_handle(), bytes.fill(len)?, 0).doing("receive a large buffer")?;
        // Where this process may not write so far, the block is not used again.
        let _ = memory::write_at(handle.as_handle(), &FREE.to_ne_bytes(), room as u64);
        Ok(Arrived(Content::Plain(bytes)))
    }

    /// The first byte.
    pub fn start(&self) -> NonNull<u8> {
        match &self.0 {
            Content::Plain(bytes) => NonNull::from(bytes.bytes()).cast(),
            Content::Mapped(data, _) => data.start(),
        }
    }

    /// Bytes.
    pub fn len(&self) -> usize {
        match &self.0 {
            Content::Plain(bytes) => bytes.bytes().len(),
            Content::Mapped(data, _) => data.len(),
        }
    }

    /// Whether there are none (never).
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The content.
    pub fn as_slice(&self) -> &[u8] {
        // SAFETY: they are this process's own or mapped, and the sender leaves the block alone until the word says so.
        unsafe { std::slice::from_raw_parts(self.start().as_ptr(), self.len()) }
    }

    /// The content, to be changed for this process alone.
    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        match &mut self.0 {
            Content::Plain(bytes) => bytes.bytes_mut(),
            // SAFETY: as above; the mapping is this value's alone, and copy-on-write.
            Content::Mapped(data, _) => unsafe { std::slice::from_raw_parts_mut(data.start().as_ptr(), data.len()) },
        }
    }
}
