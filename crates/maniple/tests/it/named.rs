//! Functions of another program, called by the names under which it has registered them.

use crate::support::{examples, watchdog};
use maniple::{Error, Exit, Handle, Pool, Process, StartMethod};
use serde::{Deserialize, Serialize};
use std::io::Read;
use std::path::PathBuf;

fn another_program() -> PathBuf {
    examples().join("another_program").with_extension(std::env::consts::EXE_EXTENSION)
}

/// As the other program's, and in another module.
#[derive(Serialize, Deserialize)]
struct Text {
    language: String,
    words: Vec<String>,
}

fn text() -> Text {
    Text { language: "en".into(), words: ["a", "word", "of"].map(String::from).into() }
}

fn elsewhere() -> Pool {
    Pool::builder().processes(2).program(another_program()).build().unwrap()
}

#[test]
fn a_pool_of_another_program_runs_what_that_knows_by_name() {
    let _dog = watchdog();
    let pool = elsewhere();
    let longest: Option<String> = pool.apply_named("another_program::longest", text()).unwrap();
    assert_eq!(longest.as_deref(), Some("word"));
    let items = (0..100).map(|i| (vec![i.to_string(), "x".into()], "-".to_string()));
    let joined: Vec<String> = pool.map_named("texts.join", items).unwrap();
    assert_eq!(joined[99], "99-x");
    assert_eq!(joined.len(), 100);
}

#[test]
fn a_process_of_another_program_ends_with_the_tasks_code() {
    let _dog = watchdog();
    let builder = Process::builder().program(another_program());
    let process = builder.build_named::<_, i32>("another_program::exit_with", 7).unwrap();
    process.start().unwrap();
    assert_eq!(process.join().unwrap(), Exit::Code(7));
}

/// Registered in both programs, under one name.
#[maniple::task(name = "texts.join")]
fn join(words: Vec<String>, separator: String) -> String {
    words.join(&separator)
}

#[maniple::task(name = "another_program::exit_with")]
fn ours(_: i32) -> i32 {
    1
}

#[maniple::task(name = "another_program::longest")]
fn longest(_: Text) -> Option<String> {
    None
}

#[test]
fn a_function_that_is_a_task_here_too_need_not_be_named() {
    let _dog = watchdog();
    assert_eq!(elsewhere().apply(longest, text()).unwrap().as_deref(), Some("word"));
    let process = Process::builder().program(another_program()).build(ours, 9).unwrap();
    process.start().unwrap();
    assert_eq!(process.join().unwrap(), Exit::Code(9));
    // It is an ordinary function all the same.
    assert_eq!(join(vec!["a".into(), "b".into()], "+".into()), "a+b");
    assert_eq!(Pool::new(1).unwrap().apply(longest, text()).unwrap(), None);
}

#[test]
fn an_unknown_name_is_told_with_those_that_are_known() {
    let _dog = watchdog();
    let pool = elsewhere();
    let error = pool.apply_named::<_, u32>("no::such", 1u32).unwrap_err();
    assert!(matches!(&error, Error::Call(maniple::CallError::Task { .. })), "{error:?}");
    let said = error.to_string();
    assert!(
        said.contains("no::such")
            && said.contains(&format!("another_program{} has no such task", std::env::consts::EXE_SUFFIX)),
        "{said}"
    );
    assert!(said.contains("another_program::exit_with, another_program::longest"), "{said}");
    // The pool continues.
    assert_eq!(pool.apply_named::<_, i32>("another_program::exit_with", 3).unwrap(), 3);
}

#[test]
fn other_types_and_a_name_given_twice_are_refused() {
    let _dog = watchdog();
    let pool = elsewhere();
    let error = pool.apply_named::<_, i64>("another_program::exit_with", 1i64).unwrap_err().to_string();
    assert!(error.contains("it was called as fn(i64) -> i64") && error.contains("it is fn(i32) -> i32"), "{error}");
    let error = pool.apply_named::<_, ()>("twice", ()).unwrap_err().to_string();
    assert!(error.contains("two functions of that name"), "{error}");
}

#[test]
fn a_process_tells_on_its_standard_error_that_the_name_is_unknown() {
    let _dog = watchdog();
    let (mut reader, writer) = std::io::pipe().unwrap();
    let builder = Process::builder().program(another_program()).stderr(writer);
    let process = builder.build_named::<_, i32>("no::such", 7).unwrap();
    process.start().unwrap();
    assert_eq!(process.join().unwrap(), Exit::Code(1));
    let mut said = String::new();
    reader.read_to_string(&mut said).unwrap();
    assert!(said.contains("the task no::such cannot be called"), "{said}");
}

#[test]
fn what_has_no_name_cannot_go_to_another_program() {
    let _dog = watchdog();
    fn unnamed(x: u8) -> u8 {
        x
    }
    let pool = elsewhere();
    let errors = [
        pool.apply(unnamed, 1).unwrap_err(),
        pool.starmap(join, [(vec![], String::new())]).unwrap_err(),
        pool.map_with(&1, |_: &i32, x: i32| x, [1]).unwrap_err(),
        Process::builder().program(another_program()).build(|_: u8| (), 1).unwrap_err(),
        Pool::builder().program(another_program()).initializer(|_: u8| (), 1).build().unwrap_err(),
    ];
    for error in errors {
        assert!(matches!(error, Error::Call(maniple::CallError::Function(_))), "{error}");
    }
    let forked = Process::builder().program(another_program()).start_method(StartMethod::ForkServer);
    assert!(matches!(forked.build(ours, 1), Err(Error::Process(maniple::ProcessError::Start(_)))));
}

// Windows has no fork server.
#[cfg(not(windows))]
#[test]
fn the_fork_server_of_another_program_serves_too() {
    let _dog = watchdog();
    let builder = Pool::builder().processes(1).program(another_program()).start_method(StartMethod::ForkServer);
    assert_eq!(builder.build().unwrap().apply_named::<_, i32>("another_program::exit_with", 3).unwrap(), 3);
}

#[maniple::task(name = "pipe")]
fn fill(_: Handle<std::io::PipeWriter>) -> Result<(), std::io::Error> {
    Ok(())
}

/// A result that serde does not know is good for a process, and not for a pool.
#[test]
fn a_task_is_used_for_what_its_result_allows() {
    let _dog = watchdog();
    let (_reader, writer) = std::io::pipe().unwrap();
    let program = std::env::current_exe().unwrap();
    let process = Process::builder().program(program).build(fill, writer.into()).unwrap();
    process.start().unwrap();
    assert_eq!(process.join().unwrap(), Exit::Code(0));
}

/// A program of the system that ends at once.
fn no_maniple() -> std::path::PathBuf {
    if cfg!(windows) { "C:\\windows\\system32\\hostname.exe".into() } else { "/bin/true".into() }
}

#[test]
fn a_program_without_maniple_or_without_a_file_is_an_error() {
    let _dog = watchdog();
    let pool = Pool::builder().processes(1).program(no_maniple()).build().unwrap();
    let error = pool.apply_named::<_, ()>("x", ()).unwrap_err();
    assert!(
        matches!(&error, Error::Process(maniple::ProcessError::Start(why)) if why.contains("before it was ready")),
        "{error}"
    );
    let text = error.to_string();
    let expected = format!("the program {}, which has to link maniple", no_maniple().display());
    assert!(text.contains(&expected), "{text}");
    let error = Pool::builder().program("/no/such/program").build().unwrap_err();
    assert!(matches!(error, Error::Process(maniple::ProcessError::Start(_))), "{error}");
    assert!(error.to_string().contains("/no/such/program"), "{error}");
    let process = Process::builder().program("/no/such/program").build_named::<_, ()>("x", ()).unwrap();
    assert!(matches!(process.start(), Err(Error::Process(maniple::ProcessError::Start(_)))));
}
