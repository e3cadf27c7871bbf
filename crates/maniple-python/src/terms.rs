//! `Terms`: the limits, retries and priority of a call's tasks.

use crate::args::Out;
use crate::error::Saying as _;
use crate::payload_format::tag;
use crate::seed::Seeds;
use maniple_engine::pool::{Retries, Terms};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use std::sync::Arc;
use std::time::Duration;

/// The limits, retries and priority of a call's tasks, which a pool's methods pass to the engine.
#[pyclass(name = "Terms", module = "maniple._maniple", frozen)]
pub struct PyTerms {
    pub terms: Arc<Terms>,
    /// What precedes each task, if its worker has to know of the terms.
    pub header: Box<[u8]>,
    /// The seeds of the pool, if the call has no seed of its own yet.
    seeds: Option<Py<Seeds>>,
    /// Whether each item has to be a task of its own.
    pub single: bool,
    /// Whether the exceptions of failed items are returned among the results.
    pub returns: bool,
}

/// Nanoseconds. A time that is longer than a clock counts is as good as the longest.
fn nanos(name: &str, seconds: Option<f64>) -> PyResult<Option<u64>> {
    let Some(seconds) = seconds else { return Ok(None) };
    if seconds.is_nan() || seconds < 0.0 {
        return Err(PyValueError::saying(format!(
            "{name} must be a number of seconds that is not negative, not {seconds}"
        )));
    }
    let time = Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX);
    Ok(Some(time.as_nanos().min(u128::from(u64::MAX / 4)) as u64))
}

#[pymethods]
impl PyTerms {
    /// `retries` has the greatest number of further tries, the first pause, its factor, the longest pause, and whether
    /// lost workers and time-outs count. `on` is the pickle of a tuple of exception classes, after which a task is also
    /// tried again.
    #[new]
    #[pyo3(signature = (limit, soft_limit, retries, on, priority, single, returns, seeds=None))]
    #[allow(clippy::too_many_arguments)]
    fn new(
        limit: Option<f64>,
        soft_limit: Option<f64>,
        retries: Option<(u32, f64, f64, f64, bool, bool)>,
        on: Option<Vec<u8>>,
        priority: i32,
        single: bool,
        returns: bool,
        seeds: Option<Py<Seeds>>,
    ) -> PyResult<Self> {
        let retries = match retries {
            None => Retries::NONE,
            Some((most, first, factor, longest, of_lost, of_overdue)) => Retries {
                most,
                first: nanos("initial_delay", Some(first))?.unwrap_or(0),
                factor,
                longest: nanos("max_delay", Some(longest))?.unwrap_or(0),
                of_lost,
                of_overdue,
            },
        };
        let limits = (nanos("task_timeout", limit)?, nanos("soft_timeout", soft_limit)?);
        let mut header = Vec::new();
        if soft_limit.is_some() || on.is_some() {
            header.push(tag::TERMS);
            header.extend_from_slice(&limits.1.unwrap_or(u64::MAX).to_le_bytes());
            let on = on.unwrap_or_default();
            header.extend_from_slice(&(on.len() as u32).to_le_bytes());
            header.extend_from_slice(&on);
        }
        let terms = Terms { limit: limits.0, soft_limit: limits.1, retries, priority };
        Ok(PyTerms { terms: Arc::new(terms), header: header.into(), seeds, single, returns })
    }

    /// Returns the terms of the next call. They differ if the pool has a seed: each call then has its number in them.
    fn of_call(slf: Bound<'_, Self>) -> PyResult<Bound<'_, Self>> {
        let PyTerms { terms, header, seeds, single, returns } = slf.get();
        let Some(seeds) = seeds else { return Ok(slf) };
        let header = seeds.get().next_header().into_iter().chain(header.iter().copied()).collect();
        let of_call = PyTerms { terms: terms.clone(), header, seeds: None, single: *single, returns: *returns };
        Bound::new(slf.py(), of_call)
    }

    /// Whether each item is a task of its own.
    #[getter]
    fn single(&self) -> bool {
        self.single
    }

    /// Whether the exceptions of failed items are returned among the results.
    #[getter]
    fn returns(&self) -> bool {
        self.returns
    }
}

/// Return how much resident memory a process uses, in bytes; None if that is unknown.
#[pyfunction]
pub fn memory_of(pid: u32) -> Out<Option<u64>> {
    Out(maniple_sys::process::usage::memory_of(pid))
}

/// The terms of a call, for its submission.
#[derive(Default)]
pub struct Given {
    pub terms: Option<Arc<Terms>>,
    pub header: Box<[u8]>,
    pub single: bool,
    pub returns: bool,
}

pub fn given(terms: Option<&Bound<'_, PyTerms>>) -> Given {
    terms.map_or_else(Given::default, |terms| {
        let PyTerms { terms, header, single, returns, .. } = terms.get();
        Given { terms: Some(terms.clone()), header: header.clone(), single: *single, returns: *returns }
    })
}
