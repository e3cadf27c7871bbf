//! The keeper: a thread of the front that does the work for which no caller waits.
//!
//! It calls [`Hub::keep`] repeatedly. In this call it waits for deaths, for output on the workers' standard error, and,
//! while no thread drives the hub, for the workers' messages. `keep` returns work that needs the front (starting and
//! reaping processes, callbacks) as a [`Chore`].

use super::fill::RELIEF;
use super::{Hub, Inner, State};
use crate::pool::burst::POLLING;
use crate::pool::link::hub_page::level;
use crate::pool::packet::IDLE;
use crate::pool::scheduler::{JobId, WorkerId};
use crate::shm::buffers;
use maniple_sys::clock;
use maniple_sys::ready::{self, Interest};
use maniple_sys::{AsHandle, BorrowedHandle};
use std::sync::Arc;
use std::time::Duration;

/// Work that the front must do.
#[derive(Debug, PartialEq, Eq)]
pub enum Chore {
    /// Call [`Hub::serve_starts`] in a thread of its own.
    Start,
    /// End workers as [`Hub::next_end`] says, until it returns `None`.
    End,
    /// This worker's process has ended: reap it, and call [`Hub::exited`].
    Reap(WorkerId),
    /// The handle that was passed to [`Hub::listen_to`] for this worker can be read: read everything, otherwise the
    /// same chore is returned again at once. If its other end is closed, call [`Hub::listen_no_more`].
    Heard(WorkerId),
    /// A job whose end has to be reported to the front has ended. If the ends are gathered, it is the first of those
    /// that [`Hub::take_ends`] returns.
    Completed(JobId),
    /// Call [`Hub::fill`] in a thread of its own.
    Fill,
    /// The pool and all its workers have ended. The keeper may return.
    Done,
    /// No work: the time limit expired, or the front requested the keeper's return ([`Hub::kick`]).
    Idle,
}

/// How often the keeper checks an unattended hub while tasks are short and many.
const BRISK: Duration = Duration::from_micros(200);

/// The longest time between two checks of the keeper while a pool is in use, for events that wake no thread, such as a
/// worker that was stopped before it took its task.
const ROUND: Duration = Duration::from_millis(100);
/// How often it checks if a step has to be retried soon.
const TICK: Duration = Duration::from_millis(1);
/// How often it checks if it cannot be woken because of a shortage.
const UNWATCHED: Duration = Duration::from_millis(10);

/// The time of the keeper's next check by itself.
#[derive(Debug)]
pub(super) struct Attention {
    /// Within [`ROUND`].
    pub near: bool,
    /// Within [`TICK`].
    pub ticks: bool,
    /// When it looks at everything again.
    pub until: u64,
    /// When it last looked at this process's limits.
    pub lent_at: u64,
    /// How many calls there have been, and how many the keeper knows of.
    pub calls: u64,
    known: u64,
}

impl Attention {
    fn has_new_calls(&mut self) -> bool {
        std::mem::replace(&mut self.known, self.calls) != self.calls
    }
}

impl Default for Attention {
    /// A keeper that has not begun checks everything first.
    fn default() -> Self {
        Attention { near: true, ticks: true, until: 0, lent_at: 0, calls: 0, known: 0 }
    }
}

/// How long (ns) a terminated pool waits until its workers' output is written.
const LAST_OUTPUT: u64 = 500_000_000;

struct Watched {
    worker: WorkerId,
    wire: Option<Arc<dyn AsHandle + Send + Sync>>,
    watch: Option<Arc<crate::process::ExitWatch>>,
    stderr: Option<Arc<maniple_sys::atfork::HubOnly>>,
    extra: Option<Arc<maniple_sys::OwnedHandle>>,
}

impl Hub {
    /// Waits for the next chore, at most for `limit`.
    pub fn keep(&self, limit: Duration) -> Chore {
        let inner = self.shared();
        let started = std::time::Instant::now();
        let mut quiet = 0;
        loop {
            let mut st = self.lock();
            let mut news = false;
            if let Some(turn) = st.seats.take().or_else(|| st.seats.relieve(clock::now().saturating_sub(RELIEF))) {
                news = inner.has_news(&mut st);
                inner.receive(&mut st);
                if !st.call_next(turn) && inner.call_filler(&mut st) {
                    return Chore::Fill;
                }
            } else {
                // The driver may be in a source.
                inner.look_at_memory(&mut st);
                inner.stir(&mut st);
            }
            inner.give_up_starts(&mut st);
            self.inner.assure_deputy(&mut st);
            let chore = next_chore(&mut st);
            let waits = chore == Some(Chore::Done) && self.waits_for_output(&mut st);
            if let Some(chore) = chore.filter(|_| !waits) {
                return chore;
            }
            if std::mem::take(&mut st.front_called) || started.elapsed() >= limit {
                return Chore::Idle;
            }
            quiet = if news { 0 } else { quiet + 1 };
            let mut timeout = self.settle_to_sleep(&mut st, quiet).min(limit);
            if timeout.is_zero() {
                continue;
            }
            if st.slots.values().any(|p| p.wire_rests) {
                timeout = timeout.min(UNWATCHED);
            }
            let now = clock::now();
            for wait in [st.wait_for_start(now), st.wait_for_end(now)].into_iter().flatten() {
                timeout = timeout.min(Duration::from_nanos(wait).max(TICK));
            }
            let is_full = inner.outlet.is_full();
            if is_full || waits {
                timeout = timeout.min(UNWATCHED);
            }
            if inner.keeps_memory(&st) {
                timeout = timeout.min(IDLE);
            }
            if st.keeper.has_new_calls() || st.wants_look() {
                timeout = timeout.min(ROUND);
            }
            (st.keeper.near, st.keeper.ticks) = (timeout <= ROUND, timeout <= TICK);
            st.keeper.until = now.saturating_add(timeout.as_nanos() as u64);
            let watched: Vec<Watched> = st
                .slots
                .iter()
                .map(|(worker, p)| Watched {
                    worker,
                    wire: p.link.watched().filter(|_| p.wire_open && !p.wire_rests && !p.damaged),
                    watch: p.watch.clone().filter(|_| !p.reaping),
                    stderr: p.stderr.clone().filter(|_| !is_full),
                    extra: p.extra.clone(),
                })
                .collect();
            let rested = st.slots.values().any(|p| p.wire_rests);
            drop(st);
            self.sleep_on(&watched, timeout);
            inner.packer.arena().trim(IDLE);
            let mut st = self.lock();
            if clock::now().saturating_sub(st.keeper.lent_at) >= ROUND.as_nanos() as u64 {
                st.keeper.lent_at = clock::now();
                st.lend_limits();
            }
            if rested {
                st.slots.values_mut().for_each(|p| p.wire_rests = false);
            }
            if st.sched.open_jobs() == 0 {
                st.slots.values_mut().for_each(|p| p.link.trim());
                buffers::trim();
            }
        }
    }

    /// Arms the hub's bell as far as this thread may arm it, and returns how long to sleep.
    fn settle_to_sleep(&self, st: &mut State, quiet: u32) -> Duration {
        const LONG: Duration = Duration::from_secs(3600);
        let inner = self.shared();
        if st.seats.is_taken() {
            st.burst.end();
            let now = clock::now();
            let relief = st.seats.away_since().map(|since| since.saturating_add(RELIEF).saturating_sub(now));
            let next = relief.into_iter().chain(inner.next_memory_look(st, now)).min();
            return next.map_or(LONG, |nanos| Duration::from_nanos(nanos).max(TICK));
        }
        if st.burst.poll() {
            inner.page.disarm();
            return POLLING;
        }
        // A worker whose link was full could not receive the stop frame.
        let stop_due = st.slots.values().any(|p| p.stop_due && !p.damaged);
        let next_look = inner.next_look(st, clock::now()).map(|nanos| Duration::from_nanos(nanos).max(TICK));
        let quiet_sleep = if stop_due { TICK } else { next_look.unwrap_or(LONG) };
        let Some(level) = st.unattended_level() else {
            inner.page.disarm();
            return quiet_sleep;
        };
        if level == level::KEEPER && quiet < 3 {
            // Many answers arrive: check again soon instead of being woken for each.
            return BRISK;
        }
        inner.page.arm(level);
        if inner.has_stale_news(st, level) {
            inner.page.disarm();
            return Duration::ZERO;
        }
        quiet_sleep
    }

    /// The pool is over: whether the program's standard error still has to take what workers have written. A pool that
    /// was terminated does not wait long for that.
    fn waits_for_output(&self, st: &mut State) -> bool {
        if self.shared().outlet.is_empty() {
            return false;
        }
        let now = clock::now();
        !st.terminated || now < *st.over_at.get_or_insert(now) + LAST_OUTPUT
    }

    fn sleep_on(&self, watched: &[Watched], timeout: Duration) {
        let inner = self.shared();
        let mut handles: Vec<BorrowedHandle<'_>> = vec![inner.kick.as_handle()];
        for w in watched {
            handles.extend(w.wire.as_deref().map(|wire| wire.as_handle()));
            handles.extend(w.watch.as_deref().map(AsHandle::as_handle));
            handles.extend(w.stderr.as_deref().map(AsHandle::as_handle));
            handles.extend(w.extra.as_deref().map(AsHandle::as_handle));
        }
        let mut interests: Vec<Interest<'_>> = handles.into_iter().map(Interest::new).collect();
        match ready::wait(&mut interests, Some(timeout)) {
            Ok(0) => return,
            Ok(_) => {}
            // The system lacks a resource, or allows fewer descriptors than are open: everything that can be checked
            // without it is checked.
            Err(_) => return std::thread::sleep(timeout.min(UNWATCHED)),
        }
        inner.kick.clear();
        // The first is the kick.
        let mut at = interests.iter().skip(1).map(Interest::ready);
        let mut written = Vec::new();
        let mut st = self.lock();
        for w in watched {
            let wire = w.wire.is_some() && at.next().unwrap_or(false);
            let ended = w.watch.is_some() && at.next().unwrap_or(false);
            let wrote = w.stderr.is_some() && at.next().unwrap_or(false);
            let extra = w.extra.is_some() && at.next().unwrap_or(false);
            let Some(slot) = st.slots.get_mut(w.worker) else { continue };
            slot.extra_due |= extra;
            if wrote {
                slot.take_stderr(&mut written);
            }
            if wire {
                match slot.link.drain() {
                    // A wire whose other end is closed stays readable; only the worker's exit, which must follow,
                    // counts.
                    Ok(open) => slot.wire_open &= open,
                    // A missing resource may be available again at the next check; the worker's messages are in its
                    // ring.
                    Err(why) if why.is_local() => slot.wire_rests = true,
                    Err(why) => slot.condemn(&why),
                }
            }
            if ended {
                slot.reaping = true;
                slot.reap_due = true;
            }
        }
        drop(st);
        inner.outlet.forward(&written);
    }
}

impl Inner {
    /// Whether memory is kept for later calls, although there may be none.
    fn keeps_memory(&self, st: &State) -> bool {
        self.packer.arena().idle_bytes() > 0 || buffers::kept() > 0 || st.slots.values().any(|p| p.link.keeps_memory())
    }
}

impl State {
    /// How long (ns) until starts are due of which the starter does not know; `None`: none will be.
    pub(super) fn wait_for_start(&self, now: u64) -> Option<u64> {
        self.starts.wait(now).filter(|_| !self.starter.is_called())
    }

    /// Whether the keeper, if it is not woken, comes only after that time.
    pub(super) fn keeper_comes_after(&self, time: u64) -> bool {
        self.keeper.until > time
    }
}

fn next_chore(st: &mut State) -> Option<Chore> {
    if let Some((worker, slot)) = st.slots.iter_mut().find(|(_, p)| p.extra_due) {
        slot.extra_due = false;
        return Some(Chore::Heard(worker));
    }
    if let Some((worker, slot)) = st.slots.iter_mut().find(|(_, p)| p.reap_due) {
        slot.reap_due = false;
        return Some(Chore::Reap(worker));
    }
    if let Some(job) = st.notices.pop_front() {
        // Told: from here on it is kept for its ticket alone.
        if let Some(j) = st.jobs.get_mut(&job) {
            j.notify = false;
            if j.orphaned {
                st.discard(job);
            }
        }
        return Some(Chore::Completed(job));
    }
    if let Some(first) = st.ends.first() {
        return Some(Chore::Completed(first));
    }
    let now = clock::now();
    if st.wait_for_start(now) == Some(0) && st.starter.call() {
        return Some(Chore::Start);
    }
    if st.wait_for_end(now) == Some(0) {
        return Some(Chore::End);
    }
    st.is_over().then(|| {
        st.filler.wake();
        st.starter.wake();
        st.deputy.wake();
        Chore::Done
    })
}
