//! The exit code of a process, from the result of its function.

use std::fmt::Debug;

/// A result of a function of a [`Process`](crate::Process), which determines the process's exit code.
///
/// Nothing, or the code itself, or a `Result` of these: an error is printed to the standard error and returns 1. A panic returns 101, as
/// it does in `main`. Other types do not have it: let the function make a code of them.
///
/// ```
/// use maniple::{Exit, Process};
///
/// # fn main() -> maniple::Result<()> {
/// let process = Process::new(|text: String| text.parse::<i32>(), "x".to_string())?;
/// process.start()?;
/// assert_eq!(process.join()?, Exit::Code(1));
/// # Ok(())
/// # }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be converted into an exit code",
    label = "the function of a `Process` returns this",
    note = "let the function return `()`, an `i32` or a `Result` of these; for a result of any type use `maniple::spawn` or a `Pool`"
)]
pub trait IntoExitCode: sealed::Sealed {
    /// Returns the exit code.
    ///
    /// ```
    /// use maniple::IntoExitCode;
    ///
    /// assert_eq!(().into_exit_code(), 0);
    /// assert_eq!(Ok::<_, String>(3).into_exit_code(), 3);
    /// assert_eq!(Err::<(), _>("no such file").into_exit_code(), 1);
    /// ```
    fn into_exit_code(self) -> i32;
}

mod sealed {
    pub trait Sealed {}
}

impl sealed::Sealed for () {}
impl sealed::Sealed for i32 {}
impl sealed::Sealed for never::Never {}
impl<T: IntoExitCode, E: Debug> sealed::Sealed for Result<T, E> {}

impl IntoExitCode for () {
    fn into_exit_code(self) -> i32 {
        0
    }
}

impl IntoExitCode for i32 {
    fn into_exit_code(self) -> i32 {
        self
    }
}

/// The result of a function that does not return, under a name that stable Rust lets an `impl` use.
mod never {
    pub type Never = <fn() -> ! as Output>::Of;

    pub trait Output {
        type Of;
    }

    impl<T> Output for fn() -> T {
        type Of = T;
    }
}

impl IntoExitCode for never::Never {
    fn into_exit_code(self) -> i32 {
        self
    }
}

impl<T: IntoExitCode, E: Debug> IntoExitCode for Result<T, E> {
    fn into_exit_code(self) -> i32 {
        match self {
            Ok(value) => value.into_exit_code(),
            Err(error) => {
                eprintln!("Error: {error:?}");
                1
            }
        }
    }
}
