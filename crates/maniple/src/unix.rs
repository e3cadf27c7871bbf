//! Conversions between the types of this crate and those of other Unix code.

use crate::Connection;
use crate::codec::Codec;
use maniple_sys::OwnedHandle;
use maniple_sys::unix::OwnedFd;

impl<T, C: Codec> From<OwnedFd> for Connection<T, C> {
    fn from(end: OwnedFd) -> Self {
        OwnedHandle::from(end).into()
    }
}

impl<T, C: Codec> From<Connection<T, C>> for OwnedFd {
    fn from(connection: Connection<T, C>) -> OwnedFd {
        OwnedHandle::from(connection).into()
    }
}
