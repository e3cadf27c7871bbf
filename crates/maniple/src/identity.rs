//! The identity of a function in another process of the same program.
//!
//! A program has another address in each of its processes, but the distances within it are the same. So the identity of
//! a function is its offset from the start of the program, and the build that the offset belongs to. An offset is
//! accepted only from the same build, and only if it points into the program's code.
#![allow(unsafe_code)]

use crate::error::{CallError, Error, Result};
use maniple_sys::process::image::{Image, image};

/// The identity of a function, as it travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    build: u64,
    offset: u64,
}

impl Identity {
    /// The mark in place of an identity: a name follows.
    pub(crate) const NAMED: Identity = Identity { build: 0, offset: 0 };
}

/// The length of an encoded identity.
pub(crate) const LEN: usize = 16;

impl Identity {
    /// Returns the identity of the function at `address`.
    pub(crate) fn of(address: *const ()) -> Result<Identity> {
        Self::within(image(), address.expose_provenance())
    }

    fn within(image: &Image, address: usize) -> Result<Identity> {
        if !image.text.iter().any(|range| range.contains(&address)) {
            return Err(Error::Call(CallError::Function(
                "it is not in the program's own code, but in a shared library; wrap it in a function of the program",
            )));
        }
        Ok(Identity { build: image.build, offset: address.wrapping_sub(image.base) as u64 })
    }

    /// Returns the address of the function in this process.
    pub(crate) fn address(self) -> Result<*const ()> {
        self.address_within(image()).map(std::ptr::with_exposed_provenance)
    }

    fn address_within(self, image: &Image) -> Result<usize> {
        if self.build != image.build {
            return Err(Error::Call(CallError::Function(
                "the worker runs another build of the program than the caller",
            )));
        }
        let address = image.base.wrapping_add(self.offset as usize);
        if image.text.iter().any(|range| range.contains(&address)) {
            Ok(address)
        } else {
            Err(Error::Call(CallError::Function("the received function is not in the program's code")))
        }
    }

    pub(crate) fn encode(self) -> [u8; LEN] {
        (u128::from(self.build) << 64 | u128::from(self.offset)).to_le_bytes()
    }

    pub(crate) fn decode(bytes: &mut &[u8]) -> Result<Identity> {
        let Some((head, rest)) = bytes.split_first_chunk::<LEN>() else {
            return Err(Error::Call(CallError::Function("the received identity of a function is too short")));
        };
        *bytes = rest;
        let both = u128::from_le_bytes(*head);
        Ok(Identity { build: (both >> 64) as u64, offset: both as u64 })
    }
}

/// A type of `fn` pointers.
///
/// # Safety
/// Only `fn` pointers may implement it: [`recall`](Function::recall) makes a pointer from an address.
pub(crate) unsafe trait Function: Copy {
    /// Returns the address.
    fn address(self) -> *const ();

    /// Returns the function at `address`.
    ///
    /// # Safety
    /// `address` belongs to a function of exactly this type.
    unsafe fn recall(address: *const ()) -> Self;
}

macro_rules! functions {
    ($($argument:ident)*) => {
        // SAFETY: the macro implements the trait for `fn` pointers only, which are addresses.
        unsafe impl<Out, $($argument),*> Function for fn($($argument),*) -> Out {
            fn address(self) -> *const () {
                self as *const ()
            }

            unsafe fn recall(address: *const ()) -> Self {
                // SAFETY: the caller promises that a function of this type is at the address. A function pointer is a
                // code address on every supported platform.
                unsafe { std::mem::transmute::<*const (), Self>(address) }
            }
        }
    };
}

functions!();
functions!(A);
functions!(A B);

#[cfg(test)]
mod tests {
    use super::*;

    fn twice(x: u32) -> u32 {
        2 * x
    }

    #[test]
    fn a_function_is_found_again_by_its_identity() {
        let identity = Identity::of((twice as fn(u32) -> u32).address()).unwrap();
        let sent = identity.encode();
        let address = Identity::decode(&mut &sent[..]).unwrap().address().unwrap();
        // SAFETY: `twice` has this type.
        assert_eq!(unsafe { <fn(u32) -> u32>::recall(address) }(21), 42);
    }

    #[test]
    fn a_function_of_a_library_is_refused() {
        let error = Identity::of(libc_function()).unwrap_err();
        assert!(error.to_string().contains("shared library"), "{error}");
    }

    /// Windows calls a library's function through code of the program, which can be found again: this is no code at all.
    #[cfg(windows)]
    fn libc_function() -> *const () {
        std::ptr::from_ref(Box::leak(Box::new(0u8))).cast()
    }

    #[cfg(not(windows))]
    fn libc_function() -> *const () {
        unsafe extern "C" {
            fn getpid() -> i32;
        }
        getpid as *const ()
    }

    #[test]
    fn another_build_and_a_stray_offset_are_refused() {
        let here = image();
        let mine = Identity::of((twice as fn(u32) -> u32).address()).unwrap();
        let other = Image { build: here.build ^ 1, ..here.clone() };
        assert!(mine.address_within(&other).unwrap_err().to_string().contains("another build"));
        let stray = Identity { offset: u64::MAX / 2, ..mine };
        assert!(stray.address().unwrap_err().to_string().contains("not in the program's code"));
    }
}
