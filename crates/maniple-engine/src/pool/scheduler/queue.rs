//! The jobs that have something to give: by priority, and with a fair share of the workers among equals.
//!
//! Each call with several tasks has an account of the work that workers were given of it. The call with the smallest
//! account goes next. All calls of a single task share one account, and are served in the order in which they came.

use super::*;

/// The jobs with tasks that wait, or that can be requested.
#[derive(Debug, Default)]
pub(super) struct Queue(Vec<Level>);

/// The jobs of one priority.
#[derive(Debug, Default)]
struct Level {
    priority: i32,
    singles: VecDeque<JobId>,
    /// How many of them wait: a call that has ended leaves the queue when its turn comes.
    waiting: usize,
    /// The work (ns) that workers were given of the single calls.
    singles_used: u64,
    /// Calls with several tasks.
    calls: Vec<JobId>,
    /// No account of this level is below this one.
    floor: u64,
}

/// The job that is served next.
pub(super) struct Turn {
    pub job: JobId,
    /// Whether it is the only one that can be served now.
    pub alone: bool,
    level: usize,
    /// Its place among the calls; `None`: it is the first single call.
    place: Option<usize>,
}

impl Queue {
    pub fn is_empty(&self) -> bool {
        self.0.iter().all(|level| level.singles.is_empty() && level.calls.is_empty())
    }

    pub fn singles(&self) -> usize {
        self.0.iter().map(|level| level.waiting).sum()
    }

    /// A job has ended, and no longer waits.
    pub fn forget<P>(&mut self, job: &Job<P>) {
        let level = self.0.iter_mut().find(|level| level.priority == job.priority());
        if let Some(level) = level.filter(|_| job.queued && job.is_single()) {
            level.waiting -= 1;
        }
    }

    pub fn len(&self) -> usize {
        self.0.iter().map(|level| level.singles.len() + level.calls.len()).sum()
    }

    pub fn iter(&self) -> impl Iterator<Item = JobId> {
        self.0.iter().flat_map(|level| level.singles.iter().chain(&level.calls)).copied()
    }

    /// Puts a job into the queue. `first`: before all single calls of its priority.
    pub fn put<P>(&mut self, id: JobId, job: &mut Job<P>, first: bool) {
        job.queued = true;
        let priority = job.priority();
        let at = self.0.partition_point(|level| level.priority < priority);
        if self.0.get(at).is_none_or(|level| level.priority != priority) {
            self.0.insert(at, Level { priority, ..Level::default() });
        }
        let level = &mut self.0[at];
        if !job.is_single() {
            // A call that has waited for its source has saved nothing up.
            job.used = job.used.max(level.floor);
            level.calls.push(id);
        } else {
            level.waiting += 1;
            if level.singles.is_empty() {
                level.singles_used = level.singles_used.max(level.floor);
            }
            if first {
                level.singles.push_front(id);
            } else {
                level.singles.push_back(id);
            }
        }
    }

    /// The job that is served next, of those that were not skipped in this plan.
    pub fn next<P>(&mut self, jobs: &SlotMap<JobId, Job<P>>, plan: u64) -> Option<Turn> {
        for (index, level) in self.0.iter_mut().enumerate() {
            level.calls.retain(|&id| jobs.contains_key(id));
            while level.singles.front().is_some_and(|&id| !jobs.contains_key(id)) {
                level.singles.pop_front();
            }
            let single = level.singles.front().filter(|&&id| jobs[id].passed != plan);
            let single = single.map(|&id| (level.singles_used, id, None));
            let calls = level.calls.iter().enumerate().filter_map(|(place, &id)| {
                let job = &jobs[id];
                (job.passed != plan).then_some((job.used, id, Some(place)))
            });
            let mut count = 0;
            let least = single.into_iter().chain(calls).inspect(|_| count += 1).min_by_key(|&(used, _, _)| used);
            if let Some((used, job, place)) = least {
                level.floor = level.floor.max(used);
                return Some(Turn { job, alone: count == 1, level: index, place });
            }
        }
        None
    }

    /// Charges the work that was given of a job.
    pub fn charge<P>(&mut self, turn: &Turn, job: &mut Job<P>, nanos: u64) {
        match turn.place {
            Some(_) => job.used = job.used.saturating_add(nanos),
            None => {
                let used = &mut self.0[turn.level].singles_used;
                *used = used.saturating_add(nanos);
            }
        }
    }

    /// The job has nothing more to give.
    pub fn remove<P>(&mut self, turn: &Turn, job: &mut Job<P>) {
        job.queued = false;
        let level = &mut self.0[turn.level];
        match turn.place {
            Some(place) => {
                level.calls.remove(place);
            }
            None => {
                level.singles.pop_front();
                level.waiting -= 1;
            }
        }
        if level.singles.is_empty() && level.calls.is_empty() && self.0.len() > 1 {
            self.0.remove(turn.level);
        }
    }
}

impl<P> Job<P> {
    /// Whether it has one task, which was submitted with it.
    fn is_single(&self) -> bool {
        self.shape.items == Some(1) && self.shape.supply == Supply::Complete
    }

    fn priority(&self) -> i32 {
        self.shape.terms.as_ref().map_or(0, |terms| terms.priority)
    }
}
