//! The functions that this program knows by their names.
//!
//! [`#[maniple::task]`](macro@crate::task) puts an [`Entry`] for each function into a list that the linker collects.
//! This module finds an entry, and asks it for its abilities. The module `task` makes entries.

#![cfg_attr(not(feature = "macros"), allow(dead_code))]

use crate::chunk::{Input, Output};
use crate::codec::short;
use crate::error::{CallError, Error, Result};
use crate::identity::{Function, Identity};
use std::any::type_name;

/// The form in which a worker keeps a call.
pub(crate) trait Run {
    /// A function that runs a chunk.
    fn run(&self, input: &mut Input<'_>, output: &mut Output) -> Result<()>;
}

/// A function that calls the function at an address with the received argument, and returns the exit code of its
/// result.
pub(crate) type EnterAt = fn(*const (), &mut Input<'_>) -> Result<i32>;

/// All functions that this program has registered.
#[cfg(feature = "macros")]
#[linkme::distributed_slice]
pub static TASKS: [Entry];

/// A registered function.
#[derive(Debug)]
pub struct Entry {
    /// Its name.
    pub name: &'static str,
    /// Its other data.
    pub known: fn() -> Known,
}

/// The data of a registered function besides its name.
#[derive(Debug)]
pub struct Known {
    pub(crate) address: *const (),
    pub(crate) signature: &'static str,
    pub(crate) gives: Option<Giver>,
    pub(crate) ends: Option<Ender>,
}

/// Returns the call that a pool's worker runs.
#[derive(Debug)]
pub struct Giver(pub(crate) fn(*const ()) -> Box<dyn Run>);
/// Runs it in a process of its own.
#[derive(Debug)]
pub struct Ender(pub(crate) EnterAt);

#[cfg(feature = "macros")]
pub(crate) fn entries() -> &'static [Entry] {
    &TASKS
}

#[cfg(not(feature = "macros"))]
pub(crate) fn entries() -> &'static [Entry] {
    &[]
}

fn names() -> impl Iterator<Item = &'static str> {
    entries().iter().map(|entry| entry.name)
}

/// Writes a name and the types in place of the identity of a function.
pub(crate) fn send<A, R>(name: &str, output: &mut Output) -> Result<()> {
    output.identity(Identity::NAMED);
    output.item(&(name, short(type_name::<fn(A) -> R>())))
}

/// As `send`, for a function that must be registered in this program.
pub(crate) fn send_registered<A, R>(function: fn(A) -> R, output: &mut Output) -> Result<()> {
    let is = |entry: &&Entry| {
        let known = (entry.known)();
        known.address == function.address() && known.signature == type_name::<fn(A) -> R>()
    };
    let entry = entries().iter().find(is).ok_or(Error::Call(CallError::Function(
        "another program finds functions by their names: write #[maniple::task] before it, in a library that both \
            programs link (call a function of several arguments, or a closure, by name)",
    )))?;
    send::<A, R>(entry.name, output)
}

/// Returns the name under which the function at this address is registered.
pub(crate) fn name_at(address: usize) -> Option<&'static str> {
    let is = |entry: &&Entry| (entry.known)().address.addr() == address;
    entries().iter().find(is).map(|entry| entry.name)
}

/// Returns the call that was requested by its name, in a worker.
pub(crate) fn receive(input: &mut Input<'_>) -> Result<Box<dyn Run>> {
    let (name, known) = find(input)?;
    let giver = known.gives.ok_or_else(|| refused(&name, "its result is not a value that can be sent back"))?;
    Ok((giver.0)(known.address))
}

/// As above, in a process.
pub(crate) fn enter(input: &mut Input<'_>) -> Result<i32> {
    let (name, known) = find(input)?;
    let why = "its result cannot be converted into an exit code (see maniple::IntoExitCode); call it through a pool";
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
            "{program} has no such task; its tasks are: {known}. Write #[maniple::task] before the function, and link \
                its crate"
        );
        return Err(refused(&name, why));
    };
    if found.next().is_some() {
        return Err(refused(
            &name,
            format!("{program} has two functions of that name; rename one of them by name = \"...\""),
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
    Error::Call(CallError::Task { name: name.to_owned(), why: why.into() })
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
