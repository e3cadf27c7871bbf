//! Values in shared memory, with a lock.
#![allow(unsafe_code)]

use crate::error::{Error, Result};
use crate::sync::held::{self, Held};
use crate::sync::shm_serde::{ShmSerde, shm_serde};
use crate::sync::{LockResult, Mutex, MutexGuard, TryLockResult};
use bytemuck::Pod;
use maniple_engine::sync::arena::{CellRef, Place};
use maniple_engine::sync::guarded_region::{ALIGNMENT, Access, GuardedRegion};
use maniple_sys::{BorrowedHandle, OwnedHandle};
use std::fmt;
use std::marker::PhantomData;
use std::ptr::NonNull;
use std::sync::Arc;
use std::time::Duration;

/// A value of plain old data that processes share: a [`Mutex`] that can also be read and written as a whole.
///
/// ```
/// use maniple::{Process, Value};
///
/// # fn main() -> maniple::Result<()> {
/// let temperature = Value::new(20.5)?;
/// let process = Process::new(|value: Value<f64>| value.set(21.0), temperature.clone())?;
/// process.start()?;
/// process.join()?;
/// assert_eq!(temperature.get()?, 21.0);
/// *temperature.lock()? += 0.5;
/// # Ok(())
/// # }
/// ```
///
/// [`RawValue`](crate::RawValue) has no lock.
pub struct Value<T: Pod>(Mutex<T>);

impl<T: Pod> Value<T> {
    /// Creates a shared value.
    ///
    /// ```
    /// assert_eq!(maniple::Value::new([1, 2])?.get()?, [1, 2]);
    /// # Ok::<(), maniple::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::System`] if there is no memory or descriptor left.
    pub fn new(value: T) -> Result<Value<T>> {
        Mutex::new(value).map(Value)
    }

    /// Returns the current value. Holds the lock during the call.
    ///
    /// ```
    /// let value = maniple::Value::new(1)?;
    /// *value.lock()? += 1;
    /// assert_eq!(value.get()?, 2);
    /// # Ok::<(), maniple::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`SyncError::Poisoned`](crate::SyncError::Poisoned) if the previous holder of the lock died or panicked.
    pub fn get(&self) -> Result<T> {
        Ok(*self.0.lock()?)
    }

    /// Stores a value. Holds the lock during the call.
    ///
    /// ```
    /// let value = maniple::Value::new(1)?;
    /// value.set(2)?;
    /// assert_eq!(value.get()?, 2);
    /// # Ok::<(), maniple::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`SyncError::Poisoned`](crate::SyncError::Poisoned) if the previous holder of the lock died or panicked.
    pub fn set(&self, value: T) -> Result<()> {
        *self.0.lock()? = value;
        Ok(())
    }

    /// Acquires the lock, and returns a guard to read or change the value. This call, [`get`](Value::get) and
    /// [`set`](Value::set) wait forever if this thread itself holds the lock.
    ///
    /// ```
    /// let value = maniple::Value::new(1)?;
    /// let mut guard = value.lock()?;
    /// *guard += 1;
    /// assert_eq!(*guard, 2);
    /// # Ok::<(), maniple::Error>(())
    /// ```
    ///
    /// # Errors
    /// The lock was acquired and is poisoned: a holder died or panicked.
    pub fn lock(&self) -> LockResult<MutexGuard<'_, T>> {
        self.0.lock()
    }

    /// As [`Mutex::try_lock`].
    ///
    /// ```
    /// let value = maniple::Value::new(1)?;
    /// let guard = value.try_lock()?;
    /// assert!(value.try_lock().is_err());
    /// assert_eq!(*guard, 1);
    /// # Ok::<(), maniple::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`TryLockError::WouldBlock`](crate::TryLockError::WouldBlock), or the lock was acquired and is poisoned.
    pub fn try_lock(&self) -> TryLockResult<MutexGuard<'_, T>> {
        self.0.try_lock()
    }

    /// As [`lock`](Value::lock), for at most `timeout`.
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// let value = maniple::Value::new(1)?;
    /// let guard = value.lock_timeout(Duration::from_secs(1))?;
    /// assert!(value.lock_timeout(Duration::from_millis(1)).is_err());
    /// assert_eq!(*guard, 1);
    /// # Ok::<(), maniple::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`TryLockError::Timeout`](crate::TryLockError::Timeout), or the lock was acquired and is poisoned.
    pub fn lock_timeout(&self, timeout: Duration) -> TryLockResult<MutexGuard<'_, T>> {
        self.0.lock_timeout(timeout)
    }

    /// Returns whether a holder died or panicked, and no process has [cleared](Value::clear_poison) that.
    ///
    /// ```
    /// let value = maniple::Value::new(1)?;
    /// let there = value.clone();
    /// let thread = std::thread::spawn(move || {
    ///     let _guard = there.lock();
    ///     panic!("in the middle of it");
    /// });
    /// assert!(thread.join().is_err());
    /// assert!(value.is_poisoned() && value.get().is_err());
    /// # Ok::<(), maniple::Error>(())
    /// ```
    #[must_use]
    pub fn is_poisoned(&self) -> bool {
        self.0.is_poisoned()
    }

    /// Removes the mark of a dead holder, once the value is consistent. The caller must hold the lock.
    ///
    /// ```
    /// let value = maniple::Value::new(1)?;
    /// let there = value.clone();
    /// let thread = std::thread::spawn(move || {
    ///     let _guard = there.lock();
    ///     panic!("in the middle of it");
    /// });
    /// assert!(thread.join().is_err());
    /// if let Err(poisoned) = value.lock() {
    ///     let mut guard = poisoned.into_inner();
    ///     *guard = 0;
    ///     value.clear_poison();
    /// }
    /// assert_eq!(value.get()?, 0);
    /// # Ok::<(), maniple::Error>(())
    /// ```
    pub fn clear_poison(&self) {
        self.0.clear_poison();
    }
}

impl<T: Pod> Clone for Value<T> {
    fn clone(&self) -> Self {
        Value(self.0.clone())
    }
}

impl<T: Pod + fmt::Debug> fmt::Debug for Value<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Value").field(&self.0).finish()
    }
}

impl<T: Pod> ShmSerde for Value<T> {
    const WHAT: &'static str = "a Value";

    fn place(&self) -> &Place {
        self.0.place()
    }

    fn apart(&self) -> Option<BorrowedHandle<'_>> {
        self.0.apart()
    }

    fn open(ticket: CellRef, apart: Option<OwnedHandle>) -> maniple_engine::Result<Self> {
        Mutex::open(ticket, apart).map(Value)
    }
}

shm_serde!(Value<T: Pod>);

/// A list of plain old data, of a fixed length, that processes share, with one lock for the whole list.
///
/// ```
/// use maniple::{Array, Process};
///
/// # fn main() -> maniple::Result<()> {
/// let squares = Array::<u64>::new(1000)?;
/// let fill = |squares: Array<u64>| {
///     for (n, place) in squares.lock().unwrap().iter_mut().enumerate() {
///         *place = (n * n) as u64;
///     }
/// };
/// let process = Process::new(fill, squares.clone())?;
/// process.start()?;
/// process.join()?;
/// assert_eq!(squares.lock()?[999], 998_001);
/// # Ok(())
/// # }
/// ```
///
/// [`RawArray`](crate::RawArray) has no lock.
pub struct Array<T: Pod> {
    region: Arc<GuardedRegion>,
    _values: PhantomData<std::sync::Mutex<T>>,
}

/// Makes a guarded region for so many values.
pub(super) fn region_for<T: Pod>(len: usize, access: Access) -> Result<GuardedRegion> {
    const {
        assert!(align_of::<T>() <= ALIGNMENT, "a shared value is aligned to 64 bytes at most");
        assert!(size_of::<T>() > 0, "an array needs elements that have a size");
    };
    let bytes = len.checked_mul(size_of::<T>()).filter(|&bytes| isize::try_from(bytes).is_ok());
    Ok(GuardedRegion::create(
        bytes.ok_or_else(|| Error::SharedMemory(format!("{len} elements do not fit into memory")))?,
        access,
    )?)
}

/// Opens a guarded region that contains a whole number of values.
pub(super) fn region_of<T: Pod>(
    ticket: CellRef,
    apart: Option<OwnedHandle>,
    access: Access,
) -> maniple_engine::Result<GuardedRegion> {
    let region = GuardedRegion::open(ticket, apart, access)?;
    if !region.len().is_multiple_of(size_of::<T>()) {
        return Err(maniple_engine::Error::Lock("the shared array that was sent is not a whole number of elements"));
    }
    Ok(region)
}

impl<T: Pod> Array<T> {
    /// Creates a list of `len` zeros.
    ///
    /// ```
    /// assert_eq!(maniple::Array::<u16>::new(3)?.to_vec()?, [0, 0, 0]);
    /// # Ok::<(), maniple::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::System`] if there is no memory or descriptor left, [`Error::SharedMemory`] if the length is more than
    /// the memory can have.
    pub fn new(len: usize) -> Result<Array<T>> {
        Ok(Array { region: Arc::new(region_for::<T>(len, Access::Guarded)?), _values: PhantomData })
    }

    /// Creates a list with a copy of `values`.
    ///
    /// ```
    /// let array = maniple::Array::from_slice(&[1u8, 2, 3])?;
    /// array.set(0, 9)?;
    /// assert_eq!(array.to_vec()?, [9, 2, 3]);
    /// # Ok::<(), maniple::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::System`] if there is no memory or descriptor left.
    pub fn from_slice(values: &[T]) -> Result<Array<T>> {
        let array = Array::new(values.len())?;
        array.lock()?.copy_from_slice(values);
        Ok(array)
    }

    /// Returns the number of elements.
    ///
    /// ```
    /// assert_eq!(maniple::Array::<u16>::new(3)?.len(), 3);
    /// # Ok::<(), maniple::Error>(())
    /// ```
    #[must_use]
    pub fn len(&self) -> usize {
        self.region.len() / size_of::<T>()
    }

    /// Returns whether the list is empty.
    ///
    /// ```
    /// assert!(!maniple::Array::<u16>::new(3)?.is_empty());
    /// # Ok::<(), maniple::Error>(())
    /// ```
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn guard<'a>(&'a self) -> impl Fn(Held<'a>) -> MutexGuard<'a, [T]> {
        let values = NonNull::slice_from_raw_parts(self.region.start().cast::<T>(), self.len());
        // SAFETY: the region has the size and alignment of so many `T` (`region_for` makes it so, `region_of` checks it),
        // and any bit pattern is valid for a `T`.
        move |held| unsafe { MutexGuard::new(held, values) }
    }

    /// Acquires the lock, and returns a guard for the whole list as a slice. This call, [`get`](Array::get),
    /// [`set`](Array::set) and [`to_vec`](Array::to_vec) wait forever if this thread itself holds the lock.
    ///
    /// ```
    /// let array = maniple::Array::from_slice(&[3, 1, 2])?;
    /// array.lock()?.sort();
    /// assert_eq!(array.to_vec()?, [1, 2, 3]);
    /// # Ok::<(), maniple::Error>(())
    /// ```
    ///
    /// # Errors
    /// The lock was acquired and is poisoned: a holder died or panicked.
    pub fn lock(&self) -> LockResult<MutexGuard<'_, [T]>> {
        held::lock(self.region.lock(), self.guard())
    }

    /// As [`Mutex::try_lock`].
    ///
    /// ```
    /// let array = maniple::Array::from_slice(&[3, 1, 2])?;
    /// let guard = array.try_lock()?;
    /// assert!(array.try_lock().is_err());
    /// assert_eq!(guard.iter().sum::<i32>(), 6);
    /// # Ok::<(), maniple::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`TryLockError::WouldBlock`](crate::TryLockError::WouldBlock), or the lock was acquired and is poisoned.
    pub fn try_lock(&self) -> TryLockResult<MutexGuard<'_, [T]>> {
        held::try_lock(self.region.lock(), self.guard())
    }

    /// As [`lock`](Array::lock), for at most `timeout`.
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// let array = maniple::Array::from_slice(&[3, 1, 2])?;
    /// let guard = array.lock_timeout(Duration::from_secs(1))?;
    /// assert!(array.lock_timeout(Duration::from_millis(1)).is_err());
    /// assert_eq!(guard.len(), 3);
    /// # Ok::<(), maniple::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`TryLockError::Timeout`](crate::TryLockError::Timeout), or the lock was acquired and is poisoned.
    pub fn lock_timeout(&self, timeout: Duration) -> TryLockResult<MutexGuard<'_, [T]>> {
        held::lock_timeout(self.region.lock(), timeout, self.guard())
    }

    /// Returns the element at `index`, if there is one. Holds the lock during the call.
    ///
    /// ```
    /// let array = maniple::Array::from_slice(&[3, 1, 2])?;
    /// assert_eq!((array.get(2)?, array.get(3)?), (Some(2), None));
    /// # Ok::<(), maniple::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`SyncError::Poisoned`](crate::SyncError::Poisoned) if the previous holder of the lock died or panicked.
    pub fn get(&self, index: usize) -> Result<Option<T>> {
        Ok(self.lock()?.get(index).copied())
    }

    /// Stores a value at `index`. Holds the lock during the call.
    ///
    /// ```
    /// let array = maniple::Array::from_slice(&[3, 1, 2])?;
    /// array.set(0, 7)?;
    /// assert_eq!(array.get(0)?, Some(7));
    /// assert!(array.set(3, 7).is_err());
    /// # Ok::<(), maniple::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::SharedMemory`] if there is no such element, [`SyncError::Poisoned`](crate::SyncError::Poisoned) if the previous holder of the lock
    /// died or
    /// panicked.
    pub fn set(&self, index: usize, value: T) -> Result<()> {
        *self.lock()?.get_mut(index).ok_or_else(|| no_element(index, self.len()))? = value;
        Ok(())
    }

    /// Returns a copy of the whole list. Holds the lock during the call.
    ///
    /// ```
    /// assert_eq!(maniple::Array::from_slice(&[3, 1, 2])?.to_vec()?, [3, 1, 2]);
    /// # Ok::<(), maniple::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`SyncError::Poisoned`](crate::SyncError::Poisoned) if the previous holder of the lock died or panicked.
    pub fn to_vec(&self) -> Result<Vec<T>> {
        Ok(self.lock()?.to_vec())
    }

    /// Returns whether a holder died or panicked, and no process has [cleared](Array::clear_poison) that.
    ///
    /// ```
    /// let array = maniple::Array::from_slice(&[3, 1, 2])?;
    /// let there = array.clone();
    /// let thread = std::thread::spawn(move || {
    ///     let _guard = there.lock();
    ///     panic!("in the middle of it");
    /// });
    /// assert!(thread.join().is_err());
    /// assert!(array.is_poisoned() && array.get(0).is_err());
    /// # Ok::<(), maniple::Error>(())
    /// ```
    #[must_use]
    pub fn is_poisoned(&self) -> bool {
        self.region.lock().poison().is_some()
    }

    /// Removes the mark of a dead holder. The caller must hold the lock.
    ///
    /// ```
    /// let array = maniple::Array::from_slice(&[3, 1, 2])?;
    /// let there = array.clone();
    /// let thread = std::thread::spawn(move || {
    ///     let _guard = there.lock();
    ///     panic!("in the middle of it");
    /// });
    /// assert!(thread.join().is_err());
    /// if let Err(poisoned) = array.lock() {
    ///     let mut guard = poisoned.into_inner();
    ///     guard.fill(0);
    ///     array.clear_poison();
    /// }
    /// assert_eq!(array.to_vec()?, [0, 0, 0]);
    /// # Ok::<(), maniple::Error>(())
    /// ```
    pub fn clear_poison(&self) {
        self.region.lock().clear_poison();
    }
}

pub(super) fn no_element(index: usize, len: usize) -> Error {
    Error::SharedMemory(format!("there is no element {index} among {len}"))
}

impl<T: Pod> Clone for Array<T> {
    fn clone(&self) -> Self {
        Array { region: self.region.clone(), _values: PhantomData }
    }
}

impl<T: Pod> fmt::Debug for Array<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Array").field("len", &self.len()).field("poisoned", &self.is_poisoned()).finish()
    }
}

impl<T: Pod> ShmSerde for Array<T> {
    const WHAT: &'static str = "an Array";

    fn place(&self) -> &Place {
        self.region.place()
    }

    fn apart(&self) -> Option<BorrowedHandle<'_>> {
        self.region.apart()
    }

    fn open(ticket: CellRef, apart: Option<OwnedHandle>) -> maniple_engine::Result<Self> {
        Ok(Array { region: Arc::new(region_of::<T>(ticket, apart, Access::Guarded)?), _values: PhantomData })
    }
}

shm_serde!(Array<T: Pod>);
