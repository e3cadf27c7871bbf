//! The pool's chores: starting and reaping workers, and the thread that does so.
//!
//! The engine decides when a worker is started, when a start is retried, and when workers are ended.

use super::{Shared, Workers};
use crate::error::{Error, ProcessError, Result};
use crate::events::{self, Relay};
use crate::startup::{self, StartMethod};
use crate::worker_setup::{self, Place};
use maniple_engine::pool::policy::{AGAIN, LINGER};
use maniple_engine::pool::{Chore, EndTerms, WorkerId};
use maniple_engine::process::{Child, Launch, Server};
use maniple_sys::{AsHandle, OwnedHandle, tap};
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// The processes of a pool.
#[derive(Debug, Default)]
pub(super) struct Crew {
    children: HashMap<WorkerId, Arc<Child>>,
    relays: HashMap<WorkerId, Arc<Relay>>,
    /// The reason why the last start failed.
    pub(super) start_error: Option<String>,
}

/// The process that forks workers. Its lock is apart, because a start may take long.
#[derive(Debug, Default)]
pub(super) struct ForkServer {
    server: Mutex<Option<Server>>,
    /// All workers have ended.
    is_unneeded: AtomicBool,
}

impl ForkServer {
    fn fork(&self, handles: &[OwnedHandle], launch: impl FnOnce() -> Launch) -> maniple_engine::Result<Child> {
        let mut server = self.server.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(server) = &*server {
            match server.fork(handles) {
                Err(error) if error.is_shortage() && server.is_alive() => return Err(error),
                Err(_) => {}
                child => return child,
            }
        }
        // There is none yet, or another process has killed it.
        server.insert(Server::start(launch())?).fork(handles)
    }

    /// The server has no further process to fork: ends it. A start that is not over yet does that at its end.
    fn end(&self) {
        self.is_unneeded.store(true, Ordering::SeqCst);
        self.end_if_unneeded();
    }

    fn end_if_unneeded(&self) {
        if self.is_unneeded.load(Ordering::SeqCst)
            && let Ok(mut server) = self.server.try_lock()
        {
            drop(server.take());
        }
    }
}

/// The thread that keeps the pool.
#[derive(Debug)]
pub(super) struct Keeper {
    thread: JoinHandle<()>,
    ended: Arc<Ended>,
}

/// Whether the thread has done all of its work.
#[derive(Debug, Default)]
struct Ended {
    is_so: Mutex<bool>,
    changed: Condvar,
}

impl Ended {
    /// Waits for at most `limit`. Returns false if the time was over first.
    fn wait(&self, limit: Option<Duration>) -> bool {
        let mut is_so = self.is_so.lock().unwrap_or_else(PoisonError::into_inner);
        let deadline = limit.and_then(|limit| Instant::now().checked_add(limit));
        while !*is_so {
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            is_so = match left {
                None => self.changed.wait(is_so).unwrap_or_else(PoisonError::into_inner),
                Some(Duration::ZERO) => return false,
                Some(left) => self.changed.wait_timeout(is_so, left).unwrap_or_else(PoisonError::into_inner).0,
            };
        }
        true
    }
}

/// Reports the end of the thread, also if it panics.
struct Alive(Arc<Ended>);

impl Drop for Alive {
    fn drop(&mut self) {
        *self.0.is_so.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.0.changed.notify_all();
    }
}

/// Whether the caller is the thread that keeps this pool.
pub(super) fn keeps(shared: &Shared) -> bool {
    let keeper = shared.keeper.lock().unwrap_or_else(PoisonError::into_inner);
    keeper.as_ref().is_some_and(|keeper| keeper.thread.thread().id() == std::thread::current().id())
}

/// The longest wait of the thread for a chore.
const LONG: Duration = Duration::from_secs(3600);

/// Starts the thread that keeps the pool.
pub(super) fn start(shared: &Arc<Shared>) -> Result<()> {
    let mine = shared.clone();
    let ended = Arc::new(Ended::default());
    let alive = Alive(ended.clone());
    let thread = std::thread::Builder::new()
        .name("maniple-keeper".into())
        .spawn(move || {
            let _alive = alive;
            mine.keep();
        })
        .map_err(|e| Error::Process(ProcessError::Start(format!("no thread could be started for the pool: {e}"))))?;
    *shared.keeper.lock().unwrap_or_else(PoisonError::into_inner) = Some(Keeper { thread, ended });
    Ok(())
}

/// Reads the standard error that programs still hold that tasks of dead workers have started. Such a program would be
/// killed for writing to a closed pipe. Pipes for which no thread can be started are dropped.
fn read_late(late: &mut Vec<Arc<OwnedHandle>>) {
    while let Some(pipe) = late.last().cloned() {
        let read = move || tap::forward_until_closed(pipe.as_handle());
        if std::thread::Builder::new().name("maniple-late-output".into()).spawn(read).is_err() {
            return;
        }
        late.pop();
    }
}

impl Shared {
    fn keep(self: &Arc<Self>) {
        let mut late = Vec::new();
        loop {
            read_late(&mut late);
            match self.hub.keep(if late.is_empty() { LONG } else { AGAIN }) {
                Chore::Start => self.start_starter(),
                Chore::End => self.end_workers(),
                Chore::Reap(worker) => {
                    let child = self.crew().children.get(&worker).cloned();
                    let exit = child.and_then(|c| c.wait().ok());
                    // The last events of the worker precede the report of its end.
                    self.deliver(worker);
                    self.crew().children.remove(&worker);
                    self.crew().relays.remove(&worker);
                    late.extend(self.hub.exited(worker, exit).map(Arc::new));
                }
                Chore::Heard(worker) => self.deliver(worker),
                Chore::Fill => self.start_filler(),
                Chore::Completed(_) | Chore::Idle => {}
                Chore::Done => break,
            }
        }
        read_late(&mut late);
        self.fork_server.end();
    }

    /// Starts the thread that starts workers. If there can be no such thread, the keeper starts them.
    fn start_starter(self: &Arc<Self>) {
        let mine = self.clone();
        let starter = move || {
            mine.serve_starts(LINGER);
            mine.fork_server.end_if_unneeded();
        };
        if std::thread::Builder::new().name("maniple-starter".into()).spawn(starter).is_err() {
            self.serve_starts(Duration::ZERO);
        }
    }

    fn serve_starts(&self, linger: Duration) {
        self.hub.serve_starts(linger, || {
            // The hub has recorded an error. The pool continues.
            while matches!(self.start_one(), Ok(true) | Err(_)) {}
        });
    }

    /// Starts the thread that encodes the items of calls for which no caller waits. If there can be no such thread, the
    /// keeper encodes them.
    fn start_filler(&self) {
        let hub = self.hub.clone();
        let fill = move || hub.fill(LINGER);
        if std::thread::Builder::new().name("maniple-filler".into()).spawn(fill).is_err() {
            self.hub.fill(Duration::ZERO);
        }
    }

    /// Starts the first workers of a pool.
    pub(super) fn start_all(&self) -> Result<()> {
        loop {
            match self.start_one() {
                Ok(true) => {}
                Ok(false) => return Ok(()),
                Err(error) => return Err(Error::Process(ProcessError::Start(error.to_string()))),
            }
        }
    }

    /// Starts a worker, if one is due now. Returns whether one was.
    fn start_one(&self) -> maniple_engine::Result<bool> {
        let mut begun = None;
        let started = self.start_worker(&mut begun);
        if let Err(error) = &started {
            self.hub.start_failed(begun, error.to_string(), error.is_shortage());
        }
        started
    }

    fn start_worker(&self, begun: &mut Option<WorkerId>) -> maniple_engine::Result<bool> {
        let Some((worker, mut handles)) = self.hub.begin_start()? else { return Ok(false) };
        *begun = Some(worker);
        let (relay, events) = events::relay().map(|(relay, pipe, level)| (relay, (pipe, level))).unzip();
        let started = self.setup(worker, events).and_then(|setup| {
            handles.extend(setup);
            self.start_process(handles)
        });
        let child = started.inspect_err(|error| self.crew().start_error = Some(error.to_string()))?;
        let (pid, watch, child) = (child.pid(), child.watch().clone(), Arc::new(child));
        let mut crew = self.crew();
        crew.children.insert(worker, child.clone());
        if let Some(relay) = relay {
            self.hub.listen_to(worker, relay.handle().clone());
            crew.relays.insert(worker, Arc::new(relay));
        }
        drop(crew);
        if !self.hub.adopt_watched(worker, pid, watch) {
            // The pool was terminated before the process started, and did not wait for that.
            let mut crew = self.crew();
            crew.children.remove(&worker);
            crew.relays.remove(&worker);
            drop(crew);
            let _ = child.kill();
            let _ = child.wait();
        }
        Ok(true)
    }

    /// Passes on a worker's events.
    fn deliver(&self, worker: WorkerId) {
        // The crew is not locked, because a subscriber runs the user's code.
        let relay = self.crew().relays.get(&worker).cloned();
        if let Some(relay) = relay
            && !relay.deliver()
        {
            self.hub.listen_no_more(worker);
        }
    }

    /// Returns the handles of a worker's setup.
    fn setup(&self, worker: WorkerId, events: Option<(OwnedHandle, u8)>) -> maniple_engine::Result<Vec<OwnedHandle>> {
        let Workers { initializer, finalizer, affinity, size, .. } = &self.workers;
        let (number, count) = (self.hub.number_of(worker).unwrap_or_default(), self.hub.processes() + size.spares);
        let processors = affinity.as_ref().map_or(&[][..], |affinity| affinity.of(number, count)).to_vec();
        worker_setup::write(Place { number, count, processors }, events, initializer, finalizer)
    }

    fn launch(&self) -> Launch {
        self.workers.around.add_to(startup::launch(self.program.as_deref()))
    }

    fn start_process(&self, handles: Vec<OwnedHandle>) -> maniple_engine::Result<Child> {
        match self.method {
            StartMethod::Spawn => self.launch().role(startup::WORKER).handles(handles).start(),
            StartMethod::ForkServer => self.fork_server.fork(&handles, || self.launch().role(startup::SERVER)),
        }
    }

    /// Ends all workers at once, also busy ones.
    pub(super) fn terminate(&self) {
        self.hub.terminate(EndTerms::AT_ONCE);
        self.end_workers();
    }

    /// Ends the workers of a terminated pool that are due.
    fn end_workers(&self) {
        while let Some((worker, _)) = self.hub.next_end() {
            if let Some(child) = self.crew().children.get(&worker) {
                let _ = child.kill();
            }
        }
    }

    /// Waits until all workers have ended and were reaped, at most for `limit`. Returns false if they have not.
    pub(super) fn join(&self, limit: Option<Duration>) -> bool {
        if self.hub.check().is_err() {
            // In a forked child there is no keeper.
            return true;
        }
        let keeper = || self.keeper.lock().unwrap_or_else(PoisonError::into_inner);
        // The lock is free meanwhile: another thread may wait for another time.
        let Some(ended) = keeper().as_ref().map(|keeper| keeper.ended.clone()) else { return true };
        if !ended.wait(limit) {
            return false;
        }
        if let Some(keeper) = keeper().take() {
            let _ = keeper.thread.join();
        }
        true
    }

    /// Used for a pool whose keeper never started.
    pub(super) fn abandon(&self, limit: Duration) {
        let children: Vec<_> = self.crew().children.drain().collect();
        for (_, child) in children {
            let _ = child.kill();
            let _ = child.wait_timeout(limit);
        }
        self.fork_server.end();
    }
}
