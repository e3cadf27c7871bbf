//! The content of an object whose class Python classes extend.
//!
//! The interpreter allocates such an object, with zeros in it, and then the dict of its attributes. If there is no memory for
//! the dict, the interpreter destroys the object, and PyO3 drops the Rust content, which was never written. So the fields
//! with something to drop are in a [`Born`], for which zeros mean that there is nothing.
#![allow(unsafe_code)]

use std::mem::MaybeUninit;
use std::ops::Deref;

const BORN: u32 = 0x424f_524e;

/// A value, or zeros.
pub struct Born<T> {
    mark: u32,
    value: MaybeUninit<T>,
}

impl<T> From<T> for Born<T> {
    fn from(value: T) -> Self {
        Born { mark: BORN, value: MaybeUninit::new(value) }
    }
}

impl<T: Default> Default for Born<T> {
    fn default() -> Self {
        T::default().into()
    }
}

impl<T> Deref for Born<T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: `from` is the only constructor. Of an object with zeros the interpreter calls nothing but the destructor,
        // which does not come here.
        unsafe { self.value.assume_init_ref() }
    }
}

impl<T> Drop for Born<T> {
    fn drop(&mut self) {
        if self.mark == BORN {
            // SAFETY: `from` has written the value, and it is dropped once.
            unsafe { self.value.assume_init_drop() }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[test]
    fn a_value_is_dropped_and_zeros_are_not() {
        let value = Arc::new(());
        drop(Born::from(value.clone()));
        assert_eq!(Arc::strong_count(&value), 1);
        // SAFETY: zeros are a valid `Born`.
        drop(unsafe { MaybeUninit::<Born<Arc<()>>>::zeroed().assume_init() });
    }
}
