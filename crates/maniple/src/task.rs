//! Functions by name, for calls between different programs.
//!
//! Workers of the same program identify a function by its place in the program. Another build of the program, or
//! another program, has the function in another place. It finds the function by the name under which
//! [`#[maniple::task]`](macro@crate::task) has registered it. The attribute does not change the function. It adds its
//! name, its type and its address to a list that the linker collects, so no code has to run to complete the list.
//!
//! ```
//! // In a library that both programs link, or twice with the same name:
//! #[maniple::task(name = "photos::thumbnail")]
//! fn thumbnail(photo: Vec<u8>, width: u32) -> Result<Vec<u8>, String> {
//!     # let _ = width;
//!     Ok(photo)
//! }
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let other_program = std::env::current_exe()?;
//! // Here, where the other program does the work:
//! let pool = maniple::Pool::builder().processes(1).program(other_program).build()?;
//! let small: Result<Vec<u8>, String> = pool.apply_named("photos::thumbnail", (vec![1u8, 2, 3], 640u32))?;
//! assert_eq!(small, Ok(vec![1, 2, 3]));
//! # Ok(())
//! # }
//! ```
//!
//! The name is the path of the function, `photos::thumbnail`, or what `#[maniple::task(name = "...")]` says. Call a
//! function of one argument with that argument, a function without arguments with `()`, and a function of several
//! arguments with a tuple. Before a call the types are compared, by their names without the modules. So each side may
//! have its own definition of a type; both definitions must have the same encoding.

#![cfg_attr(not(feature = "macros"), allow(dead_code))]

use crate::call::Plain;
use crate::identity::Function;
use crate::payload::Payload;
use crate::process::IntoExitCode;
use crate::process::child;
use crate::registered;
use serde::de::DeserializeOwned;
use std::any::type_name;

/// Returns the names of the functions that this program has registered, in no particular order.
///
/// ```
/// #[maniple::task(name = "doubled")]
/// fn double(x: u32) -> u32 {
///     2 * x
/// }
///
/// assert!(maniple::task::names().any(|name| name == "doubled"));
/// ```
pub fn names() -> impl Iterator<Item = &'static str> {
    registered::entries().iter().map(|entry| entry.name)
}

/// Keeps a static that the linker collects. GNU's linker for Windows removes what no code refers to, although it is
/// marked as used (<https://github.com/dtolnay/linkme/issues/25>), but it keeps constructors and what they refer to.
#[cfg(all(windows, target_env = "gnu"))]
#[doc(hidden)]
#[macro_export]
macro_rules! __keep {
    ($collected:path) => {
        const _: () = {
            extern "C" fn keep() {
                ::core::hint::black_box(&raw const $collected);
            }
            #[used]
            // SAFETY: the section has pointers to functions of this type, which are called once before `main`.
            #[unsafe(link_section = ".CRT$XCT")]
            static KEEP: extern "C" fn() = keep;
        };
    };
}

/// Does nothing: the linker keeps a static that is marked as used.
#[cfg(not(all(windows, target_env = "gnu")))]
#[doc(hidden)]
#[macro_export]
macro_rules! __keep {
    ($collected:path) => {};
}

/// Code that `#[maniple::task]` generates for each function uses this module. It is not for direct use.
#[doc(hidden)]
pub mod macro_support {
    use super::*;
    #[cfg(feature = "macros")]
    pub use crate::registered::TASKS;
    pub use crate::registered::{Ender, Entry, Giver, Known};
    #[cfg(feature = "auto-init")]
    pub use crate::startup::EXPLICIT;
    #[cfg(any(feature = "macros", feature = "auto-init"))]
    pub use linkme;

    impl Known {
        #[must_use]
        pub fn new<A, R>(probe: &Probe<A, R>, gives: Option<Giver>, ends: Option<Ender>) -> Known {
            Known { address: probe.0.address(), signature: type_name::<fn(A) -> R>(), gives, ends }
        }
    }

    /// Shows by its methods what can be done with a function. Of two methods of one name, that of the type itself comes
    /// before
    /// that of the reference to it.
    pub struct Probe<A, R>(pub fn(A) -> R);

    pub trait Gives {
        fn gives(&self) -> Option<Giver>;
    }

    impl<A: Payload, R: Payload> Gives for Probe<A, R> {
        fn gives(&self) -> Option<Giver> {
            Some(Giver(|address| Box::new(Plain::<A, R>::at(address))))
        }
    }

    pub trait GivesNot {
        fn gives(&self) -> Option<Giver>;
    }

    impl<A: DeserializeOwned, R> GivesNot for &Probe<A, R> {
        fn gives(&self) -> Option<Giver> {
            None
        }
    }

    pub trait Ends {
        fn ends(&self) -> Option<Ender>;
    }

    impl<A: Payload, R: IntoExitCode + 'static> Ends for Probe<A, R> {
        fn ends(&self) -> Option<Ender> {
            Some(Ender(child::enter_at::<A, R>))
        }
    }

    pub trait EndsNot {
        fn ends(&self) -> Option<Ender>;
    }

    impl<A: DeserializeOwned, R> EndsNot for &Probe<A, R> {
        fn ends(&self) -> Option<Ender> {
            None
        }
    }
}
