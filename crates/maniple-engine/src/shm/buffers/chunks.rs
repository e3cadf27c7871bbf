//! Chunks: memory from which buffers of middling size are cut. See the head of `buffers.rs`.
#![allow(unsafe_code)]

use crate::idle::{Kept, Watched};
use maniple_sys::atfork::OnceLock;
use maniple_sys::epoch::{Epoch, Since};
use maniple_sys::plain::Plain;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Buffers are cut from chunks in units of so many bytes.
pub(super) const UNIT: usize = 4096;
/// Units in a chunk.
pub(super) const UNITS: usize = 64 * WORDS;
pub(super) const WORDS: usize = 16;
/// The longest buffer that is cut from a chunk, so that several have room.
pub(super) const LONGEST: usize = UNIT * UNITS / 2;
/// Chunks without any buffer that are kept until the next `trim`.
pub(super) const KEPT: usize = 2;
/// The greatest number that is kept, for a second or two: 64 MiB.
pub(super) const MOST_KEPT: usize = 16;

/// The chunks from which buffers are cut.
#[derive(Debug)]
pub(super) struct Pool {
    pub(super) listed: Mutex<Listed>,
    /// Bytes of chunks that buffers have freed since the last `trim`.
    pub(super) kept: AtomicUsize,
    watch: OnceLock<Arc<Watch>>,
}

/// Chunks with room, the last used at the end.
#[derive(Debug)]
pub(super) struct Listed {
    pub(super) chunks: Vec<Arc<Chunk>>,
    epoch: Option<Epoch>,
    /// When a buffer was last cut from a chunk.
    since: Option<Instant>,
}

/// Registers the pool's chunks with the sweeper while more than [`KEPT`] of them are free.
#[derive(Debug)]
pub(super) struct Watch {
    pool: &'static Pool,
    watched: Watched,
}

pub(super) static POOL: Pool = Pool::new();

#[derive(Debug)]
pub(super) struct Chunk {
    memory: Plain,
    /// A bit for each unit: in use.
    map: [AtomicU64; WORDS],
    /// Whether the pool has it.
    listed: AtomicBool,
}

impl Chunk {
    pub(super) fn new() -> Option<Chunk> {
        let memory = Plain::new(UNIT * UNITS).ok()?;
        Some(Chunk { memory, map: [const { AtomicU64::new(0) }; WORDS], listed: AtomicBool::new(true) })
    }

    /// The bits of word `word` among `units` units from `first` on.
    fn mask(word: usize, first: usize, units: usize) -> u64 {
        let from = first.saturating_sub(word * 64).min(64) as u32;
        let to = (first + units).saturating_sub(word * 64).min(64) as u32;
        let below = |end: u32| if end == 64 { u64::MAX } else { (1 << end) - 1 };
        below(to) & !below(from)
    }

    /// Cuts off `units` units, if there are so many together. Only with the pool's lock.
    pub(super) fn cut(&self, units: usize) -> Option<usize> {
        // Partner: `give_back`; the last access to the free units happened before.
        let map: [u64; WORDS] = std::array::from_fn(|word| self.map[word].load(Ordering::Acquire));
        let first = runs(&map).find(|&(_, len)| len >= units)?.0;
        for word in first / 64..=(first + units - 1) / 64 {
            self.map[word].fetch_or(Chunk::mask(word, first, units), Ordering::Relaxed);
        }
        Some(first)
    }

    pub(super) fn give_back(&self, first: usize, units: usize) {
        for word in first / 64..=(first + units - 1) / 64 {
            // Partner: `cut`.
            self.map[word].fetch_and(!Chunk::mask(word, first, units), Ordering::Release);
        }
    }

    pub(super) fn used(&self) -> usize {
        self.map.iter().map(|word| word.load(Ordering::Relaxed).count_ones() as usize).sum()
    }
}

/// The runs of free units: the first of each, and how many.
pub(super) fn runs(map: &[u64; WORDS]) -> impl Iterator<Item = (usize, usize)> {
    let next = |from: usize, used: bool| {
        (from / 64..WORDS).find_map(|word| {
            let bits = if used { map[word] } else { !map[word] };
            let bits = if word == from / 64 { bits >> (from % 64) << (from % 64) } else { bits };
            (bits != 0).then(|| word * 64 + bits.trailing_zeros() as usize)
        })
    };
    let mut at = 0;
    std::iter::from_fn(move || {
        let first = if at < UNITS { next(at, false)? } else { return None };
        at = next(first, true).unwrap_or(UNITS);
        Some((first, at - first))
    })
}

#[derive(Debug)]
pub(super) struct Cut {
    pool: &'static Pool,
    chunk: Arc<Chunk>,
    first: usize,
    pub(super) units: usize,
}

impl Cut {
    pub(super) fn start(&self) -> NonNull<u8> {
        // SAFETY: the units lie inside the chunk.
        unsafe { self.chunk.memory.start().add(self.first * UNIT) }
    }
}

impl Drop for Cut {
    fn drop(&mut self) {
        self.chunk.give_back(self.first, self.units);
        // In this order: a `trim` that has taken the count away has seen the units, too. Partner: the swap there.
        self.pool.kept.fetch_add(self.units * UNIT, Ordering::Release);
        let used = self.chunk.used();
        if used > UNITS / 2 || used > 0 && self.chunk.listed.load(Ordering::Relaxed) {
            return;
        }
        // Does not wait: another thread holds the lock, or did when this process was forked. Then a later buffer of the
        // chunk adds it to the list, or it is freed with its last buffer.
        let Ok(mut listed) = self.pool.listed.try_lock() else { return };
        let mut gone = None;
        if !self.chunk.listed.load(Ordering::Relaxed) {
            if used == 0 {
                // A `trim` has taken it off the list since its units were freed, and no longer counts them: it is freed with this buffer.
                return;
            }
            self.chunk.listed.store(true, Ordering::Relaxed);
            listed.chunks.insert(0, self.chunk.clone());
        }
        let free = if used == 0 { listed.chunks.iter().filter(|chunk| chunk.used() == 0).count() } else { 0 };
        if free > MOST_KEPT {
            let at = listed.chunks.iter().position(|chunk| Arc::ptr_eq(chunk, &self.chunk));
            gone = at.map(|at| listed.chunks.remove(at));
            self.chunk.listed.store(false, Ordering::Relaxed);
        }
        // Freeing memory takes a while: not under the lock.
        drop(listed);
        drop(gone);
        if free > KEPT {
            self.pool.watch();
        }
    }
}

impl Kept for Watch {
    fn trim(&self, unused: Duration) -> bool {
        let Ok(listed) = self.pool.listed.try_lock() else { return true };
        let is_used = listed.since.is_some_and(|since| since.elapsed() < unused);
        drop(listed);
        if !is_used {
            self.watched.end();
            self.pool.trim();
        }
        is_used
    }
}

impl Pool {
    pub(super) const fn new() -> Pool {
        let listed = Listed { chunks: Vec::new(), epoch: None, since: None };
        Pool { listed: Mutex::new(listed), kept: AtomicUsize::new(0), watch: OnceLock::new() }
    }

    pub(super) fn watch(&'static self) {
        let watch = self.watch.get_or_init(|| Arc::new(Watch { pool: self, watched: Watched::default() }));
        if !watch.watched.begin(watch) {
            self.trim();
        }
    }

    pub(super) fn cut(&'static self, len: usize) -> Option<Cut> {
        let units = len.div_ceil(UNIT);
        let cut = |(chunk, first)| Cut { pool: self, chunk, first, units };
        // Does not wait, as above.
        let mut listed = self.listed.try_lock().ok()?;
        let listed = &mut *listed;
        if listed.epoch.is_none_or(|epoch| epoch.since() == Since::Born) {
            listed.chunks.clear();
            listed.epoch = Some(Epoch::now());
        }
        listed.since = Some(Instant::now());
        while let Some(chunk) = listed.chunks.last() {
            if let Some(first) = chunk.cut(units) {
                return Some(cut((chunk.clone(), first)));
            }
            // It is nearly full, or in small pieces: others may have room for this one, too.
            let mut others = listed.chunks.iter().rev().skip(1).take(KEPT);
            if let Some(other) = others.find_map(|c| c.cut(units).map(|first| (c.clone(), first))) {
                return Some(cut(other));
            }
            if listed.chunks.len() <= KEPT {
                break;
            }
            if let Some(full) = listed.chunks.pop() {
                full.listed.store(false, Ordering::Relaxed);
            }
        }
        let chunk = Arc::new(Chunk::new()?);
        let first = chunk.cut(units)?;
        listed.chunks.push(chunk.clone());
        Some(cut((chunk, first)))
    }

    pub(super) fn trim(&self) {
        let Ok(mut listed) = self.listed.try_lock() else { return };
        // Before the maps are read. Units that are freed later count for the next time. Partner: the end of a `Cut`.
        self.kept.swap(0, Ordering::Acquire);
        let (used, gone): (Vec<_>, Vec<_>) = listed.chunks.drain(..).partition(|chunk| chunk.used() > 0);
        for chunk in &used {
            // With the lock: no buffer is cut meanwhile.
            let map: [u64; WORDS] = std::array::from_fn(|word| chunk.map[word].load(Ordering::Acquire));
            for (first, units) in runs(&map) {
                chunk.memory.forget(first * UNIT, units * UNIT);
            }
        }
        gone.iter().for_each(|chunk| chunk.listed.store(false, Ordering::Relaxed));
        listed.chunks = used;
        drop(listed);
        drop(gone);
    }
}
