//! The items of a call, made into tasks when there is room for them.

use crate::encode::{Encoder, Pickler};
use maniple_engine::pool::{Filling, Packer, Packet, Source};
use pyo3::prelude::*;
use pyo3::types::{PyIterator, PyList};

/// Payload bytes after which a batch of tasks is large enough.
const BATCH: usize = 8 << 20;

/// One task of `items`.
pub fn encode_items(
    packer: &Packer,
    mode: u8,
    items: &[Bound<'_, PyAny>],
    main: &Bound<'_, PyAny>,
) -> PyResult<Packet> {
    let mut encoder = Encoder::new(packer);
    encoder.mark(mode);
    let whole = || Ok(PyList::new(main.py(), items)?.into_any());
    encoder.sequence(items, whole, Pickler::For(main.as_unbound()))?;
    encoder.packet()
}

/// Items that are all there: a list, tuple or range, whose iteration runs nobody's code.
pub struct Items {
    pub iterator: Py<PyIterator>,
    pub left: usize,
    pub mode: u8,
    /// What the workers have of the main module.
    pub main: Py<PyAny>,
}

impl Source for Items {
    fn fill(&mut self, tasks: usize, items: usize, out: &mut Filling<'_>) -> bool {
        Python::attach(|py| {
            fill_from(self.iterator.bind(py), self.mode, self.main.bind(py), Some(&mut self.left), tasks, items, out)
        })
    }
}

/// Takes up to `tasks` tasks of `items` items from the iterator. True: it is exhausted, or failed (then the last task is its
/// exception).
pub fn fill_from(
    iterator: &Bound<'_, PyIterator>,
    mode: u8,
    main: &Bound<'_, PyAny>,
    mut left: Option<&mut usize>,
    tasks: usize,
    items: usize,
    out: &mut Filling<'_>,
) -> bool {
    let mut iterator = iterator.clone();
    let mut batch = Vec::with_capacity(items.min(4096));
    let packer = out.packer;
    let mut bytes = 0;
    for _ in 0..tasks {
        batch.clear();
        while batch.len() < items && left.as_deref() != Some(&0) {
            match iterator.next() {
                None => break,
                Some(Ok(item)) => batch.push(item),
                Some(Err(error)) => {
                    // Items of an unfinished chunk go down with it, as they would if the chunk had been made up first.
                    out.unsent(1, Box::new(error));
                    return true;
                }
            }
            if let Some(left) = &mut left {
                **left -= 1;
            }
        }
        if batch.is_empty() {
            return true;
        }
        match encode_items(packer, mode, &batch, main) {
            Ok(packet) => {
                bytes += packet.size();
                out.task(batch.len(), packet);
            }
            Err(error) => out.unsent(batch.len(), Box::new(error)),
        }
        if left.as_deref() == Some(&0) || batch.len() < items {
            return true;
        }
        if bytes > BATCH {
            return false;
        }
    }
    false
}
