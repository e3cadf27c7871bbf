//! What has a handle where the standard library's traits for descriptors do not exist.

use super::{AsHandle, BorrowedHandle, FromHandle, IntoHandle, OwnedHandle};

impl AsHandle for BorrowedHandle<'_> {
    #[inline]
    fn as_handle(&self) -> BorrowedHandle<'_> {
        *self
    }
}

impl<T: AsHandle + ?Sized> AsHandle for &T {
    fn as_handle(&self) -> BorrowedHandle<'_> {
        (**self).as_handle()
    }
}

impl<T: AsHandle + ?Sized> AsHandle for std::sync::Arc<T> {
    fn as_handle(&self) -> BorrowedHandle<'_> {
        (**self).as_handle()
    }
}

impl<T: AsHandle + ?Sized> AsHandle for Box<T> {
    fn as_handle(&self) -> BorrowedHandle<'_> {
        (**self).as_handle()
    }
}

impl FromHandle for OwnedHandle {
    fn from_handle(handle: OwnedHandle) -> OwnedHandle {
        handle
    }
}

impl IntoHandle for OwnedHandle {
    fn into_handle(self) -> OwnedHandle {
        self
    }
}
