//! A function in a process of its own: its result, its failure, its death, and what is left of it.

use crate::support::{self, LONG};
use maniple::{CallError, Cause, Error, Exit, Handle, JoinHandle, Pool, Queue, spawn};
use std::io::{PipeReader, PipeWriter, Read, Write};
use std::time::Duration;

fn sum(numbers: Vec<u64>) -> u64 {
    numbers.iter().sum()
}

fn endless(_: ()) -> u8 {
    loop {
        std::thread::park();
    }
}

#[test]
fn the_result_comes_back_whatever_its_size() {
    let _alive = support::watchdog();
    assert_eq!(spawn(sum, (0..1000).collect()).unwrap().join().unwrap(), 499_500);
    let large = spawn(|len: usize| vec![7u8; len], 30 << 20).unwrap();
    assert!(large.join().unwrap().iter().all(|&byte| byte == 7));
    assert_ne!(spawn(|()| std::process::id(), ()).unwrap().join().unwrap(), std::process::id());
}

#[test]
fn the_functions_own_error_is_part_of_its_result() {
    let _alive = support::watchdog();
    let parsed = spawn(|text: String| text.parse::<u8>().map_err(|e| e.to_string()), "x".to_string()).unwrap();
    assert_eq!(parsed.join().unwrap(), Err("invalid digit found in string".to_string()));
}

#[test]
fn a_panic_an_exit_and_a_kill_are_told_apart() {
    let _alive = support::watchdog();
    let Err(Error::Panicked(panicked)) = spawn(|x: u32| 1 / x, 0).unwrap().join() else { panic!("it has a value") };
    assert_eq!(panicked.message, "attempt to divide by zero");
    assert!(panicked.location.is_some_and(|location| location.contains("spawn.rs")));
    assert!(panicked.task.starts_with("spawn of "), "{}", panicked.task);
    let exits = |code| -> u8 { std::process::exit(code) };
    let Err(Error::WorkerLost(lost)) = spawn(exits, 3).unwrap().join() else { panic!("it has a value") };
    assert_eq!(lost.exit, Exit::Code(3));
    let killed = spawn(endless, ()).unwrap();
    let pid = killed.process().pid();
    killed.process().kill().unwrap();
    let Err(Error::WorkerLost(lost)) = killed.join() else { panic!("it has a value") };
    assert_eq!((lost.exit, Some(lost.pid)), (Exit::Killed(Cause::KILL), pid));
    assert!(lost.task.contains(&support::named("spawn::endless", "fn(()) -> u8")), "{}", lost.task);
}

#[test]
fn a_handle_is_asked_again_until_the_value_is_taken() {
    let _alive = support::watchdog();
    let (reader, mut writer) = std::io::pipe().unwrap();
    let wait = |mut gate: Handle<PipeReader>| gate.read(&mut [0]).unwrap();
    let mut waits = spawn(wait, reader.into()).unwrap();
    assert!(matches!(waits.join_timeout(Duration::from_millis(5)), Err(Error::Timeout(_))));
    assert!(!waits.is_finished());
    writer.write_all(&[1]).unwrap();
    assert_eq!(waits.join_timeout(LONG).unwrap(), 1);
    assert!(waits.is_finished());
    assert!(matches!(waits.join(), Err(Error::Call(CallError::Taken))));
}

#[test]
fn a_dropped_handle_ends_its_process_and_leaves_nothing() {
    let _alive = support::watchdog();
    let endless: JoinHandle<u8> = spawn(endless, ()).unwrap();
    let pid = endless.process().pid().unwrap();
    assert!(support::exists(pid));
    drop(endless);
    assert!(!support::is_listed(pid));
}

#[test]
fn what_the_process_writes_at_its_end_is_not_cut_off() {
    let _alive = support::watchdog();
    struct Late(PipeWriter);
    impl Drop for Late {
        fn drop(&mut self) {
            std::thread::sleep(Duration::from_millis(50));
            self.0.write_all(b"late").unwrap();
        }
    }
    thread_local! {
        static LATE: std::cell::RefCell<Option<Late>> = const { std::cell::RefCell::new(None) };
    }
    fn leave(writer: Handle<PipeWriter>) -> bool {
        LATE.with_borrow_mut(|late| *late = Some(Late(writer.into_inner())));
        true
    }
    let (mut reader, writer) = std::io::pipe().unwrap();
    let thread = |writer| std::thread::spawn(move || leave(writer)).join().unwrap();
    assert!(spawn(thread, writer.into()).unwrap().join().unwrap());
    let mut said = String::new();
    reader.read_to_string(&mut said).unwrap();
    assert_eq!(said, "late");
}

#[test]
fn a_spawned_function_can_be_awaited_and_use_pools_and_queues() {
    let _alive = support::watchdog();
    let queue = Queue::new().unwrap();
    let nested = spawn(
        |queue: Queue<u64>| {
            let squares = Pool::new(2).and_then(|pool| pool.map(|x: u64| x * x, 0..10));
            squares.and_then(|squares| squares.iter().try_for_each(|square| queue.put(square))).is_ok()
        },
        queue.clone(),
    );
    assert!(support::block_on(nested.unwrap().join_async()).unwrap());
    queue.close().unwrap();
    assert_eq!(queue.iter().sum::<maniple::Result<u64>>().unwrap(), 285);
}

#[test]
fn a_result_that_cannot_be_sent_is_the_error() {
    let _alive = support::watchdog();
    #[derive(Debug, serde::Deserialize)]
    struct Never;
    impl serde::Serialize for Never {
        fn serialize<S: serde::Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
            Err(serde::ser::Error::custom("not at home"))
        }
    }
    let error = spawn(|()| Never, ()).unwrap().join().unwrap_err();
    assert!(error.to_string().contains("not at home"), "{error}");
}
