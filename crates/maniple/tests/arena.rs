//! The program that `make chaos` torments in Rust (`tests/chaos/chaos.py`, front `rust`): what `tests/chaos/arena.py` is in Python.
//!
//! With the arguments `METHOD SEED LEDGER` its parts work, each in a thread, until a line comes on the standard input; then each comes to
//! its end, and a line of JSON tells what was done and what was wrong. Errors that a shortage or a death explains are counted; wrong
//! values, lost and doubled work, and other errors are faults. Run without arguments, as `cargo test` does, each part works for a moment,
//! undisturbed.
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "arena/ledger.rs"]
mod ledger;
#[path = "arena/parts.rs"]
mod parts;

use ledger::Ledger;
use maniple::{Error, Manager, Pool, StartMethod};
use maniple_sys::testing;
use std::collections::BTreeMap;
use std::io::BufRead;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Numbers of a task each, and a byte in the ledger.
const TASKS: u64 = 200_000;

/// What the parts share: how they start processes, and the accounts.
struct Arena {
    method: StartMethod,
    path: PathBuf,
    ledger: Ledger,
    over: AtomicBool,
    counts: Mutex<BTreeMap<String, u64>>,
    faults: Mutex<Vec<String>>,
}

impl Arena {
    fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    fn count(&self, what: impl Into<String>, number: u64) {
        *self.counts.lock().unwrap().entry(what.into()).or_default() += number;
    }

    fn fault(&self, what: impl Into<String>) {
        self.faults.lock().unwrap().push(what.into());
    }

    /// Its result; None after an error that a shortage or a death explains, and after one that is a fault.
    fn once<T>(&self, part: &str, what: impl FnOnce() -> maniple::Result<T>) -> Option<T> {
        match what() {
            Ok(given) => return Some(given),
            Err(e) if is_explained(&e) => self.count(format!("{part}: {}", kind(&e)), 1),
            Err(e) => self.fault(format!("{part}: {}", in_full(&e))),
        }
        std::thread::sleep(Duration::from_millis(20));
        None
    }

    /// It will succeed at the latest when the limits are loose again.
    fn patiently<T>(&self, part: &str, mut what: impl FnMut() -> maniple::Result<T>) -> Option<T> {
        let deadline = Instant::now() + Duration::from_secs(40);
        while Instant::now() < deadline {
            if let Some(given) = self.once(part, &mut what) {
                return Some(given);
            }
        }
        self.fault(format!("{part}: does not succeed"));
        None
    }

    fn account(&self, parts: &[&str]) -> String {
        let counts: Vec<_> =
            self.counts.lock().unwrap().iter().map(|(what, number)| format!("{}: {number}", quoted(what))).collect();
        let faults: Vec<_> = self.faults.lock().unwrap().iter().map(|what| quoted(what)).collect();
        let parts: Vec<_> = parts.iter().map(|part| quoted(part)).collect();
        let [parts, counts, faults] = [parts, counts, faults].map(|list| list.join(", "));
        format!(r#"{{"parts": [{parts}], "counts": {{{counts}}}, "faults": [{faults}]}}"#)
    }
}

/// Whether a shortage or a death explains it.
fn is_explained(error: &Error) -> bool {
    let text = in_full(error);
    match error {
        Error::WorkerLost(_)
        | Error::ManagerLost(_)
        | Error::Channel(maniple::ChannelError::Closed)
        | Error::Channel(maniple::ChannelError::UnexpectedEof) => true,
        // As many workers in a row were ended while they started as it takes.
        Error::Process(maniple::ProcessError::Start(_)) => true,
        _ => {
            text.contains("out of memory")
                || testing::SHORTAGES.iter().any(|number| text.contains(&format!("os error {number})")))
        }
    }
}

/// An error's variant.
fn kind(error: &Error) -> &'static str {
    match error {
        Error::WorkerLost(_) => "WorkerLost",
        Error::Panicked(_) => "Panicked",
        Error::Call(_) => "Call",
        Error::Process(_) => "Process",
        Error::Channel(_) => "Channel",
        Error::Sync(_) => "Sync",
        Error::SharedMemory(_) => "SharedMemory",
        Error::ManagerLost(_) => "ManagerLost",
        Error::Manager(_) => "Manager",
        Error::Codec { .. } => "Codec",
        Error::InvalidArgument(_) => "InvalidArgument",
        Error::Timeout(_) => "Timeout",
        Error::System(_) => "System",
        _ => "another error",
    }
}

fn in_full(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(deeper) = source {
        text = format!("{text}: {deeper}");
        source = deeper.source();
    }
    text
}

/// A text in JSON.
fn quoted(text: &str) -> String {
    let letters = text.chars().flat_map(|letter| match letter {
        '"' | '\\' => vec!['\\', letter],
        '\n' => vec!['\\', 'n'],
        letter if letter.is_control() => vec![' '],
        letter => vec![letter],
    });
    format!("\"{}\"", letters.collect::<String>())
}

/// Numbers that follow from a seed (splitmix64).
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    fn one_of<T: Copy>(&mut self, list: &[T]) -> T {
        list[self.below(list.len() as u64) as usize]
    }
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match &arguments[..] {
        [method, seed, ledger] if method == "spawn" || method == "forkserver" => {
            let method = if method == "spawn" { StartMethod::Spawn } else { StartMethod::ForkServer };
            among_faults(method, seed.parse().unwrap(), ledger.into());
        }
        // What test runners ask of a program without a harness.
        arguments if arguments.iter().any(|argument| argument == "--list") => {
            if !arguments.iter().any(|argument| argument == "--ignored") {
                println!("each_part_works_undisturbed: test");
            }
        }
        _ => undisturbed(),
    }
}

/// The kernel kills this process when its watcher ends. The process ignores SIGXFSZ, with which a limit on file sizes would end it, and SIGUSR1,
/// with which Python programs are asked for their stacks.
#[cfg(not(windows))]
fn be_ready_for_signals() {
    testing::die_with_parent();
    [testing::Signal::XFSZ, testing::Signal::USR1].into_iter().for_each(testing::ignore);
}

/// Windows has no signals.
#[cfg(windows)]
fn be_ready_for_signals() {}

/// Calls `with` while this process may have few descriptors, as far as the system has such a limit.
fn with_few_descriptors(with: impl FnOnce()) {
    #[cfg(not(windows))]
    {
        use maniple_sys::testing::{Resource, Rlimit, getrlimit, setrlimit};
        let loose = getrlimit(Resource::Nofile);
        setrlimit(Resource::Nofile, Rlimit { current: Some(100), maximum: loose.maximum }).unwrap();
        with();
        setrlimit(Resource::Nofile, loose).unwrap();
    }
    #[cfg(windows)]
    with();
}

fn among_faults(method: StartMethod, seed: u64, path: PathBuf) {
    be_ready_for_signals();
    // What stays once it has been needed: the fork server, and what is kept once descriptors have been few.
    with_few_descriptors(|| {
        let pool = Pool::builder().processes(1).start_method(method).build().unwrap();
        pool.map(|x: u64| x, [1]).unwrap();
        let _ = pool.apply(|code: i32| -> () { std::process::exit(code) }, 3);
        pool.map(|x: u64| x, [1]).unwrap();
        let manager = Manager::builder().start_method(method).build().unwrap();
        manager.list::<u64>().unwrap();
    });
    let mut lines = std::io::stdin().lock().lines();
    println!("ready");
    lines.next();
    let mut dice = Dice(seed);
    let mut chosen = parts::PARTS.to_vec();
    for last in (1..chosen.len()).rev() {
        chosen.swap(last, dice.below(last as u64 + 1) as usize);
    }
    chosen.truncate(1 + dice.below(chosen.len() as u64) as usize);
    println!("at work");
    let arena = work(method, path, &chosen, &mut dice, || {
        lines.next();
    });
    // A fork server that was killed is seen to be gone when the next process is started.
    if let Ok(last) = maniple::Process::builder().start_method(method).build(|_: u8| (), 1) {
        let _ = last.start().and_then(|()| last.join());
    }
    println!("{}", arena.account(&chosen.iter().map(|(name, _)| *name).collect::<Vec<_>>()));
    let is_fine = arena.faults.lock().unwrap().is_empty();
    // The ledger is a shared mapping.
    drop(arena);
    while lines.next().is_some() {
        println!("rested");
    }
    if !is_fine {
        // Threads may still be at it.
        testing::kill_self(testing::Signal::KILL);
    }
}

/// Each part at work until `wait` returns; then each comes to its end.
fn work(
    method: StartMethod,
    path: PathBuf,
    chosen: &[(&'static str, parts::Part)],
    dice: &mut Dice,
    wait: impl FnOnce(),
) -> Arc<Arena> {
    let ledger = Ledger::open(&path).unwrap();
    let (over, counts, faults) = (AtomicBool::new(false), Mutex::default(), Mutex::default());
    let arena = Arc::new(Arena { method, path, ledger, over, counts, faults });
    let threads: Vec<_> = chosen
        .iter()
        .map(|&(name, part)| {
            let (ends, ended) = channel::<()>();
            let (arena, seed) = (arena.clone(), dice.next());
            let thread = std::thread::spawn(move || {
                part(&arena, Dice(seed));
                drop(arena);
                drop(ends);
            });
            (name, thread, ended)
        })
        .collect();
    wait();
    arena.over.store(true, Ordering::Relaxed);
    for (name, thread, ended) in threads {
        if ended.recv_timeout(Duration::from_secs(60)) == Err(RecvTimeoutError::Timeout) {
            arena.fault(format!("{name} does not come to its end"));
        } else if thread.join().is_err() {
            arena.fault(format!("{name} panicked"));
        }
    }
    arena
}

fn undisturbed() {
    let path = std::env::temp_dir().join(format!("maniple-arena-{}", std::process::id()));
    std::fs::File::create(&path).unwrap().set_len(TASKS).unwrap();
    let path_of_all = path.clone();
    // Windows has no fork server.
    let method = if cfg!(windows) { StartMethod::Spawn } else { StartMethod::ForkServer };
    let arena = work(method, path_of_all, &parts::PARTS, &mut Dice(1), || {
        // Under Wine the first pool needs some seconds.
        std::thread::sleep(Duration::from_millis(if cfg!(windows) { 8000 } else { 300 }));
    });
    // Windows does not remove a file that is mapped.
    if cfg!(not(windows)) {
        std::fs::remove_file(&path).unwrap();
    }
    let faults = arena.faults.lock().unwrap();
    assert!(faults.is_empty(), "{faults:?}");
    let counts = arena.counts.lock().unwrap();
    // No error, but for those of tasks that exit.
    assert!(counts.keys().all(|what| !what.contains(':') || what.ends_with(": WorkerLost")), "{counts:?}");
    let work =
        ["calls", "items", "items through a queue", "turns with a lock", "messages through a pipe", "manager calls"];
    assert!(work.iter().all(|what| counts.contains_key(*what)), "{counts:?}");
    drop((faults, counts));
    if cfg!(windows) {
        drop(arena);
        std::fs::remove_file(&path).unwrap();
    }
    println!("test each_part_works_undisturbed ... ok\n");
    println!("test result: ok. 1 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out");
}
