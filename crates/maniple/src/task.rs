//! Functions by their names: for programs that are not one and the same file.
//!
//! A function of this very program is known to its workers by its place in it. Another build of the program, or another program
//! altogether, has it elsewhere; there it is found by the name under which [`#[maniple::task]`](macro@crate::task) has registered it.
//! The attribute leaves the function as it is, and lays its name, its type and its address into a list that the linker collects, so
//! nothing has to run before the list is complete.
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
//! The name is the path of the function, `photos::thumbnail`, or what `#[maniple::task(name = "...")]` says. A function of one argument
//! is called with that, one of none with `()`, one of several with a tuple. Before a call the types are compared, by their names without
//! the modules that they are in, so that each side may have its own definition of a type; what is in it must then be encoded alike.

#![cfg_attr(not(feature = "macros"), allow(dead_code))]

use crate::call::{Payload, Plain, Run};
use crate::codec::short;
use crate::error::{CallError, Error, Result};
use crate::frame::{Input, Output};
use crate::identity::{Function, Identity};
use crate::process::IntoExitCode;
use crate::process::child;
use serde::de::DeserializeOwned;
use std::any::type_name;

/// The names of the functions that this program has registered, in no order.
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
    entries().iter().map(|entry| entry.name)
}

#[cfg(feature = "macros")]
fn entries() -> &'static [macro_support::Entry] {
    &macro_support::TASKS
}

#[cfg(not(feature = "macros"))]
fn entries() -> &'static [macro_support::Entry] {
    &[]
}

/// What `#[maniple::task]` writes for each function. Not for use by hand.
#[doc(hidden)]
pub mod macro_support {
    use super::*;
    #[cfg(feature = "macros")]
    pub use linkme;

    /// All that this program has registered.
    #[cfg(feature = "macros")]
    #[linkme::distributed_slice]
    pub static TASKS: [Entry];

    #[derive(Debug)]
    pub struct Entry {
        pub name: &'static str,
        pub known: fn() -> Known,
    }

    #[derive(Debug)]
    pub struct Known {
        pub(super) address: *const (),
        pub(super) signature: &'static str,
        pub(super) gives: Option<Giver>,
        pub(super) ends: Option<Ender>,
    }

    impl Known {
        #[must_use]
        pub fn new<A, R>(probe: &Probe<A, R>, gives: Option<Giver>, ends: Option<Ender>) -> Known {
            Known { address: probe.0.address(), signature: type_name::<fn(A) -> R>(), gives, ends }
        }
    }

    /// Tells what can be done with a function by which methods it has: of two of one name, that of the type itself comes before
    /// that of the reference to it.
    pub struct Probe<A, R>(pub fn(A) -> R);

    /// Makes what a pool's worker runs.
    #[derive(Debug)]
    pub struct Giver(pub(super) fn(*const ()) -> Box<dyn Run>);
    /// Runs it as a process of its own.
    #[derive(Debug)]
    pub struct Ender(pub(super) child::EnterAt);

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

use macro_support::{Entry, Known};

/// What is written where the identity of a function would stand: a name and the types.
pub(crate) fn send<A, R>(name: &str, output: &mut Output) -> Result<()> {
    output.identity(Identity::NAMED);
    output.item(&(name, short(type_name::<fn(A) -> R>())))
}

/// The same for a function that must have been registered here.
pub(crate) fn send_registered<A, R>(function: fn(A) -> R, output: &mut Output) -> Result<()> {
    let is = |entry: &&Entry| {
        let known = (entry.known)();
        known.address == function.address() && known.signature == type_name::<fn(A) -> R>()
    };
    let entry = entries().iter().find(is).ok_or(Error::Call(CallError::Function(
        "it is to run in another program, which finds functions by their names: write #[maniple::task] before it, in a \
         library that both programs link (one of several arguments, or a closure, goes by name only)",
    )))?;
    send::<A, R>(entry.name, output)
}

/// The name that the function at this address is registered under.
pub(crate) fn name_at(address: usize) -> Option<&'static str> {
    let is = |entry: &&Entry| (entry.known)().address.addr() == address;
    entries().iter().find(is).map(|entry| entry.name)
}

/// For a worker: what has been asked for by its name.
pub(crate) fn receive(input: &mut Input<'_>) -> Result<Box<dyn Run>> {
    let (name, known) = find(input)?;
    let giver = known.gives.ok_or_else(|| refused(&name, "its result is not a value that can be sent back"))?;
    Ok((giver.0)(known.address))
}

/// For a process: the same.
pub(crate) fn enter(input: &mut Input<'_>) -> Result<i32> {
    let (name, known) = find(input)?;
    let why = "its result does not make an exit code (see maniple::IntoExitCode); call it through a pool";
    (known.ends.ok_or_else(|| refused(&name, why))?.0)(known.address, input)
}

fn find(input: &mut Input<'_>) -> Result<(String, Known)> {
    let (name, wanted) = input.item::<(String, String)>()??;
    let mut found = entries().iter().filter(|entry| entry.name == name);
    let program = std::env::current_exe().map_or_else(|_| "the program".into(), |path| path.display().to_string());
    let Some(entry) = found.next() else {
        let mut known: Vec<&str> = names().collect();
        known.sort_unstable();
        let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
        let why = format!(
            "{program} does not know it; the tasks that it knows: {known}. Write #[maniple::task] before the function, and see that its \
             crate is linked"
        );
        return Err(refused(&name, why));
    };
    if found.next().is_some() {
        return Err(refused(
            &name,
            format!("{program} has two functions of that name; give one of them another, by name = \"...\""),
        ));
    }
    let known = (entry.known)();
    let has = short(known.signature);
    if has != wanted {
        return Err(refused(&name, format!("it was called as {wanted}, and in {program} it is {has}")));
    }
    Ok((name, known))
}

fn refused(name: &str, why: impl Into<String>) -> Error {
    Error::Call(CallError::Task(Box::new((name.to_owned(), why.into()))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_function_that_was_not_registered_cannot_go_to_another_program() {
        fn stranger(x: u8) -> u8 {
            x
        }
        let error = send_registered(stranger as fn(u8) -> u8, &mut Output::plain()).unwrap_err();
        assert!(error.to_string().contains("#[maniple::task]"), "{error}");
    }
}
