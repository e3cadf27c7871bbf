//! Descriptors that are ours, and stay so.
//!
//! A descriptor is a number, and a program may close numbers that it did not open: a program that becomes a daemon closes all that are
//! open, and the files that it opens next get the same numbers. So what is held for long knows which file it is, by device and inode,
//! and leaves alone what is no longer that. (All event descriptors are one file to the kernel, so one is not told from another.)

use crate::{AsHandle, BorrowedHandle, OwnedHandle, RawHandle};
use std::io;
use std::mem::ManuallyDrop;
use std::ops::Deref;

/// Which file a descriptor leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct File {
    device: u64,
    inode: u64,
}

impl File {
    /// The file behind a descriptor. `None`: it is not open.
    pub fn of(fd: BorrowedHandle<'_>) -> Option<File> {
        File::and_len(fd).ok().map(|(file, _)| file)
    }

    /// The file behind a descriptor, and how many bytes it has.
    pub fn and_len(fd: BorrowedHandle<'_>) -> io::Result<(File, usize)> {
        File::with_len_and_names(fd).map(|(file, len, _)| (file, len as usize))
    }

    /// The file behind a descriptor, how many bytes it has, and how many names.
    pub fn with_len_and_names(fd: BorrowedHandle<'_>) -> io::Result<(File, u64, u64)> {
        let found = rustix::fs::fstat(fd)?;
        // These numbers have other types on other systems.
        #[allow(clippy::unnecessary_cast)]
        Ok((File { device: found.st_dev as u64, inode: found.st_ino }, found.st_size as u64, found.st_nlink as u64))
    }

    /// The file with these two numbers, as [`File::numbers`] returns them.
    pub fn from_numbers((device, inode): (u64, u64)) -> File {
        File { device, inode }
    }

    /// Its device and its inode.
    pub fn numbers(self) -> (u64, u64) {
        (self.device, self.inode)
    }

    /// The file behind a number. `None`: it is not open.
    pub fn at(number: RawHandle) -> Option<File> {
        // SAFETY: the kernel is asked about the number, which it refuses where it is not open.
        #[allow(unsafe_code)]
        (number >= 0).then(|| unsafe { BorrowedHandle::borrow_raw(number) }).and_then(File::of)
    }

    /// Both in one number, for a table that signal handlers read.
    #[inline]
    pub fn mixed(self) -> u64 {
        self.device.rotate_left(48) ^ self.inode
    }
}

/// An owned descriptor that closes only what it was opened for.
#[derive(Debug)]
pub struct Own {
    handle: ManuallyDrop<OwnedHandle>,
    file: Option<File>,
}

impl Own {
    /// Takes over a handle that was opened just now.
    pub fn new(handle: OwnedHandle) -> Own {
        let file = File::of(handle.as_handle());
        Own { handle: ManuallyDrop::new(handle), file }
    }

    /// Whether the number still leads to the file that it was opened for.
    pub fn is_there(&self) -> bool {
        self.file.is_some() && self.file == File::of(self.handle.as_handle())
    }

    /// The handle, to be used.
    ///
    /// # Errors
    /// The number leads to something else by now, or to nothing.
    pub fn found(&self) -> io::Result<&OwnedHandle> {
        if self.is_there() { Ok(&self.handle) } else { Err(not_there()) }
    }

    /// The handle, to be given away.
    pub fn into_handle(self) -> OwnedHandle {
        let mut this = ManuallyDrop::new(self);
        // SAFETY: `this` is not dropped, so the handle is taken out of it once.
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
            // SAFETY: it leads to what this value was made for, which owns it and is gone after this.
            #[allow(unsafe_code)]
            unsafe {
                super::process::close_number(self.handle.as_raw());
            }
        }
    }
}

/// The error of a number that leads to another file by now, or to none.
pub fn not_there() -> io::Error {
    rustix::io::Errno::BADF.into()
}

/// A descriptor that another owner keeps open for longer than this is used.
#[derive(Debug)]
pub struct Lent(ManuallyDrop<OwnedHandle>);

impl Lent {
    /// Borrows a descriptor without a lifetime that the compiler sees. Once its owner has closed it, calls with it fail, or look at
    /// another file of this process's; nothing is ever closed by it.
    ///
    /// # Safety
    /// The owner keeps it open for as long as this is used; or what is done by this does no harm to another file of this process's: it is
    /// waited for, say.
    #[allow(unsafe_code)]
    pub unsafe fn new(fd: BorrowedHandle<'_>) -> Lent {
        // SAFETY: the handle is never dropped, so the descriptor stays its owner's to close.
        Lent(ManuallyDrop::new(unsafe { OwnedHandle::from_raw(fd.as_raw()) }))
    }
}

crate::as_handle!(impl[] for Lent, |this| this.0.as_handle());

/// The same file under a number above those of the standard streams, which a program may close and use anew, as may its children.
pub fn above_stdio(handle: impl Into<OwnedHandle>) -> io::Result<OwnedHandle> {
    let handle = handle.into();
    if handle.as_raw() > 2 { Ok(handle) } else { Ok(rustix::io::fcntl_dupfd_cloexec(&handle, 3)?.into()) }
}

/// [`above_stdio`] of two.
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
    fn what_has_become_another_file_is_left_open() {
        // In a child, where no other thread opens anything.
        let code = in_forked_child(|| {
            let own = Own::new(memory::create("one", 1).unwrap());
            let number = own.as_handle().as_raw();
            // SAFETY: in a child that has no other thread; whose number it is, is what is tested.
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
    fn what_is_still_the_file_is_closed() {
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
    fn nothing_is_made_under_the_numbers_of_the_standard_streams() {
        let code = in_forked_child(|| {
            for number in 0..3 {
                // SAFETY: in a child that has no other thread; whose number it is, is what is tested.
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
