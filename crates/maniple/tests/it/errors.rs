//! The crate's errors as values: sent to another process, and printed.

use crate::support::watchdog;
use maniple::managers::ManagerError;
use maniple::{
    CallError, CallOptions, Cause, ChannelError, Client, Error, Event, Exit, Lock, Manager, Pool, ProcessError, Queue,
};
use maniple::{SyncError, spawn};
use std::time::Duration;

/// Fails in the way that `what` names.
fn fail(what: u8) -> maniple::Result<u8> {
    let no_time = Duration::from_millis(1);
    match what {
        0 => Event::new()?.wait_timeout(no_time).map(|()| 0),
        1 => Lock::new()?.release().map(|()| 0),
        2 => Client::connect::<u8>("/no/such/socket")?.recv(),
        3 => {
            let queue = Queue::<u8>::new()?;
            queue.close()?;
            queue.get()
        }
        4 => Pool::new(0)?.apply(fail, 9)?,
        5 => Pool::new(1)?.apply(|code: i32| -> u8 { std::process::exit(code) }, 3),
        6 => Pool::new(1)?.apply(|()| -> u8 { panic!("within") }, ()),
        7 => {
            let pool = Pool::new(1)?;
            pool.close();
            pool.apply(fail, 9)?
        }
        8 => maniple::Process::new(|()| (), ())?.join().map(|_| 0),
        9 => Manager::new()?.queue::<u8>(0)?.task_done().map(|()| 0),
        10 => Pool::new(1)?.apply_named("no_such_task", 1u8),
        11 => Err(Error::codec::<u8>("decoded", "too few bytes")),
        12 => Err(Error::SharedMemory("there is no block \"x\"".into())),
        13 => {
            let manager = Manager::new()?;
            let list = manager.list::<u8>()?;
            list.with(|_, code: i32| -> u8 { std::process::exit(code) }, 3)
        }
        14 => {
            let pool = Pool::builder().processes(1).initializer(|()| panic!("unfit"), ()).build()?;
            pool.apply(|()| 0, ())
        }
        _ => Ok(what),
    }
}

const WAYS: u8 = 15;

fn is_expected(what: u8, error: &Error) -> bool {
    match what {
        0 => matches!(error, Error::Timeout(late) if late.timeout() == Duration::from_millis(1)),
        1 => matches!(error, Error::Sync(SyncError::NotHeld)),
        2 => {
            // Windows tells whether the folder is missing, too.
            let numbers: &[i32] = if cfg!(windows) { &[2, 3] } else { &[2] };
            matches!(error, Error::System(why) if why.kind() == std::io::ErrorKind::NotFound
                && why.raw_os_error().is_some_and(|number| numbers.contains(&number)))
        }
        3 => matches!(error, Error::Channel(ChannelError::QueueClosed)),
        4 => matches!(error, Error::InvalidArgument(why) if why.starts_with("a pool of 0 workers")),
        5 => matches!(error, Error::WorkerLost(lost) if lost.exit == Exit::Code(3)),
        6 => matches!(error, Error::Panicked(panicked) if panicked.message == "within"),
        7 => matches!(error, Error::Call(CallError::NotRunning)),
        8 => matches!(error, Error::Process(ProcessError::State(_))),
        9 => matches!(error, Error::Manager(ManagerError::TaskDoneTooOften)),
        10 => matches!(error, Error::Call(CallError::Task { name, .. }) if name == "no_such_task"),
        11 => matches!(error, Error::Codec { what: "decoded", type_name: "u8", .. }),
        12 => matches!(error, Error::SharedMemory(_)),
        13 => matches!(error, Error::ManagerLost(lost) if lost.exit == Some(Exit::Code(3))),
        14 => matches!(error, Error::Call(CallError::Initializer(why)) if matches!(**why, Error::Panicked(_))),
        _ => false,
    }
}

#[test]
fn a_task_returns_the_crates_own_result() {
    let _dog = watchdog();
    let pool = Pool::new(1).unwrap();
    assert_eq!(pool.apply(fail, WAYS).unwrap().unwrap(), WAYS);
    for (what, outcome) in pool.map(fail, 0..WAYS).unwrap().into_iter().enumerate() {
        let (what, error) = (what as u8, outcome.unwrap_err());
        assert!(is_expected(what, &error), "{what}: {error:?}");
        // It says the same here and there.
        let text = pool.apply(|what| fail(what).unwrap_err().to_string(), what).unwrap();
        let numbers = |text: &str| text.replace(|c: char| c.is_ascii_hexdigit(), "");
        assert_eq!(numbers(&error.to_string()), numbers(&text), "{what}");
    }
}

#[test]
fn a_spawned_function_returns_the_crates_own_result() {
    let _dog = watchdog();
    assert_eq!(spawn(fail, WAYS).unwrap().join().unwrap().unwrap(), WAYS);
    for what in 0..2 {
        let error = spawn(fail, what).unwrap().join().unwrap().unwrap_err();
        assert!(is_expected(what, &error), "{what}: {error:?}");
    }
}

#[test]
fn an_error_goes_through_queues_and_other_codecs() {
    let _dog = watchdog();
    let queue = Queue::<Error>::new().unwrap();
    for what in 0..WAYS {
        let error = fail(what).unwrap_err();
        queue.put(&error).unwrap();
        let arrived = queue.get().unwrap();
        assert!(is_expected(what, &arrived), "{what}: {arrived:?}");
        assert_eq!(arrived.to_string(), error.to_string());
    }
    let killed = Pool::new(1).unwrap().apply(|()| crate::support::kill_self(maniple_sys::testing::Signal::KILL), ());
    queue.put(&killed.unwrap_err()).unwrap();
    assert!(matches!(queue.get().unwrap(), Error::WorkerLost(lost) if lost.exit == Exit::Killed(Cause::KILL)));
    let builder = Pool::builder().processes(1).memory_limit(50_000_000).task_timeout(Duration::from_millis(300));
    let pool = builder.retries(1).build().unwrap();
    let hold = |bytes| {
        let _held = vec![1u8; bytes];
        std::thread::sleep(Duration::MAX);
    };
    let Err(Error::TaskTimeout(late)) = pool.apply(hold, 1) else { panic!("it has a value") };
    queue.put(&Error::TaskTimeout(late.clone())).unwrap();
    assert!(matches!(queue.get().unwrap(), Error::TaskTimeout(arrived) if arrived == late && late.earlier.len() == 1));
    let unlimited = pool.with(CallOptions::new().task_timeout(Duration::MAX));
    let Err(Error::MemoryLimit(large)) = unlimited.apply(hold, 100_000_000) else { panic!("it has a value") };
    queue.put(&Error::MemoryLimit(large.clone())).unwrap();
    assert!(
        matches!(queue.get().unwrap(), Error::MemoryLimit(arrived) if arrived == large && large.earlier.len() == 1)
    );
}

/// What `main` prints of an error that it returns.
#[test]
fn an_error_is_printed_as_a_person_reads_it() {
    let _dog = watchdog();
    for what in 0..WAYS {
        let error = fail(what).unwrap_err();
        let (shown, debugged) = (error.to_string(), format!("{error:?}"));
        if what == 6 || what == 14 {
            assert!(debugged.starts_with(&shown), "{debugged}");
        } else {
            assert_eq!(debugged, shown, "{what}");
        }
        assert!(!debugged.contains("\\n"), "{debugged}");
        assert_eq!(format!("{error:#?}"), debugged);
    }
    let Err(Error::Panicked(panicked)) = fail(6) else { panic!("it has a value") };
    let debugged = format!("{panicked:?}");
    assert!(debugged.contains(": within\nits call stack:\n"), "{debugged}");
    assert!(debugged.lines().any(|line| line.contains("errors.rs:")), "{debugged}");
    let named = fail(10).unwrap_err();
    let Error::Call(inner) = &named else { panic!("another error: {named}") };
    assert!(format!("{inner:?}").starts_with("Task { name: \"no_such_task\", why: "), "{inner:?}");
}
