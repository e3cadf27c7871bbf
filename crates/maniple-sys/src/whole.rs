//! The loops over single reads and writes.

use std::io;

/// Reads with `read`, which appends bytes and returns their number, until the end of the stream.
pub(crate) fn read_to_end(mut read: impl FnMut(&mut Vec<u8>) -> io::Result<usize>) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    loop {
        match read(&mut bytes) {
            Ok(0) => return Ok(bytes),
            Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error),
            _ => {}
        }
    }
}

/// Writes all of `bytes` with `write`, which returns the number of bytes written. Signal handlers do not interrupt it.
pub(crate) fn write_all(mut bytes: &[u8], mut write: impl FnMut(&[u8]) -> io::Result<usize>) -> io::Result<()> {
    while !bytes.is_empty() {
        match write(bytes) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => bytes = &bytes[written..],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
