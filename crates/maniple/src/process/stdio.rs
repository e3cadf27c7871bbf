//! The standard streams of a child.

use maniple_engine::process::Stdio as Stream;
use maniple_sys::{IntoHandle, OwnedHandle};

/// The target of one of a child's standard streams.
///
/// ```
/// use maniple::{Process, Stdio};
/// use std::io::Read;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let (mut reader, writer) = std::io::pipe()?;
/// let process = Process::builder().stdin(Stdio::Null).stdout(writer).build(|()| println!("hello"), ())?;
/// process.start()?;
/// let mut said = String::new();
/// reader.read_to_string(&mut said)?;
/// assert_eq!(said, "hello\n");
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Default)]
#[non_exhaustive]
pub enum Stdio {
    /// The same stream of this process.
    #[default]
    Inherit,
    /// No target. Reading returns the end of the stream at once.
    Null,
    /// This file, pipe or socket.
    To(OwnedHandle),
}

impl<T: IntoHandle> From<T> for Stdio {
    fn from(handle: T) -> Stdio {
        Stdio::To(handle.into_handle())
    }
}

pub(super) fn stream(stdio: Stdio) -> Stream {
    match stdio {
        Stdio::Inherit => Stream::Inherit,
        Stdio::Null => Stream::Null,
        Stdio::To(handle) => Stream::Handle(handle),
    }
}
