//! Values in shared memory, without a lock.
//!
//! Memory that is shared without a lock may change at any time, so a reference into it would be unsound. The safe
//! operation is to copy a whole value by one atomic access. It exists for values of 1, 2, 4 and 8 bytes.
#![allow(unsafe_code)]

use super::value::{no_element, region_for, region_of};
use crate::error::Result;
use crate::sync::shm_serde::{ShmSerde, shm_serde};
use bytemuck::Pod;
use maniple_engine::sync::arena::{CellRef, Place};
use maniple_engine::sync::guarded_region::{Access, GuardedRegion};
use maniple_sys::{BorrowedHandle, OwnedHandle};
use std::fmt;
use std::marker::PhantomData;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU16, AtomicU32, AtomicU64, Ordering};

fn access<T>() -> Access {
    Access::Raw(size_of::<T>() as u32)
}

/// Converts a value to another type of the same size by its bits.
pub(super) fn bits<A: Pod, B: Pod>(value: A) -> B {
    bytemuck::pod_read_unaligned(bytemuck::bytes_of(&value))
}

/// Does `$work` with the atomic `$cell` at `$at`, a `NonNull<$type>`.
macro_rules! atomically {
    ($type:ty, $at:expr, $cell:ident => $work:expr) => {{
        const { assert!(matches!(size_of::<$type>(), 1 | 2 | 4 | 8), "atomic access is for 1, 2, 4 or 8 bytes") };
        // SAFETY (all four): callers pass the address of an element of a guarded region, which they borrow. The region
        // begins at a multiple of 64, so the element lies at a multiple of its own size. All safe accesses to it are
        // atomic and of this size.
        match size_of::<$type>() {
            1 => {
                // SAFETY: as above, for all four.
                let $cell = unsafe { AtomicU8::from_ptr($at.as_ptr().cast()) };
                $work
            }
            2 => {
                // SAFETY: as above, for all four.
                let $cell = unsafe { AtomicU16::from_ptr($at.as_ptr().cast()) };
                $work
            }
            4 => {
                // SAFETY: as above, for all four.
                let $cell = unsafe { AtomicU32::from_ptr($at.as_ptr().cast()) };
                $work
            }
            _ => {
                // SAFETY: as above, for all four.
                let $cell = unsafe { AtomicU64::from_ptr($at.as_ptr().cast()) };
                $work
            }
        }
    }};
}

pub(super) use atomically;

/// A value of 1, 2, 4 or 8 bytes that processes share without a lock: a counter, a progress figure, a setting.
///
/// Every access is atomic, and sequentially consistent.
///
/// ```
/// use maniple::{Process, RawValue};
///
/// # fn main() -> maniple::Result<()> {
/// let done = RawValue::new(0u64)?;
/// let work = |done: RawValue<u64>| {
///     for _ in 0..1000 {
///         done.fetch_update(|n| n + 1);
///     }
/// };
/// let processes = [Process::new(work, done.clone())?, Process::new(work, done.clone())?];
/// processes.iter().try_for_each(Process::start)?;
/// for process in &processes {
///     process.join()?;
/// }
/// assert_eq!(done.get(), 2000);
/// # Ok(())
/// # }
/// ```
///
/// Values of another size do not compile; use a lock for them ([`Value`](crate::Value)):
///
/// ```compile_fail
/// let point = maniple::RawValue::new([1.0f64, 2.0])?;
/// # Ok::<(), maniple::Error>(())
/// ```
pub struct RawValue<T: Pod>(RawArray<T>);

impl<T: Pod> RawValue<T> {
    /// Creates a shared value.
    ///
    /// ```
    /// assert_eq!(maniple::RawValue::new(1.5)?.get(), 1.5);
    /// # Ok::<(), maniple::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::System`](crate::Error::System) if there is no memory or descriptor left.
    pub fn new(value: T) -> Result<RawValue<T>> {
        let raw = RawValue(RawArray::new(1)?);
        raw.set(value);
        Ok(raw)
    }

    fn at(&self) -> NonNull<T> {
        self.0.start()
    }

    /// Returns the current value.
    ///
    /// ```
    /// let progress = maniple::RawValue::new(0.0)?;
    /// progress.set(0.5);
    /// assert_eq!(progress.get(), 0.5);
    /// # Ok::<(), maniple::Error>(())
    /// ```
    #[must_use]
    pub fn get(&self) -> T {
        atomically!(T, self.at(), cell => bits(cell.load(Ordering::SeqCst)))
    }

    /// Stores a value.
    ///
    /// ```
    /// let progress = maniple::RawValue::new(0u8)?;
    /// progress.clone().set(50);
    /// assert_eq!(progress.get(), 50);
    /// # Ok::<(), maniple::Error>(())
    /// ```
    pub fn set(&self, value: T) {
        atomically!(T, self.at(), cell => cell.store(bits(value), Ordering::SeqCst));
    }

    /// Stores a value, and returns the previous value.
    ///
    /// ```
    /// let state = maniple::RawValue::new(1u8)?;
    /// assert_eq!(state.swap(2), 1);
    /// assert_eq!(state.get(), 2);
    /// # Ok::<(), maniple::Error>(())
    /// ```
    pub fn swap(&self, value: T) -> T {
        atomically!(T, self.at(), cell => bits(cell.swap(bits(value), Ordering::SeqCst)))
    }

    /// Stores a value if the current value equals `current`, bit by bit. Returns the previous value in both cases.
    ///
    /// ```
    /// let state = maniple::RawValue::new(1u8)?;
    /// assert_eq!(state.compare_exchange(1, 2), Ok(1));
    /// assert_eq!(state.compare_exchange(1, 3), Err(2));
    /// # Ok::<(), maniple::Error>(())
    /// ```
    ///
    /// # Errors
    /// The current value, if it differs from `current`.
    pub fn compare_exchange(&self, current: T, new: T) -> Result<T, T> {
        atomically!(T, self.at(), cell => {
            let was = cell.compare_exchange(bits(current), bits(new), Ordering::SeqCst, Ordering::SeqCst);
            was.map(bits).map_err(bits)
        })
    }

    /// Stores the result of `change` for the current value, and calls `change` again if another process has changed the
    /// value meanwhile. Returns the previous value.
    ///
    /// ```
    /// let total = maniple::RawValue::new(1.5)?;
    /// assert_eq!(total.fetch_update(|total| total * 2.0), 1.5);
    /// assert_eq!(total.get(), 3.0);
    /// # Ok::<(), maniple::Error>(())
    /// ```
    pub fn fetch_update(&self, mut change: impl FnMut(T) -> T) -> T {
        let mut now = self.get();
        loop {
            match self.compare_exchange(now, change(now)) {
                Ok(was) => return was,
                Err(other) => now = other,
            }
        }
    }
}

impl<T: Pod> Clone for RawValue<T> {
    fn clone(&self) -> Self {
        RawValue(self.0.clone())
    }
}

impl<T: Pod> fmt::Debug for RawValue<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RawValue").finish_non_exhaustive()
    }
}

impl<T: Pod> ShmSerde for RawValue<T> {
    const WHAT: &'static str = "a RawValue";

    fn place(&self) -> &Place {
        self.0.place()
    }

    fn apart(&self) -> Option<BorrowedHandle<'_>> {
        self.0.apart()
    }

    fn open(ticket: CellRef, apart: Option<OwnedHandle>) -> maniple_engine::Result<Self> {
        let raw = RawArray::open(ticket, apart)?;
        if raw.len() != 1 {
            return Err(maniple_engine::Error::Lock("the shared value that was sent has another size"));
        }
        Ok(RawValue(raw))
    }
}

shm_serde!(RawValue<T: Pod>);

/// A list of plain old data, of a fixed length, that processes share without a lock.
///
/// Single elements of 1, 2, 4 or 8 bytes are read and written safely, each by one atomic access. `unsafe` methods
/// return the list as a slice without copying. The program must then ensure, for example by a
/// [`Barrier`](crate::Barrier), that no process writes what others read.
///
/// ```
/// use maniple::{Process, RawArray};
///
/// # fn main() -> maniple::Result<()> {
/// let image = RawArray::<u32>::new(1_000_000)?;
/// let paint = |image: RawArray<u32>| {
///     // SAFETY: the other process does not look before this one has ended.
///     unsafe { image.as_mut_slice() }.fill(0xff00ff);
/// };
/// let process = Process::new(paint, image.clone())?;
/// process.start()?;
/// process.join()?;
/// assert_eq!(image.get(999_999), Some(0xff00ff));
/// # Ok(())
/// # }
/// ```
pub struct RawArray<T: Pod> {
    region: Arc<GuardedRegion>,
    // Values are copied in and out.
    _values: PhantomData<std::sync::Mutex<T>>,
}

impl<T: Pod> RawArray<T> {
    /// Creates a list of `len` zeros.
    ///
    /// ```
    /// let array = maniple::RawArray::<u16>::new(3)?;
    /// assert_eq!((array.len(), array.get(2)), (3, Some(0)));
    /// # Ok::<(), maniple::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::System`](crate::Error::System) if there is no memory or descriptor left,
    /// [`Error::SharedMemory`](crate::Error::SharedMemory) if the length is more than the memory can have.
    pub fn new(len: usize) -> Result<RawArray<T>> {
        Ok(RawArray { region: Arc::new(region_for::<T>(len, access::<T>())?), _values: PhantomData })
    }

    /// Returns the number of elements.
    ///
    /// ```
    /// assert_eq!(maniple::RawArray::<u16>::new(3)?.len(), 3);
    /// # Ok::<(), maniple::Error>(())
    /// ```
    #[must_use]
    pub fn len(&self) -> usize {
        self.region.len() / size_of::<T>()
    }

    /// Returns whether the list is empty.
    ///
    /// ```
    /// assert!(!maniple::RawArray::<u16>::new(3)?.is_empty());
    /// # Ok::<(), maniple::Error>(())
    /// ```
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(super) fn start(&self) -> NonNull<T> {
        self.region.start().cast()
    }

    fn at(&self, index: usize) -> Option<NonNull<T>> {
        // SAFETY: the index is below the length, so the element lies within the region.
        (index < self.len()).then(|| unsafe { self.start().add(index) })
    }

    /// Returns the element at `index`, if there is one, by one atomic access with acquire ordering.
    ///
    /// ```
    /// let array = maniple::RawArray::<u16>::new(3)?;
    /// assert_eq!((array.get(0), array.get(3)), (Some(0), None));
    /// # Ok::<(), maniple::Error>(())
    /// ```
    #[must_use]
    pub fn get(&self, index: usize) -> Option<T> {
        let at = self.at(index)?;
        Some(atomically!(T, at, cell => bits(cell.load(Ordering::Acquire))))
    }

    /// Stores a value at `index`, by one atomic access with release ordering.
    ///
    /// ```
    /// let array = maniple::RawArray::<u16>::new(3)?;
    /// array.set(2, 7)?;
    /// assert_eq!(array.get(2), Some(7));
    /// assert!(array.set(3, 7).is_err());
    /// # Ok::<(), maniple::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::SharedMemory`](crate::Error::SharedMemory) if there is no such element.
    pub fn set(&self, index: usize, value: T) -> Result<()> {
        let at = self.at(index).ok_or_else(|| no_element(index, self.len()))?;
        atomically!(T, at, cell => cell.store(bits(value), Ordering::Release));
        Ok(())
    }

    /// Returns the address of the first element, for foreign functions. It is aligned to 64 bytes, and valid as long as
    /// this array or a clone exists.
    ///
    /// ```
    /// let array = maniple::RawArray::<u16>::new(3)?;
    /// array.set(1, 7)?;
    /// // SAFETY: it lies within, and no other process has this memory.
    /// assert_eq!(unsafe { array.as_ptr().add(1).read() }, 7);
    /// # Ok::<(), maniple::Error>(())
    /// ```
    #[must_use]
    pub fn as_ptr(&self) -> *mut T {
        self.start().as_ptr()
    }

    /// Returns the whole list as a slice.
    ///
    /// ```
    /// let array = maniple::RawArray::<u16>::new(3)?;
    /// array.set(1, 7)?;
    /// // SAFETY: no other process has this memory.
    /// assert_eq!(unsafe { array.as_slice() }, [0, 7, 0]);
    /// # Ok::<(), maniple::Error>(())
    /// ```
    ///
    /// # Safety
    /// As long as the slice is used, no code writes to this memory, in any process.
    #[must_use]
    pub unsafe fn as_slice(&self) -> &[T] {
        // SAFETY: the region exists as long as `self`. It is aligned, and any bit pattern is valid for its values. The
        // caller promises that no code writes to it.
        unsafe { std::slice::from_raw_parts(self.as_ptr(), self.len()) }
    }

    /// Returns the whole list as a mutable slice.
    ///
    /// ```
    /// let array = maniple::RawArray::<u16>::new(3)?;
    /// // SAFETY: no other process has this memory.
    /// unsafe { array.as_mut_slice() }.fill(7);
    /// assert_eq!(array.get(2), Some(7));
    /// # Ok::<(), maniple::Error>(())
    /// ```
    ///
    /// # Safety
    /// As long as the slice is used, no other code reads or writes this memory, in any process. (For a part of
    /// it, make a slice from [`as_ptr`](RawArray::as_ptr).)
    #[allow(clippy::mut_from_ref)]
    #[must_use]
    pub unsafe fn as_mut_slice(&self) -> &mut [T] {
        // SAFETY: as above. The caller promises that no other code accesses the region.
        unsafe { std::slice::from_raw_parts_mut(self.as_ptr(), self.len()) }
    }
}

impl<T: Pod> Clone for RawArray<T> {
    fn clone(&self) -> Self {
        RawArray { region: self.region.clone(), _values: PhantomData }
    }
}

impl<T: Pod> fmt::Debug for RawArray<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RawArray").field("len", &self.len()).finish_non_exhaustive()
    }
}

impl<T: Pod> ShmSerde for RawArray<T> {
    const WHAT: &'static str = "a RawArray";

    fn place(&self) -> &Place {
        self.region.place()
    }

    fn apart(&self) -> Option<BorrowedHandle<'_>> {
        self.region.apart()
    }

    fn open(ticket: CellRef, apart: Option<OwnedHandle>) -> maniple_engine::Result<Self> {
        Ok(RawArray { region: Arc::new(region_of::<T>(ticket, apart, access::<T>())?), _values: PhantomData })
    }
}

shm_serde!(RawArray<T: Pod>);
