//! The items of a call. Tasks are made of them when there is room.

use crate::encode::{Encoder, Pickler};
use crate::error::{Saying as _, helper};
use crate::made;
use crate::outcome::InputFailed;
use crate::seed::Head;
use crate::signals;
use crate::unended;
use maniple_engine::pool::{Filling, Packer, Packet, Source};
use maniple_sys as sys;
use pyo3::exceptions::{PyMemoryError, PyRuntimeError};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyIterator;
use std::collections::VecDeque;

/// Encodes one task of `items`. `head` precedes them, see [`Head`]. `others` is the number of references that each item has from outside the task.
pub fn encode_items(
    packer: &Packer,
    head: &[u8],
    items: &[Bound<'_, PyAny>],
    others: isize,
    main: &Bound<'_, PyAny>,
) -> PyResult<Packet> {
    let mut encoder = Encoder::new(main.py(), packer);
    encoder.header(head);
    let whole = || Ok(made::list(main.py(), items.iter().cloned())?.into_any());
    encoder.sequence(items, others, whole, Pickler::For(main.as_unbound()))?;
    encoder.packet()
}

/// Items that all exist: a list, tuple or range, whose iteration runs no code of the program.
pub struct Items(Option<Left>);

struct Left {
    iterator: Py<PyIterator>,
    left: usize,
    total: usize,
    // What precedes the items of each task.
    head: Head,
    // A `WorkerMain`: which parts of the main module the workers have.
    main: Py<PyAny>,
    // The items of a task that was interrupted while it was made.
    again: VecDeque<Py<PyAny>>,
}

impl Items {
    pub fn new(iterator: Py<PyIterator>, left: usize, head: Head, main: Py<PyAny>) -> Self {
        Items(Some(Left { iterator, left, total: left, head, main, again: VecDeque::new() }))
    }
}

impl Drop for Items {
    fn drop(&mut self) {
        // Without the interpreter, the items would exist until another thread drops deferred references.
        let left = self.0.take();
        let _ = Python::try_attach(move |_| drop(left));
    }
}

impl Source for Items {
    fn fill(&mut self, tasks: usize, items: usize, out: &mut Filling<'_>) -> bool {
        Python::attach(|py| {
            let Some(Left { iterator, left, total, head, main, again }) = &mut self.0 else { return true };
            let iterator = iterator.bind(py).clone();
            let is_fresh = again.is_empty();
            let first = *total - *left;
            let mut missing = 0;
            let mut next = || {
                *left = left.checked_sub(1)?;
                let item = again.pop_front().map(|item| Ok(item.into_bound(py))).or_else(|| unended::next(&iterator));
                if item.is_none() {
                    missing = std::mem::take(left) + 1;
                }
                item
            };
            // The list or tuple refers to each item, unless the program has changed it since.
            let others = isize::from(is_fresh);
            match fill_from(&mut next, (head, first), main.bind(py), tasks, items, others, out) {
                Filled::Ended if missing > 0 => {
                    let changed = PyRuntimeError::saying(format!(
                        "the list was changed during the call: {missing} of its items are missing"
                    ));
                    out.unsent(missing, Box::new(changed));
                    true
                }
                Filled::Ended => true,
                Filled::Partly => *left == 0,
                Filled::Broken(batch, error) if sys::is_first_thread() && signals::interrupts(py, &error) => {
                    *left += batch.len();
                    for item in batch.into_iter().rev() {
                        again.push_front(item.unbind());
                    }
                    signals::hold(error);
                    out.interrupt();
                    false
                }
                Filled::Broken(batch, error) => {
                    name_item(&error, &batch, *total - *left - batch.len(), main.bind(py));
                    out.unsent(batch.len(), Box::new(error));
                    *left == 0
                }
            }
        })
    }
}

/// Adds a note to the error of a task that could not be encoded: which of its items could not be pickled. `first` is
/// the index of its first item in the call.
pub fn name_item(error: &PyErr, items: &[Bound<'_, PyAny>], first: usize, main: &Bound<'_, PyAny>) {
    static NOTE: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let py = main.py();
    let noted = made::list(py, items.iter().cloned()).and_then(|items| {
        unended::call(helper(py, &NOTE, "note_unsent")?, (error.value(py), items, first, main), None)
    });
    if let Err(failure) = noted
        && signals::interrupts(py, &failure)
    {
        signals::hold(failure);
    }
}

/// How the making of tasks ended.
pub enum Filled<'py> {
    /// There are no more items, or the iterator has raised; then the last task is its exception.
    Ended,
    /// Further tasks can be made later.
    Partly,
    /// No task could be made of these items.
    Broken(Vec<Bound<'py, PyAny>>, PyErr),
}

/// Makes up to `tasks` tasks of `items` items each from `next`. `first` is the index of the next item in the call. `others` is the number of references to each item that
/// are not part of a task.
pub fn fill_from<'py>(
    next: &mut dyn FnMut() -> Option<PyResult<Bound<'py, PyAny>>>,
    (head, mut first): (&mut Head, usize),
    main: &Bound<'py, PyAny>,
    tasks: usize,
    items: usize,
    others: isize,
    out: &mut Filling<'_>,
) -> Filled<'py> {
    let packer = out.packer;
    let mut batch = Vec::with_capacity(items.min(64));
    for _ in 0..tasks {
        batch.clear();
        while batch.len() < items {
            // The program determines the number, so there may be no memory for it.
            if !batch.is_empty() && batch.try_reserve(1).is_err() {
                return Filled::Broken(batch, PyMemoryError::saying("there is no memory for the items of a task"));
            }
            match next() {
                None => break,
                Some(Ok(item)) => batch.push(item),
                Some(Err(error)) => {
                    // The items of an unfinished chunk fail with it, as in the standard package, which makes the chunk
                    // first. The failure is the outcome of no item.
                    out.unsent(0, Box::new(InputFailed(error)));
                    return Filled::Ended;
                }
            }
        }
        if batch.is_empty() {
            return Filled::Ended;
        }
        match encode_items(packer, head.at(first), &batch, others, main) {
            Ok(packet) => out.task(batch.len(), packet),
            Err(error) => return Filled::Broken(batch, error),
        }
        if batch.len() < items {
            return Filled::Ended;
        }
        first += items;
        if out.has_enough(items) {
            break;
        }
    }
    Filled::Partly
}
