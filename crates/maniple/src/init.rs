//! The first moments of a process that was started as a worker or as a [`Process`](crate::Process).
#![allow(unsafe_code)]

use crate::process::child;
use crate::startup::{self, PROCESS, PROCESS_SERVER, SERVER, WORKER};
use crate::worker;
use maniple_engine::process::{inherited, serve};
use maniple_sys::OwnedHandle;

#[cfg(feature = "auto-init")]
ctor::declarative::ctor! {
    // Unsafe, because code before `main` may rely on little of the runtime. A worker uses the parts that exist by then:
    // memory, threads, panics, the arguments and the environment. Constructors of the crates that use this crate have
    // run before.
    #[ctor(unsafe)]
    fn before_main() {
        if startup::EXPLICIT.is_empty() {
            init();
        }
    }
}

/// Declares that the program calls [`init`](crate::init()) itself, at the beginning of `main`, although the feature
/// `auto-init` is on.
///
/// Cargo turns a feature on for the whole program if one of its dependencies enables it. The program opts out by this
/// macro, in its root module. Without the feature the macro does nothing. Do not use it in a library, because it would
/// decide for every program that links the library.
///
/// ```no_run,standalone_crate
/// maniple::explicit_init!();
///
/// fn main() -> maniple::Result<()> {
///     // A worker gets here, too.
///     maniple::init();
///     // And no further.
///     assert_eq!(maniple::Pool::new(2)?.map(i32::abs, [-1])?, [1]);
///     Ok(())
/// }
/// ```
#[cfg(feature = "auto-init")]
#[macro_export]
macro_rules! explicit_init {
    () => {
        const _: () = {
            #[$crate::support::linkme::distributed_slice($crate::support::EXPLICIT)]
            #[linkme(crate = $crate::support::linkme)]
            static EXPLICIT: u8 = 0;
            $crate::__keep!(EXPLICIT);
        };
    };
}

/// Declares that the program calls [`init`](crate::init()) itself, at the beginning of `main`, even if the feature
/// `auto-init` is on.
#[cfg(not(feature = "auto-init"))]
#[macro_export]
macro_rules! explicit_init {
    () => {};
}

/// Runs this process as a worker if it was started as a worker, and then does not return.
///
/// A program that is built without the feature `auto-init`, or that uses [`explicit_init!`](crate::explicit_init!),
/// calls this function at the very beginning of `main`, before it starts a thread. In other programs it has already
/// run, and another call does no harm.
///
/// ```
/// # fn f() -> maniple::Result<()> {
/// maniple::init();
/// let pool = maniple::Pool::new(2)?;
/// # Ok(())
/// # }
/// ```
pub fn init() {
    // If there is no memory for them, the operations that need them report it.
    let _ = maniple_engine::watch_forks();
    if startup::begin()
        // SAFETY: this runs before `main`, or first in `main`, as the documentation of `init` requires. So there is no
        // other thread.
        && let Some(inherited) = unsafe { inherited() }
    {
        match inherited.role.as_str() {
            WORKER => worker::run(inherited.handles),
            SERVER => worker::run(forked(inherited.handles)),
            PROCESS => child::run(inherited.handles),
            PROCESS_SERVER => {
                let handles = forked(inherited.handles);
                maniple_sys::process::program_signals();
                child::run(handles)
            }
            role if role.starts_with("maniple-") => {
                eprintln!(
                    "maniple: this program was started as {role} and has maniple {}: both sides need the same version",
                    env!("CARGO_PKG_VERSION")
                );
                std::process::exit(1)
            }
            _ => {}
        }
    }
}

/// Runs as a fork server. Returns in its children, with their handles.
fn forked(handles: Vec<OwnedHandle>) -> Vec<OwnedHandle> {
    maniple_sys::process::worker_signals();
    maniple_sys::process::take_name();
    // SAFETY: `init` runs before the program has a second thread.
    unsafe { serve(handles) }.unwrap_or_else(|error| {
        eprintln!("maniple: the fork server has failed: {error}");
        std::process::exit(1)
    })
}
