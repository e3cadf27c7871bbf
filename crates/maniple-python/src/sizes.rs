//! The limits on a pool's size and on its backlog, and what belongs to each of its workers by its number.

use crate::error::{Saying as _, python};
use crate::greenlets;
use crate::signals::look_for_signals;
use maniple_engine::pool::{Affinity, Hub, ImpossibleSize, Room, check_growth, check_size, policy};
use maniple_sys::process::limits;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use std::num::NonZeroU64;

/// Returns why this process can never have so many workers at once, and whether descriptors are the reason; None if no limit
/// forbids it. Each worker takes so many descriptors. A small pool is checked only if it `grows`.
#[pyfunction]
pub fn impossible_size(processes: usize, descriptors: usize, grows: bool) -> Option<(bool, String)> {
    let check = if grows { check_growth } else { check_size };
    let why = check(processes, descriptors).err()?;
    Some((matches!(why, ImpossibleSize::Descriptors { .. }), why.to_string()))
}

/// Returns the number of bytes that the control groups of this process allow; None if they have no limit.
#[pyfunction]
pub fn memory_of_control_group() -> Option<u64> {
    limits::most_memory()
}

/// Returns the processors of the worker of this number, in a pool of so many workers: its share of the one set if it
/// `spreads`, otherwise one of the sets in turn.
#[pyfunction]
pub fn processors_of(sets: Vec<Vec<usize>>, spreads: bool, number: usize, count: usize) -> Vec<usize> {
    let affinity = if spreads { Affinity::Spread(sets.concat()) } else { Affinity::Sets(sets) };
    affinity.of(number, count).to_vec()
}

/// Returns the variables by which numerical libraries learn how many threads they may start.
#[pyfunction]
pub fn thread_variables() -> [&'static str; 8] {
    policy::THREAD_VARIABLES
}

/// Returns room for a call in the backlog. Waits for it if the call `blocks`; otherwise returns None if there is no room.
pub fn room(py: Python<'_>, hub: &Hub, most: usize, blocks: bool) -> PyResult<Option<Room>> {
    let mut raised = None;
    let room = py.detach(|| {
        let room = hub.room(most)?;
        if !blocks && !room.is_ready() {
            return Ok(None);
        }
        room.wait(&mut || {
            raised = look_for_signals();
            if raised.is_none() && greenlets::are_used() {
                raised = Python::attach(greenlets::let_run).err();
            }
            raised.is_none()
        })?;
        Ok(Some(room))
    });
    match raised {
        Some(error) => Err(error),
        None => room.map_err(python),
    }
}

/// Returns the number of tasks after which a worker is replaced.
pub fn max_tasks(tasks: Option<u64>) -> PyResult<Option<NonZeroU64>> {
    let positive =
        |n| NonZeroU64::new(n).ok_or_else(|| PyValueError::saying("maxtasksperchild must be a positive int or None"));
    tasks.map(positive).transpose()
}
