//! The input of a stream, which a thread of its own reads.

use crate::greenlets;
use crate::seed::Head;
use crate::source::{self, Filled};
use crate::unended;
use maniple_engine::pool::{Filling, Hub, JobId};
use pyo3::prelude::*;
use pyo3::types::PyIterator;
use std::time::Duration;

/// Feeds the stream of `job` from an iterator, as far as there is room, until the iterator is exhausted or the job has
/// ended.
pub fn feed(
    py: Python<'_>,
    hub: &Hub,
    job: JobId,
    iterator: &Bound<'_, PyIterator>,
    mut head: Head,
    main: &Bound<'_, PyAny>,
) -> PyResult<()> {
    let mut taken = 0;
    let patience = if greenlets::are_used() { Duration::ZERO } else { Duration::from_secs(3600) };
    while let Some((tasks, items)) = py.detach(|| hub.wanted(job, patience)) {
        if tasks == 0 {
            if greenlets::are_used() {
                greenlets::let_run(py)?;
            }
            continue;
        }
        let mut ended = false;
        for _ in 0..tasks {
            let place = (&mut head, taken);
            let mut filling = Filling::new(hub.packer());
            let mut next = || unended::next(iterator).inspect(|_| taken += 1);
            ended = match source::fill_from(&mut next, place, main, 1, items, 0, &mut filling) {
                Filled::Ended => true,
                Filled::Partly => false,
                Filled::Broken(batch, error) => {
                    source::name_item(&error, &batch, taken - batch.len(), main);
                    filling.unsent(batch.len(), Box::new(error));
                    batch.len() < items
                }
            };
            if ended {
                hub.feed(job, filling, true);
                break;
            }
            hub.feed_one(job, filling);
        }
        if ended {
            break;
        }
        hub.feed(job, Filling::new(hub.packer()), false);
    }
    Ok(())
}
