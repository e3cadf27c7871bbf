//! The child's side: a subscriber that writes every event into the pipe to the parent.

use super::{Content, LENGTH, Place, Record};
use maniple_sys::AsHandle;
use maniple_sys::{OwnedHandle, ready, tap};
use std::cell::RefCell;
use std::collections::HashMap;
use std::fmt::{self, Debug};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tracing_core::field::{Field, Visit};
use tracing_core::span::{Attributes, Current, Id};
use tracing_core::{Dispatch, Event, Interest, Level, LevelFilter, Metadata, Subscriber, dispatcher};

/// How long an event waits for room.
const PATIENCE: Duration = Duration::from_millis(100);
/// The number of bytes of a text if the whole text is too long for a record: at first, then less and less.
const LONG: usize = 1024;

/// Sends the events of this process to the parent from now on, unless a subscriber is set already.
pub(crate) fn install(handle: OwnedHandle, level: u8) {
    let teller = Teller {
        handle,
        most: [Level::ERROR, Level::WARN, Level::INFO, Level::DEBUG, Level::TRACE][usize::from(level.clamp(1, 5)) - 1],
        lost: AtomicU64::new(0),
        hopeless: AtomicBool::new(false),
        next: AtomicU64::new(1),
        spans: Mutex::default(),
    };
    let _ = dispatcher::set_global_default(Dispatch::new(teller));
}

pub(super) fn number(level: Level) -> u8 {
    match level {
        Level::ERROR => 1,
        Level::WARN => 2,
        Level::INFO => 3,
        Level::DEBUG => 4,
        _ => 5,
    }
}

struct Teller {
    handle: OwnedHandle,
    most: Level,
    lost: AtomicU64,
    /// The last wait for room was unsuccessful: there is no reader.
    hopeless: AtomicBool,
    next: AtomicU64,
    spans: Mutex<HashMap<u64, Span>>,
}

struct Span {
    metadata: &'static Metadata<'static>,
    parent: Option<u64>,
    holds: usize,
}

thread_local! {
    /// The spans that this thread has entered.
    static INSIDE: RefCell<Vec<u64>> = const { RefCell::new(Vec::new()) };
}

impl Teller {
    fn spans(&self) -> MutexGuard<'_, HashMap<u64, Span>> {
        self.spans.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn innermost() -> Option<u64> {
        // While a thread ends, its stack of spans may be gone.
        INSIDE.try_with(|inside| inside.borrow().last().copied()).ok().flatten()
    }

    /// Returns the names of a span and of the spans around it, outermost first.
    fn names(&self, mut at: Option<u64>) -> String {
        let spans = self.spans();
        let mut names = Vec::new();
        while let Some(span) = at.and_then(|id| spans.get(&id)) {
            names.push(span.metadata.name());
            at = span.parent;
        }
        names.reverse();
        names.join(":")
    }

    fn send(&self, mut record: Record) {
        record.lost = self.lost.swap(0, Ordering::Relaxed);
        let mut most = LONG;
        let bytes = loop {
            let mut bytes = vec![0; LENGTH];
            bytes = match postcard::to_extend(&record, bytes) {
                Ok(bytes) => bytes,
                Err(_) => return,
            };
            if bytes.len() <= tap::RECORD {
                break bytes;
            }
            record.shorten(most);
            most /= 2;
            if most < 8 {
                record.values.clear();
            }
            if most == 0 {
                return;
            }
        };
        if !self.write(bytes) {
            self.lost.fetch_add(record.lost + 1, Ordering::Relaxed);
        }
    }

    fn write(&self, mut bytes: Vec<u8>) -> bool {
        let len = (bytes.len() - LENGTH) as u16;
        bytes[..LENGTH].copy_from_slice(&len.to_le_bytes());
        if tap::record(self.handle.as_handle(), &bytes) {
            self.hopeless.store(false, Ordering::Relaxed);
            return true;
        }
        if self.hopeless.swap(true, Ordering::Relaxed) {
            return false;
        }
        let room = ready::wait(&mut [ready::Interest::room(self.handle.as_handle())], Some(PATIENCE));
        let written = room.is_ok_and(|n| n > 0) && tap::record(self.handle.as_handle(), &bytes);
        if written {
            self.hopeless.store(false, Ordering::Relaxed);
        }
        written
    }
}

impl Record {
    /// Shortens texts to so many bytes.
    fn shorten(&mut self, most: usize) {
        let texts = self.values.iter_mut().filter_map(|(_, content)| match content {
            Content::Text(text) | Content::Str(text) => Some(text),
            _ => None,
        });
        for text in texts.chain([&mut self.spans]) {
            if text.len() > most {
                let end = (0..=most).rev().find(|&i| text.is_char_boundary(i)).unwrap_or(0);
                text.truncate(end);
                text.push('…');
            }
        }
    }
}

impl Subscriber for Teller {
    fn register_callsite(&self, metadata: &'static Metadata<'static>) -> Interest {
        if self.enabled(metadata) { Interest::always() } else { Interest::never() }
    }

    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() <= self.most
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(self.most.into())
    }

    fn new_span(&self, attributes: &Attributes<'_>) -> Id {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let parent = match attributes.parent() {
            Some(parent) => Some(parent.into_u64()),
            None if attributes.is_root() => None,
            None => Self::innermost(),
        };
        let mut spans = self.spans();
        if let Some(parent) = parent.and_then(|parent| spans.get_mut(&parent)) {
            parent.holds += 1;
        }
        spans.insert(id, Span { metadata: attributes.metadata(), parent, holds: 1 });
        Id::from_u64(id)
    }

    fn record(&self, _: &Id, _: &tracing_core::span::Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let metadata = event.metadata();
        let around = match event.parent() {
            Some(parent) => Some(parent.into_u64()),
            None if event.is_root() => None,
            None => Self::innermost(),
        };
        let mut values = Values(Vec::new());
        event.record(&mut values);
        self.send(Record {
            pid: std::process::id(),
            lost: 0,
            place: Place {
                level: number(*metadata.level()),
                name: metadata.name().to_owned(),
                target: metadata.target().to_owned(),
                module: metadata.module_path().map(str::to_owned),
                file: metadata.file().map(str::to_owned),
                line: metadata.line(),
                fields: metadata.fields().iter().map(|field| field.name().to_owned()).collect(),
            },
            spans: around.map_or_else(String::new, |id| self.names(Some(id))),
            values: values.0,
        });
    }

    fn enter(&self, span: &Id) {
        let _ = INSIDE.try_with(|inside| inside.borrow_mut().push(span.into_u64()));
    }

    fn exit(&self, span: &Id) {
        let _ = INSIDE.try_with(|inside| {
            let mut inside = inside.borrow_mut();
            if let Some(at) = inside.iter().rposition(|&id| id == span.into_u64()) {
                inside.remove(at);
            }
        });
    }

    fn clone_span(&self, span: &Id) -> Id {
        if let Some(span) = self.spans().get_mut(&span.into_u64()) {
            span.holds += 1;
        }
        span.clone()
    }

    fn try_close(&self, span: Id) -> bool {
        let mut spans = self.spans();
        let (mut at, mut closed) = (Some(span.into_u64()), false);
        // A span holds its parent.
        while let Some(span) = at.and_then(|id| spans.get_mut(&id)) {
            span.holds -= 1;
            if span.holds > 0 {
                break;
            }
            let parent = span.parent;
            at.map(|id| spans.remove(&id));
            (at, closed) = (parent, true);
        }
        closed
    }

    fn current_span(&self) -> Current {
        let Some(id) = Self::innermost() else { return Current::none() };
        match self.spans().get(&id) {
            Some(span) => Current::new(Id::from_u64(id), span.metadata),
            None => Current::none(),
        }
    }
}

/// Records an event's fields.
struct Values(Vec<(u32, Content)>);

impl Values {
    fn add(&mut self, field: &Field, content: Content) {
        self.0.push((field.index() as u32, content));
    }
}

impl Visit for Values {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.add(field, Content::Text(format!("{value:?}")));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.add(field, Content::Str(value.to_owned()));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.add(field, Content::Signed(value));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.add(field, Content::Unsigned(value));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.add(field, Content::Bool(value));
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.add(field, Content::Float(value));
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        self.add(field, Content::Text(value.to_string()));
    }
}

impl fmt::Debug for Teller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Teller").field("most", &self.most).finish_non_exhaustive()
    }
}
