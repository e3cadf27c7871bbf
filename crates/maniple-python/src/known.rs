//! The functions of a pool that its workers know.

use crate::encode::{Encoder, Pickler};
use crate::error::helper;
use crate::function::{is_plain, name_of};
use crate::hub::PyHub;
use crate::unended;
use maniple_engine::pool::policy::FUNCTIONS;
use maniple_engine::pool::{Func, Name};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyString;
use rustc_hash::FxHashMap;
use std::collections::VecDeque;
use std::sync::{Arc, MutexGuard, PoisonError};

/// The plain functions that workers keep between calls, and the order in which they were defined.
#[derive(Default)]
pub struct Remembered {
    functions: FxHashMap<usize, Known>,
    order: VecDeque<usize>,
}

impl Remembered {
    /// Remembers a function. Returns the entries that it replaces.
    fn insert(&mut self, address: usize, known: Known) -> [Option<Known>; 2] {
        let before = self.functions.insert(address, known);
        if before.is_none() {
            self.order.push_back(address);
        }
        let oldest = if self.order.len() > FUNCTIONS { self.order.pop_front() } else { None };
        [before, oldest.and_then(|oldest| self.functions.remove(&oldest))]
    }
}

struct Known {
    _object: Py<PyAny>,
    func: Func,
    name: Py<PyAny>,
    // Returns whether the value that was sent by value is still what a call needs.
    fresh: Option<Py<PyAny>>,
}

impl PyHub {
    /// Defines a function in the hub, and returns it with its name. A plain function is pickled once in the life of the
    /// pool.
    pub(super) fn func(&self, func: &Bound<'_, PyAny>) -> PyResult<(Func, Py<PyAny>)> {
        let py = func.py();
        let address = func.as_ptr() as usize;
        let plain = is_plain(func)?;
        if plain && let Some(found) = self.recall(py, address)? {
            return Ok(found);
        }
        let mut encoder = Encoder::new(py, self.hub.packer());
        encoder.value(func, Pickler::For(&self.main))?;
        let name = name_of(func)?;
        let shown: Option<Arc<str>> =
            name.cast::<PyString>().ok().and_then(|name| name.to_cow().ok()).map(|name| name.as_ref().into());
        let shown = shown.map(|name| -> Name { Arc::new(move || name.clone()) });
        let defined = self.hub.define_as(encoder.packet()?, shown);
        let name = name.unbind();
        if plain {
            static FRESHNESS: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
            let freshness = helper(py, &FRESHNESS, "freshness")?;
            let fresh = unended::call(freshness, (func, &self.main), None)?;
            let fresh = (!fresh.is_none()).then(|| fresh.unbind());
            let entry =
                Known { _object: func.clone().unbind(), func: defined.clone(), name: name.clone_ref(py), fresh };
            let forgotten = self.known().insert(address, entry);
            // Dropping the removed entries may run code of the program.
            drop(forgotten);
        }
        Ok((defined, name))
    }

    /// Returns a function that was defined before, unless an object that it needs was defined anew since.
    fn recall(&self, py: Python<'_>, address: usize) -> PyResult<Option<(Func, Py<PyAny>)>> {
        let known = self.known();
        let Some(entry) = known.functions.get(&address) else { return Ok(None) };
        let found = (entry.func.clone(), entry.name.clone_ref(py));
        let Some(fresh) = &entry.fresh else { return Ok(Some(found)) };
        let fresh = fresh.clone_ref(py);
        drop(known); // the question runs Python code
        Ok(unended::call(fresh.bind(py), (), None)?.is_truthy()?.then_some(found))
    }

    pub(super) fn known(&self) -> MutexGuard<'_, Remembered> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
