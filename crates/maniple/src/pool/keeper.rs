//! The pool's chores: starting workers, seeing them out, and the thread that does so.
//!
//! Where a worker cannot be started because descriptors, memory or processes have run out, the thread tries again after a pause that grows.
//! The hub does not get to know, so the pool goes on with the workers that it has. Without any worker, calls end with an error after some
//! seconds, and the thread goes on to try: the pool is whole again when there is enough of what was short. Where workers end before they
//! are ready, and others work, the pause grows as well.

use super::Shared;
use crate::error::{Error, ProcessError, Result};
use crate::events::{self, Relay};
use crate::startup::{self, StartMethod};
use maniple_engine::pool::{Chore, WorkerId};
use maniple_engine::process::{Child, Launch, Server};
use maniple_sys::AsHandle;
use maniple_sys::{OwnedHandle, memory, tap};
use std::collections::HashMap;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// The processes of a pool.
#[derive(Debug, Default)]
pub(super) struct Crew {
    children: HashMap<WorkerId, Arc<Child>>,
    relays: HashMap<WorkerId, Arc<Relay>>,
    server: Option<Server>,
    /// Whoever is started from now on is ended at once.
    terminated: bool,
    /// Why the last start failed.
    pub(super) start_error: Option<String>,
}

/// The thread that keeps the pool.
#[derive(Debug)]
pub(super) struct Keeper {
    thread: JoinHandle<()>,
    /// Disconnected at its end.
    ended: Receiver<()>,
}

/// Starts the thread that keeps the pool.
pub(super) fn start(shared: &Arc<Shared>) -> Result<()> {
    let mine = shared.clone();
    let (alive, ended) = channel();
    let thread = std::thread::Builder::new()
        .name("maniple-keeper".into())
        .spawn(move || {
            let _alive: Sender<()> = alive;
            mine.keep();
        })
        .map_err(|e| Error::Process(ProcessError::Start(format!("no thread for the pool's chores: {e}"))))?;
    *shared.keeper.lock().unwrap_or_else(PoisonError::into_inner) = Some(Keeper { thread, ended });
    Ok(())
}

/// Pauses before a start is tried again.
const SHORTEST: Duration = Duration::from_millis(10);
const LONGEST: Duration = Duration::from_secs(1);
/// The pause before a thread is tried again.
const AGAIN: Duration = Duration::from_millis(50);
/// How long the calls of a pool without a worker wait for what has run out.
const PATIENCE: Duration = Duration::from_secs(10);

/// Workers that are still to be started.
#[derive(Debug, Default)]
struct Due {
    count: usize,
    /// When the next is started, and the pause before that.
    later: Option<(Instant, Duration)>,
    /// When the first was started since a worker became ready, and how many had become ready by then.
    since: Option<(Instant, u64)>,
}

impl Due {
    /// How long there is nothing to do.
    fn pause(&self) -> Duration {
        match self.later {
            Some((again, _)) if self.count > 0 => again.saturating_duration_since(Instant::now()),
            _ => Duration::from_secs(3600),
        }
    }

    fn is_due(&self) -> bool {
        self.count > 0 && self.later.is_none_or(|(again, _)| again <= Instant::now())
    }

    /// One more is about to be started.
    fn begin(&mut self, greeted: u64) {
        if self.since.is_none_or(|(_, before)| before != greeted) {
            self.since = Some((Instant::now(), greeted));
            self.later = None;
        }
    }

    /// One is started, or counted as failed by the hub, which gives up after some.
    fn made(&mut self) {
        self.count -= 1;
        // The pause stays, for it may lack something before it is ready.
        self.later = self.later.map(|(_, pause)| (Instant::now(), pause));
    }

    fn postpone(&mut self) {
        let pause = self.later.map_or(SHORTEST, |(_, pause)| LONGEST.min(2 * pause));
        self.later = Some((Instant::now() + pause, pause));
    }

    fn is_hopeless(&self) -> bool {
        self.since.is_some_and(|(since, _)| since.elapsed() > PATIENCE)
    }
}

/// Reads the standard error that programs still have which tasks of dead workers have started: they would be killed for writing to a closed
/// pipe. Those for which there is no thread now are left.
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
    fn keep(&self) {
        let mut due = Due::default();
        let mut late = Vec::new();
        loop {
            if due.is_due() {
                self.start_due(&mut due);
            }
            read_late(&mut late);
            let pause = if late.is_empty() { due.pause() } else { due.pause().min(AGAIN) };
            match self.hub.keep(pause) {
                Chore::Start(count) => due.count += count,
                Chore::Reap(worker) => {
                    let child = self.crew().children.get(&worker).cloned();
                    let exit = child.and_then(|c| c.wait().ok());
                    // Its last events come before the news of its end.
                    self.deliver(worker);
                    self.crew().children.remove(&worker);
                    self.crew().relays.remove(&worker);
                    let ended = self.hub.exited(worker, exit);
                    late.extend(ended.late.map(Arc::new));
                    if ended.lacking {
                        due.count += 1;
                        // Others that are starting are as short of it.
                        let why = "workers lack something before they are ready; their standard error says what";
                        self.go_without(&mut due, why, false);
                    }
                }
                Chore::Heard(worker) => self.deliver(worker),
                Chore::Completed(_) | Chore::Idle => {}
                Chore::Done => break,
            }
        }
        read_late(&mut late);
        // The server has nothing more to fork; dropped, it ends.
        let server = self.crew().server.take();
        drop(server);
    }

    fn start_due(&self, due: &mut Due) {
        while due.count > 0 {
            if self.crew().terminated {
                // The hub no longer waits for them.
                due.count = 0;
                return;
            }
            let needed = self.hub.is_running() || !self.hub.open_jobs().is_empty();
            due.begin(self.hub.greeted());
            if let Err(Error::System(error)) = self.try_start_worker(needed)
                && needed
                && error.engine().is_shortage()
            {
                let hopeful = !self.crew().children.is_empty();
                return self.go_without(due, &error.to_string(), hopeful);
            }
            due.made();
        }
    }

    /// Something has run out, `why` says what: the next is started later. Calls that wait for long while no worker is ready end, unless
    /// there is hope in those that start.
    fn go_without(&self, due: &mut Due, why: &str, hopeful: bool) {
        due.postpone();
        if !hopeful && due.is_hopeless() {
            self.hub.give_up_jobs(why.to_owned());
        }
    }

    /// Starts one worker.
    pub(super) fn start_worker(&self) -> Result<()> {
        self.try_start_worker(false).map_err(|error| match error {
            Error::System(error) => Error::Process(ProcessError::Start(error.to_string())),
            other => other,
        })
    }

    /// The same; `again`: where something has run out, the hub is not told, because it will be tried again.
    fn try_start_worker(&self, again: bool) -> Result<()> {
        let link = if again { self.hub.try_create_link() } else { self.hub.create_link() };
        let (worker, mut handles) = match link {
            Err(error) if again && !error.is_shortage() => self.hub.create_link().map_err(|_| error)?,
            other => other?,
        };
        let (relay, pipe, level) =
            events::relay().map_or((None, None, 0), |(relay, pipe, level)| (Some(relay), Some(pipe), level));
        let started = self.setup(level, pipe).and_then(|setup| {
            handles.extend(setup);
            self.start_process(handles)
        });
        match started {
            Ok(child) => {
                let (pid, watch) = (child.pid(), child.watch().clone());
                let child = Arc::new(child);
                {
                    let mut crew = self.crew();
                    crew.children.insert(worker, child.clone());
                    if let Some(relay) = relay {
                        self.hub.listen_to(worker, relay.handle().clone());
                        crew.relays.insert(worker, Arc::new(relay));
                    }
                    if crew.terminated {
                        let _ = child.kill();
                    }
                }
                self.hub.adopt_watched(worker, pid, watch);
                Ok(())
            }
            Err(error) => {
                self.crew().start_error = Some(error.to_string());
                if again && error.is_shortage() {
                    self.hub.postpone(worker);
                } else {
                    self.hub.disown(worker, error.to_string());
                }
                Err(error.into())
            }
        }
    }

    /// Hands on what a worker has told.
    fn deliver(&self, worker: WorkerId) {
        // Not with the crew locked: a subscriber is the user's code.
        let relay = self.crew().relays.get(&worker).cloned();
        if let Some(relay) = relay
            && !relay.deliver()
        {
            self.hub.listen_no_more(worker);
        }
    }

    /// Which events are wanted, the initializer and its arguments, in memory that the worker reads once; the pipe for events; and copies
    /// of the descriptors in the arguments.
    fn setup(&self, level: u8, pipe: Option<OwnedHandle>) -> maniple_engine::Result<Vec<OwnedHandle>> {
        let doing = |source| maniple_engine::Error::Os { doing: "lay out the initializer's arguments", source };
        let memory = memory::create("maniple-setup", 1 + self.setup.bytes.len()).map_err(doing)?;
        memory::write_at(memory.as_handle(), &[level], 0).map_err(doing)?;
        memory::write_at(memory.as_handle(), &self.setup.bytes, 1).map_err(doing)?;
        let mut handles = vec![memory];
        handles.extend(pipe);
        for handle in &self.setup.handles {
            handles.push(memory::duplicate(handle).map_err(doing)?);
        }
        Ok(handles)
    }

    fn launch(&self) -> Launch {
        startup::launch(self.program.as_deref())
    }

    fn start_process(&self, handles: Vec<OwnedHandle>) -> maniple_engine::Result<Child> {
        match self.method {
            StartMethod::Spawn => self.launch().role(startup::WORKER).handles(handles).start(),
            StartMethod::ForkServer => {
                let mut crew = self.crew();
                if let Some(server) = &crew.server {
                    match server.fork(&handles) {
                        Err(error) if error.is_shortage() && server.is_alive() => return Err(error),
                        Err(_) => {}
                        child => return child,
                    }
                }
                // There is none yet, or someone has killed it.
                let server = Server::start(self.launch().role(startup::SERVER))?;
                let child = server.fork(&handles);
                crew.server = Some(server);
                child
            }
        }
    }

    /// Ends all workers, whatever they do.
    pub(super) fn terminate(&self) {
        // First the hub, which then takes the deaths for what they are and starts nobody.
        self.hub.terminate();
        let mut crew = self.crew();
        crew.terminated = true;
        for child in crew.children.values() {
            let _ = child.kill();
        }
    }

    /// Waits until all workers have ended and nothing is left of them.
    pub(super) fn join(&self) {
        let mut keeper = self.keeper.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(keeper) = keeper.take() {
            let _ = keeper.thread.join();
        }
    }

    /// The same for at most `limit`. Workers that were killed end at once, unless the system holds them.
    pub(super) fn join_within(&self, limit: Duration) {
        let mut keeper = self.keeper.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(keeper) = keeper.take()
            && keeper.ended.recv_timeout(limit) != Err(RecvTimeoutError::Timeout)
        {
            let _ = keeper.thread.join();
        }
    }

    /// For a pool whose keeper never started.
    pub(super) fn abandon(&self, limit: Duration) {
        let children: Vec<_> = self.crew().children.drain().collect();
        for (_, child) in children {
            let _ = child.kill();
            let _ = child.wait_timeout(limit);
        }
        let server = self.crew().server.take();
        drop(server);
    }
}
