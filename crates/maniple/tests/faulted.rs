//! The operations that `make faults` repeats while calls of the system fail (`tests/faults/walk.py`, front `rust`).
//!
//! Run without arguments, as `cargo test` does, it does each of them twice without a fault. `--operations` lists them. With an operation's
//! name it takes commands from the descriptor that `tests/faults/behind_gate.py` leaves; the protocol is that of
//! `tests/faults/program.py`.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use maniple::{
    Address, CallOptions, Client, Error, Listener, Lock, Manager, Pool, Process, Queue, Result, SharedMemory, Value,
    channel, pipe,
};
use maniple_sys::OwnedHandle;
use maniple_sys::testing::{self, Stream};
use std::io::{BufRead, BufReader, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// As in `tests/faults/gate.py`.
const CONTROL: maniple_sys::RawHandle = 250;

/// Does the operation once more, on the same objects: whether what came is right.
type Act = Box<dyn FnMut() -> Outcome>;

type Outcome = std::result::Result<bool, Box<dyn std::error::Error>>;

/// Makes an operation's objects.
type Make = fn() -> Result<Act>;

const OPERATIONS: &[(&str, Make)] = &[
    ("process_start", process_start),
    ("pool_start", pool_start),
    ("pool_terminate", pool_terminate),
    ("apply", apply),
    ("apply_async", apply_async),
    ("map", map),
    ("map_large", map_large),
    ("imap", imap),
    ("recycling", recycling),
    ("lost_worker", lost_worker),
    ("queue_new", queue_new),
    ("queue_items", queue_items),
    ("channel_new", channel_new),
    ("pipe_echo", pipe_echo),
    ("values", values),
    ("lock", lock),
    ("shared_memory", shared_memory),
    ("manager_start", manager_start),
    ("manager_call", manager_call),
    ("listener", listener),
];

fn square(x: u64) -> u64 {
    x * x
}

fn turned(mut data: Vec<u8>) -> Vec<u8> {
    data.reverse();
    data
}

fn body(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i % 251) as u8).collect()
}

/// Starts it and waits for its end. A process that lacks something ends otherwise than with 0.
fn ended_well(process: &Process) -> Outcome {
    process.start()?;
    match process.join()? {
        maniple::Exit::Code(0) => Ok(true),
        other => Err(format!("the process: {other}").into()),
    }
}

fn process_start() -> Result<Act> {
    Ok(Box::new(|| ended_well(&Process::new(|_: u32| (), 1)?)))
}

fn pool_start() -> Result<Act> {
    Ok(Box::new(|| Ok(Pool::new(2)?.map(square, 0..4)? == [0, 1, 4, 9])))
}

fn pool_terminate() -> Result<Act> {
    Ok(Box::new(|| {
        let pool = Pool::new(2)?;
        let _job = pool.apply_async(|seconds: u64| std::thread::sleep(Duration::from_secs(seconds)), 30)?;
        pool.terminate();
        pool.join();
        Ok(true)
    }))
}

fn apply() -> Result<Act> {
    let pool = Pool::new(2)?;
    Ok(Box::new(move || Ok(pool.apply(square, 7)? == 49)))
}

fn apply_async() -> Result<Act> {
    let pool = Pool::new(2)?;
    Ok(Box::new(move || {
        let jobs = (0..8).map(|i| pool.apply_async(square, i)).collect::<Result<Vec<_>>>()?;
        let squares = jobs.into_iter().map(maniple::JobHandle::get).collect::<Result<Vec<_>>>()?;
        Ok(squares.iter().zip(0..).all(|(found, i)| *found == i * i))
    }))
}

fn map() -> Result<Act> {
    let pool = Pool::new(2)?;
    Ok(Box::new(move || Ok(pool.map(square, 0..40)?.into_iter().eq((0..40).map(square)))))
}

fn map_large() -> Result<Act> {
    let pool = Pool::new(2)?;
    let sent = [body(100), body(40_000), body(400_000), body(900_000)];
    let right = sent.clone().map(turned);
    Ok(Box::new(move || Ok(pool.map(turned, sent.clone())? == right)))
}

fn imap() -> Result<Act> {
    let pool = Pool::new(2)?;
    Ok(Box::new(move || {
        let found = pool.imap(square, 0..20)?.collect::<Result<Vec<_>>>()?;
        Ok(found.into_iter().eq((0..20).map(square)))
    }))
}

fn recycling() -> Result<Act> {
    let pool = Pool::builder().processes(2).max_tasks_per_child(1).build()?;
    Ok(Box::new(move || Ok(pool.with(CallOptions::new().chunksize(1)).map(square, 0..4)? == [0, 1, 4, 9])))
}

fn lost_worker() -> Result<Act> {
    let pool = Pool::new(2)?;
    Ok(Box::new(move || {
        match pool.apply(|code: i32| -> () { std::process::exit(code) }, 3) {
            Err(Error::WorkerLost(_)) => {}
            other => return Ok(other.map(|()| false)?),
        }
        Ok(pool.map(square, 0..4)? == [0, 1, 4, 9])
    }))
}

fn queue_new() -> Result<Act> {
    Ok(Box::new(|| {
        let queue = Queue::new()?;
        let (small, large) = (body(10), body(70_000));
        queue.put(&small)?;
        queue.put(&large)?;
        Ok(queue.get()? == small && queue.get()? == large)
    }))
}

/// Items have the number of their turn, since those of a turn that failed may still be there.
fn queue_items() -> Result<Act> {
    let queue = Queue::new()?;
    let mut turn = 0u64;
    Ok(Box::new(move || {
        turn += 1;
        let sizes = [10, 40_000, 800_000, 2_000_000, 10];
        for len in sizes {
            queue.put(&(turn, body(len)))?;
        }
        let mut found = Vec::new();
        while found.len() < sizes.len() {
            let (of, item) = queue.get()?;
            if of == turn {
                found.push(item);
            }
        }
        Ok(found.iter().zip(sizes).all(|(item, len)| *item == body(len)))
    }))
}

fn channel_new() -> Result<Act> {
    Ok(Box::new(|| {
        let (sender, receiver) = channel()?;
        sender.send(&body(30_000))?;
        let first = receiver.recv()? == body(30_000);
        sender.send(&body(300_000))?;
        Ok(first && receiver.recv()? == body(300_000))
    }))
}

/// A process that ends with it.
struct Served(Process);

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.join();
    }
}

fn pipe_echo() -> Result<Act> {
    type End = maniple::Connection<(u64, Vec<u8>)>;
    let (here, there): (End, End) = pipe()?;
    let process = Process::new(
        |there: End| {
            while let Ok(message) = there.recv() {
                if there.send(&message).is_err() {
                    return;
                }
            }
        },
        there,
    )?;
    process.start()?;
    let (process, mut turn) = (Served(process), 0);
    Ok(Box::new(move || {
        let _ = &process;
        turn += 1;
        for len in [10, 40_000, 400_000] {
            here.send(&(turn, body(len)))?;
            while {
                let (of, item) = here.recv()?;
                if of == turn && item.len() == len && item != body(len) {
                    return Ok(false);
                }
                of != turn
            } {}
        }
        Ok(true)
    }))
}

fn values() -> Result<Act> {
    Ok(Box::new(|| {
        let value = Value::new(1u64)?;
        let process = Process::new(
            |value: Value<u64>| {
                if let Ok(mut number) = value.lock() {
                    *number += 1;
                }
            },
            value.clone(),
        )?;
        Ok(ended_well(&process)? && value.get()? == 2)
    }))
}

fn lock() -> Result<Act> {
    Ok(Box::new(|| {
        let lock = Lock::new()?;
        let taken = lock.lock().is_ok();
        Ok(taken && lock.try_lock().is_ok())
    }))
}

fn shared_memory() -> Result<Act> {
    Ok(Box::new(|| {
        let name = format!("maniple-faulted-{}", std::process::id());
        let made = SharedMemory::create(&name, 9000)?;
        made.write(8000, b"written")?;
        let mut found = [0; 7];
        SharedMemory::open(&name)?.read(8000, &mut found)?;
        Ok(found == *b"written")
    }))
}

fn manager_start() -> Result<Act> {
    Ok(Box::new(|| {
        let manager = Manager::new()?;
        let list = manager.list::<u32>()?;
        list.push(&5)?;
        Ok(list.to_vec()? == [5])
    }))
}

fn manager_call() -> Result<Act> {
    let manager = Manager::new()?;
    let dict = manager.dict::<String, Vec<u8>>()?;
    Ok(Box::new(move || {
        let _ = &manager;
        dict.insert("a", &body(10))?;
        dict.insert("b", &body(40_000))?;
        let list = manager.list::<u32>()?;
        list.push(&1)?;
        Ok(dict.get("a")? == Some(body(10)) && dict.get("b")? == Some(body(40_000)) && list.len()? == 1)
    }))
}

fn listener() -> Result<Act> {
    Ok(Box::new(|| {
        let listener = Listener::builder().authkey("key").temporary()?;
        let address = listener.address().clone();
        let over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let server = std::thread::Builder::new().spawn_scoped(scope, || serve_one(&listener, &over))?;
            let told = ask(&address);
            over.store(true, Ordering::Relaxed);
            let served = server.join().unwrap_or_else(|_| vec!["the server panicked".into()]);
            // What failed at the other end is seen here as its end.
            told.map_err(|e| format!("{e}; the server: {}", served.join("; ")).into())
        })
    }))
}

/// Sends back what a client sends, as a server does that continues when a client could not be accepted. Returns what failed.
fn serve_one(listener: &Listener, over: &AtomicBool) -> Vec<String> {
    let mut failed = Vec::new();
    while !over.load(Ordering::Relaxed) {
        match listener.accept_timeout::<Vec<u8>>(Duration::from_millis(50)) {
            Err(Error::Timeout(_)) => {}
            Err(e) => failed.push(e.to_string()),
            Ok(client) => {
                let echo = || -> Result<()> {
                    loop {
                        client.send(&client.recv()?)?;
                    }
                };
                failed.extend(echo().err().map(|e| e.to_string()));
            }
        }
    }
    failed
}

fn ask(address: &Address) -> Outcome {
    let line =
        Client::builder().authkey("key").connect_timeout(Duration::from_secs(5)).connect::<Vec<u8>>(address.clone())?;
    let mut right = true;
    for len in [10, 400_000] {
        line.send(&body(len))?;
        right &= line.recv()? == body(len);
    }
    Ok(right)
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let name = arguments.first().map_or("", String::as_str);
    if name == "--operations" {
        OPERATIONS.iter().for_each(|(name, _)| println!("{name}"));
    } else if let Some((_, make)) = OPERATIONS.iter().find(|(operation, _)| *operation == name) {
        take_commands(*make);
    } else if arguments.iter().any(|argument| argument == "--list") {
        // What test runners ask of a program without a harness.
        if !arguments.iter().any(|argument| argument == "--ignored") {
            println!("operations_work_without_a_fault: test");
        }
    } else {
        for (name, make) in OPERATIONS {
            let mut act = make().unwrap();
            assert!(act().unwrap() && act().unwrap(), "{name}");
        }
        println!("test operations_work_without_a_fault ... ok\n");
        println!("test result: ok. 1 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out");
    }
}

fn take_commands(make: Make) {
    // SAFETY: `behind_gate.py` has put the line there, and this program has opened nothing of that number.
    let control = Stream::from_owned(unsafe { OwnedHandle::from_raw(CONTROL) });
    testing::set_inherited(&control, false);
    // Not a copy of it: what goes over another number can be made to fail.
    let (mut lines, mut say) = (BufReader::new(&control), &control);
    let mut answer = |what: &str| writeln!(say, "{what}").unwrap();
    let mut command = || {
        let mut line = String::new();
        lines.read_line(&mut line).map(|_| line.trim().to_owned()).unwrap()
    };

    let told = outcome(make().map_err(Into::into).and_then(|mut act| act()));
    answer(&told);
    while command() == "rest" {
        answer("{}");
    }
    let mut act = make().unwrap();
    let mut told = outcome(act());
    loop {
        answer(&told);
        told = match &*command() {
            "act" => outcome(act()),
            "renew" => {
                drop(act);
                act = make().unwrap();
                "{}".into()
            }
            "end" => break,
            _ => "{}".into(),
        };
    }
    drop(act);
    answer("{}");
    while command() == "rest" {
        answer("{}");
    }
}

/// An outcome as JSON.
fn outcome(outcome: Outcome) -> String {
    match outcome {
        Ok(true) => r#"{"right": true}"#.into(),
        Ok(false) => r#"{"wrong": "another value"}"#.into(),
        Err(e) => {
            let mut text = format!("{e:?}: {e}");
            let mut source = e.source();
            while let Some(deeper) = source {
                text = format!("{text}: {deeper}");
                source = deeper.source();
            }
            let quoted: String = text.chars().flat_map(quoted).collect();
            format!(r#"{{"error": "Error", "codes": [], "text": "{quoted}"}}"#)
        }
    }
}

fn quoted(letter: char) -> Vec<char> {
    match letter {
        '"' | '\\' => vec!['\\', letter],
        '\n' => vec!['\\', 'n'],
        letter if letter.is_control() => vec![' '],
        letter => vec![letter],
    }
}
