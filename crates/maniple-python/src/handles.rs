//! Descriptor numbers from Python as owned handles.
#![allow(unsafe_code)]

use maniple_engine::sys::Handle;
use std::os::fd::FromRawFd;

/// Takes the descriptors over: from here on they are closed by whoever holds the handles.
pub fn adopt(numbers: Vec<i32>) -> Vec<Handle> {
    // SAFETY: `_workers.worker`, the only caller of `serve`, gives its descriptors away with this call and forgets them; so does
    // `_manager_wire.quick_line`, the only caller of `Line`, with the duplicate that it makes.
    numbers.into_iter().map(|number| unsafe { Handle::from_raw_fd(number) }).collect()
}
