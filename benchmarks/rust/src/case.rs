//! What is measured, and what one measurement is.

use std::error::Error;
use std::time::{Duration, Instant};

/// Worker processes (or rayon's threads) wherever a library has a pool.
pub const WORKERS: usize = 2;

/// One row of the table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Case {
    /// One small call, there and back, many times in a row.
    Call,
    /// So many small items through the library's map, or in chunks cut by hand.
    Map(usize),
    /// Bytes to a worker and back.
    Echo(usize),
    /// Bytes to a process and back over a separate connection.
    Pipe(usize),
    /// Small items through a queue, from so many processes to so many.
    Queue(usize, usize),
    /// A number changed under its lock, by so many processes (or threads) at once.
    Lock(usize),
    /// A turn handed over and back between two processes (or threads) by a condition.
    Condition,
    /// Start the workers, have one small answer, end them.
    Start,
}

impl Case {
    /// In the table's order.
    pub const ALL: [Case; 16] = [
        Case::Call,
        Case::Map(1_000_000),
        Case::Echo(1),
        Case::Echo(1 << 10),
        Case::Echo(1 << 20),
        Case::Echo(16 << 20),
        Case::Pipe(1),
        Case::Pipe(1 << 10),
        Case::Pipe(1 << 20),
        Case::Pipe(16 << 20),
        Case::Queue(1, 1),
        Case::Queue(4, 4),
        Case::Lock(1),
        Case::Lock(2),
        Case::Condition,
        Case::Start,
    ];

    /// The name on the command line and in the JSON.
    pub fn key(self) -> String {
        match self {
            Case::Call => "call".into(),
            Case::Map(_) => "map".into(),
            Case::Echo(size) => format!("echo-{}", short_size(size)),
            Case::Pipe(size) => format!("pipe-{}", short_size(size)),
            Case::Queue(producers, consumers) => format!("queue-{producers}-{consumers}"),
            Case::Lock(parties) => format!("lock-{parties}"),
            Case::Condition => "condition".into(),
            Case::Start => "start".into(),
        }
    }

    /// The name in the table; times are per unit named here.
    pub fn title(self) -> String {
        match self {
            Case::Call => "small call, round trip".into(),
            Case::Map(count) => format!("map of {count} small items"),
            Case::Echo(size) => format!("echo of {}", short_size(size)),
            Case::Pipe(size) => format!("pipe echo of {}", short_size(size)),
            Case::Queue(producers, consumers) => format!("queue item, {producers} put, {consumers} get"),
            Case::Lock(1) => "lock, change, unlock".into(),
            Case::Lock(parties) => format!("the same by {parties} at once"),
            Case::Condition => "turn handed over and back".into(),
            Case::Start => "start, one answer, end".into(),
        }
    }

    /// How many times as fast as which library maniple has to be at least.
    pub fn floor(self) -> Option<(&'static str, f64)> {
        match self {
            // Whose items are cut by hand into large vectors.
            Case::Map(_) => Some(("procspawn", 0.7)),
            _ => None,
        }
    }

    /// How often one round repeats it, so that a round takes some tenths of a second.
    pub fn repeats(self) -> usize {
        match self {
            Case::Call => 5_000,
            Case::Map(_) => 3,
            Case::Echo(size) | Case::Pipe(size) if size < 64 << 10 => 5_000,
            Case::Echo(size) | Case::Pipe(size) if size < 8 << 20 => 100,
            Case::Echo(_) | Case::Pipe(_) => 8,
            Case::Queue(..) => 100_000,
            Case::Lock(1) => 2_000_000,
            Case::Lock(_) => 500_000,
            Case::Condition => 10_000,
            Case::Start => 10,
        }
    }
}

fn short_size(bytes: usize) -> String {
    match bytes {
        0..1024 => format!("{bytes}B"),
        1024..1_048_576 => format!("{}KiB", bytes >> 10),
        _ => format!("{}MiB", bytes >> 20),
    }
}

/// Why there is no figure.
#[derive(Debug)]
pub enum Failure {
    /// The library has no such feature.
    NotOffered(&'static str),
    /// It has, but it answered wrongly.
    Wrong(String),
    /// It has, but it failed.
    Broken(Box<dyn Error>),
}

impl<E: Error + 'static> From<E> for Failure {
    fn from(error: E) -> Self {
        Failure::Broken(Box::new(error))
    }
}

/// The result of one round of one case: time per repeat.
pub type Measured = Result<Duration, Failure>;

/// A library. What it does not override it does not offer.
pub trait Peer {
    fn call(&self, _repeats: usize) -> Measured {
        Err(Failure::NotOffered("no calls"))
    }
    fn map(&self, _count: usize, _repeats: usize) -> Measured {
        Err(Failure::NotOffered("no pool"))
    }
    fn echo(&self, _size: usize, _repeats: usize) -> Measured {
        Err(Failure::NotOffered("no processes"))
    }
    /// Where a library's echo is one over a line anyway, or it has no other, that.
    fn pipe(&self, size: usize, repeats: usize) -> Measured {
        self.echo(size, repeats)
    }
    fn queue(&self, _producers: usize, _consumers: usize, _items: usize) -> Measured {
        Err(Failure::NotOffered("no queues"))
    }
    /// Each of the parties does it `repeats` times.
    fn lock(&self, _parties: usize, _repeats: usize) -> Measured {
        Err(Failure::NotOffered("no locks"))
    }
    fn condition(&self, _repeats: usize) -> Measured {
        Err(Failure::NotOffered("no conditions"))
    }
    fn start(&self, _repeats: usize) -> Measured {
        Err(Failure::NotOffered("no processes"))
    }

    /// One round.
    fn run(&self, case: Case) -> Measured {
        let repeats = case.repeats();
        match case {
            Case::Call => self.call(repeats),
            Case::Map(count) => self.map(count, repeats),
            Case::Echo(size) => self.echo(size, repeats),
            Case::Pipe(size) => self.pipe(size, repeats),
            Case::Queue(producers, consumers) => self.queue(producers, consumers, repeats),
            Case::Lock(parties) => self.lock(parties, repeats),
            Case::Condition => self.condition(repeats),
            Case::Start => self.start(repeats),
        }
    }
}

/// The work of the small tasks.
pub fn triple(number: u64) -> u64 {
    number * 3
}

/// The bytes that are echoed: no page like the next.
pub fn pattern(size: usize) -> Vec<u8> {
    (0..size).map(|place| (place ^ (place >> 12)) as u8).collect()
}

/// A length and one byte of every page: reading them is part of the time, so that a library which maps its result instead of
/// copying it pays for that too.
fn glance(bytes: &[u8]) -> (usize, u64) {
    (bytes.len(), bytes.iter().step_by(4096).map(|&byte| u64::from(byte)).sum())
}

/// Times `call`, which is given fresh bytes each time, and checks what comes back.
pub fn time_echo<I, R: AsRef<[u8]>>(
    size: usize,
    repeats: usize,
    prepare: impl Fn(Vec<u8>) -> I,
    mut call: impl FnMut(I) -> Result<R, Failure>,
) -> Measured {
    let sent = pattern(size);
    let wanted = glance(&sent);
    let mut total = Duration::ZERO;
    call(prepare(sent.clone()))?;
    for _ in 0..repeats {
        let bytes = prepare(sent.clone());
        let begun = Instant::now();
        let got = call(bytes)?;
        let seen = glance(got.as_ref());
        total += begun.elapsed();
        if seen != wanted || got.as_ref() != sent {
            return Err(Failure::Wrong(format!("the {size} bytes came back different")));
        }
    }
    Ok(total / repeats as u32)
}

/// Times `call` on 0, 1, 2 … and checks what comes back against [`triple`].
pub fn time_calls(repeats: usize, mut call: impl FnMut(u64) -> Result<u64, Failure>) -> Measured {
    for number in 0..16 {
        call(number)?;
    }
    let begun = Instant::now();
    for number in 0..repeats as u64 {
        let got = call(number)?;
        if got != triple(number) {
            return Err(Failure::Wrong(format!("three times {number} came back as {got}")));
        }
    }
    Ok(begun.elapsed() / repeats as u32)
}

/// Times `map` over the numbers below `count` and checks what comes back.
pub fn time_maps(count: usize, repeats: usize, mut map: impl FnMut(Vec<u64>) -> Result<Vec<u64>, Failure>) -> Measured {
    let numbers: Vec<u64> = (0..count as u64).collect();
    let wanted: Vec<u64> = numbers.iter().map(|&number| triple(number)).collect();
    let mut total = Duration::ZERO;
    map(vec![1, 2, 3])?;
    for _ in 0..repeats {
        let items = numbers.clone();
        let begun = Instant::now();
        let got = map(items)?;
        total += begun.elapsed();
        if got != wanted {
            return Err(Failure::Wrong("the map's results are not those of the function".into()));
        }
    }
    Ok(total / repeats as u32)
}

/// What the numbers that were put into a queue must add up to at the other side.
pub fn sum_of(items: usize) -> u64 {
    (0..items as u64).sum()
}

/// What `parties` have taken, each of which changed a number so often, which is now `total`: the time for each change.
pub fn per_change(taken: Duration, parties: usize, repeats: usize, total: u64) -> Measured {
    let all = parties * repeats;
    if total != all as u64 {
        return Err(Failure::Wrong(format!("{all} changes came to {total}")));
    }
    Ok(Duration::from_secs_f64(taken.as_secs_f64() / all as f64))
}

/// Times `life`, a pool from its start to its end with one answer in between.
pub fn time_starts(repeats: usize, mut life: impl FnMut() -> Result<u64, Failure>) -> Measured {
    let mut total = Duration::ZERO;
    for _ in 0..repeats {
        let begun = Instant::now();
        let got = life()?;
        total += begun.elapsed();
        if got != triple(5) {
            return Err(Failure::Wrong(format!("three times 5 came back as {got}")));
        }
    }
    Ok(total / repeats as u32)
}
