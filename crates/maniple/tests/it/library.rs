//! maniple in a shared library: the program that loaded it is never run again.

use crate::support::{examples, watchdog};
use std::process::Command;

/// Reports that it runs, and then executes its orders. (Another start of it would have the interpreter's arguments, and say it again.)
const HOST: &str = r#"
import ctypes, os, sys
os.write(1, b"the host runs\n")
library = ctypes.CDLL(sys.argv[1])
if sys.argv[2:]:
    library.use_another_program(sys.argv[2].encode())
else:
    library.start_this_program()
os.write(1, b"the host ends\n")
"#;

fn run(arguments: &[&str]) -> String {
    let library = examples().join("libin_library.so");
    let host = Command::new("python3").args(["-c", HOST]).arg(library).args(arguments).output().unwrap();
    let (said, why) = (String::from_utf8(host.stdout).unwrap(), String::from_utf8_lossy(&host.stderr).into_owned());
    assert!(host.status.success(), "{}: {said}{why}", host.status);
    assert_eq!(said.matches("the host runs").count(), 1, "{said}");
    assert_eq!(said.matches("the host ends").count(), 1, "{said}");
    said
}

#[test]
fn the_program_that_loaded_it_is_not_run_again() {
    let _alive = watchdog();
    let said = run(&[]);
    let refused = said.lines().filter(|line| line.contains("in a shared library") && line.contains("program(path)"));
    assert_eq!(refused.count(), 6, "{said}");
}

#[cfg(feature = "macros")]
#[test]
fn another_program_works_for_it() {
    let _alive = watchdog();
    let program = examples().join("another_program");
    assert!(run(&[program.to_str().unwrap()]).contains("a-b"));
}
