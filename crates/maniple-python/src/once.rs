//! Pickles that can be unpickled only once: those of descriptors and of managers' proxies, which take over a resource
//! that their sender offers.
//!
//! Another pickle can be unpickled again if a signal handler has interrupted the first attempt. Of these pickles the
//! first attempt has taken the resource. So they are unpickled in a thread in which no handler runs. They are
//! recognized by the names that they contain.

/// Functions and classes whose pickles take over a resource.
const TAKERS: [&[u8]; 3] = [b"DupFd", b"DupSocket", b"RebuildProxy"];
/// Longer bytes within a pickle are data, and not another pickle that the outer pickle has unpickled.
const NESTED: usize = 4096;

fn is_taker(name: &[u8]) -> bool {
    TAKERS.contains(&name)
}

/// Returns whether these bytes contain one of the names.
fn has_taker(bytes: &[u8]) -> bool {
    TAKERS.iter().any(|name| bytes.windows(name.len()).any(|part| part == *name))
}

/// Returns whether a pickle names a function or class whose pickles can be unpickled only once.
pub fn takes_once(pickle: &[u8]) -> bool {
    // Bytes that are not a pickle raise an error at their first invalid instruction.
    Names(pickle).look().unwrap_or(false)
}

/// The rest of a pickle.
struct Names<'a>(&'a [u8]);

impl<'a> Names<'a> {
    fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(taken)
    }

    fn line(&mut self) -> Option<&'a [u8]> {
        let end = self.0.iter().position(|byte| *byte == b'\n')?;
        let line = self.take(end)?;
        self.take(1)?;
        Some(line)
    }

    /// Takes a string of bytes after its length, a number of `N` bytes.
    fn sized<const N: usize>(&mut self) -> Option<&'a [u8]> {
        let mut len = [0; 8];
        len[..N].copy_from_slice(self.take(N)?);
        self.take(usize::try_from(u64::from_le_bytes(len)).ok()?)
    }

    /// Reads the instructions. The argument of each is a line, a number of so many bytes, or a string after its length.
    fn look(&mut self) -> Option<bool> {
        // Protocols without bytes write bytes as text.
        let mut has_bytes = false;
        loop {
            let [op] = *self.take(1)? else { return None };
            let found = match op {
                b'.' => return Some(false),
                // A module and a name in it.
                b'c' | b'i' => {
                    self.line()?;
                    is_taker(self.line()?)
                }
                // `STACK_GLOBAL` takes its names from short strings.
                0x8c => is_taker(self.sized::<1>()?),
                b'X' if has_bytes => is_taker(self.sized::<4>()?),
                b'X' => self.nested::<4>()?,
                b'V' => has_taker(self.line()?),
                0x80 => {
                    has_bytes = self.take(1)?[0] > 2;
                    false
                }
                0x8d => is_taker(self.sized::<8>()?),
                b'C' => has_taker(self.sized::<1>()?),
                b'B' => self.nested::<4>()?,
                0x8e | 0x96 => self.nested::<8>()?,
                b'U' | 0x8a => self.skip(Self::sized::<1>)?,
                b'T' | 0x8b => self.skip(Self::sized::<4>)?,
                b'I' | b'L' | b'F' | b'S' | b'p' | b'g' | b'P' => self.skip(Self::line)?,
                b'K' | b'h' | b'q' | 0x82 => self.skip(|rest| rest.take(1))?,
                b'M' | 0x83 => self.skip(|rest| rest.take(2))?,
                b'J' | b'j' | b'r' | 0x84 => self.skip(|rest| rest.take(4))?,
                b'G' | 0x95 => self.skip(|rest| rest.take(8))?,
                _ => false,
            };
            if found {
                return Some(true);
            }
        }
    }

    fn nested<const N: usize>(&mut self) -> Option<bool> {
        let bytes = self.sized::<N>()?;
        Some(bytes.len() <= NESTED && has_taker(bytes))
    }

    fn skip(&mut self, argument: impl FnOnce(&mut Self) -> Option<&'a [u8]>) -> Option<bool> {
        argument(self).map(|_| false)
    }
}

/// As `takes_once`, for a payload that is a pickle. Other payloads take over nothing, except by an exception's pickle
/// within them.
pub fn payload_takes_once(payload: &[u8]) -> bool {
    const HEAD: usize = 9;
    match payload.first() {
        Some(&crate::payload_format::tag::PICKLE) => payload.get(HEAD..).is_some_and(takes_once),
        _ => false,
    }
}

/// As `takes_once`, for the description of a failed task.
pub fn failure_takes_once(payload: &[u8]) -> bool {
    payload.len() <= 16 * NESTED && has_taker(payload)
}
