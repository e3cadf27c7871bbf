//! The worker's end of a link.

use super::link::counters::{Tally, pack};
use super::link::hub_page::{HubPage, Says};
use super::link::kind;
use super::link::reader::Reader;
use super::link::segment::LinkSegment;
use super::link::sender::Sender;
use super::link::shm::Handles;
use super::packet::{IDLE, Packer, Packet, ReceivedPacket};
use crate::error::{Doing, Error, Result};
use crate::process::lifeline;
use crate::shm::buffers;
use crate::shm::inbox::tag;
use crate::shm::ring::Head;
use crate::wait::retry;
use crate::wait::spin::Spin;
use crate::wait::word::Woken;
use maniple_sys::epoch::{Epoch, Since};
use maniple_sys::wire::Wire;
use maniple_sys::{self as sys, OwnedHandle, clock};
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Free blocks that a worker keeps for its results, in bytes.
const KEPT: usize = 256 << 20;
/// The first sleep of a worker without a task, and the longest: it doubles. A signal that arrives just before a sleep
/// begins, or together with the event that ends it, does not end the sleep as interrupted. So the front checks for
/// signals after each sleep. Signals are most likely soon after a task, when the sleeps are short.
const DOZE: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(1));

/// The connection to the hub. One thread uses it.
#[derive(Debug)]
pub struct WorkerLink {
    segment: LinkSegment,
    page: HubPage,
    reader: Reader,
    sender: Sender,
    wire: Wire,
    packer: Packer,
    spin: Spin,
    may_spin: bool,
    began: u64,
    // What it has counted; `None`: it does not count.
    tally: Option<Tally>,
    // An answer was sent without ringing, because the ring seemed to have more tasks.
    unrung: bool,
    // The longest duration of the next sleep.
    doze: Duration,
    terminated: bool,
    born: Epoch,
}

/// Reports, also while the worker is busy, whether its pool was terminated.
#[derive(Clone, Debug)]
pub struct PoolEnd(LinkSegment);

impl PoolEnd {
    /// Whether the pool was terminated, so that no caller waits for a task's outcome.
    pub fn is_terminated(&self) -> bool {
        // Partner: `Hub::terminate`.
        self.0.terminated().load(Ordering::Acquire) != 0
    }
}

/// A message of the hub.
#[derive(Debug)]
pub enum Message {
    /// A function, for tasks that name it by this number; an error where this process lacked something for it.
    Define(u32, Result<ReceivedPacket>),
    /// No task will name this function any more.
    Forget(u32),
    /// A claimed task: this worker owns it, and must answer it with [`WorkerLink::reply`].
    Task(Task),
    /// Nothing more will come.
    Stop,
    /// A signal may have arrived during the wait: check for it, and call again.
    Interrupted,
}

/// A task to run.
#[derive(Debug)]
pub struct Task {
    /// Its number on this link.
    pub number: u64,
    /// The function to call.
    pub func: u32,
    /// What to call it with; an error where this process lacked something for it.
    pub content: Result<ReceivedPacket>,
}

/// What the answer to a task contains.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Its result.
    Done,
    /// Its results, some of which are failures: the task counts as failed.
    DoneInPart,
    /// Its error.
    Failed,
    /// Its error, after which it is to be tried again if its job has retries left.
    FailedAgain,
}

/// Whether workers and hubs of this process count. Only the benchmark of the counters turns that off.
pub(super) fn counts() -> bool {
    std::env::var_os("MANIPLE_COUNTERS").is_none_or(|value| value != "0")
}

impl WorkerLink {
    /// Opens the worker's end with the handles that the hub made, in their order. From then on this process dies when
    /// the hub dies, and the hub reads its standard error.
    ///
    /// # Errors
    /// The handles are not those of a link, or the operating system refuses to use them.
    pub fn open(handles: Vec<OwnedHandle>) -> Result<WorkerLink> {
        let handles = Handles::from_vec(handles)?;
        lifeline::arm(handles.lifeline)?;
        if let Some(stderr) = handles.stderr {
            sys::tap::redirect(stderr).doing("redirect standard error to the hub")?;
        }
        maniple_sys::epoch::count_forks().doing("count forks")?;
        let segment = retry::while_short(|| LinkSegment::open(&handles.link))?;
        let page =
            retry::while_short(|| HubPage::open(handles.page.try_clone().doing("copy the handle of a pool's page")?))?;
        let (reader, sender) = segment.worker_side();
        segment.counters().open(clock::now());
        Ok(WorkerLink {
            segment,
            page,
            reader,
            sender,
            wire: Wire::from_handle(handles.wire),
            packer: Packer::new(KEPT),
            spin: Spin::default(),
            may_spin: sys::cores() > 1,
            began: 0,
            tally: counts().then(Tally::default),
            unrung: false,
            doze: DOZE.0,
            terminated: false,
            born: Epoch::now(),
        })
    }

    /// Makes packets for replies.
    pub fn packer(&self) -> &Packer {
        &self.packer
    }

    /// Whether the pool was terminated, and not closed, when [`Message::Stop`] came.
    pub fn terminated(&self) -> bool {
        self.terminated
    }

    /// The handle that reports the pool's end.
    pub fn pool_end(&self) -> PoolEnd {
        PoolEnd(self.segment.clone())
    }

    /// Declares that this process handles [`maniple_sys::process::family::interrupt_number`], so that a task can be interrupted
    /// at its soft limit.
    pub fn handles_interrupts(&self) {
        self.segment.counters().interruptible.store(1, Ordering::Release);
    }

    /// How long the present task has run.
    pub fn ran_for(&self) -> Duration {
        Duration::from_nanos(clock::now().saturating_sub(self.began))
    }

    /// Reports that this worker is ready for tasks.
    pub fn hello(&mut self) -> Result<()> {
        self.segment.counters().ready(clock::now());
        self.say(Head::new(kind::HELLO, 0, 0), Packet::default())
    }

    /// Reports that this worker cannot get ready, and why.
    pub fn unfit(&mut self, why: Packet) -> Result<()> {
        self.say(Head::new(kind::UNFIT, 0, 0), why)
    }

    /// Whether a message can be taken without waiting.
    pub fn has_news(&mut self) -> bool {
        self.reader.has_news()
    }

    /// Returns the next message. Waits until there is a message.
    ///
    /// # Errors
    /// The link is damaged, or belongs to another process ([`Error::ForkedWorker`]). This process should end.
    #[allow(clippy::should_implement_trait)]
    pub fn next(&mut self) -> Result<Message> {
        self.check()?;
        loop {
            if let Some(message) = self.take()? {
                self.doze = DOZE.0;
                return Ok(message);
            }
            let reader = &mut self.reader;
            if self.spin.until(self.may_spin, || reader.has_news()) {
                continue;
            }
            self.sender.sweep();
            if std::mem::take(&mut self.unrung) {
                // What was left in the ring had been revoked.
                self.ring_hub(u64::MAX, true, false);
            }
            self.segment.bell().arm(1);
            if self.reader.has_news() {
                self.segment.bell().disarm();
                continue;
            }
            let woken = self.segment.bell().sleep(1, Some(self.doze));
            self.segment.bell().disarm();
            if woken == Woken::TimedOut {
                self.doze = (self.doze * 2).min(DOZE.1);
                if self.doze == DOZE.1 {
                    self.sender.trim();
                    self.packer.arena().trim(IDLE);
                    buffers::trim();
                }
                // The lifeline belongs to the pool. A worker that the hub has dropped finds its own link closed.
                if self.wire.is_hung_up() {
                    return Err(Error::HubGone);
                }
            }
            if woken != Woken::Rung || !self.reader.has_news() {
                return Ok(Message::Interrupted);
            }
        }
    }

    fn take(&mut self) -> Result<Option<Message>> {
        let Some(said) = self.reader.take(Some(kind::TASK), &self.wire)? else { return Ok(None) };
        Ok(Some(match said.kind {
            kind::DEFINE => {
                if said.content.is_err() {
                    self.say(Head::new(kind::MISSED, said.aux, 0), Packet::default())?;
                }
                Message::Define(said.aux, said.content)
            }
            kind::FORGET => Message::Forget(said.aux),
            kind::TASK => {
                if said.content.as_ref().is_ok_and(|content| !content.handles.is_empty()) {
                    self.say(Head::new(kind::TAKEN, 0, said.number), Packet::default())?;
                }
                self.began = clock::now();
                self.segment.counters().begin(said.number, self.began, self.tally.as_ref());
                if self.tally.is_some() {
                    self.segment.begin_of(said.number).store(self.began, Ordering::Relaxed);
                }
                Message::Task(Task { number: said.number, func: said.aux, content: said.content })
            }
            kind::STOP => {
                self.terminated = said.aux != 0;
                Message::Stop
            }
            _ => return Err(Error::Damaged("a frame of a kind that does not exist")),
        }))
    }

    /// Answers the task with its result or its error.
    ///
    /// # Errors
    /// If [`Error::is_local`] is true, the answer needs memory or a descriptor that this process does not have. The
    /// task is not answered yet, and a smaller answer may succeed. After any other error the link is damaged, and the
    /// worker should end.
    pub fn reply(&mut self, number: u64, answer: Answer, packet: Packet) -> Result<()> {
        let nanos = clock::now().saturating_sub(self.began);
        let kind = match answer {
            Answer::Done => kind::DONE,
            Answer::DoneInPart => kind::DONE_IN_PART,
            Answer::Failed => kind::FAILED,
            Answer::FailedAgain => kind::FAILED_AGAIN,
        };
        let Some(before) = self.tally else { return self.say(Head::new(kind, pack(nanos), number), packet) };
        // Before the answer: a reader that has the answer finds it counted.
        self.tally = Some(self.segment.counters().end(&before, answer == Answer::Done, nanos));
        self.say(Head::new(kind, pack(nanos), number), packet).inspect_err(|_| {
            self.segment.counters().take_back(&before, self.began);
            self.tally = Some(before);
        })
    }

    /// The link has one process at each end: a child that a task has forked must not use it.
    fn check(&self) -> Result<()> {
        if self.born.since() == Since::Born { Err(Error::ForkedWorker) } else { Ok(()) }
    }

    fn say(&mut self, head: Head, packet: Packet) -> Result<()> {
        self.check()?;
        let mut nap = Duration::from_micros(20);
        while self.sender.send(head, &packet, &self.wire, self.packer.arena())?.is_err() {
            // The hub has not kept up. It is woken, at any level, and gets time.
            self.ring_hub(head.number, true, true);
            if self.sender.is_cut_off() || self.wire.is_hung_up() {
                // What the answer needs cannot be passed any more.
                return Err(Error::HubGone);
            }
            std::thread::sleep(nap);
            nap = (nap * 2).min(Duration::from_millis(5));
        }
        let idle = !self.reader.has_news();
        self.unrung = !idle;
        self.ring_hub(head.number, idle, false);
        Ok(())
    }

    fn ring_hub(&self, number: u64, urgent: bool, stuck: bool) {
        let says = Saying { segment: &self.segment, sender: &self.sender, number };
        if self.page.ring(urgent, stuck, &says) {
            // A full wire is readable, which is sufficient.
            let _ = self.wire.send(tag::BELL, &[]);
        }
    }
}

/// The progress of this worker after task `number`.
struct Saying<'a> {
    segment: &'a LinkSegment,
    sender: &'a Sender,
    number: u64,
}

impl Says for Saying<'_> {
    fn is_half_through(&self) -> bool {
        self.number >= self.segment.halfway().load(Ordering::Relaxed)
    }

    fn is_half_full(&self) -> bool {
        self.sender.is_half_full()
    }
}
