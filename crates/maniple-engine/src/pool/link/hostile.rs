//! Workers that write nonsense into their links: in every case the hub ends them, answers all other calls correctly, and continues.
//!
//! The workers here are threads of the test that have the far ends of links, with one process for each, to be killed. One is
//! healthy throughout. Random nonsense replays from its seed:
//!
//! ```text
//! MANIPLE_SEED=123 cargo test -p maniple-engine --lib hostile           one seed
//! MANIPLE_SEEDS=100000 cargo test -p maniple-engine --release --lib hostile
//! ```
#![allow(unsafe_code)]

mod random;

use super::reader::Reader;
use super::segment::{
    BEGINS_AT, COUNTERS_AT, DOWN_AT, DOWN_BAY_AT, DOWN_DATA_AT, LinkSegment, RING, UP_AT, UP_DATA_AT,
};
use super::sender::Sender;
use super::shm::Handles;
use super::*;
use crate::pool::packet::Packer;
use crate::pool::{
    Collect, Hub, HubConfig, JobSpec, Outcome, SourceKind, Ticket, WorkerId, WorkerLimits, scheduler::Chunk,
};
use crate::process::{Cause, Exit};
use crate::shm::cursor::Cursors;
use crate::shm::inbox::tag;
use crate::shm::ring::SKIP;
use crate::shm::slots::{BAY, BLOB_REF, BlobRef, HANDLES, NO_SLOT};
use maniple_sys::wire::Wire;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// A run that takes longer hangs.
const PATIENCE: Duration = Duration::from_secs(20);

/// Ends the tests' process if the hub itself hangs.
struct Watchdog(Arc<AtomicBool>);

fn watchdog() -> Watchdog {
    let over = Arc::new(AtomicBool::new(false));
    let watched = over.clone();
    std::thread::spawn(move || {
        // Each worker has a process, whose start takes long under Wine.
        let mut left = if cfg!(windows) { 600_000 } else { 60_000 };
        while left > 0 && !watched.load(Ordering::Relaxed) {
            std::thread::sleep(Duration::from_millis(100));
            left -= 100;
        }
        if !watched.load(Ordering::Relaxed) {
            eprintln!("the hub hangs");
            std::process::abort();
        }
    });
    Watchdog(over)
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// A program that sleeps: Windows has none of its own.
fn sleeper() -> Command {
    if cfg!(not(windows)) {
        let mut program = Command::new("sleep");
        program.arg("1000");
        return program;
    }
    let mut program = Command::new(std::env::current_exe().unwrap());
    program.args(["--exact", "pool::link::hostile::sleeps", "--nocapture"]).env(SLEEPS, "1");
    program.stdout(Stdio::null());
    program
}

const SLEEPS: &str = "MANIPLE_TEST_SLEEPS";

/// Not a test of its own: the program that [`sleeper`] starts.
#[test]
fn sleeps() {
    if std::env::var_os(SLEEPS).is_some() {
        std::thread::sleep(Duration::from_secs(1000));
    }
}

/// A worker that the test simulates.
struct Played {
    id: WorkerId,
    process: Child,
    segment: LinkSegment,
    wire: Wire,
    reader: Reader,
    sender: Sender,
    packer: Packer,
}

impl Played {
    fn new(hub: &Hub) -> Played {
        let (id, handles) = hub.begin_start().unwrap().unwrap();
        let Handles { link, wire, .. } = Handles::from_vec(handles).unwrap();
        let segment = LinkSegment::open(&link).unwrap();
        let (reader, sender) = segment.worker_side();
        let process = sleeper().stdin(Stdio::null()).spawn().unwrap();
        hub.adopt(id, process.id()).unwrap();
        let wire = Wire::from_handle(wire);
        Played { id, process, segment, wire, reader, sender, packer: Packer::new(0) }
    }

    fn say(&mut self, head: Head, packet: Packet) {
        let _ = self.sender.send(head, &packet, &self.wire, self.packer.arena());
    }

    /// The next task's number and content, if one is there.
    fn take(&mut self) -> Option<(u64, Vec<u8>)> {
        loop {
            let said = self.reader.take(Some(kind::TASK), &self.wire).unwrap()?;
            if said.kind == kind::TASK {
                return Some((said.number, said.content.unwrap().bytes().to_vec()));
            }
        }
    }

    fn answer(&mut self, number: u64, content: &[u8]) {
        let packet = self.packer.pack(content, Vec::new()).unwrap();
        self.say(Head::new(kind::DONE, 10, number), packet);
    }

    /// Writes into the link's memory.
    fn write<T>(&self, at: usize, value: T) {
        assert!(at + size_of::<T>() <= self.segment.0.len());
        // SAFETY: inside the mapping; the other readers expect any bytes.
        unsafe { self.segment.0.start().add(at).cast::<T>().write_unaligned(value) };
    }

    /// A frame at the beginning of the fresh ring to the hub, with `published` bytes.
    fn craft(&self, head: Head, len: u32, body: &[u8], published: u64) {
        self.write(UP_DATA_AT, head);
        self.write(UP_DATA_AT + 4, len);
        for (at, &byte) in body.iter().enumerate() {
            self.write(UP_DATA_AT + size_of::<Head>() + at, byte);
        }
        self.write(UP_AT, published);
    }
}

impl Drop for Played {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The head of a frame that begins with so many references.
fn naming(references: u16, mut head: Head) -> Head {
    head.blobs = references;
    head
}

/// What the task with this content is answered.
fn answer_to(content: &[u8]) -> Vec<u8> {
    content.iter().rev().copied().chain(*b"!").collect()
}

fn contents(tasks: u8) -> impl Iterator<Item = Vec<u8>> {
    (0..tasks).map(|i| vec![i; 3 + usize::from(i)])
}

fn submit(hub: &Hub, tasks: u8) -> Ticket {
    let packer = hub.packer();
    let func = hub.define(packer.pack(b"function", Vec::new()).unwrap());
    let tasks: Vec<_> = contents(tasks).map(|bytes| (1, packer.pack(&bytes, Vec::new()).unwrap())).collect();
    let items = Some(tasks.len());
    let spec = JobSpec {
        func,
        collect: Collect::All,
        chunk: Chunk::Fixed(1),
        items,
        window: None,
        notify: false,
        terms: None,
    };
    hub.submit(spec, SourceKind::Ready(tasks)).unwrap()
}

/// A pool of two workers: the first becomes faulty, the second is healthy.
fn pool() -> (Hub, Played, Played) {
    let hub = Hub::new(HubConfig {
        processes: 2,
        max_tasks_per_child: None,
        tap_stderr: false,
        limits: WorkerLimits::default(),
        size: crate::pool::Size::default(),
    })
    .unwrap();
    let (mad, healthy) = (Played::new(&hub), Played::new(&hub));
    (hub, mad, healthy)
}

fn wait_until(what: &str, mut ready: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !ready() {
        assert!(Instant::now() < end, "{what}: not after {PATIENCE:?}");
        std::thread::yield_now();
    }
}

/// Ends the tasks of the faulty worker, if the hub has killed it; `finally`: it ends by itself then.
fn bury(hub: &Hub, mad: &mut Played, finally: bool) -> bool {
    if finally {
        let _ = mad.process.kill();
    }
    let dead = if finally { Some(mad.process.wait().unwrap()) } else { mad.process.try_wait().unwrap() };
    if dead.is_some() {
        hub.exited(mad.id, Some(Exit::Killed(Cause::KILL)));
    }
    dead.is_some()
}

/// Lets the healthy worker run all remaining tasks, and checks each outcome. Returns how many were lost.
fn finish(ticket: &Ticket, healthy: &mut Played, tasks: u8) -> usize {
    wait_until("the job's end", || {
        while let Some((number, content)) = healthy.take() {
            healthy.answer(number, &answer_to(&content));
        }
        ticket.is_ready()
    });
    let (settled, _) = ticket.take(usize::MAX);
    assert_eq!(settled.len(), usize::from(tasks));
    let mut lost = 0;
    for (one, content) in settled.iter().zip(contents(tasks)) {
        match &one.outcome {
            Outcome::Done(value) => assert_eq!(value.bytes(), answer_to(&content), "task {}", one.index),
            Outcome::Lost(_) => lost += 1,
            other => panic!("task {}: {other:?}", one.index),
        }
    }
    lost
}

/// The faulty worker does something that no healthy worker does, before its greeting, or with a task that it has
/// claimed.
fn is_ended_for(what: &str, greeted: bool, mad_deed: impl Fn(&mut Played)) {
    let _watchdog = watchdog();
    let (hub, mut mad, mut healthy) = pool();
    healthy.say(Head::new(kind::HELLO, 0, 0), Packet::default());
    let ticket = if greeted {
        mad.say(Head::new(kind::HELLO, 0, 0), Packet::default());
        hub.open_jobs();
        let ticket = submit(&hub, 6);
        assert_eq!(mad.take().map(|(number, _)| number), Some(1), "{what}");
        ticket
    } else {
        submit(&hub, 6)
    };
    mad_deed(&mut mad);
    wait_until(what, || {
        hub.open_jobs();
        hub.keep(Duration::from_millis(1));
        bury(&hub, &mut mad, false)
    });
    assert_eq!(finish(&ticket, &mut healthy, 6), usize::from(greeted), "{what}");
}

#[test]
fn crafted_frames_end_their_worker_alone() {
    const HEAD: u32 = size_of::<Head>() as u32;
    let skip = Head::new(SKIP, 0, 0);
    let hello = Head::new(kind::HELLO, 0, 0);
    type Craft<'a> = (&'a str, Head, u32, &'a [u8], u64);
    let crafts: [Craft<'_>; 9] = [
        ("a gap over all of the ring", skip, RING as u32 - HEAD, &[], 24),
        ("a gap that ends early", skip, 0, &[], 24),
        ("a gap in less than a head", skip, 0, &[], 8),
        ("a frame longer than what was published", hello, 100, &[], 24),
        ("a frame longer than the ring", hello, u32::MAX, &[], RING as u64),
        ("a tail too far ahead", hello, 0, &[], RING as u64 + 8),
        ("a tail at the end of time", hello, 0, &[], u64::MAX),
        ("an unknown kind", Head::new(99, 0, 0), 0, &[], 24),
        ("references beyond the body", naming(3, hello), 16, &[0; 16], 40),
    ];
    for (what, head, len, body, published) in crafts {
        is_ended_for(what, false, |mad| mad.craft(head, len, body, published));
    }
    let reference = |slot, place, len| BlobRef { place, slot, len }.encode();
    let references: [(&str, Vec<[u8; BLOB_REF]>); 6] = [
        ("a block that was never sent", vec![reference(3, 1, 100)]),
        ("a block without a slot that was never sent", vec![reference(NO_SLOT, 1, 100)]),
        ("handles that were never sent", vec![reference(HANDLES, 1, 2)]),
        ("more handles than there are", vec![reference(HANDLES, 1, u64::MAX)]),
        ("a body longer than a bay", vec![reference(BAY, 0, u64::MAX)]),
        ("bodies that are together longer than a bay", vec![reference(BAY, 0, 1 << 20); 1000]),
    ];
    for (what, references) in references {
        let head = naming(references.len() as u16, hello);
        let body = references.concat();
        is_ended_for(what, false, |mad| mad.craft(head, body.len() as u32, &body, 24 + body.len() as u64));
    }
}

#[test]
fn what_was_not_asked_for_ends_its_worker_alone() {
    let say = |kind, aux, number| move |mad: &mut Played| mad.say(Head::new(kind, aux, number), Packet::default());
    is_ended_for("a second greeting", true, say(kind::HELLO, 0, 0));
    is_ended_for("not ready after all", true, say(kind::UNFIT, 0, 0));
    is_ended_for("a function that is missed twice", true, |mad| {
        (0..2).for_each(|_| mad.say(Head::new(kind::MISSED, 1, 0), Packet::default()));
    });
    is_ended_for("handles that were not sent", true, say(kind::TAKEN, 0, 1));
    is_ended_for("an answer to no task", true, say(kind::DONE, 0, 0));
    is_ended_for("an answer to a task of later", true, say(kind::DONE, 0, 2));
    is_ended_for("a failure of a task of later", true, say(kind::FAILED, 0, u64::MAX));
    is_ended_for("an answer before the greeting", false, say(kind::DONE, 0, 1));
    is_ended_for("a note of another length", true, |mad| {
        maniple_sys::testing::send(&mad.wire, b"abc");
    });
}

#[test]
fn a_second_answer_changes_nothing() {
    let _watchdog = watchdog();
    let (hub, mut mad, mut healthy) = pool();
    for worker in [&mut mad, &mut healthy] {
        worker.say(Head::new(kind::HELLO, 0, 0), Packet::default());
    }
    hub.open_jobs();
    let ticket = submit(&hub, 6);
    let (number, content) = mad.take().unwrap();
    mad.answer(number, &answer_to(&content));
    mad.answer(number, b"something else");
    wait_until("its end", || {
        hub.open_jobs();
        bury(&hub, &mut mad, false)
    });
    assert_eq!(finish(&ticket, &mut healthy, 6), 0);
}

#[test]
fn counters_that_tell_of_more_than_was_sent_end_their_worker_alone() {
    let _watchdog = watchdog();
    // The words by which the worker publishes how far it has read: of the ring, and of the bay.
    for at in [DOWN_AT + size_of::<Cursors>() / 2, DOWN_BAY_AT] {
        let (hub, mut mad, mut healthy) = pool();
        for worker in [&mut mad, &mut healthy] {
            worker.say(Head::new(kind::HELLO, 0, 0), Packet::default());
        }
        hub.open_jobs();
        mad.write(at, 1u64 << 40);
        let packer = hub.packer();
        let long = vec![7; 20_000];
        let func = hub.define(packer.pack(b"function", Vec::new()).unwrap());
        let tasks: Vec<_> = (0..40).map(|_| (1, packer.pack(&long, Vec::new()).unwrap())).collect();
        let spec = JobSpec {
            func,
            collect: Collect::All,
            chunk: Chunk::Fixed(1),
            items: None,
            window: None,
            notify: false,
            terms: None,
        };
        let ticket = hub.submit(spec, SourceKind::Ready(tasks)).unwrap();
        wait_until("the job's end", || {
            bury(&hub, &mut mad, false);
            while let Some((number, content)) = mad.take() {
                mad.answer(number, &answer_to(&content));
            }
            while let Some((number, content)) = healthy.take() {
                healthy.answer(number, &answer_to(&content));
            }
            ticket.is_ready()
        });
        for one in ticket.take(usize::MAX).0 {
            let Outcome::Done(value) = one.outcome else { continue };
            assert_eq!(value.bytes(), answer_to(&long));
        }
    }
}

#[test]
fn counters_of_a_faulty_worker_are_only_shown() {
    let _watchdog = watchdog();
    let (hub, mut mad, mut healthy) = pool();
    for worker in [&mut mad, &mut healthy] {
        worker.say(Head::new(kind::HELLO, 0, 0), Packet::default());
    }
    hub.open_jobs();
    for word in [u64::MAX, u64::MAX - 1, 1 << 63, (1 << 63) - 1, 1, 0] {
        let ticket = submit(&hub, 6);
        for at in (COUNTERS_AT..COUNTERS_AT + size_of::<counters::Line>()).step_by(8) {
            mad.write(at, word);
        }
        for at in 0..counters::BEGINS {
            mad.write(BEGINS_AT + at * 8, word);
        }
        hub.stats().unwrap().to_string();
        wait_until("the job's end", || {
            while let Some((number, content)) = mad.take() {
                let packet = mad.packer.pack(&answer_to(&content), Vec::new()).unwrap();
                mad.say(Head::new(kind::DONE, word as u32, number), packet);
            }
            while let Some((number, content)) = healthy.take() {
                healthy.answer(number, &answer_to(&content));
            }
            ticket.is_ready()
        });
        assert!(ticket.take(9).0.iter().all(|one| matches!(one.outcome, Outcome::Done(_))));
        let stats = hub.stats().unwrap();
        assert_eq!((stats.tasks_received, stats.tasks_waiting + stats.tasks_running), (stats.tasks_completed, 0));
    }
    bury(&hub, &mut mad, true);
    let stats = hub.stats().unwrap();
    assert_eq!((stats.tasks_completed, stats.tasks_lost), (36, 0));
    stats.to_string();
}

struct Panics;

impl crate::pool::Source for Panics {
    fn fill(&mut self, _: usize, _: usize, _: &mut crate::pool::Filling<'_>) -> bool {
        panic!("the source panics");
    }
}

/// Here a caller is faulty, and not a worker.
#[test]
fn a_source_that_panics_ends_its_own_call_alone() {
    let _watchdog = watchdog();
    let (hub, _mad, mut healthy) = pool();
    healthy.say(Head::new(kind::HELLO, 0, 0), Packet::default());
    hub.open_jobs();
    let func = hub.define(hub.packer().pack(b"function", Vec::new()).unwrap());
    let spec = JobSpec {
        func,
        collect: Collect::All,
        chunk: Chunk::Fixed(1),
        items: Some(3),
        window: None,
        notify: false,
        terms: None,
    };
    let ticket = hub.submit(spec, SourceKind::Inline(Box::new(Panics))).unwrap();
    let asked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| ticket.is_ready()));
    assert!(asked.is_err());
    assert!(ticket.is_ready());
    assert!(matches!(ticket.take(9).0[0].outcome, Outcome::Cancelled));
    assert_eq!(finish(&submit(&hub, 5), &mut healthy, 5), 0);
}
