//! Files, sockets and other descriptors as values.

use crate::sideband;
pub use maniple_sys::{AsHandle, BorrowedHandle, FromHandle, IntoHandle, OwnedHandle, RawHandle};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::ops::{Deref, DerefMut};

const WHAT: &str = "a Handle";

/// A file, a socket or any other descriptor that can be sent to another process as (a part of) a value.
///
/// The receiver gets a separate descriptor of the same open file: both share the position in a file, and a pipe ends
/// when both have closed it.
///
/// ```
/// use maniple::{Exit, Handle, Process};
/// use std::io::{Read, Write};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let (mut reader, writer) = std::io::pipe()?;
/// let process = Process::new(
///     |mut writer: Handle<std::io::PipeWriter>| writer.write_all(b"hello"),
///     Handle::new(writer),
/// )?;
/// process.start()?;
/// let mut said = String::new();
/// reader.read_to_string(&mut said)?;
/// assert_eq!(said, "hello");
/// assert_eq!(process.join()?, Exit::Code(0));
/// # Ok(())
/// # }
/// ```
///
/// A field of your own type can be sent in the same way by an attribute: `#[serde(with = "maniple::handle")]`.
#[derive(Debug)]
pub struct Handle<T>(T);

impl<T> Handle<T> {
    /// Wraps a descriptor.
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let null = maniple::Handle::new(std::fs::File::open("/dev/null")?);
    /// assert_eq!(null.metadata()?.len(), 0);
    /// # Ok(())
    /// # }
    /// ```
    pub const fn new(inner: T) -> Handle<T> {
        Handle(inner)
    }

    /// Returns the wrapped descriptor.
    ///
    /// ```
    /// use std::fs::File;
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let (sender, receiver) = maniple::pipe::<maniple::Handle<File>>()?;
    /// sender.send(&File::open("/dev/null")?.into())?;
    /// let file: File = receiver.recv()?.into_inner();
    /// assert_eq!(file.metadata()?.len(), 0);
    /// # Ok(())
    /// # }
    /// ```
    pub fn into_inner(self) -> T {
        self.0
    }
}

impl<T> Deref for Handle<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T> DerefMut for Handle<T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.0
    }
}

impl<T> From<T> for Handle<T> {
    fn from(inner: T) -> Handle<T> {
        Handle(inner)
    }
}

impl<T: AsHandle> Serialize for Handle<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serialize(&self.0, serializer)
    }
}

impl<'de, T: FromHandle> Deserialize<'de> for Handle<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserialize(deserializer).map(Handle)
    }
}

/// For `#[serde(with = "maniple::handle")]`.
///
/// ```
/// use std::fs::File;
///
/// #[derive(serde::Serialize, serde::Deserialize)]
/// struct Log {
///     name: String,
///     #[serde(with = "maniple::handle")]
///     file: File,
/// }
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let (sender, receiver) = maniple::pipe::<Log>()?;
/// sender.send(&Log { name: "null".into(), file: File::open("/dev/null")? })?;
/// let log = receiver.recv()?;
/// assert_eq!((log.name.as_str(), log.file.metadata()?.len()), ("null", 0));
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// If the serializer is not part of one of maniple's own ways of sending.
pub fn serialize<T: AsHandle, S: Serializer>(value: &T, serializer: S) -> Result<S::Ok, S::Error> {
    sideband::send_handle(WHAT, value.as_handle())?.serialize(serializer)
}

/// For `#[serde(with = "maniple::handle")]`.
///
/// ```
/// use maniple::handle::{FromHandle, IntoHandle, OwnedHandle};
///
/// #[derive(serde::Deserialize, serde::Serialize)]
/// struct Owned(
///     #[serde(deserialize_with = "maniple::handle::deserialize", serialize_with = "maniple::handle::serialize")] OwnedHandle,
/// );
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let (sender, receiver) = maniple::pipe::<Owned>()?;
/// sender.send(&Owned(std::fs::File::open("/dev/null")?.into_handle()))?;
/// let Owned(handle) = receiver.recv()?;
/// assert_eq!(std::fs::File::from_handle(handle).metadata()?.len(), 0);
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// If the serializer is not part of one of maniple's own ways of sending.
pub fn deserialize<'de, T: FromHandle, D: Deserializer<'de>>(deserializer: D) -> Result<T, D::Error> {
    sideband::take_handle(WHAT, u32::deserialize(deserializer)?).map(T::from_handle)
}
