//! The worker's end of a link.

use super::link::{Board, Desk, Handles, Sender, kind, level, open_blobs, pass_over};
use super::packet::{Incoming, Packer, Packet};
use super::spin::Spin;
use crate::error::{Doing, Error, Result};
use crate::process::lifeline;
use crate::shm::inbox::{Inbox, Slots, tag};
use crate::shm::ring::{Consumer, Head};
use crate::sys::futex::Woken;
use crate::sys::wire::Wire;
use crate::sys::{self, Handle, clock};
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Free blocks that a worker keeps for its results, in bytes.
const KEPT: usize = 128 << 20;
/// The first sleep of a worker that has nothing to do, and the longest one: it doubles. A signal that comes in the moment before a
/// sleep begins, or together with what ends it, does not end the sleep as an interrupted one. So the front is asked to look for
/// signals after each sleep; they are most likely soon after a task, where the sleeps are short.
const DOZE: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(1));

/// The line to the hub. One thread uses it.
#[derive(Debug)]
pub struct WorkerLink {
    board: Board,
    desk: Desk,
    down: Consumer,
    down_slots: Slots,
    sender: Sender,
    wire: Wire,
    inbox: Inbox,
    packer: Packer,
    spin: Spin,
    may_spin: bool,
    began: u64,
    // An answer was sent without ringing, because more tasks seemed to be there.
    unrung: bool,
    // How long the next sleep lasts at most.
    doze: Duration,
    terminated: bool,
}

/// What the hub says.
#[derive(Debug)]
pub enum Message {
    /// A function, for tasks that name it by this number.
    Define(u32, Incoming),
    /// No task will name this function any more.
    Forget(u32),
    /// A task, claimed: it is now this worker's, and must be answered with [`WorkerLink::reply`].
    Task(Task),
    /// Nothing more will come.
    Stop,
    /// A signal handler may have run while waiting; look for it, and ask again.
    Interrupted,
}

/// A task to run.
#[derive(Debug)]
pub struct Task {
    /// Its number on this link.
    pub number: u64,
    /// The function to call.
    pub func: u32,
    /// What to call it with.
    pub content: Incoming,
}

impl WorkerLink {
    /// Takes up the worker's end, given the handles that the hub made, in their order. From here on this process dies when the hub
    /// does, and its standard error is seen by the hub.
    ///
    /// # Errors
    /// The handles are not those of a link, or the operating system refuses to use them.
    pub fn open(handles: Vec<Handle>) -> Result<WorkerLink> {
        let handles = Handles::from_vec(handles)?;
        lifeline::arm(handles.lifeline)?;
        if let Some(stderr) = handles.stderr {
            sys::tap::redirect(stderr).doing("redirect standard error to the hub")?;
        }
        crate::process::epoch::count_forks().doing("count forks")?;
        let board = Board::open(handles.link)?;
        let desk = Desk::open(handles.desk)?;
        let (down, up, down_slots, up_slots) = board.worker_side();
        Ok(WorkerLink {
            board,
            desk,
            down,
            down_slots,
            sender: Sender::new(up, up_slots),
            wire: Wire::from_handle(handles.wire),
            inbox: Inbox::default(),
            packer: Packer::new(KEPT),
            spin: Spin::default(),
            may_spin: sys::cores() > 1,
            began: 0,
            unrung: false,
            doze: DOZE.0,
            terminated: false,
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

    /// Says that this worker is ready for tasks.
    pub fn hello(&mut self) -> Result<()> {
        self.say(Head::new(kind::HELLO, 0, 0), Packet::default())
    }

    /// Says that this worker cannot get ready, and why.
    pub fn unfit(&mut self, why: Packet) -> Result<()> {
        self.say(Head::new(kind::UNFIT, 0, 0), why)
    }

    /// Whether something can be taken without waiting.
    pub fn has_news(&mut self) -> bool {
        self.down.has_news()
    }

    /// The next message; waits until there is one.
    ///
    /// # Errors
    /// The link is damaged. The worker should end.
    #[allow(clippy::should_implement_trait)]
    pub fn next(&mut self) -> Result<Message> {
        loop {
            if let Some(message) = self.take()? {
                self.doze = DOZE.0;
                return Ok(message);
            }
            let down = &mut self.down;
            if self.spin.until(self.may_spin, || down.has_news()) {
                continue;
            }
            self.sender.sweep();
            if std::mem::take(&mut self.unrung) {
                // What was left in the ring had been revoked.
                self.ring_hub(u64::MAX, true);
            }
            self.board.bell().arm(1);
            if self.down.has_news() {
                self.board.bell().disarm();
                continue;
            }
            let woken = self.board.bell().sleep(1, Some(self.doze));
            self.board.bell().disarm();
            if woken == Woken::TimedOut {
                self.doze = (self.doze * 2).min(DOZE.1);
            }
            if woken != Woken::Rung || !self.down.has_news() {
                return Ok(Message::Interrupted);
            }
        }
    }

    fn take(&mut self) -> Result<Option<Message>> {
        loop {
            let Some(frame) = self.down.peek()? else { return Ok(None) };
            let (head, len) = (frame.head, frame.head.len);
            if head.kind & !kind::BODY_IN_BLOB == kind::TASK && !frame.claim() {
                pass_over(&frame, &mut self.inbox, &self.wire)?;
                self.down.pop(len);
                continue;
            }
            let along = open_blobs(&frame, &mut self.inbox, &self.wire, &self.down_slots)?;
            let content = Incoming::new(&frame.body[along.inline..], along, head.kind & kind::BODY_IN_BLOB != 0);
            self.down.pop(len);
            if head.kind & !kind::BODY_IN_BLOB == kind::TASK && !content.handles.is_empty() {
                self.say(Head::new(kind::TAKEN, 0, head.number), Packet::default())?;
            }
            return Ok(Some(match head.kind & !kind::BODY_IN_BLOB {
                kind::DEFINE => Message::Define(head.aux, content),
                kind::FORGET => Message::Forget(head.aux),
                kind::TASK => {
                    self.began = clock::now();
                    Message::Task(Task { number: head.number, func: head.aux, content })
                }
                kind::STOP => {
                    self.terminated = head.aux != 0;
                    Message::Stop
                }
                _ => return Err(Error::Damaged("a frame of a kind that does not exist")),
            }));
        }
    }

    /// Answers the task: with its result, or with how it failed.
    pub fn reply(&mut self, number: u64, ok: bool, packet: Packet) -> Result<()> {
        let nanos = clock::now().saturating_sub(self.began).min(u64::from(u32::MAX)) as u32;
        let kind = if ok { kind::DONE } else { kind::FAILED };
        self.say(Head::new(kind, nanos, number), packet)
    }

    fn say(&mut self, head: Head, packet: Packet) -> Result<()> {
        let mut nap = Duration::from_micros(20);
        while self.sender.send(head, &packet, &self.wire, self.packer.arena())?.is_err() {
            // The hub has not kept up. It is woken, whatever it wanted to be woken for, and given time.
            self.ring_hub(head.number, true);
            std::thread::sleep(nap);
            nap = (nap * 2).min(Duration::from_millis(5));
        }
        let idle = !self.down.has_news();
        self.unrung = !idle;
        self.ring_hub(head.number, idle);
        Ok(())
    }

    fn ring_hub(&self, number: u64, urgent: bool) {
        let rung = self.desk.bell().ring(|wanted| match wanted {
            level::CALLER | level::KEEPER => true,
            level::CALLER_HALF | level::KEEPER_HALF => {
                urgent || number >= self.board.halfway().load(Ordering::Relaxed) || self.sender.is_half_full()
            }
            level::KEEPER_FULL => self.sender.is_half_full(),
            _ => false,
        });
        match rung {
            Some(level::CALLER | level::CALLER_HALF) => self.desk.bell().wake(),
            // A full wire is readable, and that is all it takes.
            Some(_) => drop(self.wire.send(tag::BELL, &[])),
            None => {}
        }
    }
}
