//! The memory of the words.
//!
//! An *arena* is a segment of shared memory with a header and 1023 *cells* of one cache line each. A process takes the
//! cells of its locks from its current arena, in order, and makes a new arena when that is full. A forked child can use
//! the inherited arenas, but makes new arenas for new locks, so no two processes ever allocate cells of one arena.
//!
//! A cell travels as its arena's handle and its number: a process holds one descriptor for each arena, not for each
//! lock that it makes or receives. An arena that arrives twice is recognised by the id in its header and mapped once.
//!
//! A barrier's places, or a value beside its lock, need more than one cell. They take several cells in a row, a *span*,
//! which is identified by its first cell.
//!
//! # When a cell is used again
//! A cell that no other process can know is used again as soon as its owner drops it: the process has not forked since
//! it made the cell and the cell was never sent. Any other cell is not used again: its users cannot be counted
//! reliably, because processes are killed. The operating system counts reliably: when a process has dropped all its
//! cells of an arena, it unmaps the arena, and when all processes have done so or are dead, the system frees the
//! memory. So no count can be wrong, nothing has to be repaired after a death, and no cell ever has two uses. The
//! price: a long-lived lock keeps the 64 KiB of its arena, and a descriptor.
//!
//! | killed | leaves |
//! | --- | --- |
//! | at any point | its mappings and descriptors, which the system releases |
//! | with a sent cell not yet opened | the descriptor in the message, which is closed with it |
//!
//! # Forks
//! The table of arenas is only accessed inside [`atfork::making`], so a forked child finds it consistent and unlocked.
#![allow(unsafe_code)]

use super::holder;
use super::word::lock::Holder;
use crate::error::{Doing, Error, Result};
use crate::shm::segment::Segment;
use maniple_sys::atfork;
use maniple_sys::epoch::{self, Epoch, Since};
use maniple_sys::{self as sys, AsHandle, BorrowedHandle, OwnedHandle};
use std::ops::Deref;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

const LEN: usize = 64 << 10;
/// Bytes of a cell, which begins at a multiple of as many.
pub const CELL: usize = 64;
const CELLS: u32 = (LEN / CELL) as u32;
const MAGIC: u64 = u64::from_le_bytes(*b"mnplsync");

/// One cache line of zeroed shared memory; its creator defines what its parts mean.
#[derive(Debug, Default)]
#[repr(C, align(64))]
pub struct Cell {
    /// The word of the protocol.
    pub word: AtomicU64,
    /// The kind of the cell. Written before any other process has the cell, as is `limit`.
    pub kind: AtomicU32,
    /// The highest value, of a semaphore.
    pub limit: AtomicU32,
    /// How often its lock was taken over from a dead holder.
    pub abandoned: AtomicU32,
    /// Further words.
    pub more: [AtomicU64; MORE],
}

/// Words of a cell beside the first.
pub const MORE: usize = 5;
/// The longest span.
pub const MOST_CELLS: u32 = CELLS - 1;

#[repr(C, align(64))]
struct Header {
    magic: AtomicU64,
    // The time of its creation and its creator: unique on a machine.
    id: [AtomicU64; 2],
    // The pid namespace of the creator; 0: unknown.
    space: AtomicU64,
    // Not 0: processes of several namespaces use it.
    mixed: AtomicU32,
}

const _: () = assert!(size_of::<Cell>() == CELL && size_of::<Header>() == CELL);

/// A piece of shared memory full of cells.
#[derive(Debug)]
pub struct Arena {
    segment: Segment,
    id: [u64; 2],
    // The process for which the namespace was checked, as `Holder::bits`.
    checked: AtomicU64,
}

impl Cell {
    fn clear(&self) {
        for word in self.more.iter().chain([&self.word]) {
            word.store(0, Ordering::Relaxed);
        }
        for half in [&self.kind, &self.limit, &self.abandoned] {
            half.store(0, Ordering::Relaxed);
        }
    }
}

/// A process's table of arenas.
struct Table {
    current: Option<Current>,
    known: Vec<Weak<Arena>>,
}

struct Current {
    arena: Arc<Arena>,
    since: Epoch,
    fresh: u32,
    free: Vec<u32>,
}

static TABLE: Mutex<Table> = Mutex::new(Table { current: None, known: Vec::new() });

fn table<T>(work: impl FnOnce(MutexGuard<'_, Table>) -> T) -> T {
    atfork::making(|| work(TABLE.lock().unwrap_or_else(PoisonError::into_inner)))
}

fn prepare() -> Result<()> {
    holder::watch_forks().and_then(|()| epoch::count_forks()).doing("prepare for forks")
}

impl Arena {
    fn create() -> Result<Arc<Arena>> {
        static MADE: AtomicU32 = AtomicU32::new(0);
        let segment = Segment::create("maniple-sync", LEN)?;
        let (me, space) = holder::identify();
        // One process makes only one arena at a time, so the clock distinguishes them; the counter is for clocks that
        // do not advance.
        let id = [me.bits(), sys::clock::now().wrapping_add(MADE.fetch_add(1, Ordering::Relaxed).into())];
        let arena = Arena { segment, id, checked: AtomicU64::new(me.bits()) };
        let header = arena.header();
        for (place, part) in header.id.iter().zip(id) {
            place.store(part, Ordering::Relaxed);
        }
        header.space.store(space, Ordering::Relaxed);
        header.mixed.store((space == 0).into(), Ordering::Relaxed);
        header.magic.store(MAGIC, Ordering::Relaxed);
        Ok(Arc::new(arena))
    }

    /// The arena behind a handle that another process (or this one) shared.
    ///
    /// # Errors
    /// The handle is not an arena's: its number was closed and used again before it was sent.
    pub fn open(handle: OwnedHandle) -> Result<Arc<Arena>> {
        prepare()?;
        let number = handle.as_raw();
        let len = sys::memory::len(&handle).doing("measure shared memory")?;
        if len != LEN {
            return Err(Error::Lock("its size is not the size of an arena of locks"));
        }
        sys::memory::close_on_exec(&handle).doing("keep a descriptor from other programs")?;
        let segment = Segment::open(handle)?;
        let mut arena = Arena { segment, id: [0; 2], checked: AtomicU64::new(0) };
        let header = arena.header();
        if header.magic.load(Ordering::Relaxed) != MAGIC {
            return Err(Error::Lock("it contains no locks"));
        }
        let id = [0, 1].map(|part| header.id[part].load(Ordering::Relaxed));
        arena.id = id;
        table(|mut table| {
            if let Some(known) = table.known.iter().filter_map(Weak::upgrade).find(|known| known.id == id) {
                // The very descriptor that the known one holds may have been given twice.
                if known.segment.as_handle().as_raw() == number {
                    let _ = arena.segment.into_handle().into_raw();
                }
                return Ok(known);
            }
            let arena = Arc::new(arena);
            table.remember(&arena);
            Ok(arena)
        })
    }

    fn header(&self) -> &Header {
        // SAFETY: the segment begins with a header (`create` makes it so, `open` checks it), is aligned to a page,
        // stays mapped as long as `self`, and is zeroed where it was not written. All parts are atomics.
        unsafe { self.segment.start().cast().as_ref() }
    }

    fn cell(&self, number: u32) -> &Cell {
        debug_assert!((1..CELLS).contains(&number));
        // SAFETY: as in `header`; the number is below CELLS (checked where one comes in), so the cell lies within the
        // segment.
        unsafe { self.segment.start().cast::<Cell>().add(number as usize).as_ref() }
    }

    /// The id that distinguishes it from all others on this machine.
    pub fn id(&self) -> [u64; 2] {
        self.id
    }

    /// Whether the handle can be sent: the program has not closed it.
    pub fn can_be_sent(&self) -> bool {
        self.segment.is_there()
    }

    /// The handle to send to a process, which then calls [`Arena::open`].
    pub fn handle(&self) -> BorrowedHandle<'_> {
        self.segment.as_handle()
    }

    /// This process, after its namespace was compared with the arena's.
    #[inline]
    fn me(&self) -> Holder {
        match holder::known() {
            Some(me) if me.bits() == self.checked.load(Ordering::Relaxed) => me,
            _ => self.check(),
        }
    }

    #[cold]
    fn check(&self) -> Holder {
        let (me, space) = holder::identify();
        let header = self.header();
        if space == 0 || header.space.load(Ordering::Relaxed) != space {
            // Before this process acquires anything here. Partner: the Acquire in `can_judge`; a process that reads
            // this process's number in a word, by an exchange that acquires, and then finds it "dead", sees this.
            header.mixed.store(1, Ordering::SeqCst);
        }
        self.checked.store(me.bits(), Ordering::Relaxed);
        me
    }

    fn can_judge(&self) -> bool {
        self.me();
        self.header().mixed.load(Ordering::SeqCst) == 0
    }
}

impl Table {
    fn remember(&mut self, arena: &Arc<Arena>) {
        self.known.retain(|known| known.strong_count() > 0);
        self.known.push(Arc::downgrade(arena));
    }

    /// Returns so many cells in a row without another user.
    fn cut(&mut self, cells: u32) -> Result<(Arc<Arena>, u32)> {
        // The parent allocates the cells of an inherited arena. An arena whose handle the program has closed cannot be
        // sent to another process.
        let is_good = |current: &Current| current.since.since() != Since::Born && current.arena.can_be_sent();
        self.current = self.current.take().filter(is_good);
        if let Some(current) = &mut self.current {
            if let Some(number) = current.reuse(cells) {
                return Ok((current.arena.clone(), number));
            }
            if current.fresh + cells <= CELLS {
                current.fresh += cells;
                return Ok((current.arena.clone(), current.fresh - cells));
            }
        }
        let arena = Arena::create()?;
        self.remember(&arena);
        self.current = Some(Current { arena: arena.clone(), since: Epoch::now(), fresh: 1 + cells, free: Vec::new() });
        Ok((arena, 1))
    }
}

impl Current {
    /// Returns so many cells in a row out of the freed cells.
    fn reuse(&mut self, cells: u32) -> Option<u32> {
        if cells == 1 {
            return self.free.pop();
        }
        self.free.sort_unstable();
        let span = cells as usize;
        let at = self.free.windows(span).position(|row| row[span - 1] - row[0] == cells - 1)?;
        self.free.drain(at..at + span).next()
    }
}

/// A cell, or a span of them, held by this process.
#[derive(Debug)]
pub struct Place {
    arena: Arc<Arena>,
    number: u32,
    cells: u32,
    /// When this process made it; `None`: another process made it.
    made: Option<Epoch>,
    sent: AtomicBool,
}

impl Place {
    /// Allocates a zeroed cell that no other process knows.
    ///
    /// # Errors
    /// No shared memory, no descriptor left.
    pub fn create(kind: u32) -> Result<Place> {
        Place::create_span(kind, 1)
    }

    /// Allocates so many zeroed cells in a row that no other process knows.
    ///
    /// # Errors
    /// No shared memory, no descriptor left; more than [`MOST_CELLS`], or none.
    pub fn create_span(kind: u32, cells: u32) -> Result<Place> {
        if !(1..=MOST_CELLS).contains(&cells) {
            return Err(Error::Lock("it does not fit into one piece of shared memory"));
        }
        prepare()?;
        let made = Epoch::now();
        let (arena, number) = table(|mut table| table.cut(cells))?;
        let place = Place { arena, number, cells, made: Some(made), sent: AtomicBool::new(false) };
        for cell in 0..cells {
            place.cell(cell).clear();
        }
        place.kind.store(kind, Ordering::Relaxed);
        Ok(place)
    }

    /// A cell that another process made.
    ///
    /// # Errors
    /// There is no such cell, or it is of another kind.
    pub fn open(arena: Arc<Arena>, number: u32, kind: u32) -> Result<Place> {
        if !(1..CELLS).contains(&number) || arena.cell(number).kind.load(Ordering::Relaxed) != kind {
            return Err(Error::Lock("there is no such lock in the shared memory that was sent"));
        }
        Ok(Place { arena, number, cells: 1, made: None, sent: AtomicBool::new(true) })
    }

    /// Returns the same place with the cells behind it, as many as it was made with.
    ///
    /// # Errors
    /// So many do not follow.
    pub fn with_span(mut self, cells: u32) -> Result<Place> {
        if cells == 0 || cells > CELLS - self.number {
            return Err(Error::Lock("it is longer than the shared memory that was sent"));
        }
        self.cells = cells;
        Ok(self)
    }

    /// The cell of that place in the span.
    ///
    /// # Panics
    /// It has no such cell.
    pub fn cell(&self, at: u32) -> &Cell {
        assert!(at < self.cells, "a span has {} cells", self.cells);
        self.arena.cell(self.number + at)
    }

    /// The bytes of all cells but the first: where they begin, at a multiple of [`CELL`], and how many they are. They
    /// stay as long as this place; the code that made the place defines their use.
    pub fn room(&self) -> (NonNull<u8>, usize) {
        let start = self.arena.segment.start();
        // SAFETY: the span lies within the segment (`cut` and `with_span` ensure it), and so does its end.
        let start = unsafe { start.add((self.number as usize + 1) * CELL) };
        (start, (self.cells as usize - 1) * CELL)
    }

    /// What to send to another process.
    pub fn send(&self) -> CellRef {
        self.sent.store(true, Ordering::Relaxed);
        CellRef { arena: self.arena.clone(), number: self.number }
    }

    /// The number of its cell.
    pub fn number(&self) -> u32 {
        self.number
    }

    /// The identity of this process, which it may write into the cell.
    #[inline]
    pub fn me(&self) -> Holder {
        self.arena.me()
    }

    /// Whether `holder`, as read from the cell, has certainly ended.
    pub fn is_gone(&self, holder: Holder) -> bool {
        self.arena.can_judge() && holder != self.me() && holder::is_gone(holder)
    }
}

impl Deref for Place {
    type Target = Cell;

    #[inline]
    fn deref(&self) -> &Cell {
        self.arena.cell(self.number)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let sent = *self.sent.get_mut();
        table(|mut table| {
            // Looked at in here: a fork waits until we are out.
            let ours = !sent && self.made.is_some_and(|made| made.since() == Since::Nothing);
            let Some(current) = &mut table.current else { return };
            let same = Arc::ptr_eq(&current.arena, &self.arena);
            // All clones are made with the table locked, or from a place that lives: two are the table's and our own.
            let last = same && Arc::strong_count(&self.arena) == 2;
            if last || current.since.since() == Since::Born {
                table.current = None;
            } else if same && ours {
                current.free.extend(self.number..self.number + self.cells);
            }
        });
    }
}

/// A cell to send to another process: the arena, whose handle has to be sent with it, and the cell's number.
#[derive(Clone, Debug)]
pub struct CellRef {
    /// The arena.
    pub arena: Arc<Arena>,
    /// The cell's number in it.
    pub number: u32,
}
