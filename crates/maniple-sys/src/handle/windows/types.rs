//! The standard library's types that have handles.
//!
//! The standard library has two kinds of handles here, with a trait for each, and a type may have either: one
//! implementation for all of them is not possible, so these are the types by name. Other types implement the traits
//! themselves.
#![allow(unsafe_code)]

use super::known::{self, Known};
use super::{BorrowedHandle, OwnedHandle, RawHandle};
use crate::{AsHandle, FromHandle, IntoHandle};
use std::os::windows::io as system;
use std::os::windows::io::{AsRawHandle, AsRawSocket, FromRawHandle, FromRawSocket, IntoRawHandle, IntoRawSocket};
use std::{fs, io, net, process};

fn borrow<'a>(number: RawHandle) -> BorrowedHandle<'a> {
    // SAFETY: the callers return it with the lifetime of a borrow of the number's owner.
    unsafe { BorrowedHandle::borrow_raw(number) }
}

/// Takes over a number from another owner.
fn adopt(number: RawHandle, known: Option<Known>) -> OwnedHandle {
    match known {
        Some(known) => known::note(number, known),
        None => drop(known::forget(number)),
    }
    // SAFETY: the callers have just taken the number out of its owner.
    unsafe { OwnedHandle::from_raw(number) }
}

/// Passes a number to another owner, which closes it in its own way.
fn give(handle: OwnedHandle) -> RawHandle {
    let number = handle.into_raw();
    drop(known::forget(number));
    number
}

macro_rules! has_handle {
    ($($type:ty),+ $(,)?) => {$(
        impl AsHandle for $type {
            #[inline]
            fn as_handle(&self) -> BorrowedHandle<'_> {
                borrow(self.as_raw_handle() as RawHandle)
            }
        }
    )+};
}

macro_rules! is_handle {
    ($($type:ty),+ $(,)?) => {$(
        has_handle!($type);

        impl IntoHandle for $type {
            fn into_handle(self) -> OwnedHandle {
                adopt(self.into_raw_handle() as RawHandle, None)
            }
        }
    )+};
}

macro_rules! from_handle {
    ($($type:ty),+ $(,)?) => {$(
        impl FromHandle for $type {
            fn from_handle(handle: OwnedHandle) -> $type {
                // SAFETY: the number is open, and its owner has given it away.
                unsafe { <$type>::from_raw_handle(give(handle) as system::RawHandle) }
            }
        }
    )+};
}

macro_rules! is_socket {
    ($($type:ty),+ $(,)?) => {$(
        impl AsHandle for $type {
            #[inline]
            fn as_handle(&self) -> BorrowedHandle<'_> {
                borrow(self.as_raw_socket() as RawHandle)
            }
        }

        impl IntoHandle for $type {
            fn into_handle(self) -> OwnedHandle {
                adopt(self.into_raw_socket() as RawHandle, Some(Known::Socket))
            }
        }

        impl FromHandle for $type {
            fn from_handle(handle: OwnedHandle) -> $type {
                // SAFETY: the number is open, and its owner has given it away.
                unsafe { <$type>::from_raw_socket(give(handle) as system::RawSocket) }
            }
        }
    )+};
}

has_handle!(io::Stdin, io::Stdout, io::Stderr, system::BorrowedHandle<'_>, process::Child);
is_handle!(fs::File, io::PipeReader, io::PipeWriter, system::OwnedHandle);
is_handle!(process::ChildStdin, process::ChildStdout, process::ChildStderr);
from_handle!(fs::File, io::PipeReader, io::PipeWriter, system::OwnedHandle);
is_socket!(net::TcpStream, net::TcpListener, net::UdpSocket, system::OwnedSocket);
