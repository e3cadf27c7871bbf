//! Bytes that processes share, with or without a name.
#![allow(unsafe_code)]

use crate::error::{Error, Result};
use crate::sideband;
use maniple_engine::shm::segment::Segment;
use maniple_sys::AsHandle;
use maniple_sys::{OwnedHandle, memory, named};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};

const WHAT: &str = "a SharedMemory";
/// Up to this many bytes are copied here; for more a system call is faster.
const FEW: usize = 256;

/// A piece of memory that processes share.
///
/// *Nameless* memory is sent to other processes as (a part of) a value. The system frees it when the last process that
/// has it ends, also if all are killed. *Named* memory can also be opened by its name, in Rust, Python
/// (`multiprocessing.shared_memory.SharedMemory`) or C (`shm_open`). The process that made it removes the name when it
/// drops its last handle, unless [`keep`](SharedMemory::keep) was called. If that process is killed, or ends by
/// `std::process::exit`, the name and the memory stay: the system cannot know whether they are still needed. So use a
/// name only for memory that unrelated processes have to find.
///
/// A standard Python before 3.13 that opens memory by its name removes that name when it ends, although another program
/// made the memory. Processes that have the memory keep it; others cannot open it any more. maniple's Python package
/// does not do this.
///
/// The system allocates a page when it is first touched. It ends the process with `SIGBUS` if no memory is left, or if
/// another program has truncated named memory.
///
/// ```
/// use maniple::{Process, SharedMemory};
///
/// # fn main() -> maniple::Result<()> {
/// let memory = SharedMemory::new(1 << 20)?;
/// let process = Process::new(|memory: SharedMemory| memory.write(1000, b"hello"), memory.clone())?;
/// process.start()?;
/// process.join()?;
/// let mut bytes = [0; 5];
/// memory.read(1000, &mut bytes)?;
/// assert_eq!(&bytes, b"hello");
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct SharedMemory(Arc<Inner>);

struct Inner {
    segment: Segment,
    name: Option<String>,
    /// The process that removes the name; 0: none.
    owner: AtomicU32,
}

impl Drop for Inner {
    fn drop(&mut self) {
        // A forked child is not the owner.
        if let Some(name) = &self.name
            && *self.owner.get_mut() == std::process::id()
            // Another process may have removed it already, and used it for other memory.
            && named::leads_to(name, &self.segment)
        {
            let _ = named::unlink(name);
        }
    }
}

impl SharedMemory {
    /// Creates `len` zeroed bytes without a name.
    ///
    /// ```
    /// let memory = maniple::SharedMemory::new(4096)?;
    /// assert_eq!((memory.len(), memory.name()), (4096, None));
    /// # Ok::<(), maniple::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::SharedMemory`] if `len` is 0, [`Error::System`] if there is no memory or descriptor left.
    pub fn new(len: usize) -> Result<SharedMemory> {
        some(len)?;
        Ok(SharedMemory::around(Segment::create("maniple-memory", len)?, None, 0))
    }

    /// Creates `len` zeroed bytes under a name. This user's processes can open it as long as this handle or a clone of
    /// it exists in this process.
    ///
    /// ```
    /// use maniple::SharedMemory;
    ///
    /// # let name = format!("maniple-doc-create-{}", std::process::id());
    /// # let name = name.as_str();
    /// let made = SharedMemory::create(name, 100)?;
    /// made.write(0, b"found")?;
    /// let found = SharedMemory::open(name)?;
    /// let mut bytes = [0; 5];
    /// found.read(0, &mut bytes)?;
    /// assert_eq!(&bytes, b"found");
    /// drop(made);
    /// assert!(SharedMemory::open(name).is_err());
    /// # Ok::<(), maniple::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::SharedMemory`] if `len` is 0, or if the name is in use or invalid.
    pub fn create(name: &str, len: usize) -> Result<SharedMemory> {
        some(len)?;
        let handle = at_name(name, |name| named::create(name, len))?;
        let me = std::process::id();
        match Segment::open(handle) {
            Ok(segment) => Ok(SharedMemory::around(segment, Some(name.to_owned()), me)),
            Err(error) => {
                let _ = named::unlink(name);
                Err(error.into())
            }
        }
    }

    /// Opens the memory of the name, which another handle, process or program made.
    ///
    /// ```
    /// use maniple::SharedMemory;
    ///
    /// # let name = format!("maniple-doc-open-{}", std::process::id());
    /// # let name = name.as_str();
    /// assert!(SharedMemory::open(name).is_err());
    /// let _made = SharedMemory::create(name, 100)?;
    /// assert_eq!(SharedMemory::open(name)?.name(), Some(name));
    /// # Ok::<(), maniple::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::SharedMemory`] if there is none, or if this process may not open it.
    pub fn open(name: &str) -> Result<SharedMemory> {
        let handle = at_name(name, named::find)?;
        if memory::len(&handle).unwrap_or(0) == 0 {
            return Err(Error::SharedMemory(format!(
                "{name:?} has no bytes yet; its maker has not made it long enough"
            )));
        }
        Ok(SharedMemory::around(Segment::open(handle)?, Some(name.to_owned()), 0))
    }

    /// Reserves room for all of it, so that no write fails. Memory without a name is limited by other means.
    pub(super) fn reserve(&self) -> Result<()> {
        let Some(name) = &self.0.name else { return Ok(()) };
        at_name(name, |_| named::reserve(&self.0.segment, self.len()))
    }

    fn around(segment: Segment, name: Option<String>, owner: u32) -> SharedMemory {
        SharedMemory(Arc::new(Inner { segment, name, owner: AtomicU32::new(owner) }))
    }

    /// Returns the number of bytes.
    ///
    /// ```
    /// assert_eq!(maniple::SharedMemory::new(100)?.len(), 100);
    /// # Ok::<(), maniple::Error>(())
    /// ```
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.segment.len()
    }

    /// Returns false: the memory has at least one byte.
    ///
    /// ```
    /// assert!(!maniple::SharedMemory::new(1)?.is_empty());
    /// # Ok::<(), maniple::Error>(())
    /// ```
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.segment.is_empty()
    }

    /// Returns the name, if the memory has a name.
    ///
    /// ```
    /// assert_eq!(maniple::SharedMemory::new(1)?.name(), None);
    /// # Ok::<(), maniple::Error>(())
    /// ```
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        self.0.name.as_deref()
    }

    /// Keeps the name when this process drops its last handle. Another process must call
    /// [`unlink`](SharedMemory::unlink).
    ///
    /// ```
    /// use maniple::SharedMemory;
    ///
    /// # let name = format!("maniple-doc-keep-{}", std::process::id());
    /// # let name = name.as_str();
    /// let made = SharedMemory::create(name, 100)?;
    /// made.keep();
    /// drop(made);
    /// let found = SharedMemory::open(name)?;
    /// found.unlink()?;
    /// assert_eq!(found.len(), 100);
    /// # Ok::<(), maniple::Error>(())
    /// ```
    pub fn keep(&self) {
        self.0.owner.store(0, Ordering::Relaxed);
    }

    /// Removes the name. The memory itself stays in all processes that have it.
    ///
    /// ```
    /// use maniple::SharedMemory;
    ///
    /// # let name = format!("maniple-doc-unlink-{}", std::process::id());
    /// # let name = name.as_str();
    /// let made = SharedMemory::create(name, 100)?;
    /// made.keep();
    /// drop(made);
    /// // later, elsewhere
    /// SharedMemory::open(name)?.unlink()?;
    /// # Ok::<(), maniple::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::SharedMemory`] if it has no name, or if the name has been removed.
    pub fn unlink(&self) -> Result<()> {
        let Some(name) = self.name() else { return Err(Error::SharedMemory("it has no name to remove".into())) };
        self.keep();
        at_name(name, named::unlink)
    }

    fn check(&self, offset: usize, len: usize) -> Result<()> {
        if offset.checked_add(len).is_some_and(|end| end <= self.len()) {
            return Ok(());
        }
        let all = self.len();
        Err(Error::SharedMemory(format!("{len} bytes from {offset} on are not within its {all} bytes")))
    }

    fn bytes(&self, offset: usize, len: usize) -> &[AtomicU8] {
        debug_assert!(self.check(offset, len).is_ok());
        // SAFETY: callers have checked that the bytes lie within the mapping, which lives as long as `self`. Any
        // process may access atomics at the same time.
        unsafe { std::slice::from_raw_parts(self.as_ptr().add(offset).cast(), len) }
    }

    /// Returns the eight bytes at `offset` as one atomic word.
    pub(super) fn word(&self, offset: usize) -> Result<&AtomicU64> {
        self.check(offset, 8)?;
        if !offset.is_multiple_of(8) {
            return Err(Error::SharedMemory(format!("offset {offset} is not a multiple of eight")));
        }
        // SAFETY: `check` has found that the word lies within the mapping. The mapping begins on a page, so the word is
        // aligned, and lives as long as `self`.
        Ok(unsafe { AtomicU64::from_ptr(self.as_ptr().add(offset).cast()) })
    }

    /// Copies bytes out of the memory, from `offset` on. If another thread or process writes to the same bytes
    /// meanwhile, some of the copied bytes are older than that write and some newer.
    ///
    /// ```
    /// let memory = maniple::SharedMemory::new(4)?;
    /// memory.write(1, &[7])?;
    /// let mut bytes = [9; 2];
    /// memory.read(1, &mut bytes)?;
    /// assert_eq!(bytes, [7, 0]);
    /// assert!(memory.read(3, &mut bytes).is_err());
    /// # Ok::<(), maniple::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::SharedMemory`] if the range is not within the memory.
    pub fn read(&self, offset: usize, bytes: &mut [u8]) -> Result<()> {
        self.check(offset, bytes.len())?;
        if bytes.len() > FEW {
            return memory::read_at(self.as_handle(), bytes, offset as u64).map_err(|e| failed("read", &e));
        }
        let shared = self.bytes(offset, bytes.len());
        for (byte, shared) in bytes.iter_mut().zip(shared) {
            *byte = shared.load(Ordering::Relaxed);
        }
        // The reader sees everything that the writer of these bytes did before, if it used `write`.
        std::sync::atomic::fence(Ordering::Acquire);
        Ok(())
    }

    /// Copies bytes into the memory, from `offset` on. If another thread or process reads the same bytes meanwhile, it
    /// finds some bytes from before and some from after this write.
    ///
    /// ```
    /// let memory = maniple::SharedMemory::new(4)?;
    /// memory.write(2, b"ab")?;
    /// assert!(memory.write(3, b"ab").is_err());
    /// # Ok::<(), maniple::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::SharedMemory`] if the range is not within the memory, or the system has no memory left for them.
    pub fn write(&self, offset: usize, bytes: &[u8]) -> Result<()> {
        self.check(offset, bytes.len())?;
        if bytes.len() > FEW {
            return memory::write_at(self.as_handle(), bytes, offset as u64).map_err(|e| failed("written", &e));
        }
        std::sync::atomic::fence(Ordering::Release);
        for (byte, shared) in bytes.iter().zip(self.bytes(offset, bytes.len())) {
            shared.store(*byte, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Returns the address of the first byte, for foreign functions and other accesses. It is the beginning of a page,
    /// and valid as long as this handle or a clone exists.
    ///
    /// ```
    /// let memory = maniple::SharedMemory::new(4)?;
    /// memory.write(0, &[7])?;
    /// // SAFETY: no other process has this memory.
    /// assert_eq!(unsafe { memory.as_ptr().read() }, 7);
    /// # Ok::<(), maniple::Error>(())
    /// ```
    #[must_use]
    pub fn as_ptr(&self) -> *mut u8 {
        self.0.segment.start().as_ptr()
    }

    /// Returns the whole memory as a slice, without copying.
    ///
    /// ```
    /// let memory = maniple::SharedMemory::new(3)?;
    /// memory.write(0, b"abc")?;
    /// // SAFETY: no other process has this memory.
    /// assert_eq!(unsafe { memory.as_slice() }, b"abc");
    /// # Ok::<(), maniple::Error>(())
    /// ```
    ///
    /// # Safety
    /// As long as the slice is used, no code writes to this memory, in any process.
    #[must_use]
    pub unsafe fn as_slice(&self) -> &[u8] {
        // SAFETY: the mapping lives as long as `self`. The caller promises that no code writes to it.
        unsafe { std::slice::from_raw_parts(self.as_ptr(), self.len()) }
    }

    /// Returns the whole memory as a mutable slice, without copying.
    ///
    /// ```
    /// let memory = maniple::SharedMemory::new(3)?;
    /// // SAFETY: no other process has this memory.
    /// unsafe { memory.as_mut_slice() }.copy_from_slice(b"abc");
    /// let mut bytes = [0; 3];
    /// memory.read(0, &mut bytes)?;
    /// assert_eq!(&bytes, b"abc");
    /// # Ok::<(), maniple::Error>(())
    /// ```
    ///
    /// # Safety
    /// As long as the slice is used, no other code reads or writes this memory, in any process.
    #[allow(clippy::mut_from_ref)]
    #[must_use]
    pub unsafe fn as_mut_slice(&self) -> &mut [u8] {
        // SAFETY: as above. The caller promises that no other code accesses it.
        unsafe { std::slice::from_raw_parts_mut(self.as_ptr(), self.len()) }
    }
}

fn some(len: usize) -> Result<()> {
    if len > 0 { Ok(()) } else { Err(Error::SharedMemory("it needs at least one byte".into())) }
}

fn failed(what: &str, error: &io::Error) -> Error {
    Error::SharedMemory(format!("it could not be {what}: {error}"))
}

/// Calls `work` with a valid name, without its leading slash.
fn at_name<R>(name: &str, work: impl FnOnce(&str) -> io::Result<R>) -> Result<R> {
    let plain = name.strip_prefix('/').unwrap_or(name);
    let why = if plain.is_empty() || plain.contains(['/', '\0']) || plain.len() > 250 {
        "a name has 1 to 250 bytes, and no slash except as the first character".to_owned()
    } else {
        match work(plain) {
            Ok(done) => return Ok(done),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => "that name is in use; choose another".into(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => "there is none of that name".into(),
            Err(error) => error.to_string(),
        }
    };
    Err(Error::SharedMemory(format!("{name:?}: {why}")))
}

maniple_sys::as_handle!(impl[] for SharedMemory, |this| this.0.segment.as_handle());

impl fmt::Debug for SharedMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedMemory").field("name", &self.name()).field("len", &self.len()).finish()
    }
}

impl Serialize for SharedMemory {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let handle = sideband::send_shared_handle::<S::Error>(WHAT, self.as_handle())?;
        (handle, self.name()).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for SharedMemory {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let (handle, name) = <(u32, Option<String>)>::deserialize(deserializer)?;
        let handle: OwnedHandle = sideband::copy_handle::<D::Error>(WHAT, handle)?;
        let segment = Segment::open(handle).map_err(<D::Error as de::Error>::custom)?;
        Ok(SharedMemory::around(segment, name, 0))
    }
}
