//! maniple: calls and maps on a pool, bytes as [`Bytes`], pipes to a process of one's own.

use crate::case::{Failure, Measured, Peer, WORKERS, time_calls, time_echo, time_maps, time_starts, triple};
use maniple::{Bytes, Connection, Pool, Process, pipe};

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

    fn start(&self, repeats: usize) -> Measured {
        time_starts(repeats, || {
            let pool = Pool::new(WORKERS)?;
            Ok(pool.apply(triple, 5)?)
        })
    }
}
