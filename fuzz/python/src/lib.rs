//! libFuzzer's driver, and the extension module with the counters that the fuzzer looks at.

// The module's own functions, `PyInit__maniple` above all.
pub use _maniple as extension;
use libfuzzer_sys as _;
use std::ffi::{c_char, c_int};

type Feed = extern "C" fn(*const u8, usize) -> c_int;

unsafe extern "C" {
    fn LLVMFuzzerRunDriver(argc: *mut c_int, argv: *mut *mut *mut c_char, feed: Feed) -> c_int;
    fn __sanitizer_cov_8bit_counters_init(start: *mut u8, stop: *mut u8);
    fn __sanitizer_cov_pcs_init(start: *const usize, stop: *const usize);
}

#[unsafe(no_mangle)]
extern "C" fn rust_fuzzer_test_input(_: *const u8, _: usize) -> c_int {
    0
}

/// Feeds `feed` until libFuzzer is done.
///
/// # Safety
/// The arguments are a program's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn maniple_fuzz_run(mut argc: c_int, mut argv: *mut *mut c_char, feed: Feed) -> c_int {
    // SAFETY: as the caller promises.
    unsafe { LLVMFuzzerRunDriver(&mut argc, &mut argv, feed) }
}

/// Registers `count` counters at this address, which count lines of Python code, with the fuzzer.
///
/// # Safety
/// The counters must exist as long as the process.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn maniple_fuzz_count(counters: *mut u8, count: usize) {
    let places: Vec<[usize; 2]> = (0..count).map(|place| [place + 1, 1]).collect();
    let places = places.leak().as_ptr_range();
    // SAFETY: as the caller promises; the places are leaked.
    unsafe {
        __sanitizer_cov_8bit_counters_init(counters, counters.add(count));
        __sanitizer_cov_pcs_init(places.start.cast(), places.end.cast());
    }
}
