//! The text of a panic in a task, kept for the error that the caller receives.

use crate::error::Panicked;
use std::any::Any;
use std::backtrace::Backtrace;
use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, PanicHookInfo, catch_unwind};

thread_local! {
    static IN_TASK: Cell<bool> = const { Cell::new(false) };
    static SEEN: RefCell<Option<(Option<String>, String)>> = const { RefCell::new(None) };
}

/// Installs the hook that records where a task panicked. Such a panic is not printed: it becomes an error. All other
/// panics (in threads that a task started, or in a program that aborts on panic) reach the previous hook.
pub(crate) fn install_hook() {
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(
        move |info| {
            if IN_TASK.get() && cfg!(panic = "unwind") { note(info) } else { before(info) }
        },
    ));
}

fn note(info: &PanicHookInfo<'_>) {
    let wanted = std::env::var_os("RUST_BACKTRACE").is_none_or(|v| v != "0");
    let backtrace = if wanted { trimmed(&Backtrace::force_capture().to_string()) } else { String::new() };
    SEEN.set(Some((info.location().map(ToString::to_string), backtrace)));
}

/// Runs a task. Returns its panic as an error.
pub(crate) fn caught<R>(task: impl FnOnce() -> R) -> Result<R, Box<Panicked>> {
    let before = IN_TASK.replace(true);
    let result = catch_unwind(AssertUnwindSafe(|| innermost(task)));
    IN_TASK.set(before);
    result.map_err(|payload| {
        let (location, backtrace) = SEEN.take().unwrap_or_default();
        let message = message(&*payload);
        // The value of the panic may panic again when it is dropped.
        let _ = catch_unwind(AssertUnwindSafe(|| drop(payload)));
        Box::new(Panicked { message, location, backtrace, pid: std::process::id(), task: String::new() })
    })
}

fn message(payload: &(dyn Any + Send)) -> String {
    if let Some(text) = payload.downcast_ref::<&str>() {
        (*text).to_owned()
    } else if let Some(text) = payload.downcast_ref::<String>() {
        text.clone()
    } else {
        "a value that is not text".to_owned()
    }
}

/// The frame below which a backtrace shows this crate's own functions.
#[inline(never)]
fn innermost<R>(task: impl FnOnce() -> R) -> R {
    let result = task();
    // There must be code after the call; otherwise the compiler would omit the frame.
    std::hint::black_box(());
    result
}

/// Removes the panic's own frames above the function, and the worker's frames below it.
fn trimmed(backtrace: &str) -> String {
    // A frame is a line `  12: name`, and often a line `  at file:line` after it.
    let is_frame = |line: &str| line.trim_start().split_once(':').is_some_and(|(n, _)| n.parse::<u32>().is_ok());
    let mut frames: Vec<Vec<&str>> = Vec::new();
    for line in backtrace.lines() {
        match frames.last_mut() {
            Some(frame) if !is_frame(line) => frame.push(line),
            _ => frames.push(vec![line]),
        }
    }
    let last = frames.iter().position(|f| f[0].contains("maniple::panic::innermost")).unwrap_or(frames.len());
    let panicking = ["core::panicking::", "core::option::", "core::result::", "rust_begin_unwind", "begin_panic"];
    let own = |f: &Vec<&str>| panicking.iter().any(|p| f[0].contains(p));
    let first = frames[..last].iter().rposition(own).map_or(0, |at| at + 1);
    let mut text = String::new();
    for line in frames[first..last].iter().flatten() {
        text.push_str(line);
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backtrace_is_cut_to_the_function_and_what_it_called() {
        let text = "   0: std::backtrace\n   1: maniple::panic::note\n   2: rust_begin_unwind\n             at x.rs:1\n   \
                    3: core::panicking::panic_fmt\n   4: user::inner\n             at user.rs:7:5\n   5: user::outer\n   \
                    6: maniple::panic::innermost\n   7: main\n";
        assert_eq!(trimmed(text), "   4: user::inner\n             at user.rs:7:5\n   5: user::outer\n");
        assert_eq!(trimmed(""), "");
    }

    #[test]
    fn whatever_a_task_panics_with_becomes_a_message() {
        assert_eq!(caught(|| panic!("static")).unwrap_err().message, "static");
        assert_eq!(caught(|| panic!("made of {}", 2)).unwrap_err().message, "made of 2");
        assert_eq!(caught(|| std::panic::panic_any(7)).unwrap_err().message, "a value that is not text");
        assert_eq!(caught(|| 7).unwrap(), 7);
    }
}
