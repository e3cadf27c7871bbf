//! What a started child inherits: its role and its handles.
//!
//! One environment variable lists them, `MANIPLE_INHERITED=<role>:<number>,<number>,…`, which [`inherited`] removes
//! before the program's own code can see it or pass it on to programs that it starts. If the kernel has no handles on
//! processes, the list ends with a semicolon and the number of a pipe's end, which the process only holds so that its
//! parent detects its end.

use maniple_sys as sys;
use maniple_sys::atfork;
use maniple_sys::{OwnedHandle, RawHandle};
use std::ffi::{OsStr, OsString};

pub(super) const VARIABLE: &str = "MANIPLE_INHERITED";

/// The role and the handles that this process was started with.
#[derive(Debug)]
pub struct Inherited {
    /// The word that [`super::Launch::role`] set.
    pub role: String,
    /// The handles that [`super::Launch::handles`] set, in order; close-on-exec again.
    pub handles: Vec<OwnedHandle>,
}

/// What this process inherited, once: later calls find nothing. `None` in a process that was started in any other way,
/// in a process that runs with more rights than its starter (set-user-id: its environment cannot be trusted), and if
/// the listed handles do not exist.
///
/// # Safety
/// No other thread of this process reads or changes the environment meanwhile: it is called before the program has a second thread.
#[allow(unsafe_code)]
pub unsafe fn inherited() -> Option<Inherited> {
    let value = std::env::var_os(VARIABLE)?;
    // SAFETY: as the caller promises.
    unsafe { sys::process::set_variable(OsStr::new(VARIABLE), None) };
    if sys::process::privileged() {
        return None;
    }
    // SAFETY: `Launch::start` opened each number for this process and announced it; the announcement is gone, so each is taken once.
    let claim = |number| unsafe { sys::process::claim(number) };
    let (value, held) = match value.to_str()?.split_once(';') {
        Some((value, held)) => (value.to_owned(), Some(held.parse().ok().filter(|&n| n > 2)?)),
        None => (value.to_str()?.to_owned(), None),
    };
    if let Some(held) = held {
        atfork::hold_until_the_end(claim(held)?).ok()?;
    }
    let (role, numbers) = parse(&value)?;
    let handles = numbers.into_iter().map(claim).collect::<Option<Vec<_>>>()?;
    Some(Inherited { role, handles })
}

fn parse(value: &str) -> Option<(String, Vec<RawHandle>)> {
    let (role, list) = value.rsplit_once(':')?;
    let numbers = list.split(',').filter(|n| !n.is_empty()).map(|n| n.parse().ok().filter(|&n| n > 2));
    Some((role.to_owned(), numbers.collect::<Option<_>>()?))
}

pub(super) fn announce(role: &str, handles: &[OwnedHandle], held: Option<&OwnedHandle>) -> OsString {
    let numbers: Vec<String> = handles.iter().map(|h| h.as_raw().to_string()).collect();
    let held = held.map(|held| format!(";{}", held.as_raw())).unwrap_or_default();
    format!("{role}:{}{held}", numbers.join(",")).into()
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn reads_what_was_announced() {
        assert_eq!(parse("worker:7,12"), Some(("worker".into(), vec![7, 12])));
        assert_eq!(parse("a:b:"), Some(("a:b".into(), vec![])));
    }

    #[test]
    fn takes_nothing_from_an_announcement_that_nobody_makes() {
        for bad in ["", "worker", "worker:x", "worker:7,x", "worker:-4", "worker:1", "worker:99999999999999999999"] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }
}
