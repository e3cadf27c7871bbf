//! The child's side: read the setup, call the function, end.
//!
//! The child's handles are, in order: the memory with the setup, a watch on the parent, the pipe for events, a daemon's
//! lifeline, the standard streams that the child has to put in place itself, and those in the function's argument.
#![allow(unsafe_code)]

use super::{IntoExitCode, current};
use crate::chunk::{Input, Output};
use crate::error::{CallError, Error, Result};
use crate::events;
use crate::identity::{Function, Identity};
use crate::payload::Payload;
use crate::registered;
use maniple_engine::process::{self as engine, ExitWatch, Stdio as Stream, lifeline};
use maniple_sys::{self as sys, AsHandle, OwnedHandle, memory};
use serde::{Deserialize, Serialize};
use std::ffi::OsString;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;

/// The settings of a child, besides what to call.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Setup {
    pub name: String,
    pub daemon: bool,
    pub parent: u32,
    pub parent_name: String,
    pub environment: Vec<(OsString, Option<OsString>)>,
    pub folder: Option<PathBuf>,
    /// The greatest level of events that the parent wants. 0 means none, and then there is no pipe for them.
    pub events: u8,
}

/// The exit code after a panic, as of `main`.
const PANICKED: i32 = 101;
/// The exit code of a child that could not begin.
const NOT_BEGUN: i32 = 1;

/// The type of [`enter`] for every function.
type Enter = fn(&mut Input<'_>) -> Result<i32>;

fn enter<A: Payload, R: IntoExitCode + 'static>(input: &mut Input<'_>) -> Result<i32> {
    enter_at::<A, R>(input.identity()?.address()?, input)
}

/// Calls the function of these types at `address`.
pub(crate) fn enter_at<A: Payload, R: IntoExitCode + 'static>(
    address: *const (),
    input: &mut Input<'_>,
) -> Result<i32> {
    // SAFETY: `send`, or the list of tasks, has stored the address of a function of exactly these types.
    let function = unsafe { <fn(A) -> R as Function>::recall(address) };
    let argument = input.item::<A>()??;
    Ok(function(argument).into_exit_code())
}

/// Encodes the data that a child needs to call `function(argument)`.
pub(super) struct Called {
    pub bytes: Vec<u8>,
    pub handles: Vec<OwnedHandle>,
}

pub(super) fn send<A: Payload, R: IntoExitCode + 'static>(function: fn(A) -> R, argument: &A) -> Result<Called> {
    let mut output = Output::with_handles();
    output.identity(Identity::of(enter::<A, R> as Enter as *const ())?);
    output.identity(Identity::of(function.address())?);
    output.item(argument)?;
    Ok(Called { bytes: output.bytes().to_vec(), handles: output.take_handles() })
}

/// As above, for a function that is known by its name.
pub(super) fn send_named<A: Payload>(name: impl FnOnce(&mut Output) -> Result<()>, argument: &A) -> Result<Called> {
    let mut output = Output::with_handles();
    name(&mut output)?;
    output.item(argument)?;
    Ok(Called { bytes: output.bytes().to_vec(), handles: output.take_handles() })
}

/// Encodes a setup, the standard streams that arrive as handles, and a call, for [`run`].
pub(super) fn encode(setup: &Setup, given: [bool; 3], call: &[u8]) -> Vec<u8> {
    let mut output = Output::plain();
    // Text, numbers and paths can always be encoded.
    let _ = output.item(&(setup, given));
    let mut bytes = output.bytes().to_vec();
    bytes.extend_from_slice(call);
    bytes
}

/// Runs this process as a parent's [`Process`](super::Process), and ends it.
pub(crate) fn run(handles: Vec<OwnedHandle>) -> ! {
    sys::process::take_name();
    // Rust does this before `main`, which this process does not reach.
    sys::process::ignore_broken_pipes();
    let code = begin(handles).unwrap_or_else(|error| {
        eprintln!("maniple: a process cannot begin: {error}");
        NOT_BEGUN
    });
    std::process::exit(code);
}

fn begin(handles: Vec<OwnedHandle>) -> Result<i32> {
    let mut handles = handles.into_iter();
    let mut next = || handles.next().ok_or_else(|| Error::Call(CallError::Remote("a handle is missing".into())));
    let bytes = memory::read_all(next()?.as_handle())
        .map_err(|e| Error::Call(CallError::Remote(format!("the function and its argument cannot be decoded: {e}"))))?;
    let mut input = Input::plain(&bytes);
    let (setup, given) = input.item::<(Setup, [bool; 3])>()??;
    let parent = ExitWatch::from_inherited(next()?);
    if setup.events > 0 {
        events::install(next()?, setup.events);
    }
    let line = setup.daemon.then(&mut next).transpose()?;
    let mut stdio = [const { Stream::Inherit }; 3];
    for (stream, given) in stdio.iter_mut().zip(given) {
        if given {
            *stream = Stream::Handle(next()?);
        }
    }
    input.supply(handles.collect());
    settle(setup, stdio, parent, line)?;
    let identity = input.identity()?;
    let enter: Enter = if identity == Identity::NAMED {
        registered::enter
    } else {
        // SAFETY: `send` wrote the identity of an `enter`, and all of them have this type. `Identity::address` has checked that
        // the identity belongs to this build. No other process can write to the memory.
        unsafe { std::mem::transmute::<*const (), Enter>(identity.address()?) }
    };
    // The panic hook has printed the message.
    catch_unwind(AssertUnwindSafe(|| enter(&mut input))).unwrap_or(Ok(PANICKED))
}

/// As above, in a forked child. Returns its exit code.
pub(super) fn in_fork<R: IntoExitCode>(
    setup: Setup,
    stdio: [Stream; 3],
    parent: ExitWatch,
    line: Option<OwnedHandle>,
    function: impl FnOnce() -> R,
) -> i32 {
    current::forget_children();
    if let Err(error) = settle(setup, stdio, parent, line) {
        eprintln!("maniple: a process cannot begin: {error}");
        return NOT_BEGUN;
    }
    let code = catch_unwind(AssertUnwindSafe(|| function().into_exit_code())).unwrap_or(PANICKED);
    let _ = std::io::Write::flush(&mut std::io::stdout());
    code
}

/// Applies the settings to this process.
fn settle(setup: Setup, stdio: [Stream; 3], parent: ExitWatch, line: Option<OwnedHandle>) -> Result<()> {
    if let Some(line) = line {
        lifeline::arm(line)?;
    }
    for (number, stream) in (0..).zip(stdio) {
        let handle = match stream {
            Stream::Inherit => continue,
            Stream::Null => engine::nothing()?,
            Stream::Handle(handle) => handle,
        };
        // SAFETY: 0, 1 or 2, a standard stream, which has no owner.
        unsafe { engine::put_in_place(handle, number)? };
    }
    for (name, value) in &setup.environment {
        // SAFETY: the child has one thread: the code that has run since its start has started no other.
        unsafe { sys::process::set_variable(name, value.as_deref()) };
    }
    if let Some(folder) = &setup.folder {
        std::env::set_current_dir(folder).map_err(|e| {
            Error::Call(CallError::Remote(format!(
                "the working directory cannot be changed to {}: {e}",
                folder.display()
            )))
        })?;
    }
    current::become_child(setup.name, setup.daemon, setup.parent, setup.parent_name, parent);
    Ok(())
}
