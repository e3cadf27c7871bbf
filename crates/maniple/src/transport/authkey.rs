//! The key that both ends of a connection have to know.

use crate::error::{Error, Result, SystemError};
use std::fmt;
use std::sync::Arc;

/// A secret that both ends of a connection have to know. Each end proves to the other that it knows the key; the key
/// itself is never sent.
///
/// Python's standard package also calls it `authkey`; in Python it is `bytes`. `{:?}` does not show the key and it
/// cannot be serialized, so that it does not leak by accident. To pass it on, use [`as_bytes`](Authkey::as_bytes).
///
/// ```
/// use maniple::Authkey;
///
/// let agreed = Authkey::from("correct horse battery staple");
/// assert_eq!(agreed.as_bytes(), b"correct horse battery staple");
/// assert_eq!(format!("{agreed:?}"), "Authkey(..)");
/// ```
#[derive(Clone)]
pub struct Authkey(Arc<[u8]>);

/// Bytes of a new key.
const FRESH: usize = 32;

impl Authkey {
    /// Creates a random key.
    ///
    /// ```
    /// use maniple::Authkey;
    ///
    /// # fn main() -> maniple::Result<()> {
    /// assert_ne!(Authkey::random()?.as_bytes(), Authkey::random()?.as_bytes());
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// The operating system's error, if it has no random bytes.
    pub fn random() -> Result<Authkey> {
        let mut bytes = [0; FRESH];
        let doing = |source| Error::System(SystemError::doing("make a new key", source));
        maniple_sys::socket::random(&mut bytes).map_err(doing)?;
        Ok(Authkey(bytes.as_slice().into()))
    }

    /// Returns the secret.
    ///
    /// ```
    /// assert_eq!(maniple::Authkey::from("s3cret").as_bytes(), b"s3cret");
    /// ```
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Authkey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Authkey(..)")
    }
}

impl From<&[u8]> for Authkey {
    fn from(bytes: &[u8]) -> Self {
        Authkey(bytes.into())
    }
}

impl<const N: usize> From<&[u8; N]> for Authkey {
    fn from(bytes: &[u8; N]) -> Self {
        Authkey(bytes.as_slice().into())
    }
}

impl From<Vec<u8>> for Authkey {
    fn from(bytes: Vec<u8>) -> Self {
        Authkey(bytes.into())
    }
}

impl From<&str> for Authkey {
    fn from(text: &str) -> Self {
        Authkey(text.as_bytes().into())
    }
}

impl From<&Authkey> for Authkey {
    fn from(key: &Authkey) -> Self {
        key.clone()
    }
}
