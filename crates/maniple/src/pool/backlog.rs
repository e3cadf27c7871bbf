//! The backlog: calls of one item that wait for a worker, and what a call does when there are too many of them.

use super::{Pool, keeper};
use crate::error::{CallError, Error, Result};
use maniple_engine::pool::Room;
use std::future::poll_fn;

/// What a call of one item does while [`max_backlog`](crate::PoolBuilder::max_backlog) calls wait.
///
/// ```
/// use maniple::{BacklogFull, CallError, Error, Pool};
///
/// # fn main() -> maniple::Result<()> {
/// let pool = Pool::builder().processes(1).max_backlog(10).backlog_full(BacklogFull::Fail).build()?;
/// let mut calls = Vec::new();
/// let error = loop {
///     match pool.apply_async(|()| -> u8 { loop { std::thread::park() } }, ()) {
///         Ok(call) => calls.push(call),
///         Err(error) => break error,
///     }
/// };
/// assert!(matches!(error, Error::Call(CallError::BacklogFull { max_backlog: 10 })));
/// assert!(calls.len() >= 10);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum BacklogFull {
    /// It waits until there is room.
    #[default]
    Block,
    /// It returns [`CallError::BacklogFull`] at once.
    Fail,
}

/// The limit of a call's backlog.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Backlog {
    pub most: usize,
    pub full: BacklogFull,
}

impl Backlog {
    fn is_full(self) -> Error {
        Error::Call(CallError::BacklogFull { max_backlog: self.most })
    }
}

impl Pool {
    /// Returns room for a call of one item, if its backlog is limited. Blocks until there is room, if the options say so.
    pub(super) fn room(&self, backlog: Option<Backlog>) -> Result<Option<Room>> {
        let Some(backlog) = backlog else { return Ok(None) };
        let room = self.shared.hub.room(backlog.most)?;
        if !room.is_ready() {
            // The keeper starts and reaps the workers, without which there may never be room.
            if backlog.full == BacklogFull::Fail || keeper::keeps(&self.shared) {
                return Err(backlog.is_full());
            }
            // The wait continues after a signal that does not end the program.
            room.wait(&mut || true)?;
        }
        Ok(Some(room))
    }

    /// As `room`, without blocking the thread.
    pub(super) async fn room_async(&self, backlog: Option<Backlog>) -> Result<Option<Room>> {
        let Some(backlog) = backlog else { return Ok(None) };
        let room = self.shared.hub.room(backlog.most)?;
        if !room.is_ready() && backlog.full == BacklogFull::Fail {
            return Err(backlog.is_full());
        }
        poll_fn(|context| room.poll_ready(context)).await;
        Ok(Some(room))
    }
}
