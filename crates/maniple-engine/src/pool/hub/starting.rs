//! Starts of workers: the front starts a process, the hub decides when, and what a failure means.

use super::{Hub, Inner, State};
use crate::error::Result;
use crate::pool::job::Loss;
use crate::pool::link::HubLink;
use crate::pool::link::shm::{Made, ShmLink};
use crate::pool::scheduler::WorkerId;
use maniple_sys::atfork::HubOnly;
use maniple_sys::{OwnedHandle, clock};
use std::sync::Arc;

impl Hub {
    /// Begins a start, if one is due: its worker, and the handles that the worker must be given, in this order. The front starts a process
    /// with them and says [`Hub::adopt`], or, also where this call is an error, [`Hub::start_failed`].
    ///
    /// # Errors
    /// No shared memory or no descriptor left.
    pub fn begin_start(&self) -> Result<Option<(WorkerId, Vec<OwnedHandle>)>> {
        let inner = self.shared();
        self.begin_start_by(|| {
            let Made { link, handles, stderr } = ShmLink::create(&inner.page, &inner.lifelines, inner.tapped)?;
            Ok((HubLink::Shm(link), stderr, handles.into_vec()))
        })
    }

    /// The same with a link that `make` makes, beside what the front needs for the start.
    pub(crate) fn begin_start_by<T>(
        &self,
        make: impl FnOnce() -> Result<(HubLink, Option<Arc<HubOnly>>, T)>,
    ) -> Result<Option<(WorkerId, T)>> {
        self.check()?;
        let mut st = self.lock();
        self.shared().advance(&mut st);
        let greeted = st.sched.greeted();
        if !st.starts.begin(greeted, clock::now()) {
            return Ok(None);
        }
        drop(st);
        let (link, stderr, given) = make()?;
        Ok(Some((self.take_in_link(link, stderr), given)))
    }

    /// A start has failed, and `why`; its link is thrown away, if there is one. `is_short`: the system lacks something that may be there
    /// again. Then the start is tried again later as long as the pool needs it, and counts as failed otherwise. Where no worker is ready for
    /// long, open jobs end with an error that says `why`; later ones have their answer once a worker was started.
    pub fn start_failed(&self, worker: Option<WorkerId>, why: String, is_short: bool) {
        if self.check().is_err() {
            return;
        }
        let inner = self.shared();
        let mut st = self.lock();
        let thrown_away = worker.and_then(|worker| st.slots.remove(worker));
        let needed = (st.sched.is_running() || st.sched.open_jobs() > 0) && !st.terminated;
        if is_short && needed {
            if let Some(worker) = worker {
                st.sched.worker_postponed(worker);
            }
            let greeted = st.sched.greeted();
            // Those that are starting may become ready yet.
            if st.starts.put_off(greeted, clock::now()) && !st.slots.values().any(|slot| slot.pid != 0) {
                inner.give_up_jobs(&mut st, why);
            }
        } else if st.starts.end() || worker.is_some() {
            st.broken = Some(Arc::new(Loss::unstarted(why)));
            match worker {
                Some(worker) => st.sched.worker_gone(worker, |_| false),
                None => st.sched.start_failed(),
            }
        }
        inner.advance(&mut st);
        inner.stir(&mut st);
        drop(st);
        drop(thrown_away);
        inner.kick.kick();
    }
}

impl Inner {
    /// A worker lacked something before it was ready. The hub does not count that as a start that has failed: another is due, later.
    pub(super) fn worker_lacked(&self, st: &mut State, worker: WorkerId, said: &str) {
        st.sched.worker_postponed(worker);
        let greeted = st.sched.greeted();
        // Others that are starting are as short of it.
        if st.starts.lacked(greeted, clock::now()) {
            let mut why = "workers lack descriptors, memory or processes before they are ready".to_owned();
            if !said.is_empty() {
                why = format!("{why}; the last of them wrote to its standard error:\n{said}");
            }
            self.give_up_jobs(st, why);
        }
    }

    /// No worker can be started, since the system lacks something. Where no worker is ready, what is open ends with an error that says
    /// `why`. The pool is not given up.
    fn give_up_jobs(&self, st: &mut State, why: String) {
        let before = st.broken.replace(Arc::new(Loss::unstarted(why)));
        st.sched.drop_open_jobs();
        self.advance(st);
        st.broken = before;
    }
}
