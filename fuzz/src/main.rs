//! Feeds what libFuzzer thinks of to a target: `maniple-fuzz TARGET [libFuzzer's arguments]`.

use libfuzzer_sys as _;
use std::ffi::{CString, c_char, c_int};
use std::sync::OnceLock;

unsafe extern "C" {
    fn LLVMFuzzerRunDriver(
        argc: *mut c_int,
        argv: *mut *mut *mut c_char,
        feed: extern "C" fn(*const u8, usize) -> c_int,
    ) -> c_int;
}

static FEED: OnceLock<fn(&[u8])> = OnceLock::new();

extern "C" fn feed(data: *const u8, len: usize) -> c_int {
    // SAFETY: libFuzzer passes `len` bytes at the address; with a `len` of 0 the address is not read.
    let data = if len == 0 { &[] } else { unsafe { std::slice::from_raw_parts(data, len) } };
    if let Some(feed) = FEED.get() {
        feed(data);
    }
    0
}

/// What libfuzzer-sys calls in programs that use its macro.
#[unsafe(no_mangle)]
extern "C" fn rust_fuzzer_test_input(_: *const u8, _: usize) -> c_int {
    0
}

fn main() {
    let mut arguments = std::env::args();
    let program = arguments.next().unwrap_or_default();
    let targets = || maniple_engine::hostile::TARGETS.iter().chain(&maniple::hostile::TARGETS);
    let Some(name) = arguments.next() else {
        targets().for_each(|(name, _)| println!("{name}"));
        return;
    };
    let Some((_, target)) = targets().find(|(target, _)| *target == name) else {
        eprintln!("no target is called {name}; without arguments they are listed");
        std::process::exit(2);
    };
    let _ = FEED.set(*target);
    std::panic::set_hook(Box::new(|panic| {
        eprintln!("{panic}\n{}", std::backtrace::Backtrace::force_capture());
        std::process::abort();
    }));
    // libFuzzer starts it again, by the shell, when it has many inputs to go through.
    let own: Vec<CString> =
        [format!("{program} {name}")].into_iter().chain(arguments).filter_map(|a| CString::new(a).ok()).collect();
    let mut pointers: Vec<*mut c_char> = own.iter().map(|a| a.as_ptr().cast_mut()).collect();
    pointers.push(std::ptr::null_mut());
    let (mut argc, mut argv) = (own.len() as c_int, pointers.as_mut_ptr());
    // SAFETY: the arguments live until the driver returns.
    let code = unsafe { LLVMFuzzerRunDriver(&mut argc, &mut argv, feed) };
    std::process::exit(code);
}
