//! Numbers as they lie in memory.
#![allow(unsafe_code)]

use std::any::TypeId;
use std::mem::MaybeUninit;

/// Returns whether a type is a number that lies in memory as its bytes, and any bytes are a valid number.
#[inline]
pub(super) fn is_number<T: 'static>() -> bool {
    let of = TypeId::of::<T>();
    macro_rules! is_any {
        ($($kind:ty)*) => { $(of == TypeId::of::<$kind>())||* };
    }
    cfg!(target_endian = "little") && is_any!(u8 u16 u32 u64 u128 i8 i16 i32 i64 i128 f32 f64)
}

/// Returns the bytes of a number.
#[inline]
pub(super) fn bytes_of<T: 'static>(number: &T) -> &[u8] {
    assert!(is_number::<T>());
    // SAFETY: the assertion above says that the type is a number's. A number's bytes are all part of its value.
    unsafe { std::slice::from_raw_parts(std::ptr::from_ref(number).cast(), size_of::<T>()) }
}

/// Returns the number that these bytes represent. `None` if the type is not a number's, or their lengths differ.
#[inline]
pub(super) fn number_of<T: 'static>(bytes: &[u8]) -> Option<T> {
    if !is_number::<T>() || bytes.len() != size_of::<T>() {
        return None;
    }
    let mut number = MaybeUninit::<T>::uninit();
    // SAFETY: the checks above say that the type is a number's and has as many bytes. Any bytes are a valid number.
    unsafe {
        std::ptr::copy_nonoverlapping(bytes.as_ptr(), number.as_mut_ptr().cast(), bytes.len());
        Some(number.assume_init())
    }
}

/// Returns the bytes of several numbers.
#[inline]
pub(super) fn bytes_of_all<T: 'static>(numbers: &[T]) -> &[u8] {
    assert!(is_number::<T>());
    // SAFETY: the assertion above says that the type is a number's. A number's bytes are all part of its value.
    unsafe { std::slice::from_raw_parts(numbers.as_ptr().cast(), size_of_val(numbers)) }
}
