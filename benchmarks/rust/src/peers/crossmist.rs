//! crossmist: functions that run in a child, and typed channels to it. It has no pool: a "call" here is a request to one
//! child that waits for it.

use crate::case::{Failure, Measured, Peer, WORKERS, time_calls, time_echo, time_starts, triple};
use crossmist::{Duplex, duplex};

pub struct Crossmist;

#[crossmist::func]
fn serve_numbers(mut line: Duplex<u64, u64>) {
    while let Ok(Some(number)) = line.recv() {
        if line.send(&triple(number)).is_err() {
            return;
        }
    }
}

#[crossmist::func]
fn serve_bytes(mut line: Duplex<Vec<u8>, Vec<u8>>) {
    while let Ok(Some(bytes)) = line.recv() {
        if line.send(&bytes).is_err() {
            return;
        }
    }
}

impl Peer for Crossmist {
    fn call(&self, repeats: usize) -> Measured {
        let (mut ours, theirs) = duplex()?;
        let child = serve_numbers.spawn(theirs)?;
        let taken = time_calls(repeats, |number| Ok(ours.request(&number)?));
        drop(ours);
        child.join()?;
        taken
    }

    fn echo(&self, size: usize, repeats: usize) -> Measured {
        let (mut ours, theirs) = duplex()?;
        let child = serve_bytes.spawn(theirs)?;
        let taken = time_echo(size, repeats, |bytes| bytes, |bytes| Ok::<Vec<u8>, Failure>(ours.request(&bytes)?));
        drop(ours);
        child.join()?;
        taken
    }

    fn start(&self, repeats: usize) -> Measured {
        time_starts(repeats, || {
            let mut team = Vec::new();
            for _ in 0..WORKERS {
                let (ours, theirs) = duplex()?;
                team.push((ours, serve_numbers.spawn(theirs)?));
            }
            let answer = team[0].0.request(&5)?;
            for (line, child) in team {
                drop(line);
                child.join()?;
            }
            Ok(answer)
        })
    }
}
