//! The reason why a value cannot be encoded or decoded, in serde's terms.

use std::fmt::{self, Display};

/// The reason of a failure. It has the size of a pointer, because every step of encoding returns one or nothing.
#[derive(Debug)]
pub(super) struct Refused(Box<Why>);

#[derive(Debug)]
struct Why {
    text: String,
}

impl Refused {
    #[cold]
    pub(super) fn new(why: impl Display) -> Refused {
        Refused(Box::new(Why { text: why.to_string() }))
    }
}

impl Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.text)
    }
}

impl std::error::Error for Refused {}

impl serde::ser::Error for Refused {
    fn custom<T: Display>(why: T) -> Self {
        Refused::new(why)
    }
}

impl serde::de::Error for Refused {
    fn custom<T: Display>(why: T) -> Self {
        Refused::new(why)
    }
}

impl From<postcard::Error> for Refused {
    #[cold]
    fn from(error: postcard::Error) -> Refused {
        match error {
            postcard::Error::SerializeBufferFull => Refused::new("there is no memory for its bytes"),
            postcard::Error::DeserializeUnexpectedEnd => Refused::new("its bytes end too early"),
            other => Refused::new(other),
        }
    }
}
