//! Handles: objects that the system has opened for this process (a file, a socket, memory, a process), each with a
//! number.
//!
//! [`OwnedHandle`] closes its object when it is dropped; [`BorrowedHandle`] belongs to another owner. Neither shows its
//! number, except to code that passes the number to another party: Python's `fileno()`, or a child that inherits it.

#[cfg(not(unix))]
mod not_unix;
#[cfg(not(any(unix, windows)))]
mod stub;
// Only one backend passes handles on.
#[cfg(unix)]
#[cfg_attr(not(any(target_os = "linux", target_os = "macos")), allow(dead_code))]
mod unix;
#[cfg(windows)]
mod windows;

#[cfg(not(any(unix, windows)))]
pub use stub::{AtomicRawHandle, BorrowedHandle, OwnedHandle, RawHandle};
/// The standard library's traits for descriptors, which the macro `as_handle!` implements.
#[cfg(unix)]
#[doc(hidden)]
pub mod fd {
    pub use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
}
#[cfg(unix)]
pub use unix::{AtomicRawHandle, BorrowedHandle, OwnedHandle, RawHandle};
#[cfg(windows)]
pub(crate) use windows::known;
#[cfg(windows)]
pub use windows::{AtomicRawHandle, BorrowedHandle, OwnedHandle, RawHandle};

/// A type that has a handle. On Unix this is everything that is `AsFd`, on Windows the standard library's types.
#[diagnostic::on_unimplemented(
    message = "`{Self}` has no handle",
    note = "on Unix this is everything that is `AsFd`, such as files, sockets and pipes"
)]
pub trait AsHandle {
    /// Returns its handle.
    fn as_handle(&self) -> BorrowedHandle<'_>;
}

/// A type that can be made from a handle. On Unix this is everything that is `From<OwnedFd>`, on Windows the standard
/// library's types.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be made from a handle",
    note = "on Unix this is everything that is `From<OwnedFd>`, such as files, sockets and pipes"
)]
pub trait FromHandle {
    /// Takes over the handle.
    fn from_handle(handle: OwnedHandle) -> Self;
}

/// A type that can be converted into a handle. On Unix this is everything that is `Into<OwnedFd>`, on Windows the
/// standard library's types.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be turned into a handle",
    note = "on Unix this is everything that is `Into<OwnedFd>`, such as files, sockets and pipes"
)]
pub trait IntoHandle {
    /// Returns the handle, and gives up its ownership.
    fn into_handle(self) -> OwnedHandle;
}

/// Implements [`AsHandle`] for a type of a public interface: on Unix through `AsFd` and `AsRawFd`, so that the type can
/// be used with everything that takes a descriptor.
///
/// ```
/// use maniple_sys::{AsHandle, OwnedHandle};
///
/// struct Log<T>(OwnedHandle, T);
///
/// maniple_sys::as_handle!(impl[T] for Log<T>, |log| log.0.as_handle());
/// ```
#[macro_export]
macro_rules! as_handle {
    ($(#[$attribute:meta])* impl[$($generics:tt)*] for $type:ty, |$this:ident| $handle:expr) => {
        $crate::__as_handle!([$(#[$attribute])*] [$($generics)*] $type, $this, $handle);
    };
}

/// The part of [`as_handle!`] that differs between systems.
#[cfg(unix)]
#[doc(hidden)]
#[macro_export]
macro_rules! __as_handle {
    ([$($attributes:tt)*] [$($generics:tt)*] $type:ty, $this:ident, $handle:expr) => {
        $($attributes)*
        impl<$($generics)*> $crate::fd::AsFd for $type {
            #[inline]
            fn as_fd(&self) -> $crate::fd::BorrowedFd<'_> {
                #[allow(unused_imports)]
                use $crate::AsHandle as _;
                let $this = self;
                let handle: $crate::BorrowedHandle<'_> = $handle;
                handle.into()
            }
        }

        impl<$($generics)*> $crate::fd::AsRawFd for $type {
            #[inline]
            fn as_raw_fd(&self) -> $crate::fd::RawFd {
                #[allow(unused_imports)]
                use $crate::AsHandle as _;
                let $this = self;
                let handle: $crate::BorrowedHandle<'_> = $handle;
                handle.as_raw()
            }
        }
    };
}

/// The part of [`as_handle!`] that differs between systems.
#[cfg(not(unix))]
#[doc(hidden)]
#[macro_export]
macro_rules! __as_handle {
    ([$($attributes:tt)*] [$($generics:tt)*] $type:ty, $this:ident, $handle:expr) => {
        $($attributes)*
        impl<$($generics)*> $crate::AsHandle for $type {
            #[inline]
            fn as_handle(&self) -> $crate::BorrowedHandle<'_> {
                #[allow(unused_imports)]
                use $crate::AsHandle as _;
                let $this = self;
                $handle
            }
        }
    };
}
