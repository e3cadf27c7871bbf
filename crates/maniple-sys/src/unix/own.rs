//! Descriptors that check their file.
//!
//! A descriptor is a number, and a program may close numbers that it did not open: a program that becomes a daemon
//! closes all open descriptors, and its next files have the same numbers. So a long-lived descriptor stores its file,
//! by device and inode, and neither uses nor closes another file under its number. (All event descriptors are one file
//! to the kernel, so this cannot distinguish them.)

use crate::{AsHandle, BorrowedHandle, OwnedHandle, RawHandle};
use std::io;
use std::mem::{ManuallyDrop, MaybeUninit};
use std::ops::Deref;

/// The file that a descriptor leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct File {
    device: u64,
    inode: u64,
}

/// Whether a descriptor has this number. It takes a quarter of the time of [`File::at`].
pub fn is_open(number: RawHandle) -> bool {
    // SAFETY: `F_GETFD` returns an error for a number that is not open, and changes nothing.
    #[allow(unsafe_code)]
    let flags = unsafe { libc::fcntl(number, libc::F_GETFD) };
    flags >= 0
}

impl File {
    /// Returns the file behind a descriptor. `None`: it is not open.
    pub fn of(fd: BorrowedHandle<'_>) -> Option<File> {
        File::and_len(fd).ok().map(|(file, _)| file)
    }

    /// Returns the file behind a descriptor, and its length in bytes.
    pub fn and_len(fd: BorrowedHandle<'_>) -> io::Result<(File, usize)> {
        File::with_len_and_names(fd).map(|(file, len, _)| (file, usize::try_from(len).unwrap_or(usize::MAX)))
    }

    /// Returns the file behind a descriptor, its length in bytes, and the number of its names.
    pub fn with_len_and_names(fd: BorrowedHandle<'_>) -> io::Result<(File, u64, u64)> {
        let found = rustix::fs::fstat(fd)?;
        #[cfg(any(target_os = "macos", maniple_posix))]
        if let Some((id, len)) = crate::memory::object(fd) {
            return Ok((File::of_object(id), len, found.st_nlink as u64));
        }
        // Other systems use other types for these numbers.
        #[allow(clippy::unnecessary_cast)]
        Ok((File { device: found.st_dev as u64, inode: found.st_ino }, found.st_size as u64, found.st_nlink as u64))
    }

    /// Returns the file of shared memory, which has neither a device nor an inode on macOS.
    #[cfg(any(target_os = "macos", maniple_posix))]
    fn of_object(id: u64) -> File {
        File { device: u64::MAX, inode: id }
    }

    /// Returns the file with these two numbers, as [`File::numbers`] returns them.
    pub fn from_numbers((device, inode): (u64, u64)) -> File {
        File { device, inode }
    }

    /// Returns its device and its inode.
    pub fn numbers(self) -> (u64, u64) {
        (self.device, self.inode)
    }

    /// Returns the file behind a number. `None`: it is not open.
    pub fn at(number: RawHandle) -> Option<File> {
        let mut found = MaybeUninit::<libc::stat>::uninit();
        // SAFETY: `fstat` returns an error for a number that is not open, and writes only to `found`.
        #[allow(unsafe_code)]
        let is_open = unsafe { libc::fstat(number, found.as_mut_ptr()) } == 0;
        #[cfg(any(target_os = "macos", maniple_posix))]
        // SAFETY: it is only looked at, for the time of this call.
        #[allow(unsafe_code)]
        if let Some((id, _)) = crate::memory::object(unsafe { BorrowedHandle::borrow_raw(number) }) {
            return Some(File::of_object(id));
        }
        // SAFETY: the call has filled it.
        #[allow(unsafe_code)]
        let found = is_open.then(|| unsafe { found.assume_init() })?;
        // These numbers have other types on other systems.
        #[allow(clippy::unnecessary_cast)]
        Some(File { device: found.st_dev as u64, inode: found.st_ino as u64 })
    }

    /// Returns one number for both, for a table that signal handlers read.
    #[inline]
    pub fn mixed(self) -> u64 {
        self.device.rotate_left(48) ^ self.inode
    }
}

/// An owned descriptor that closes only the file that it was opened for.
#[derive(Debug)]
pub struct Own {
    handle: ManuallyDrop<OwnedHandle>,
    file: Option<File>,
}

impl Own {
    /// Takes over a handle that was just opened.
    pub fn new(handle: OwnedHandle) -> Own {
        let file = File::of(handle.as_handle());
        Own { handle: ManuallyDrop::new(handle), file }
    }

    /// Returns whether the number still leads to the file that it was opened for.
    pub fn is_there(&self) -> bool {
        self.file.is_some() && self.file == File::of(self.handle.as_handle())
    }

    /// Returns the handle for use.
    ///
    /// # Errors
    /// The number leads to another file by now, or is not open.
    pub fn found(&self) -> io::Result<&OwnedHandle> {
        if self.is_there() { Ok(&self.handle) } else { Err(not_there()) }
    }

    /// Returns the handle, and gives up its ownership.
    pub fn into_handle(self) -> OwnedHandle {
        let mut this = ManuallyDrop::new(self);
        // SAFETY: `this` is never dropped, so the handle is taken out of it only here.
        #[allow(unsafe_code)]
        unsafe {
            ManuallyDrop::take(&mut this.handle)
        }
    }
}

impl Deref for Own {
    type Target = OwnedHandle;

    fn deref(&self) -> &OwnedHandle {
        &self.handle
    }
}

crate::as_handle!(impl[] for Own, |this| this.handle.as_handle());

impl Drop for Own {
    fn drop(&mut self) {
        if self.is_there() {
            // SAFETY: the number leads to the file that this value owns, and no code uses the value after this.
            #[allow(unsafe_code)]
            unsafe {
                super::process::close_number(self.handle.as_raw());
            }
        }
    }
}

/// Duplicates a descriptor, with a number above 2. If the limit of descriptors is so low that there is no such number, the
/// error says that none is left, and not that the argument is wrong.
pub(crate) fn duplicate_above_stdio(fd: BorrowedHandle<'_>) -> rustix::io::Result<OwnedHandle> {
    use rustix::io::Errno;
    let duplicate = rustix::io::fcntl_dupfd_cloexec(fd, 3);
    duplicate.map(OwnedHandle::from).map_err(|error| if error == Errno::INVAL { Errno::MFILE } else { error })
}

/// Returns the error for a number that leads to another file by now, or is not open.
pub fn not_there() -> io::Error {
    rustix::io::Errno::BADF.into()
}

/// A descriptor that another owner keeps open for longer than this value is used.
#[derive(Debug)]
pub struct Lent(BorrowedHandle<'static>);

impl Lent {
    /// Borrows a descriptor without a lifetime. Once its owner has closed it, calls with it fail, or use another file
    /// of this process. It never closes a descriptor.
    ///
    /// # Safety
    /// The owner keeps it open while this value is used; or its use does no harm to another file of this process, for
    /// example because it is only a wait.
    #[allow(unsafe_code)]
    pub unsafe fn new(fd: BorrowedHandle<'_>) -> Lent {
        // SAFETY: the caller ensures that it stays open, or that a use of another file does no harm.
        Lent(unsafe { BorrowedHandle::borrow_raw(fd.as_raw()) })
    }
}

crate::as_handle!(impl[] for Lent, |this| this.0);

/// Moves a file to a number above the standard streams' numbers, which a program and its children may close and use
/// again.
pub fn above_stdio(handle: impl Into<OwnedHandle>) -> io::Result<OwnedHandle> {
    let handle = handle.into();
    if handle.as_raw() > 2 { Ok(handle) } else { Ok(duplicate_above_stdio(handle.as_handle())?) }
}

/// Moves a handle that arrived from another process as [`above_stdio`] does. If there is no other number, it keeps its number.
pub fn arrived(handle: impl Into<OwnedHandle>) -> OwnedHandle {
    let handle = handle.into();
    if handle.as_raw() > 2 {
        return handle;
    }
    duplicate_above_stdio(handle.as_handle()).unwrap_or(handle)
}

/// Moves two files as [`above_stdio`] does.
pub fn both_above_stdio<T: Into<OwnedHandle>>((one, two): (T, T)) -> io::Result<(OwnedHandle, OwnedHandle)> {
    Ok((above_stdio(one)?, above_stdio(two)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory;
    use crate::testing::in_forked_child;
    use crate::testing::is_open;

    #[test]
    fn own_leaves_another_file_open() {
        // In a child, where no other thread opens a file.
        let code = in_forked_child(|| {
            let own = Own::new(memory::create("one", 1).unwrap());
            let number = own.as_handle().as_raw();
            // SAFETY: the child has no other thread, and no code in it uses the number as its owner's.
            #[allow(unsafe_code)]
            unsafe {
                crate::process::close_number(number);
            }
            assert!(!own.is_there());
            let other = memory::create("two", 1).unwrap();
            assert_eq!(other.as_raw(), number);
            drop(own);
            i32::from(!is_open(number))
        });
        assert_eq!(code, 0);
    }

    #[test]
    fn own_closes_its_file() {
        let code = in_forked_child(|| {
            let own = Own::new(memory::create("one", 1).unwrap());
            let number = own.as_handle().as_raw();
            assert!(own.is_there());
            drop(own);
            i32::from(is_open(number))
        });
        assert_eq!(code, 0);
    }

    #[test]
    fn no_handle_has_the_number_of_a_standard_stream() {
        let code = in_forked_child(|| {
            for number in 0..3 {
                // SAFETY: the child has no other thread, and no code in it uses the number as its owner's.
                #[allow(unsafe_code)]
                unsafe {
                    crate::process::close_number(number);
                }
            }
            let mut made = vec![memory::create("one", 1).unwrap(), crate::process::open(std::process::id()).unwrap()];
            made.extend(<[OwnedHandle; 2]>::from(crate::tap::pair().unwrap()));
            made.extend(<[OwnedHandle; 2]>::from(crate::process::lifeline().unwrap()));
            made.extend(<[OwnedHandle; 2]>::from(crate::stream::pair().unwrap()));
            made.extend(<[OwnedHandle; 2]>::from(crate::stream::packet_pair().unwrap()));
            let (one, two) = crate::wire::Wire::pair().unwrap();
            let numbers = [&one, &two].map(|wire| wire.as_handle().as_raw());
            i32::from(made.iter().map(|handle| handle.as_raw()).chain(numbers).any(|number| number <= 2))
        });
        assert_eq!(code, 0);
    }
}
