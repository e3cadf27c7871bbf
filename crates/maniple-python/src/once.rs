//! Pickles that can be unpickled only once: those of descriptors and of managers' proxies, which take over what their sender offers.
//!
//! Other pickles can be unpickled again when a signal's handler has interrupted the first attempt. These cannot: the first attempt
//! has taken what there was. So they are unpickled where no handler runs. The names that a pickle calls identify them.

/// Functions and classes whose pickles take something over.
const TAKERS: [&[u8]; 3] = [b"DupFd", b"DupSocket", b"RebuildProxy"];
/// Longer bytes within a pickle are data, and not another pickle, which the outer pickle has unpickled.
const NESTED: usize = 4096;

fn is_taker(name: &[u8]) -> bool {
    TAKERS.contains(&name)
}

/// Whether these bytes contain one of the names.
fn has_taker(bytes: &[u8]) -> bool {
    TAKERS.iter().any(|name| bytes.windows(name.len()).any(|part| part == *name))
}

/// Whether a pickle names something that can be unpickled once only.
pub fn takes_once(pickle: &[u8]) -> bool {
    // What is no pickle raises an error by itself, after the first part that is none.
    Names(pickle).look().unwrap_or(false)
}

/// What is left of a pickle.
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

    /// A string of bytes behind its length, a number of `N` bytes.
    fn sized<const N: usize>(&mut self) -> Option<&'a [u8]> {
        let mut len = [0; 8];
        len[..N].copy_from_slice(self.take(N)?);
        self.take(usize::try_from(u64::from_le_bytes(len)).ok()?)
    }

    /// Goes through the instructions. The argument of each is a line, a number of so many bytes, or a string behind its length.
    fn look(&mut self) -> Option<bool> {
        // Protocols that have no bytes write them as text.
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
                // What `STACK_GLOBAL` takes for a name is a short string, and so is much else.
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

/// The same of a payload, if it is a pickle; other values take nothing over, except what an exception's pickle within them names.
pub fn payload_takes_once(payload: &[u8]) -> bool {
    const HEAD: usize = 9;
    match payload.first() {
        Some(&crate::payload_format::tag::PICKLE) => payload.get(HEAD..).is_some_and(takes_once),
        _ => false,
    }
}

/// The same of what tells how a task failed.
pub fn failure_takes_once(payload: &[u8]) -> bool {
    payload.len() <= 16 * NESTED && has_taker(payload)
}
