//! A link without shared memory, on which the tests run the hub: frames are values in queues of the hub's process, as a transport
//! that receives in a thread would keep them.

use super::counters::Counted;
use super::hub_page::{HubPage, Says};
use super::reader::Said;
use super::{Link, kind};
use crate::error::Result;
use crate::pool::packet::{Along, Packet, ReceivedPacket};
use crate::shm::blocks::Arena;
use crate::shm::claim::Claim;
use crate::shm::ring::{Full, Head};
use maniple_sys::AsHandle;
use maniple_sys::ready::Kick;
use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::Duration;

/// The greatest number of frames.
const ROOM: usize = 6;

/// A frame on its way to a worker.
pub(crate) struct Frame {
    pub kind: u16,
    pub aux: u32,
    pub number: u64,
    pub bytes: Vec<u8>,
}

#[derive(Default)]
struct Queues {
    down: VecDeque<(u64, Frame)>,
    // One for each frame that was ever sent.
    claims: Vec<Claim>,
    up: VecDeque<Said>,
    halfway: u64,
    asleep: bool,
    terminated: bool,
}

struct Both {
    queues: Mutex<Queues>,
    woken: Condvar,
    page: HubPage,
    keeper: Kick,
}

impl Both {
    fn lock(&self) -> MutexGuard<'_, Queues> {
        self.queues.lock().unwrap()
    }
}

impl AsHandle for Both {
    fn as_handle(&self) -> maniple_sys::BorrowedHandle<'_> {
        self.keeper.as_handle()
    }
}

/// The hub's end.
pub(crate) struct MemoryLink(Arc<Both>);

/// The worker's end.
pub(crate) struct MemoryWorker(Arc<Both>);

impl MemoryLink {
    pub fn pair(page: &HubPage) -> (MemoryLink, MemoryWorker) {
        let both =
            Both { queues: Mutex::default(), woken: Condvar::new(), page: page.clone(), keeper: Kick::new().unwrap() };
        let both = Arc::new(both);
        (MemoryLink(both.clone()), MemoryWorker(both))
    }
}

impl Link for MemoryLink {
    fn send(&mut self, head: Head, packet: &Packet, _: &Arena) -> Result<Result<u64, Full>> {
        let mut queues = self.0.lock();
        if queues.down.len() >= ROOM {
            return Ok(Err(Full));
        }
        let position = queues.claims.len() as u64;
        queues.claims.push(Claim::default());
        let bytes = packet.bytes.as_slice().to_vec();
        queues.down.push_back((position, Frame { kind: head.kind, aux: head.aux, number: head.number, bytes }));
        Ok(Ok(position))
    }

    fn recv(&mut self) -> Result<Option<Said>> {
        Ok(self.0.lock().up.pop_front())
    }

    fn has_news(&mut self) -> bool {
        !self.0.lock().up.is_empty()
    }

    fn ring(&mut self, halfway: u64) {
        self.0.lock().halfway = halfway;
        self.0.woken.notify_all();
    }

    fn is_asleep(&self) -> bool {
        self.0.lock().asleep
    }

    fn revoke(&mut self, position: u64) -> bool {
        self.0.lock().claims[position as usize].revoke()
    }

    fn claimed(&self, position: u64) -> bool {
        self.0.lock().claims[position as usize].is_claimed()
    }

    fn running(&self) -> (u64, u64) {
        (0, 0)
    }

    fn counted(&self, _now: u64) -> Counted {
        Counted::default()
    }

    fn begin_of(&self, _number: u64) -> u64 {
        0
    }

    fn is_cut_off(&self) -> bool {
        false
    }

    fn is_interruptible(&self) -> bool {
        false
    }

    fn has_been_read(&self) -> bool {
        self.0.lock().down.is_empty()
    }

    fn is_damaged(&self) -> bool {
        false
    }

    fn note_termination(&self) {
        self.0.lock().terminated = true;
    }

    fn watched(&self) -> Option<Arc<dyn AsHandle + Send + Sync>> {
        Some(self.0.clone())
    }

    fn drain(&mut self) -> Result<bool> {
        self.0.keeper.clear();
        Ok(true)
    }

    fn keeps_memory(&self) -> bool {
        false
    }

    fn trim(&mut self) {}
}

struct Saying {
    half_through: bool,
    half_full: bool,
}

impl Says for Saying {
    fn is_half_through(&self) -> bool {
        self.half_through
    }

    fn is_half_full(&self) -> bool {
        self.half_full
    }
}

impl MemoryWorker {
    /// Returns the next frame. It claims a task, and skips a revoked task. `None`: no frame arrived within a moment.
    pub fn next(&self) -> Option<Frame> {
        let mut queues = self.0.lock();
        loop {
            while let Some((position, frame)) = queues.down.pop_front() {
                if frame.kind != kind::TASK || queues.claims[position as usize].claim() {
                    return Some(frame);
                }
            }
            queues.asleep = true;
            let (again, waited) = self.0.woken.wait_timeout(queues, Duration::from_millis(50)).unwrap();
            queues = again;
            queues.asleep = false;
            if waited.timed_out() && queues.down.is_empty() {
                return None;
            }
        }
    }

    pub fn say(&self, kind: u16, number: u64, bytes: &[u8]) {
        let content = ReceivedPacket::new(bytes, Along::default(), false);
        let mut queues = self.0.lock();
        queues.up.push_back(Said { kind, aux: 1000, number, content });
        let urgent = queues.down.is_empty();
        let says = Saying { half_through: number >= queues.halfway, half_full: queues.up.len() > ROOM / 2 };
        drop(queues);
        if self.0.page.ring(urgent, false, &says) {
            self.0.keeper.kick();
        }
    }

    pub fn is_terminated(&self) -> bool {
        self.0.lock().terminated
    }
}

#[cfg(test)]
mod tests {
    use super::super::HubLink;
    use super::*;
    use crate::pool::scheduler::Chunk;
    use crate::pool::{
        Chore, Collect, EndTerms, Hub, HubConfig, JobSpec, LossCause, Outcome, SourceKind, Ticket, WorkerId,
    };
    use crate::process::Exit;
    use std::sync::mpsc::{Receiver, Sender, channel};
    use std::thread::JoinHandle;
    use std::time::Instant;

    const PATIENCE: Duration = Duration::from_secs(20);

    /// What a worker does with a task's bytes. If it returns `None`, the worker dies.
    type Work = fn(&[u8]) -> Option<Vec<u8>>;

    fn reversed(bytes: &[u8]) -> Option<Vec<u8>> {
        Some(bytes.iter().rev().copied().collect())
    }

    fn work(worker: &MemoryWorker, work: Work) -> Exit {
        worker.say(kind::HELLO, 0, &[]);
        loop {
            let Some(frame) = worker.next() else { continue };
            match frame.kind {
                kind::TASK => match work(&frame.bytes) {
                    Some(answer) => worker.say(kind::DONE, frame.number, &answer),
                    None => return Exit::Code(7),
                },
                kind::STOP => return Exit::Code(0),
                _ => assert!(frame.aux > 0, "a function without a number"),
            }
        }
    }

    /// A front whose workers are threads.
    struct Front {
        hub: Hub,
        told: Receiver<Chore>,
        keeper: Option<JoinHandle<()>>,
    }

    impl Front {
        fn new(processes: usize, what: Work) -> Front {
            let hub = Hub::new(HubConfig {
                processes,
                max_tasks_per_child: None,
                tap_stderr: false,
                limits: crate::pool::WorkerLimits::default(),
                size: crate::pool::Size::default(),
            })
            .unwrap();
            let (tell, told) = channel();
            let keeper = {
                let hub = hub.clone();
                std::thread::spawn(move || keep(&hub, what, &tell))
            };
            Front { hub, told, keeper: Some(keeper) }
        }

        fn submit(&self, contents: &[Vec<u8>], notify: bool) -> Ticket {
            let packer = self.hub.packer();
            let func = self.hub.define(packer.pack(b"function", Vec::new()).unwrap());
            let tasks: Vec<_> = contents.iter().map(|bytes| (1, packer.pack(bytes, Vec::new()).unwrap())).collect();
            let items = Some(tasks.len());
            let chunk = Chunk::Fixed(1);
            let spec = JobSpec { func, collect: Collect::All, chunk, items, window: None, notify, terms: None };
            self.hub.submit(spec, SourceKind::Ready(tasks)).unwrap()
        }

        fn outcomes(&self, ticket: &Ticket) -> Vec<Outcome> {
            assert!(ticket.wait(Some(Instant::now() + PATIENCE), &mut || true).unwrap(), "{}", self.hub.describe());
            ticket.take(usize::MAX).0.into_iter().map(|settled| settled.outcome).collect()
        }
    }

    impl Drop for Front {
        fn drop(&mut self) {
            self.hub.close();
            if !std::thread::panicking() {
                self.keeper.take().unwrap().join().unwrap();
            }
        }
    }

    fn keep(hub: &Hub, what: Work, tell: &Sender<Chore>) {
        let (ended, ends) = channel::<(WorkerId, Exit)>();
        let page = hub.shared().page.clone();
        loop {
            match hub.keep(Duration::from_millis(20)) {
                Chore::Start => {
                    let make = || {
                        let (link, worker) = MemoryLink::pair(&page);
                        Ok((HubLink::Memory(link), None, worker))
                    };
                    hub.serve_starts(Duration::ZERO, || {
                        while let Some((id, worker)) = hub.begin_start_by(make).unwrap() {
                            let ended = ended.clone();
                            // It has no process to adopt.
                            hub.shared().lock().starts.end();
                            std::thread::spawn(move || ended.send((id, work(&worker, what))));
                        }
                    });
                }
                Chore::Done => return,
                Chore::Fill => hub.fill(Duration::ZERO),
                Chore::Idle => {}
                other => tell.send(other).unwrap(),
            }
            while let Ok((id, exit)) = ends.try_recv() {
                assert!(hub.exited(id, Some(exit)).is_none());
            }
        }
    }

    fn contents(count: u8) -> Vec<Vec<u8>> {
        (0..count).map(|i| vec![i, i.wrapping_mul(7), 3]).collect()
    }

    #[test]
    fn a_hub_works_on_a_link_without_shared_memory() {
        let front = Front::new(2, reversed);
        for count in [1, 2, 50, 200] {
            let contents = contents(count);
            let ticket = front.submit(&contents, false);
            for (outcome, content) in front.outcomes(&ticket).iter().zip(&contents) {
                let Outcome::Done(answer) = outcome else { panic!("{outcome:?}") };
                assert_eq!(Some(answer.bytes().to_vec()), reversed(content));
            }
        }
    }

    #[test]
    fn the_keeper_drives_a_hub_on_such_links_where_no_caller_waits() {
        let front = Front::new(2, reversed);
        let ticket = front.submit(&contents(40), true);
        assert_eq!(front.told.recv_timeout(PATIENCE).unwrap(), Chore::Completed(ticket.job()));
        assert!(front.outcomes(&ticket).iter().all(|outcome| matches!(outcome, Outcome::Done(_))));
    }

    #[test]
    fn a_death_loses_the_claimed_task_alone_on_such_links() {
        let front = Front::new(2, |bytes| if bytes[0] == 20 { None } else { reversed(bytes) });
        let ticket = front.submit(&contents(60), false);
        let outcomes = front.outcomes(&ticket);
        let lost: Vec<_> = (0..outcomes.len()).filter(|&at| !matches!(outcomes[at], Outcome::Done(_))).collect();
        assert_eq!(lost, [20]);
        let Outcome::Lost(loss) = &outcomes[20] else { panic!("{:?}", outcomes[20]) };
        assert!(loss.exit == Some(Exit::Code(7)) && matches!(loss.cause, LossCause::Died));
        assert_eq!(front.outcomes(&front.submit(&contents(10), false)).len(), 10);
    }

    #[test]
    fn tasks_that_are_taken_back_do_not_run_on_such_links() {
        static RAN: Mutex<Vec<u8>> = Mutex::new(Vec::new());
        let front = Front::new(1, |bytes| {
            RAN.lock().unwrap().push(bytes[0]);
            std::thread::sleep(Duration::from_millis(100));
            reversed(bytes)
        });
        let ticket = front.submit(&contents(5), false);
        let begun = Instant::now();
        while RAN.lock().unwrap().is_empty() {
            assert!(begun.elapsed() < PATIENCE, "nothing runs");
            ticket.is_ready();
        }
        ticket.cancel(false);
        assert!(ticket.wait(Some(Instant::now() + PATIENCE), &mut || true).unwrap());
        assert!(RAN.lock().unwrap().len() <= 2);
    }

    #[test]
    fn a_termination_reaches_workers_at_such_links() {
        let (link, worker) = MemoryLink::pair(&HubPage::create().unwrap());
        let hub = hub_of(1);
        let made = hub.begin_start_by(|| Ok((HubLink::Memory(link), None, ()))).unwrap();
        hub.shared().lock().starts.end();
        hub.terminate(EndTerms::AT_ONCE);
        let frame = worker.next().expect("the end");
        assert!((frame.kind, frame.aux) == (kind::STOP, 1) && worker.is_terminated());
        hub.exited(made.unwrap().0, Some(Exit::Code(0)));
        assert_eq!(hub.keep(Duration::ZERO), Chore::Done);
    }

    fn hub_of(processes: usize) -> Hub {
        Hub::new(HubConfig {
            processes,
            max_tasks_per_child: None,
            tap_stderr: false,
            limits: crate::pool::WorkerLimits::default(),
            size: crate::pool::Size::default(),
        })
        .unwrap()
    }

    #[test]
    fn a_start_is_a_chore_until_a_starter_is_called() {
        let hub = hub_of(1);
        assert_eq!(hub.keep(Duration::ZERO), Chore::Start);
        // The starter is on its way.
        assert_eq!(hub.keep(Duration::ZERO), Chore::Idle);
        hub.leave_starts();
        let chores = [(); 3].map(|()| hub.keep(Duration::ZERO));
        assert_eq!(chores.iter().filter(|chore| **chore == Chore::Start).count(), 1, "{chores:?}");
        assert!(hub.next_starts(Duration::ZERO));
        let page = hub.shared().page.clone();
        let begun = hub.begin_start_by(|| {
            let (link, worker) = MemoryLink::pair(&page);
            Ok((HubLink::Memory(link), None, worker))
        });
        assert!(begun.unwrap().is_some() && !hub.next_starts(Duration::ZERO));
    }

    #[test]
    fn a_closed_hub_waits_for_a_start() {
        let hub = hub_of(1);
        let page = hub.shared().page.clone();
        let closing = hub.clone();
        let begun = hub.begin_start_by(|| {
            // Another thread closes the hub while this one makes the link.
            closing.close();
            assert_ne!(closing.keep(Duration::ZERO), Chore::Done);
            let (link, worker) = MemoryLink::pair(&page);
            Ok((HubLink::Memory(link), None, worker))
        });
        let (id, _worker) = begun.unwrap().unwrap();
        let watch = Arc::new(crate::process::ExitWatch::of(std::process::id()).unwrap());
        assert!(hub.adopt_watched(id, std::process::id(), watch));
        assert_ne!(hub.keep(Duration::ZERO), Chore::Done);
        hub.exited(id, Some(Exit::Code(0)));
        assert_eq!(hub.keep(PATIENCE), Chore::Done);
    }

    #[test]
    fn a_terminated_hub_waits_for_no_start() {
        let hub = hub_of(1);
        let page = hub.shared().page.clone();
        let begun = hub.begin_start_by(|| {
            let (link, worker) = MemoryLink::pair(&page);
            Ok((HubLink::Memory(link), None, worker))
        });
        let (id, _worker) = begun.unwrap().unwrap();
        hub.terminate(EndTerms::AT_ONCE);
        assert_eq!(hub.keep(Duration::ZERO), Chore::Idle);
        assert_eq!(hub.keep(PATIENCE), Chore::Done);
        // The front starts the process only now, and ends it.
        let watch = Arc::new(crate::process::ExitWatch::of(std::process::id()).unwrap());
        assert!(!hub.adopt_watched(id, std::process::id(), watch));
        assert!(hub.pids().is_empty());
    }
}
