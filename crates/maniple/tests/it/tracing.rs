//! What workers and processes tell by tracing reaches the subscriber of the process that started them.

use crate::support::{METHODS, apart, descriptors, eventually, pool, watchdog};
use maniple::{Cause, Error, Exit, Handle, Pool, Process};
use std::collections::BTreeMap;
use std::fmt::Debug;
use std::io::{PipeReader, PipeWriter, Read, Write};
use std::sync::{Arc, Mutex};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Dispatch, Event, Level, Metadata, Subscriber};

/// An event as the parent's subscriber saw it.
#[derive(Clone, Debug)]
struct Seen {
    level: Level,
    target: String,
    file: Option<String>,
    line: Option<u32>,
    fields: BTreeMap<String, String>,
}

impl Seen {
    fn message(&self) -> &str {
        self.fields.get("message").map_or("", String::as_str)
    }
}

/// Records events up to a level.
#[derive(Clone)]
struct Recorder {
    most: Level,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Recorder {
    fn new(most: Level) -> Recorder {
        Recorder { most, seen: Arc::default() }
    }

    /// Runs `work` with this as the subscriber.
    fn during<R>(&self, work: impl FnOnce() -> R) -> R {
        tracing::dispatcher::with_default(&Dispatch::new(self.clone()), work)
    }

    /// Waits for so many events of this test's own.
    fn first(&self, count: usize) -> Vec<Seen> {
        eventually("all events are there", || self.seen.lock().unwrap().len() >= count);
        self.seen.lock().unwrap().clone()
    }
}

struct Fields(BTreeMap<String, String>);

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.0.insert(field.name().to_owned(), format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(field.name().to_owned(), format!("str {value}"));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.0.insert(field.name().to_owned(), format!("u64 {value}"));
    }
}

impl Subscriber for Recorder {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() <= self.most
    }

    fn max_level_hint(&self) -> Option<tracing::level_filters::LevelFilter> {
        Some(self.most.into())
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let metadata = event.metadata();
        let mut fields = Fields(BTreeMap::new());
        event.record(&mut fields);
        self.seen.lock().unwrap().push(Seen {
            level: *metadata.level(),
            target: metadata.target().to_owned(),
            file: metadata.file().map(str::to_owned),
            line: metadata.line(),
            fields: fields.0,
        });
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

/// Levels are one for all of a process, so one test at a time.
static ALONE: Mutex<()> = Mutex::new(());

const TELL_LINE: u32 = line!() + 5;

fn tell(item: u64) -> u32 {
    let _outer = tracing::info_span!("outer").entered();
    let _inner = tracing::info_span!("inner", item).entered();
    tracing::info!(target: "tests::tell", item, name = "x", by = ?Some(1), "working on {item}");
    std::process::id()
}

#[test]
fn a_workers_events_come_with_all_that_they_had() {
    let (_dog, _alone) = (watchdog(), ALONE.lock());
    for method in METHODS {
        let recorder = Recorder::new(Level::INFO);
        let pool = recorder.during(|| pool(method, 1));
        let pid = pool.apply(tell, 7).unwrap();
        let seen = &recorder.first(1)[0];
        assert_eq!((seen.level, seen.target.as_str(), seen.line), (Level::INFO, "tests::tell", Some(TELL_LINE)));
        assert!(seen.file.as_ref().unwrap().ends_with("tests/it/tracing.rs"));
        let expected = [
            ("by", "Some(1)".to_owned()),
            ("item", "u64 7".into()),
            ("message", "working on 7".into()),
            ("name", "str x".into()),
            ("pid", format!("u64 {pid}")),
            ("spans", "str outer:inner".into()),
        ];
        assert_eq!(seen.fields, expected.map(|(name, value)| (name.to_owned(), value)).into());
    }
}

fn all_levels(_: u8) {
    tracing::error!("error");
    tracing::warn!("warn");
    tracing::info!("info");
    tracing::debug!("debug");
    tracing::trace!("trace");
}

#[test]
fn only_what_the_parent_wants_is_told() {
    let (_dog, _alone) = (watchdog(), ALONE.lock());
    let recorder = Recorder::new(Level::WARN);
    let pool = recorder.during(|| Pool::new(1)).unwrap();
    pool.apply(all_levels, 0).unwrap();
    pool.apply(all_levels, 0).unwrap();
    let levels: Vec<Level> = recorder.first(4).iter().map(|seen| seen.level).collect();
    assert_eq!(levels, [Level::ERROR, Level::WARN, Level::ERROR, Level::WARN]);
}

#[test]
fn a_process_tells_while_it_is_waited_for() {
    let (_dog, _alone) = (watchdog(), ALONE.lock());
    for method in METHODS {
        let recorder = Recorder::new(Level::TRACE);
        let process = Process::builder()
            .start_method(method)
            .build(
                |count: u32| {
                    for i in 0..count {
                        tracing::debug!(target: "process", i, "and on");
                    }
                },
                20_000,
            )
            .unwrap();
        recorder.during(|| process.start()).unwrap();
        assert_eq!(process.join().unwrap(), Exit::Code(0));
        let seen = recorder.first(20_000);
        assert_eq!(seen.len(), 20_000, "{method:?}: {:?}", seen.last());
        for (i, seen) in seen.iter().enumerate() {
            assert_eq!(seen.fields["i"], format!("u64 {i}"));
            assert!(!seen.fields.contains_key("spans"));
        }
    }
}

fn abort(text: String) {
    tracing::error!("{text}");
    std::process::abort();
}

#[test]
fn the_last_words_before_an_abort_are_heard() {
    let (_dog, _alone) = (watchdog(), ALONE.lock());
    let recorder = Recorder::new(Level::INFO);
    let pool = recorder.during(|| Pool::new(1)).unwrap();
    assert!(matches!(pool.apply(abort, "last".into()), Err(Error::WorkerLost(_))));
    // Before the news of the loss, not some time later.
    assert_eq!(recorder.seen.lock().unwrap()[0].message(), "last");

    let recorder = Recorder::new(Level::INFO);
    let process = Process::new(abort, "gone".into()).unwrap();
    recorder.during(|| process.start()).unwrap();
    assert_eq!(process.join().unwrap(), Exit::Killed(Cause::ABORT));
    assert_eq!(recorder.seen.lock().unwrap()[0].message(), "gone");
}

#[test]
fn a_text_too_long_for_a_record_is_cut() {
    let (_dog, _alone) = (watchdog(), ALONE.lock());
    let recorder = Recorder::new(Level::INFO);
    let process = Process::new(abort, "é".repeat(10_000)).unwrap();
    recorder.during(|| process.start()).unwrap();
    process.join().unwrap();
    let seen = recorder.seen.lock().unwrap()[0].message().to_owned();
    assert!(seen.starts_with("éé") && seen.ends_with('…') && seen.len() < 4096, "{seen}");
}

/// A process whose parent does not read fills its pipe; it continues, and what was lost is counted.
#[test]
fn a_process_that_nobody_listens_to_is_not_held_up() {
    let (_dog, _alone) = (watchdog(), ALONE.lock());
    const MANY: u64 = 50_000;
    let recorder = Recorder::new(Level::INFO);
    let (mut done, told) = std::io::pipe().unwrap();
    let (gate, mut open) = std::io::pipe().unwrap();
    let process = Process::new(
        |(mut told, mut gate): (Handle<PipeWriter>, Handle<PipeReader>)| {
            for i in 0..MANY {
                tracing::info!(i, "one of many");
            }
            told.write_all(b"!").unwrap();
            // The first that has room again tells of the others: the parent makes room now.
            gate.read_exact(&mut [0]).unwrap();
            tracing::info!("the last");
        },
        (told.into(), gate.into()),
    )
    .unwrap();
    recorder.during(|| process.start()).unwrap();
    done.read_exact(&mut [0]).unwrap();
    assert!(process.is_alive());
    open.write_all(b"!").unwrap();
    process.join().unwrap();
    let seen = recorder.seen.lock().unwrap();
    assert_eq!(seen.last().unwrap().message(), "the last");
    let lost = seen.iter().filter(|seen| seen.target == "maniple").map(|seen| &seen.fields["lost"]["u64 ".len()..]);
    let lost: u64 = lost.map(|lost| lost.parse::<u64>().unwrap()).sum();
    let heard = seen.iter().filter(|seen| seen.message() == "one of many").count() as u64;
    assert_eq!(heard + lost, MANY);
    assert!(heard > 100 && lost > 0, "{heard} heard, {lost} lost");
}

#[test]
fn without_a_subscriber_there_is_no_pipe() {
    let _dog = watchdog();
    apart(|()| {
        let quiet = Process::new(|()| assert!(!tracing::enabled!(Level::ERROR)), ()).unwrap();
        let before = descriptors();
        quiet.start().unwrap();
        let without = descriptors() - before;
        assert_eq!(quiet.join().unwrap(), Exit::Code(0));
        let told = Process::new(|()| assert!(tracing::enabled!(Level::ERROR)), ()).unwrap();
        let before = descriptors();
        Recorder::new(Level::ERROR).during(|| told.start()).unwrap();
        assert_eq!(descriptors() - before, without + 1);
        assert_eq!(told.join().unwrap(), Exit::Code(0));
    });
}
