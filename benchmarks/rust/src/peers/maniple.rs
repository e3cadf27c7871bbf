//! maniple: calls and maps on a pool, bytes as [`Bytes`], pipes to a separate process.

use crate::case::{
    Failure, Measured, Peer, WORKERS, per_change, sum_of, time_calls, time_echo, time_maps, time_starts, triple,
};
use maniple::{Barrier, Bytes, Condition, Connection, Mutex, Pool, Process, Queue, pipe};
use std::time::{Duration, Instant};

pub struct Maniple;

fn same(bytes: Bytes) -> Bytes {
    bytes
}

struct View(Bytes);

impl AsRef<[u8]> for View {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

fn send_back(line: Connection<Bytes>) {
    while let Ok(bytes) = line.recv() {
        if line.send(&bytes).is_err() {
            return;
        }
    }
}

type Line = Connection<u64>;

/// Puts every `step`-th number, beginning with the first one that it receives.
fn produce((queue, line, step, items): (Queue<u64>, Line, u64, u64)) -> Result<(), maniple::Error> {
    line.send(&0)?;
    let first = line.recv()?;
    (first..items).step_by(step as usize).try_for_each(|n| queue.put(&n))?;
    line.send(&0)
}

fn consume((queue, line): (Queue<u64>, Line)) -> Result<(), maniple::Error> {
    line.send(&0)?;
    let mut sum = 0;
    while let Ok(n) = queue.get() {
        sum += n;
    }
    line.send(&sum)
}

fn change((number, ready, repeats): &(Mutex<u64>, Barrier, usize)) -> Result<Duration, maniple::Error> {
    ready.wait()?;
    let begun = Instant::now();
    for _ in 0..*repeats {
        *number.lock()? += 1;
    }
    Ok(begun.elapsed())
}

type Change = ((Mutex<u64>, Barrier, usize), Queue<Duration>);

fn change_too((what, taken): Change) -> Result<(), maniple::Error> {
    taken.put(&change(&what)?)
}

fn play((turn, changed, me, repeats): (Mutex<u64>, Condition, u64, usize)) -> Result<(), maniple::Error> {
    for _ in 0..repeats {
        let mut turn = changed.wait_while(turn.lock()?, |turn| **turn % 2 != me)?;
        *turn += 1;
        changed.notify_one();
    }
    Ok(())
}

impl Peer for Maniple {
    fn call(&self, repeats: usize) -> Measured {
        let pool = Pool::new(WORKERS)?;
        time_calls(repeats, |number| Ok(pool.apply(triple, number)?))
    }

    fn map(&self, count: usize, repeats: usize) -> Measured {
        let pool = Pool::new(WORKERS)?;
        time_maps(count, repeats, |items| Ok(pool.map(triple, items)?))
    }

    fn echo(&self, size: usize, repeats: usize) -> Measured {
        let pool = Pool::new(WORKERS)?;
        time_echo(size, repeats, Bytes::from, |bytes| Ok::<_, Failure>(View(pool.apply(same, bytes)?)))
    }

    fn pipe(&self, size: usize, repeats: usize) -> Measured {
        let (ours, theirs) = pipe::<Bytes>()?;
        let process = Process::new(send_back, theirs)?;
        process.start()?;
        let call = |bytes| {
            ours.send(&bytes)?;
            Ok::<_, Failure>(View(ours.recv()?))
        };
        let taken = time_echo(size, repeats, Bytes::from, call);
        drop(ours);
        process.join()?;
        taken
    }

    fn queue(&self, producers: usize, consumers: usize, items: usize) -> Measured {
        let queue = Queue::new()?;
        let (mut putting, mut getting, mut processes) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..producers {
            let (ours, theirs) = pipe()?;
            putting.push(ours);
            let arguments = (queue.clone(), theirs, producers as u64, items as u64);
            processes.push(Process::new(produce, arguments)?);
        }
        for _ in 0..consumers {
            let (ours, theirs) = pipe()?;
            getting.push(ours);
            processes.push(Process::new(consume, (queue.clone(), theirs))?);
        }
        processes.iter().try_for_each(Process::start)?;
        for line in putting.iter().chain(&getting) {
            line.recv()?;
        }
        let begun = Instant::now();
        for (first, line) in (0..).zip(&putting) {
            line.send(&first)?;
        }
        for line in &putting {
            line.recv()?;
        }
        queue.close()?;
        let mut sum = 0;
        for line in &getting {
            sum += line.recv()?;
        }
        let taken = begun.elapsed();
        if sum != sum_of(items) {
            return Err(Failure::Wrong("what was got is not what was put".into()));
        }
        Ok(taken / items as u32)
    }

    fn lock(&self, parties: usize, repeats: usize) -> Measured {
        let number = Mutex::new(0u64)?;
        let what = (number.clone(), Barrier::new(parties)?, repeats);
        let times = Queue::new()?;
        let others = (1..parties).map(|_| Process::new(change_too, (what.clone(), times.clone())));
        let others = others.collect::<Result<Vec<_>, _>>()?;
        others.iter().try_for_each(Process::start)?;
        let mut taken = change(&what)?;
        for _ in &others {
            taken = taken.max(times.get()?);
        }
        let total = *number.lock().map_err(maniple::Error::from)?;
        per_change(taken, parties, repeats, total)
    }

    fn condition(&self, repeats: usize) -> Measured {
        let (turn, changed) = (Mutex::new(0u64)?, Condition::new()?);
        let other = Process::new(play, (turn.clone(), changed.clone(), 1, repeats + 1))?;
        other.start()?;
        // One round for the other to be there.
        play((turn.clone(), changed.clone(), 0, 1))?;
        let begun = Instant::now();
        play((turn, changed, 0, repeats))?;
        let taken = begun.elapsed();
        other.join()?;
        Ok(taken / repeats as u32)
    }

    fn start(&self, repeats: usize) -> Measured {
        time_starts(repeats, || {
            let pool = Pool::new(WORKERS)?;
            Ok(pool.apply(triple, 5)?)
        })
    }
}
