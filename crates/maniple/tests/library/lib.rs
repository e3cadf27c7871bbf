//! A shared library that uses maniple, for `it/library.rs`: a program in another language loads it.
#![allow(unsafe_code, clippy::unwrap_used)]

use maniple::{Manager, Pool, Process, StartMethod};
use std::ffi::{CStr, c_char};

/// Tries all that would start this program once more, and prints what it says.
#[unsafe(no_mangle)]
pub extern "C" fn start_this_program() {
    let say = |what: &str, error: Option<maniple::Error>| {
        println!("{what}: {}", error.map_or("done".into(), |e| e.to_string()))
    };
    for method in [StartMethod::Spawn, StartMethod::ForkServer] {
        say("pool", Pool::builder().processes(1).start_method(method).build().err());
        say("process", Process::builder().start_method(method).build(|()| (), ()).err());
    }
    say("manager", Manager::new().err());
    say("spawn", maniple::spawn(|()| 1, ()).err());
}

/// Has another program do the work.
///
/// # Safety
/// `program` is a string that ends in 0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn use_another_program(program: *const c_char) {
    // SAFETY: the caller's promise.
    let program = unsafe { CStr::from_ptr(program) }.to_str().unwrap();
    let pool = Pool::builder().processes(1).program(program).build().unwrap();
    let words = vec!["a".to_string(), "b".to_string()];
    println!("{}", pool.apply_named::<_, String>("texts.join", (words, "-".to_string())).unwrap());
}
