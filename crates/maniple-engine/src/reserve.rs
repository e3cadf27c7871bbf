//! Memory for small allocations when the system refuses them.
//!
//! Rust's containers end the process when an allocation fails. Large allocations are therefore reserved first, and a refusal is an
//! error of the operation. Small ones are everywhere: a job, a frame of a hash map, the list that a poll takes. [`Reserve`] is an
//! allocator which serves them from a static region when the system has nothing left, so that the operation continues until it
//! meets a refusal that it can report. If the region is full as well, an allocation waits for the shortage to end.
//!
//! The region is zeros in the library's image: it costs address space, and no memory until a shortage. Each of its cells is claimed by one
//! bit. No lock is taken, so a fork at any moment leaves the region whole.
#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::UnsafeCell;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Bytes of a cell, and the number of cells, in ascending order of size. Each number is a multiple of 64.
const SHELVES: [(usize, usize); 4] = [(128, 8192), (1024, 1024), (8192, 128), (65_536, 64)];
/// The largest allocation that the region serves.
const LARGEST: usize = SHELVES[SHELVES.len() - 1].0;
const BYTES: usize = {
    let mut sum = 0;
    let mut shelf = 0;
    while shelf < SHELVES.len() {
        sum += SHELVES[shelf].0 * SHELVES[shelf].1;
        shelf += 1;
    }
    sum
};
const WORDS: usize = {
    let mut sum = 0;
    let mut shelf = 0;
    while shelf < SHELVES.len() {
        sum += SHELVES[shelf].1 / 64;
        shelf += 1;
    }
    sum
};
/// The strictest alignment that a cell has: a shelf begins at a multiple of its cells' size, at most of this.
const ALIGN: usize = 4096;
/// How long an allocation waits for a cell, in steps.
const FIRST_STEP: Duration = Duration::from_micros(100);
const LAST_STEP: Duration = Duration::from_millis(20);
const STEPS: u32 = 500;

#[repr(C, align(4096))]
struct Region(UnsafeCell<[u8; BYTES]>);

// SAFETY: a byte of the region belongs to the caller that has claimed its cell, and `TAKEN` lets one caller claim a cell.
unsafe impl Sync for Region {}

static REGION: Region = Region(UnsafeCell::new([0; BYTES]));
static TAKEN: [AtomicU64; WORDS] = [const { AtomicU64::new(0) }; WORDS];

fn start() -> *mut u8 {
    REGION.0.get().cast()
}

/// The system's allocator, with a reserve for small allocations.
#[derive(Debug)]
pub struct Reserve;

impl Reserve {
    /// The cells that are in use.
    #[must_use]
    pub fn in_use() -> usize {
        TAKEN.iter().map(|word| word.load(Ordering::Relaxed).count_ones() as usize).sum()
    }
}

/// A cell for `layout`; `None`: there is none free, or none so large.
fn claim(layout: Layout) -> Option<*mut u8> {
    let (mut offset, mut first) = (0, 0);
    for (size, number) in SHELVES {
        let words = number / 64;
        if layout.size() <= size && layout.align() <= size.min(ALIGN) {
            for (index, word) in TAKEN[first..first + words].iter().enumerate() {
                let mut seen = word.load(Ordering::Relaxed);
                while seen != u64::MAX {
                    let bit = seen.trailing_ones();
                    let taken = seen | 1 << bit;
                    // Acquire: what the former owner wrote into the cell comes before what the new one writes.
                    match word.compare_exchange_weak(seen, taken, Ordering::Acquire, Ordering::Relaxed) {
                        // SAFETY: the cell lies within the region.
                        Ok(_) => return Some(unsafe { start().add(offset + (index * 64 + bit as usize) * size) }),
                        Err(now) => seen = now,
                    }
                }
            }
        }
        offset += size * number;
        first += words;
    }
    None
}

/// Whether the region holds this address.
fn is_ours(at: *mut u8) -> bool {
    at.addr().wrapping_sub(start().addr()) < BYTES
}

/// Frees the cell at `at`, which the region holds.
fn give_back(at: *mut u8) {
    let mut left = at.addr() - start().addr();
    let mut first = 0;
    for (size, number) in SHELVES {
        if left < size * number {
            let cell = left / size;
            // Release: see `claim`.
            TAKEN[first + cell / 64].fetch_and(!(1 << (cell % 64)), Ordering::Release);
            return;
        }
        left -= size * number;
        first += number / 64;
    }
}

/// A cell, after the system has refused memory. Null: the shortage lasts.
#[cold]
#[inline(never)]
fn refused(layout: Layout, zeroed: bool) -> *mut u8 {
    if layout.size() > LARGEST || layout.align() > ALIGN {
        return std::ptr::null_mut();
    }
    let mut step = FIRST_STEP;
    for _ in 0..STEPS {
        if let Some(cell) = claim(layout) {
            if zeroed {
                // SAFETY: the cell has at least this size, and it is this caller's.
                unsafe { cell.write_bytes(0, layout.size()) };
            }
            return cell;
        }
        std::thread::sleep(step);
        step = (step * 2).min(LAST_STEP);
        // SAFETY: the caller's own layout.
        let memory = unsafe { if zeroed { System.alloc_zeroed(layout) } else { System.alloc(layout) } };
        if !memory.is_null() {
            return memory;
        }
    }
    std::ptr::null_mut()
}

// SAFETY: what `System` returns goes back to `System`, and a cell of the region to the region: their addresses differ. A cell
// is as large and as aligned as its layout wants, and has one owner.
unsafe impl GlobalAlloc for Reserve {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller keeps the contract of `GlobalAlloc`.
        let memory = unsafe { System.alloc(layout) };
        if memory.is_null() { refused(layout, false) } else { memory }
    }

    #[inline]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as above.
        let memory = unsafe { System.alloc_zeroed(layout) };
        if memory.is_null() { refused(layout, true) } else { memory }
    }

    #[inline]
    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        if is_ours(at) {
            give_back(at);
        } else {
            // SAFETY: as above, and it came from `System`.
            unsafe { System.dealloc(at, layout) }
        }
    }

    #[inline]
    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        if !is_ours(at) {
            // SAFETY: as above, and it came from `System`.
            let memory = unsafe { System.realloc(at, layout, size) };
            if !memory.is_null() {
                return memory;
            }
        }
        // SAFETY: the caller passes a size that is valid with this alignment.
        let wanted = unsafe { Layout::from_size_align_unchecked(size, layout.align()) };
        // SAFETY: as above. What the system refused to extend in place, it may have elsewhere.
        let memory = unsafe { self.alloc(wanted) };
        if !memory.is_null() {
            // SAFETY: both are as large as is copied, and they do not overlap; the old memory is freed once.
            unsafe {
                memory.copy_from_nonoverlapping(at, layout.size().min(size));
                self.dealloc(at, layout);
            }
        }
        memory
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn layout(size: usize, align: usize) -> Layout {
        Layout::from_size_align(size, align).unwrap()
    }

    /// The tests share one region.
    fn alone() -> std::sync::MutexGuard<'static, ()> {
        static ALONE: std::sync::Mutex<()> = std::sync::Mutex::new(());
        ALONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    #[test]
    fn cells_do_not_overlap_and_are_aligned_and_come_back() {
        let _alone = alone();
        let sizes = [1, 24, 128, 129, 1000, 1024, 1025, 8000, 8193, 60_000, 65_536];
        let mut taken = BTreeMap::new();
        let mut full = 0;
        for turn in 0..3000 {
            let (size, align) = (sizes[turn % sizes.len()], 1 << (turn % 7));
            let Some(cell) = claim(layout(size, align)) else {
                full += 1;
                continue;
            };
            assert!(is_ours(cell) && cell.addr() % align == 0);
            assert!(is_ours(cell.wrapping_add(size - 1)));
            taken.insert(cell.addr(), (cell, size));
        }
        assert!(full > 0, "the largest cells are used up");
        let spans: Vec<_> = taken.iter().map(|(from, (_, size))| (*from, from + size)).collect();
        assert!(spans.windows(2).all(|two| two[0].1 <= two[1].0));
        assert_eq!(Reserve::in_use(), taken.len());
        for (cell, _) in taken.into_values() {
            give_back(cell);
        }
        assert_eq!(Reserve::in_use(), 0);
    }

    #[test]
    fn a_full_shelf_is_followed_by_the_next_larger_one() {
        let _alone = alone();
        let cells: Vec<_> = std::iter::from_fn(|| claim(layout(16, 8))).collect();
        assert_eq!(cells.len(), SHELVES.iter().map(|shelf| shelf.1).sum::<usize>());
        assert!(claim(layout(16, 8)).is_none());
        cells.into_iter().for_each(give_back);
        assert_eq!(Reserve::in_use(), 0);
    }

    #[test]
    fn what_is_too_large_or_too_aligned_is_refused_at_once() {
        let _alone = alone();
        let began = std::time::Instant::now();
        assert!(refused(layout(LARGEST + 1, 1), false).is_null());
        assert!(refused(layout(64, 2 * ALIGN), false).is_null());
        assert!(began.elapsed() < Duration::from_secs(1));
    }

    #[test]
    fn memory_moves_between_the_region_and_the_system() {
        let _alone = alone();
        let cell = refused(layout(100, 8), true);
        // SAFETY: each block is used within its size, and moved or freed with the layout that it has.
        unsafe {
            assert_eq!(std::slice::from_raw_parts(cell, 100), [0; 100]);
            cell.write_bytes(7, 100);
            let grown = Reserve.realloc(cell, layout(100, 8), 100_000);
            assert!(!is_ours(grown));
            assert_eq!(std::slice::from_raw_parts(grown, 100), [7; 100]);
            assert_eq!(Reserve::in_use(), 0);
            Reserve.dealloc(grown, layout(100_000, 8));
        }
    }

    #[test]
    fn threads_that_claim_at_once_get_cells_of_their_own() {
        let _alone = alone();
        std::thread::scope(|scope| {
            for mark in 0..4_u8 {
                scope.spawn(move || {
                    for turn in 0..2000 {
                        let size = 1 + turn % 2000;
                        let cell = refused(layout(size, 8), false);
                        // SAFETY: the cell is this thread's, and has this size.
                        unsafe {
                            cell.write_bytes(mark, size);
                            std::thread::yield_now();
                            assert!(std::slice::from_raw_parts(cell, size).iter().all(|byte| *byte == mark));
                        }
                        give_back(cell);
                    }
                });
            }
        });
        assert_eq!(Reserve::in_use(), 0);
    }
}
