//! A worker and its link.

use maniple_engine::pool::scheduler::Death;
use std::collections::VecDeque;

#[derive(Clone, Copy, Debug)]
enum Frame {
    Task { number: u64, place: usize, revoked: bool },
    Stop,
}

/// What a worker says.
#[derive(Clone, Copy, Debug)]
pub enum News {
    Hello,
    Done(u64, u64),
    Failed(u64, u64),
}

/// What a worker finds in its link.
#[derive(Clone, Copy, Debug)]
pub enum Claim {
    Nothing,
    Stop,
    Task(usize),
}

#[derive(Debug)]
pub struct Peer {
    /// Its process lives.
    pub alive: bool,
    /// It is stopped, and continues later.
    pub stopped: bool,
    /// It dies before it is ready, and says that it lacked something.
    pub lacking: bool,
    /// It has said hello.
    pub booted: bool,
    /// The hub has received that.
    pub greeted: bool,
    /// It has the order to stop, or gets it once there is room.
    pub retired: bool,
    pub stop_due: bool,
    /// It had no room and has not answered since.
    pub refused: bool,
    /// Since when tasks have waited here while another worker was idle.
    pub behind_since: Option<u64>,
    /// Since when it has not begun what it was given while another worker was idle.
    pub unbegun_since: Option<u64>,
    pub running: Option<(u64, usize)>,
    /// When it began to run it.
    pub began: u64,
    /// The hub ends it, because it was not ready in time.
    pub unready: bool,
    /// Why the hub ends it with its task.
    pub death: Death,
    /// How many tasks it has begun.
    pub claims: u64,
    /// The messages that it has sent and the hub has not received.
    pub up: VecDeque<News>,
    link: VecDeque<Frame>,
    room: usize,
}

impl Peer {
    pub fn new(room: usize) -> Peer {
        Peer {
            alive: true,
            lacking: false,
            stopped: false,
            booted: false,
            greeted: false,
            retired: false,
            stop_due: false,
            refused: false,
            behind_since: None,
            unbegun_since: None,
            running: None,
            began: 0,
            unready: false,
            death: Death::Unasked,
            claims: 0,
            up: VecDeque::new(),
            link: VecDeque::new(),
            room,
        }
    }

    /// Whether it is past all that was sent.
    pub fn has_read(&self) -> bool {
        self.link.is_empty()
    }

    pub fn is_full(&self) -> bool {
        self.link.len() >= self.room
    }

    pub fn post(&mut self, number: u64, place: usize) {
        self.link.push_back(Frame::Task { number, place, revoked: false });
    }

    /// Puts the stop into the link if it is due and there is room.
    pub fn post_stop(&mut self) -> bool {
        let posted = self.stop_due && !self.is_full();
        if posted {
            self.stop_due = false;
            self.link.push_back(Frame::Stop);
        }
        posted
    }

    /// Takes a task back that was not claimed.
    pub fn revoke(&mut self, number: u64) -> bool {
        for frame in &mut self.link {
            if let Frame::Task { number: n, revoked, .. } = frame
                && *n == number
            {
                assert!(!*revoked, "a task is taken back twice");
                *revoked = true;
                return true;
            }
        }
        false
    }

    /// How many tasks wait in the link.
    pub fn waiting(&self) -> usize {
        self.link.iter().filter(|f| matches!(f, Frame::Task { revoked: false, .. })).count()
    }

    /// What the worker does next, if it is free.
    pub fn next(&mut self) -> Claim {
        if !self.alive || self.stopped || !self.booted || self.running.is_some() {
            return Claim::Nothing;
        }
        while let Some(frame) = self.link.pop_front() {
            match frame {
                Frame::Task { revoked: true, .. } => {}
                Frame::Task { number, place, .. } => {
                    self.running = Some((number, place));
                    self.claims += 1;
                    return Claim::Task(place);
                }
                Frame::Stop => {
                    self.alive = false;
                    return Claim::Stop;
                }
            }
        }
        Claim::Nothing
    }
}
