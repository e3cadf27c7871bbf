//! What is at work: each part in a thread of its own, until it is over.

use super::{Arena, Dice, TASKS};
use crate::ledger::Ledger;
use maniple::{Bytes, CallOptions, Connection, Error, Lock, Manager, Pool, Process, Queue, RawValue, Result, pipe};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

pub type Part = fn(&Arena, Dice);

pub const PARTS: [(&str, Part); 7] = [
    ("Pools", pools),
    ("Recycled", recycled),
    ("Maps", maps),
    ("Queues", queues),
    ("Locks", locks),
    ("Pipes", pipes),
    ("Managers", managers),
];

const SIZES: [usize; 7] = [10, 10, 10, 3000, 40_000, 300_000, 2_000_000];
const HANGS: Duration = Duration::from_secs(20);

fn body(number: u64, size: usize) -> Vec<u8> {
    format!("{number:08}").into_bytes().into_iter().cycle().take(8 * (size / 8 + 1)).collect()
}

fn turned(data: &[u8]) -> Vec<u8> {
    data.iter().rev().copied().collect()
}

/// A task: its number, its data, for how many milliseconds it works (it exits where that is negative), and the ledger.
type Task = (u64, Bytes, i64, PathBuf);

/// The result of a task; an error where a shortage keeps the ledger from being opened.
type Told = std::result::Result<(u64, Bytes), String>;

fn task((number, data, millis, path): Task) -> Told {
    use std::sync::OnceLock;
    static LEDGER: OnceLock<Ledger> = OnceLock::new();
    let ledger = match LEDGER.get() {
        Some(ledger) => ledger,
        None => {
            let opened = Ledger::open(&path).map_err(|e| e.to_string())?;
            LEDGER.get_or_init(|| opened)
        }
    };
    ledger.begin(number);
    if millis < 0 {
        std::process::exit(7);
    }
    std::thread::sleep(Duration::from_millis(millis as u64));
    Ok((number, turned(&data).into()))
}

fn square(x: u64) -> u64 {
    x * x
}

fn pools(arena: &Arena, dice: Dice) {
    calls(arena, dice, "Pools", 0, || Pool::builder().processes(2).start_method(arena.method).build());
}

fn recycled(arena: &Arena, dice: Dice) {
    let new = || Pool::builder().processes(2).start_method(arena.method).max_tasks_per_child(5).build();
    calls(arena, dice, "Recycled", 50_000, new);
}

/// Calls and their outcomes: each call has exactly one, and begins once at most.
fn calls(arena: &Arena, mut dice: Dice, part: &str, base: u64, new: impl FnMut() -> Result<Pool>) {
    let Some(pool) = arena.patiently(part, new) else { return };
    let mut number = base;
    while !arena.is_over() && number + 12 < base + 50_000 {
        let mut under_way = Vec::new();
        for _ in 0..=dice.below(11) {
            number += 1;
            let data = Bytes::from(body(number, dice.one_of(&SIZES)));
            let millis = if dice.below(100) == 0 { -1 } else { dice.one_of(&[0, 0, 0, 1, 30]) };
            let given = (number, data.clone(), millis, arena.path.clone());
            // Where it is refused at once, no outcome is due.
            if let Some(job) = arena.once(part, || pool.apply_async(task, given)) {
                under_way.push((number, data, job));
            }
        }
        for (number, data, job) in under_way {
            arena.count("calls", 1);
            if job.wait_timeout(HANGS).is_err() {
                let begun = arena.ledger.times(number);
                arena.fault(format!("{part}: call {number}, begun {begun} times, has no outcome; {}", pool.describe()));
                continue;
            }
            match arena.once(part, || job.get()) {
                Some(Ok(found)) if found != (number, turned(&data).into()) => {
                    arena.fault(format!("{part}: call {number} got another value"));
                }
                Some(Err(_)) => arena.count(format!("{part}: no ledger"), 1),
                _ => {}
            }
            if arena.ledger.times(number) > 1 {
                arena.fault(format!("{part}: call {number} began twice"));
            }
        }
    }
    wait_for_the_end(arena);
    works_afterwards(arena, part, &pool);
}

fn wait_for_the_end(arena: &Arena) {
    while !arena.is_over() {
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// The same pool, now undisturbed.
fn works_afterwards(arena: &Arena, part: &str, pool: &Pool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    let wanted: Vec<_> = (0..30).map(square).collect();
    loop {
        let found = pool.map_async(square, 0..30).and_then(|mut job| job.get_timeout(HANGS));
        match found {
            Ok(found) if found == wanted => break,
            // As many workers in a row were ended while they started as it takes; each later call says so.
            Err(Error::Process(maniple::ProcessError::Start(_))) => break,
            Ok(found) => return arena.fault(format!("{part}: the pool gives another result afterwards: {found:?}")),
            Err(e @ Error::Timeout(_)) => {
                return arena.fault(format!("{part}: the pool does not answer afterwards: {e}; {}", pool.describe()));
            }
            Err(e) if Instant::now() > deadline => {
                return arena.fault(format!("{part}: the pool does not work afterwards: {e}"));
            }
            Err(e) => {
                arena.once::<()>(part, || Err(e));
            }
        }
    }
    pool.close();
    pool.join();
}

fn maps(arena: &Arena, mut dice: Dice) {
    let new = || Pool::builder().processes(2).start_method(arena.method).build();
    let Some(pool) = arena.patiently("Maps", new) else { return };
    let mut first = 100_000;
    while !arena.is_over() && first + 200 < 150_000 {
        let (count, size) = (1 + dice.below(199), dice.one_of(&SIZES[..6]));
        let numbers = first..first + count;
        first += count;
        let items = numbers.clone().map(|number| (number, body(number, size).into(), 0, arena.path.clone()));
        let items: Vec<Task> = items.collect();
        arena.count("items", count);
        let chunk = dice.one_of(&[0, 1, 7]);
        let is_imap = dice.below(2) == 0;
        let found: Option<Vec<Told>> = arena.once("Maps", || match chunk {
            0 if is_imap => pool.imap(task, items)?.collect(),
            0 => pool.map(task, items),
            chunk if is_imap => pool.with(CallOptions::new().chunksize(chunk)).imap(task, items)?.collect(),
            chunk => pool.with(CallOptions::new().chunksize(chunk)).map(task, items),
        });
        if let Some(found) = found {
            let right = |(number, told): (u64, &Told)| match told {
                Ok((of, data)) => *of == number && data[..] == turned(&body(number, size)),
                Err(_) => true,
            };
            if found.len() as u64 != count || !numbers.clone().zip(&found).all(right) {
                arena.fault(format!("Maps: a map of {count} gave another result"));
            }
        }
        for number in numbers.filter(|&number| arena.ledger.times(number) > 1) {
            arena.fault(format!("Maps: item {number} began twice"));
        }
    }
    wait_for_the_end(arena);
    works_afterwards(arena, "Maps", &pool);
}

/// A process that does not outlive what it is for.
struct Helper(Process);

impl Helper {
    fn start<A: maniple::Payload>(arena: &Arena, function: fn(A), argument: A) -> Result<Helper> {
        // As a daemon it ends with a program that is killed.
        let process = Process::builder().start_method(arena.method).daemon(true).build(function, argument)?;
        process.start()?;
        Ok(Helper(process))
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.join();
    }
}

type Item = (u64, Bytes);

/// A writer: notes an item in the ledger as soon as `put` has accepted it.
fn put_numbers((queue, path, base, count): (Queue<Item>, PathBuf, u64, u64)) {
    let Ok(ledger) = Ledger::open(Path::new(&path)) else { return };
    let mut dice = Dice(base);
    for number in base..base + count {
        if queue.put(&(number, body(number, dice.one_of(&SIZES)).into())).is_err() {
            return;
        }
        ledger.begin(number);
        std::thread::sleep(Duration::from_micros(dice.below(10_000)));
    }
}

/// Writers that are killed: what `put` has accepted arrives, once, in order.
fn queues(arena: &Arena, mut dice: Dice) {
    let Some(queue) = arena.patiently("Queues", Queue::<Item>::new) else { return };
    let mut first = 150_000;
    while !arena.is_over() && first + 60 < TASKS {
        let (base, count) = (first, 1 + dice.below(59));
        first += count;
        let start = || Helper::start(arena, put_numbers, (queue.clone(), arena.path.clone(), base, count));
        let Some(writer) = arena.once("Queues", start) else { continue };
        let mut found = Vec::new();
        let mut failed = 0;
        loop {
            // The end first: what has been accepted by then is there.
            let ended = !writer.0.is_alive();
            match queue.get_timeout(Duration::from_millis(200)) {
                Ok(Some((number, data))) => {
                    if data[..] != body(number, data.len() - 1) {
                        arena.fault(format!("Queues: item {number} is another"));
                    }
                    found.push(number);
                }
                Ok(None) if ended => break,
                Ok(None) => {}
                Err(e) => {
                    arena.once::<()>("Queues: get", || Err(e));
                    failed += 1;
                    if failed > 2000 {
                        arena.fault("Queues: an item cannot be taken");
                        break;
                    }
                }
            }
        }
        arena.count("items through a queue", found.len() as u64);
        if !found.is_sorted_by(|a, b| a < b) || found.iter().any(|number| !(base..base + count).contains(number)) {
            arena.fault(format!("Queues: {base} to {} gave {found:?}", base + count));
        }
        let lost: Vec<_> =
            (base..base + count).filter(|number| arena.ledger.times(*number) > 0 && !found.contains(number)).collect();
        if !lost.is_empty() {
            arena.fault(format!("Queues: accepted and lost: {lost:?}"));
        }
    }
}

/// A lock, and the process that is inside.
type Turns = (Lock, RawValue<u32>, u64);

fn is_alive(pid: u32) -> bool {
    maniple_sys::testing::exists(pid)
}

/// One turn inside; the previous holder of the lock may have died there.
fn turn(lock: &Lock, inside: &RawValue<u32>) {
    let _guard = lock.lock().unwrap_or_else(|poisoned| {
        lock.clear_poison();
        poisoned.into_inner()
    });
    let there = inside.get();
    if there != 0 && there != std::process::id() && is_alive(there) {
        eprintln!("CHAOS: two are inside at once");
    }
    inside.set(std::process::id());
    std::thread::sleep(Duration::from_millis(1));
    inside.set(0);
}

fn take_turns((lock, inside, turns): Turns) {
    for _ in 0..turns {
        turn(&lock, &inside);
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Holders that are killed: the next one gets the lock, and two never have it.
fn locks(arena: &Arena, mut dice: Dice) {
    let Some(lock) = arena.patiently("Locks", Lock::new) else { return };
    let Some(inside) = arena.patiently("Locks", || RawValue::new(0u32)) else { return };
    while !arena.is_over() {
        let start = |turns| Helper::start(arena, take_turns, (lock.clone(), inside.clone(), turns));
        let others: Vec<_> = (0..2).filter_map(|_| arena.once("Locks", || start(5 + dice.below(35)))).collect();
        for _ in 0..20 {
            turn(&lock, &inside);
        }
        arena.count("turns with a lock", 20);
        for other in others {
            let time = Duration::from_millis(dice.below(1000));
            let _ = arena.once("Locks", || other.0.join_timeout(time).map(drop));
        }
    }
    if matches!(lock.lock_timeout(HANGS), Err(maniple::TryLockError::Timeout(_))) {
        arena.fault("Locks: a lock whose holders are dead is not handed on");
    }
}

fn echo(line: Connection<Bytes>) {
    while let Ok(message) = line.recv() {
        if line.send(&message).is_err() {
            return;
        }
    }
}

/// A peer that is killed: its waiters detect that.
fn pipes(arena: &Arena, mut dice: Dice) {
    while !arena.is_over() {
        arena.once("Pipes", || {
            let (here, there) = pipe::<Bytes>()?;
            let _peer = Helper::start(arena, echo, there)?;
            for _ in 0..=dice.below(79) {
                let sent = Bytes::from(body(dice.below(100_000_000), dice.one_of(&SIZES)));
                here.send(&sent)?;
                match here.recv_timeout(HANGS) {
                    Ok(Some(found)) if found != sent => arena.fault("Pipes: another message"),
                    Ok(Some(_)) => arena.count("messages through a pipe", 1),
                    Ok(None) => {
                        arena.fault("Pipes: the peer neither answers nor ends");
                        break;
                    }
                    Err(error) => return Err(error),
                }
            }
            Ok(())
        });
    }
}

/// A server that is killed: its clients detect that, and another can be started.
fn managers(arena: &Arena, mut dice: Dice) {
    while !arena.is_over() {
        arena.once("Managers", || {
            let manager = Manager::builder().start_method(arena.method).build()?;
            let (list, dict) = (manager.list::<u64>()?, manager.dict::<String, Bytes>()?);
            for turn in 0..5 + dice.below(55) {
                list.push(&turn)?;
                let data = Bytes::from(body(turn, dice.one_of(&SIZES[..6])));
                dict.insert("a", &data)?;
                if dict.get("a")? != Some(data) || list.len()? as u64 != turn + 1 {
                    arena.fault("Managers: another value");
                }
                arena.count("manager calls", 4);
            }
            Ok(())
        });
    }
}
