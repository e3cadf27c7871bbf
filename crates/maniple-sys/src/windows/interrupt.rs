//! Ctrl-C, which ends waits.
//!
//! The system calls a handler in a thread of its own. The handler of this crate counts the call and leaves it to the
//! program's handlers; a wait that began before ends early, as a wait on Unix does after a signal handler.
#![allow(unsafe_code)]

use super::nt;
use std::sync::OnceLock;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::SeqCst;
use windows_sys::Win32::System::Console::{CTRL_BREAK_EVENT, CTRL_C_EVENT, SetConsoleCtrlHandler};

static COUNT: AtomicU32 = AtomicU32::new(0);
static EVENT: OnceLock<Option<nt::Closing>> = OnceLock::new();

/// The event that the handler signals; `None` if there is no handle for it.
fn event() -> Option<isize> {
    EVENT
        .get_or_init(|| {
            let event = nt::Closing::new(nt::event(None).ok()?);
            // SAFETY: the function is part of this image, which stays loaded as long as its waits run.
            unsafe { SetConsoleCtrlHandler(Some(handle), 1) };
            Some(event)
        })
        .as_ref()
        .map(|event| event.0)
}

unsafe extern "system" fn handle(kind: u32) -> windows_sys::core::BOOL {
    if matches!(kind, CTRL_C_EVENT | CTRL_BREAK_EVENT) {
        COUNT.fetch_add(1, SeqCst);
        if let Some(Some(event)) = EVENT.get() {
            nt::set_event(event.0, true);
        }
    }
    // The next handler is called.
    0
}

/// One wait.
#[derive(Debug)]
pub struct Interrupt(u32);

impl Interrupt {
    /// Begins a wait. A wait of another thread that has not noticed the last Ctrl-C yet notices it when its sleep ends.
    pub fn new() -> Interrupt {
        static SEEN: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.load(SeqCst);
        if let Some(event) = event()
            && SEEN.swap(count, SeqCst) != count
        {
            nt::set_event(event, false);
        }
        Interrupt(count)
    }

    /// The event to wait for beside others.
    pub fn event(&self) -> Option<isize> {
        event()
    }

    /// Returns whether there was a Ctrl-C since this wait began.
    pub fn has_come(&self) -> bool {
        COUNT.load(SeqCst) != self.0
    }
}
