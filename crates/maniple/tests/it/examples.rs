//! The examples, run as a user would run them.

use crate::support::watchdog;
use std::path::PathBuf;
use std::process::Command;

/// What an example prints; it has to succeed and complain of nothing.
fn said(name: &str, arguments: &[&str]) -> String {
    // Cargo builds the examples with the tests and lays them beside them.
    let tests: PathBuf = std::env::current_exe().unwrap();
    let program = tests
        .parent()
        .and_then(|deps| deps.parent())
        .unwrap()
        .join("examples")
        .join(name)
        .with_extension(std::env::consts::EXE_EXTENSION);
    assert!(program.exists(), "{} is not there: `cargo build --examples` makes it", program.display());
    let done = Command::new(program).args(arguments).output().unwrap();
    assert!(done.status.success(), "{name}: {}\n{}", done.status, String::from_utf8_lossy(&done.stderr));
    assert_eq!(String::from_utf8_lossy(&done.stderr), "", "{name}");
    String::from_utf8(done.stdout).unwrap()
}

/// With the system's names for two exits.
fn named(text: &str) -> String {
    let aborted = if cfg!(windows) { "signal 6 (abort (fast fail))" } else { "signal 6 (SIGABRT)" };
    text.replace("KILLED", crate::support::KILLED).replace("ABORTED", aborted)
}

fn folder() -> &'static str {
    concat!(env!("CARGO_MANIFEST_DIR"), "/src")
}

#[test]
fn squares() {
    let _dog = watchdog();
    assert_eq!(said("squares", &[]), "[1, 4, 9]\n");
}

#[test]
fn wordcount() {
    let _dog = watchdog();
    assert!(said("wordcount", &[folder()]).contains("the"));
}

/// The example in Python counts the same words in the same text, which `tests/python/test_examples.py` sees to.
#[test]
fn wordcount_takes_letters_outside_ascii_for_parts_of_words() {
    let _dog = watchdog();
    let folder = std::env::temp_dir().join(format!("maniple-wordcount-{}", std::process::id()));
    std::fs::create_dir(&folder).unwrap();
    // A combining accent, a vowel sign, a circled letter, a raised digit, and separators that Python alone splits at.
    std::fs::write(folder.join("text"), "e\u{301}te\u{301} \u{915}\u{93f}_1 \u{24d0}b x\u{b2}, x\u{b2};a\u{1c}b")
        .unwrap();
    let said = said("wordcount", &[folder.to_str().unwrap()]);
    std::fs::remove_dir_all(&folder).unwrap();
    assert!(said.starts_with("1 files under") && said.contains("equal counts: 7 words, 6 different;"), "{said}");
}

#[test]
fn deadline() {
    let _dog = watchdog();
    let expected = "\
        collatz of 27: 111 steps\n\
        collatz of 0: no end in sight, killed by KILLED\n\
        ratio: 100\n\
        ratio: the worker killed by ABORTED\n\
        ratio: 25\n";
    assert_eq!(said("deadline", &[]), named(expected));
}

#[test]
fn depot() {
    let _dog = watchdog();
    let expected = "\
        nails left: 500\n\
        paint: only 3 of paint left\n\
        the thief: killed by ABORTED\n\
        the till's lock was abandoned: true\n";
    assert_eq!(said("depot", &[]), named(expected));
}

#[test]
fn pipeline() {
    let _dog = watchdog();
    let said = said("pipeline", &[folder()]);
    let mut lines = said.lines();
    assert!(lines.next().unwrap().contains(" lines in "), "{said}");
    let longest: Vec<u32> = lines.map(|l| l.split_whitespace().next().unwrap().parse().unwrap()).collect();
    assert!(longest.len() == 3 && longest.is_sorted_by(|a, b| a >= b), "{said}");
}

#[test]
fn shared() {
    let _dog = watchdog();
    let said = said("shared", &[]);
    assert_eq!(said.lines().count(), 25, "{said}");
    assert!(said.contains("@@@@") && said.ends_with("1440 points by 3 processes\n"), "{said}");
}

// Needs a Python.
#[cfg(not(windows))]
#[test]
fn python() {
    let _dog = watchdog();
    let said = said("python", &[]);
    assert!(said.starts_with("2 ** 100 = 1267650600228229401496703205376\n"), "{said}");
    assert!(said.ends_with("exit status: 0\n"), "{said}");
}

#[test]
#[cfg(feature = "macros")]
fn another_program() {
    let _dog = watchdog();
    let said = said("another_program", &[]);
    assert!(said.starts_with("known by name: another_program::exit_with, another_program::longest"), "{said}");
    assert!(said.ends_with("joined: one, three\nthe longest: Some(\"three\")\n"), "{said}");
}
