//! Futures that put values and accept clients (feature `async`). Futures that receive need no feature.

use super::Connection;
use super::listener::{Accepting, Listener};
use super::queue::{Attempt, Queue};
use super::reactor::until_readable;
use crate::background::Background;
use crate::error::{Error, Result};
use maniple_engine::wait::Until;
use maniple_sys::AsHandle;
use serde::Serialize;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// How often a background wait checks whether its future still exists.
const SLICE: Duration = Duration::from_millis(200);
/// The same for a wait for clients, whose listener may be dropped.
const MOMENT: Duration = Duration::from_millis(20);
/// How long the thread serves clients that have connected before it waits for other clients.
const BUSY: Duration = Duration::from_secs(8);

/// Returns the earlier of `limit` and the end of `most`.
fn until(limit: Until, most: Duration) -> Until {
    Until::after(limit.left().map_or(most, |left| left.min(most)))
}

impl<T: Serialize> Queue<T> {
    /// As [`put`](Queue::put), as a future.
    ///
    /// Dropping the future is safe: the value is in the queue if the future has returned, and otherwise not. A
    /// background thread waits for room meanwhile; a few such threads are kept. Any executor works.
    ///
    /// ```
    #[doc = include_str!("../block_on.txt")]
    /// # fn main() -> maniple::Result<()> {
    /// let queue = maniple::Queue::bounded(1)?;
    /// block_on(queue.put_async(&1))?;
    /// assert_eq!(queue.get()?, 1);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`put`](Queue::put).
    pub async fn put_async(&self, value: &T) -> Result<()> {
        let outgoing = self.prepare(value)?;
        loop {
            let Attempt::Lacks(lack) = self.attempt(&outgoing, Until::Now)? else { return Ok(()) };
            let shared = self.shared.clone();
            let step = move |limit: Until, go_on: &mut dyn FnMut() -> bool| loop {
                match shared.wait_for(lack, until(limit, SLICE)) {
                    Ok(true) => return Some(Ok(())),
                    Ok(false) if limit == Until::Ever && go_on() => {}
                    Ok(false) => return None,
                    Err(error) => return Some(Err(error)),
                }
            };
            Background::new(step, |_| ()).await?;
        }
    }
}

impl Listener {
    /// As [`accept`](Listener::accept), as a future.
    ///
    /// Dropping the future is safe: a client that was accepted for it is returned by the next call. A background thread
    /// waits while clients authenticate; a few such threads are kept. Any executor works.
    ///
    /// ```
    /// use maniple::{Client, Connection, Listener};
    ///
    #[doc = include_str!("../block_on.txt")]
    /// # fn main() -> maniple::Result<()> {
    /// let listener = Listener::temporary()?;
    /// let address = listener.address().clone();
    /// let thread = std::thread::spawn(move || Client::connect::<u8>(address)?.send(&7));
    /// let client: Connection<u8> = block_on(listener.accept_async())?;
    /// assert_eq!(client.recv()?, 7);
    /// # thread.join().unwrap()
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`accept`](Listener::accept).
    pub async fn accept_async<T>(&self) -> Result<Connection<T>> {
        loop {
            // Another future may have begun the authentication of a client.
            let is_begun = !self.accepting.kept().is_empty() || self.accepting.unfinished.load(Ordering::Relaxed);
            if (is_begun || self.is_called()?)
                && let Some(found) = accept(&self.accepting).await?
            {
                return Ok(Connection::from_stream(found));
            }
            until_readable(self.as_handle()).await?;
        }
    }

    fn is_called(&self) -> Result<bool> {
        super::wait_timeout(&[self], Duration::ZERO)
            .map_or_else(|error| if matches!(error, Error::Timeout(_)) { Ok(false) } else { Err(error) }, |_| Ok(true))
    }
}

/// Sees the clients in that have connected. `None`: none of them came through.
async fn accept(accepting: &Arc<Accepting>) -> Result<Option<maniple_sys::OwnedHandle>> {
    let (accepts, keeps) = (accepting.clone(), accepting.clone());
    accepting.unfinished.store(true, Ordering::Relaxed);
    let begun = Instant::now();
    let step = move |limit: Until, go_on: &mut dyn FnMut() -> bool| loop {
        let deadline = match until(limit, MOMENT) {
            Until::Then(then) => Some(then),
            Until::Now | Until::Ever => Some(Instant::now()),
        };
        match accepts.next(deadline) {
            Ok(Some(client)) => return Some(Ok(Some(client))),
            Err(error) => return Some(Err(error)),
            Ok(None) if begun.elapsed() > BUSY => return Some(Ok(None)),
            Ok(None) if limit == Until::Ever && go_on() => {}
            Ok(None) => return None,
        }
    };
    let undo = move |found: Result<Option<maniple_sys::OwnedHandle>>| {
        if let Ok(Some(client)) = found {
            keeps.kept().push_back(client);
        }
    };
    let found = Background::new(step, undo).await;
    if matches!(found, Ok(None)) || !accepting.authenticates() {
        accepting.unfinished.store(false, Ordering::Relaxed);
    }
    found
}

impl Drop for Listener {
    fn drop(&mut self) {
        // A thread that has begun to accept for a future lets go in a moment, and the address is free when this returns.
        let begun = Instant::now();
        while Arc::strong_count(&self.accepting) > 1 && begun.elapsed() < 10 * MOMENT {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}
