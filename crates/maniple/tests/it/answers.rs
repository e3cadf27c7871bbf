//! No call gets another call's answer, also when a failure occurs while an answer is made.

use crate::support::watchdog;
use maniple::{Bytes, CallOptions, Error, Handle, Pool};
use maniple_sys::testing::{Resource, Rlimit, setrlimit};
use std::fs::File;
use std::sync::Mutex;

static FILES: Mutex<Vec<File>> = Mutex::new(Vec::new());

/// What the tests send, large enough to need memory of its own.
const LARGE: usize = 100_000;

fn few_files(most: u64) {
    setrlimit(Resource::Nofile, Rlimit { current: Some(most), maximum: Some(most) }).unwrap();
}

/// Takes all descriptors that there are.
fn exhaust() {
    while let Ok(file) = File::open("/dev/null") {
        FILES.lock().unwrap().push(file);
    }
}

fn give_back() {
    FILES.lock().unwrap().clear();
}

fn secret(user: &str) -> Vec<String> {
    vec![format!("{user}'s secret"); LARGE]
}

fn greedy(user: String) -> Vec<String> {
    exhaust();
    secret(&user)
}

fn modest(user: String) -> Vec<String> {
    give_back();
    vec![format!("only for {user}")]
}

fn greedy_panic(user: String) -> Vec<String> {
    exhaust();
    panic!("{}", secret(&user).concat())
}

fn greedy_buffer(user: String) -> (Bytes, String) {
    exhaust();
    (Bytes::from(vec![1; LARGE]), user)
}

fn greedy_handle(user: String) -> (Vec<Handle<File>>, String) {
    exhaust();
    (FILES.lock().unwrap().drain(..).map(Handle::new).collect(), user)
}

fn greedy_failure(user: String) -> Result<u8, Vec<String>> {
    exhaust();
    Err(secret(&user))
}

fn pool() -> Pool {
    Pool::builder().processes(1).initializer(few_files, 64).build().unwrap()
}

/// All that is called now gets what belongs to it.
#[track_caller]
fn answers_rightly(pool: &Pool) {
    let only = |who: &str| vec![format!("only for {who}")];
    for who in ["bob", "eve"] {
        assert_eq!(pool.apply(modest, who.into()).unwrap(), only(who));
    }
    let users = || ["bob".to_string(), "eve".to_string()];
    assert_eq!(pool.map(modest, users()).unwrap(), [only("bob"), only("eve")]);
    assert_eq!(
        pool.with(CallOptions::new().chunksize(2))
            .imap(modest, users())
            .unwrap()
            .map(Result::unwrap)
            .collect::<Vec<_>>(),
        [only("bob"), only("eve")]
    );
    assert_eq!(pool.apply(u64::count_ones, 7).unwrap(), 3);
}

#[test]
fn an_answer_that_cannot_be_packed_is_an_error_of_its_own_task() {
    let _dog = watchdog();
    let pool = pool();
    for _ in 0..3 {
        if let Ok(value) = pool.apply(greedy, "ann".into()) {
            assert_eq!(value, secret("ann"));
        }
        answers_rightly(&pool);
        if let Ok(value) = pool.apply(greedy_failure, "ann".into()) {
            assert_eq!(value, Err(secret("ann")));
        }
        answers_rightly(&pool);
        if let Ok((bytes, who)) = pool.apply(greedy_buffer, "ann".into()) {
            assert_eq!((&bytes[..], who.as_str()), (&[1; LARGE][..], "ann"));
        }
        answers_rightly(&pool);
        if let Ok((_, who)) = pool.apply(greedy_handle, "ann".into()) {
            assert_eq!(who, "ann");
        }
        answers_rightly(&pool);
    }
}

#[test]
fn a_panic_that_is_too_long_to_be_sent_is_still_a_panic_of_its_own_task() {
    let _dog = watchdog();
    let pool = pool();
    let process = pool.apply(|()| std::process::id(), ()).unwrap();
    for _ in 0..3 {
        match pool.apply(greedy_panic, "ann".into()).unwrap_err() {
            Error::Panicked(panicked) => assert!(panicked.message.starts_with("ann's secret")),
            Error::Call(maniple::CallError::Remote(why)) => assert!(!why.contains("ann's"), "{why}"),
            other => panic!("{other}"),
        }
        answers_rightly(&pool);
    }
    assert_eq!(pool.apply(|()| std::process::id(), ()).unwrap(), process, "the worker was lost for it");
}

#[test]
fn a_chunk_that_cannot_be_packed_is_an_error_of_its_own_items() {
    let _dog = watchdog();
    let pool = pool();
    let mixed = |user: String| if user == "ann" { greedy(user) } else { modest(user) };
    for _ in 0..3 {
        let users = ["eve", "bob", "ann", "bob"].map(String::from);
        for (user, result) in
            users.clone().iter().zip(pool.with(CallOptions::new().chunksize(4)).imap(mixed, users).unwrap())
        {
            if let Ok(value) = result {
                let right = if user == "ann" { secret("ann") } else { vec![format!("only for {user}")] };
                assert_eq!(value, right);
            }
        }
        answers_rightly(&pool);
    }
}

#[test]
fn arguments_that_cannot_be_packed_are_an_error_of_their_own_call() {
    let _dog = watchdog();
    let echo = |_: u8| {
        few_files(64);
        let pool = Pool::new(1).unwrap();
        pool.apply(|x: u64| x, 1).unwrap();
        exhaust();
        for user in ["ann", "bob"] {
            if let Ok(value) = pool.apply(|x: Vec<String>| x, secret(user)) {
                assert_eq!(value, secret(user));
            }
            if let Ok(value) = pool.map(|x: Vec<String>| x, [secret(user), vec![user.to_string()]]) {
                assert_eq!(value, [secret(user), vec![user.to_string()]]);
            }
            assert_eq!(pool.apply(|x: String| x, user.to_string()).unwrap(), user);
        }
        give_back();
        assert_eq!(pool.apply(|x: Vec<String>| x, secret("eve")).unwrap(), secret("eve"));
    };
    // In a process of its own, because all of its descriptors are taken.
    Pool::new(1).unwrap().apply(echo, 0).unwrap();
}

/// Panics when it is dropped in the process that made it.
#[derive(serde::Serialize, serde::Deserialize)]
struct Fragile {
    maker: u32,
    number: u32,
}

impl Drop for Fragile {
    fn drop(&mut self) {
        assert!(self.maker != std::process::id() || std::thread::panicking(), "on purpose");
    }
}

fn fragile(number: u32) -> Fragile {
    Fragile { maker: std::process::id(), number }
}

#[test]
fn a_result_whose_drop_panics_in_the_worker_is_answered_once() {
    let _dog = watchdog();
    let pool = Pool::new(2).unwrap();
    let results = pool.map(fragile, 0..100).unwrap();
    assert_eq!(results.iter().map(|result| result.number).collect::<Vec<_>>(), (0..100).collect::<Vec<_>>());
}

fn odd_ones_fail(number: u64) -> u64 {
    assert!(number.is_multiple_of(2), "{number} is odd");
    3 * number
}

#[test]
fn each_number_that_fails_fails_alone() {
    let _dog = watchdog();
    let pool = Pool::new(2).unwrap();
    for (number, outcome) in pool.try_map(odd_ones_fail, 0..5000u64).unwrap().into_iter().enumerate() {
        match outcome {
            Ok(result) => assert!(number % 2 == 0 && result == 3 * number as u64),
            Err(error) => assert!(number % 2 == 1 && error.to_string().contains(&format!("{number} is odd"))),
        }
    }
}
