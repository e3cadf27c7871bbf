//! Ranges of a [`RawArray`]: copies in and out, element by element.
//!
//! A slice over memory that other processes write would be undefined behaviour, so nothing here makes one. Each element is one
//! atomic access, as in [`RawArray::get`] and [`RawArray::set`]; a range as a whole is not.
#![allow(unsafe_code)]

use super::raw::{RawArray, atomically, bits};
use crate::error::{Error, Result};
use bytemuck::Pod;
use std::ops::{Bound, Range, RangeBounds};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU8, AtomicU16, AtomicU32, AtomicU64, Ordering, fence};

impl<T: Pod> RawArray<T> {
    /// Returns a copy of the elements of `range`. Each element is read by one atomic access; other processes may change
    /// some of them meanwhile.
    ///
    /// ```
    /// let array = maniple::RawArray::<u16>::new(4)?;
    /// array.write_range(1, &[5, 6])?;
    /// assert_eq!(array.read_range(..)?, [0, 5, 6, 0]);
    /// assert_eq!(array.read_range(2..)?, [6, 0]);
    /// assert!(array.read_range(3..5).is_err());
    /// # Ok::<(), maniple::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::SharedMemory`] if the range is not within the array.
    pub fn read_range(&self, range: impl RangeBounds<usize>) -> Result<Vec<T>> {
        let range = self.within(range)?;
        let mut values = vec![T::zeroed(); range.len()];
        self.copy_to_slice(range.start, &mut values)?;
        Ok(values)
    }

    /// Copies elements from `start` on into `values`, until `values` is full.
    ///
    /// ```
    /// let array = maniple::RawArray::<u16>::new(4)?;
    /// array.set(3, 7)?;
    /// let mut two = [1; 2];
    /// array.copy_to_slice(2, &mut two)?;
    /// assert_eq!(two, [0, 7]);
    /// assert!(array.copy_to_slice(3, &mut two).is_err());
    /// # Ok::<(), maniple::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::SharedMemory`] if the array ends before; nothing was copied.
    pub fn copy_to_slice(&self, start: usize, values: &mut [T]) -> Result<()> {
        let range = self.span(start, values.len())?;
        for (at, value) in self.elements(range).zip(values) {
            *value = atomically!(T, at, cell => bits(cell.load(Ordering::Relaxed)));
        }
        // Partner: the fence in `write_range` and `fill`, and the Release in `set`.
        fence(Ordering::Acquire);
        Ok(())
    }

    /// Copies `values` into the elements from `start` on. Each element is written by one atomic access; other processes
    /// may see some of them changed and others not yet.
    ///
    /// ```
    /// let array = maniple::RawArray::<f64>::new(3)?;
    /// array.write_range(1, &[0.5, 1.5])?;
    /// assert_eq!(array.read_range(..)?, [0.0, 0.5, 1.5]);
    /// assert!(array.write_range(2, &[0.5, 1.5]).is_err());
    /// # Ok::<(), maniple::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::SharedMemory`] if the array ends before; nothing was changed.
    pub fn write_range(&self, start: usize, values: &[T]) -> Result<()> {
        let range = self.span(start, values.len())?;
        // Partner: the fence in `copy_to_slice`, and the Acquire in `get`.
        fence(Ordering::Release);
        for (at, &value) in self.elements(range).zip(values) {
            atomically!(T, at, cell => cell.store(bits(value), Ordering::Relaxed));
        }
        Ok(())
    }

    /// Copies `values` into the whole array.
    ///
    /// ```
    /// let array = maniple::RawArray::<u8>::new(3)?;
    /// array.copy_from_slice(b"abc")?;
    /// assert_eq!(array.get(2), Some(b'c'));
    /// assert!(array.copy_from_slice(b"ab").is_err());
    /// # Ok::<(), maniple::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::SharedMemory`] if there are not as many values as elements; nothing was changed.
    pub fn copy_from_slice(&self, values: &[T]) -> Result<()> {
        if values.len() != self.len() {
            return Err(Error::SharedMemory(format!(
                "{} values do not fill an array of {}; use write_range() for a part of it",
                values.len(),
                self.len()
            )));
        }
        self.write_range(0, values)
    }

    /// Writes `value` into each element of `range`.
    ///
    /// ```
    /// let array = maniple::RawArray::<u32>::new(4)?;
    /// array.fill(1..=2, 9)?;
    /// assert_eq!(array.read_range(..)?, [0, 9, 9, 0]);
    /// assert!(array.fill(..5, 0).is_err());
    /// # Ok::<(), maniple::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::SharedMemory`] if the range is not within the array; nothing was changed.
    pub fn fill(&self, range: impl RangeBounds<usize>, value: T) -> Result<()> {
        let range = self.within(range)?;
        // As in `write_range`.
        fence(Ordering::Release);
        for at in self.elements(range) {
            atomically!(T, at, cell => cell.store(bits(value), Ordering::Relaxed));
        }
        Ok(())
    }

    /// The elements of a range that lies within the array.
    fn elements(&self, range: Range<usize>) -> impl Iterator<Item = NonNull<T>> {
        let start = self.start();
        // SAFETY: `within` has made sure of the range.
        range.map(move |index| unsafe { start.add(index) })
    }

    fn span(&self, start: usize, count: usize) -> Result<Range<usize>> {
        // A sum that is too large for a number is larger than the array, too.
        self.within(start..start.saturating_add(count))
    }

    fn within(&self, range: impl RangeBounds<usize>) -> Result<Range<usize>> {
        let len = self.len();
        let start = match range.start_bound() {
            Bound::Included(&start) => start,
            Bound::Excluded(&before) => before.saturating_add(1),
            Bound::Unbounded => 0,
        };
        let end = match range.end_bound() {
            Bound::Included(&last) => last.saturating_add(1),
            Bound::Excluded(&end) => end,
            Bound::Unbounded => len,
        };
        if start <= end && end <= len {
            return Ok(start..end);
        }
        Err(Error::SharedMemory(format!("the range {start}..{end} is not within an array of {len} elements")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_that_is_not_within_the_array_is_refused_and_nothing_is_changed() {
        let array = RawArray::<u16>::new(4).unwrap();
        array.write_range(0, &[1, 2, 3, 4]).unwrap();
        let outside = (Bound::Excluded(usize::MAX), Bound::Unbounded);
        for refused in [
            array.read_range((Bound::Included(2), Bound::Excluded(1))).map(drop),
            array.read_range(..=4).map(drop),
            array.read_range(..=usize::MAX).map(drop),
            array.read_range(outside).map(drop),
            array.write_range(usize::MAX, &[9, 9]),
            array.write_range(3, &[9, 9]),
            array.copy_to_slice(5, &mut []),
            array.copy_from_slice(&[9; 5]),
            array.fill(3..5, 9),
        ] {
            assert!(matches!(refused, Err(Error::SharedMemory(_))), "{refused:?}");
        }
        assert_eq!(array.read_range(..).unwrap(), [1, 2, 3, 4]);
        assert!(array.read_range(4..).unwrap().is_empty());
        assert_eq!(array.read_range((Bound::Excluded(0), Bound::Included(2))).unwrap(), [2, 3]);
    }

    #[test]
    fn values_of_every_size_go_in_and_out() {
        fn there_and_back<T: Pod + PartialEq + std::fmt::Debug>(values: [T; 5]) {
            let array = RawArray::<T>::new(5).unwrap();
            array.copy_from_slice(&values).unwrap();
            assert_eq!(array.read_range(..).unwrap(), values);
            array.fill(1..4, values[0]).unwrap();
            assert_eq!(array.read_range(..).unwrap(), [values[0], values[0], values[0], values[0], values[4]]);
        }
        there_and_back([1u8, 2, 3, 4, 255]);
        there_and_back([1i16, -2, 3, -4, 5]);
        there_and_back([1.5f32, 2.5, 3.5, 4.5, 5.5]);
        there_and_back([1u64, 2, 3, 4, u64::MAX]);
    }
}
