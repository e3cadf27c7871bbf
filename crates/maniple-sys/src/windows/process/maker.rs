//! Ends a process whose maker is gone.
#![allow(unsafe_code)]

use super::super::{nt, quiet};
use super::{code_of, end_self, hung_up, until_hung_up};
use crate::process::Cause;
use crate::{AsHandle, BorrowedHandle};
use std::io;
use std::time::Duration;
use windows_sys::Win32::System::Threading::PROCESS_SYNCHRONIZE;

/// Makes a thread end this process when the other end of the pipe is closed and the process `maker` has ended. The
/// system has no requests to end, so nothing is left to do after the grace.
pub fn end_after(pipe: BorrowedHandle<'_>, maker: i32, _grace: Duration) -> io::Result<()> {
    let pipe = pipe.try_clone_to_owned()?;
    // An error: it has ended.
    let maker = nt::process(maker as u32, PROCESS_SYNCHRONIZE).ok();
    quiet::spawn("maniple-maker", move || {
        while !hung_up(pipe.as_handle()).unwrap_or(true) {
            until_hung_up(pipe.as_handle());
        }
        if let Some(maker) = maker {
            while !nt::wait_one(maker.as_raw(), None).unwrap_or(true) {}
        }
        end_self(code_of(Cause::TERMINATE));
    })?;
    Ok(())
}

/// Returns whether a process runs.
pub fn runs(process: i32) -> bool {
    !super::super::holder::is_gone(process as u32, 0)
}
