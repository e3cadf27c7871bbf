//! The seeds of tasks: each item of a seeded pool's calls has the same random numbers in each run, in any worker and in chunks of any size.

use crate::args::Calls as _;
use crate::lazy::Lazy;
use crate::made::{self, Attributes as _, import};
use crate::payload_format::tag;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyList;
use std::sync::atomic::{AtomicU64, Ordering};

/// The place of the first item's index in a seeded header.
const INDEX: std::ops::Range<usize> = 25..33;

/// A pool's seed, and the number of its calls so far.
#[pyclass(name = "Seeds", module = "maniple._maniple", frozen)]
pub struct Seeds {
    seed: [u8; 16],
    calls: AtomicU64,
}

#[pymethods]
impl Seeds {
    #[new]
    fn new(seed: [u8; 16]) -> Self {
        Seeds { seed, calls: AtomicU64::new(0) }
    }
}

impl Seeds {
    /// Returns what precedes the tasks of the next call.
    pub fn next_header(&self) -> Vec<u8> {
        let call = self.calls.fetch_add(1, Ordering::Relaxed);
        let mut header = vec![tag::SEED];
        header.extend_from_slice(&self.seed);
        header.extend_from_slice(&call.to_le_bytes());
        header.extend_from_slice(&0_u64.to_le_bytes());
        header
    }
}

/// What precedes the items of each task of a call: its seed and its terms, if there are any, and its kind.
pub struct Head(Box<[u8]>);

impl Head {
    pub fn new(header: &[u8], star: bool) -> Self {
        let mode = if star { tag::STARMAP } else { tag::MAP };
        Head(header.iter().copied().chain([mode]).collect())
    }

    /// Returns what precedes the items of a task whose first item has this index in the call.
    pub fn at(&mut self, first: usize) -> &[u8] {
        if self.0.first() == Some(&tag::SEED)
            && let Some(index) = self.0.get_mut(INDEX)
        {
            index.copy_from_slice(&(first as u64).to_le_bytes());
        }
        &self.0
    }
}

/// The seed of a task that has arrived.
pub struct TaskSeed {
    pub key: [u8; 24],
    pub first: u64,
}

impl TaskSeed {
    /// Seeds the generators of this process for the item at `place` in the task.
    pub fn plant(&self, py: Python<'_>, place: u64) -> PyResult<()> {
        static PLANT: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
        let make = || PyResult::Ok(import(py, "maniple._impl.pool.task_seeds")?.attr("seed_task")?.unbind());
        PLANT.get_or_make(py, make)?.bind(py).with((made::bytes(py, &self.key)?, self.first.wrapping_add(place)))?;
        Ok(())
    }

    /// Calls the function for each item, and seeds the generators before each call.
    pub fn call_each<'py>(
        &self,
        py: Python<'py>,
        star: bool,
        func: &Bound<'py, PyAny>,
        items: Vec<Bound<'py, PyAny>>,
    ) -> Result<Bound<'py, PyList>, (PyErr, usize)> {
        let one = |place: usize, item: Bound<'py, PyAny>| {
            let args = star.then(|| item.try_iter()?.collect::<PyResult<Vec<_>>>()).transpose()?;
            self.plant(py, place as u64)?;
            match args {
                Some(args) => func.call1(made::tuple(py, args)?),
                None => made::call(func, &item),
            }
        };
        let mut results = Vec::with_capacity(items.len());
        for (place, item) in items.into_iter().enumerate() {
            results.push(one(place, item).map_err(|error| (error, place))?);
        }
        made::list(py, results).map_err(|error| (error, 0))
    }
}
