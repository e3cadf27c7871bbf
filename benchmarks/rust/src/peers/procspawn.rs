//! procspawn: a pool with single calls. Its maps are cut into chunks by hand, since it runs out of descriptors with a
//! million calls outstanding; its bytes are `serde_bytes`, since a `Vec<u8>` goes through serde one by one.

use crate::case::{Measured, Peer, WORKERS, time_calls, time_echo, time_maps, time_starts, triple};
use procspawn::Pool;
use serde_bytes::ByteBuf;

/// Chunks of a map: some for each worker, so that the last one to finish does not finish much later.
const CHUNKS: usize = 64;

pub struct Procspawn;

impl Peer for Procspawn {
    fn call(&self, repeats: usize) -> Measured {
        let pool = Pool::new(WORKERS)?;
        time_calls(repeats, |number| Ok(pool.spawn(number, triple).join()?))
    }

    fn map(&self, count: usize, repeats: usize) -> Measured {
        let pool = Pool::new(WORKERS)?;
        time_maps(count, repeats, |items| {
            let chunks = items.chunks(items.len().div_ceil(CHUNKS));
            let handles: Vec<_> = chunks
                .map(|chunk| {
                    pool.spawn(chunk.to_vec(), |chunk: Vec<u64>| chunk.into_iter().map(triple).collect::<Vec<_>>())
                })
                .collect();
            let mut results = Vec::with_capacity(items.len());
            for handle in handles {
                results.extend(handle.join()?);
            }
            Ok(results)
        })
    }

    fn echo(&self, size: usize, repeats: usize) -> Measured {
        let pool = Pool::new(WORKERS)?;
        time_echo(size, repeats, ByteBuf::from, |bytes| Ok(pool.spawn(bytes, |bytes: ByteBuf| bytes).join()?))
    }

    fn start(&self, repeats: usize) -> Measured {
        time_starts(repeats, || {
            let pool = Pool::new(WORKERS)?;
            let answer = pool.spawn(5, triple).join()?;
            pool.shutdown();
            Ok(answer)
        })
    }
}
