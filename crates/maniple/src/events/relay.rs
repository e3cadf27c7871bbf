//! The parent's side: reads records, and passes them to its own subscriber as events.

use super::{Content, LENGTH, Place, Record, tell};
use maniple_sys::AsHandle;
use maniple_sys::{OwnedHandle, tap};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use tracing_core::callsite::{self, Callsite, Identifier};
use tracing_core::field::{self, Field, FieldSet, Value};
use tracing_core::subscriber::NoSubscriber;
use tracing_core::{Dispatch, Event, Interest, Kind, Level, LevelFilter, Metadata, dispatcher};

/// The greatest number of fields of an event in tracing.
const MOST: usize = 32;
/// The fields before the event's own.
const OURS: [&str; 2] = ["pid", "spans"];

/// The records of one child.
#[derive(Debug)]
pub(crate) struct Relay {
    handle: Arc<OwnedHandle>,
    /// The subscriber and span that were current where the child was made.
    dispatch: Dispatch,
    /// The beginning of a record whose rest is still in the pipe. It is locked while events are delivered, so that they
    /// keep their order.
    begun: Mutex<Vec<u8>>,
}

/// Makes a pipe for a child's events, if a subscriber of this process wants any: this end, the child's end, and the
/// greatest level that is wanted.
pub(crate) fn relay() -> Option<(Relay, OwnedHandle, u8)> {
    let dispatch = dispatcher::get_default(Dispatch::clone);
    if dispatch.is::<NoSubscriber>() {
        return None;
    }
    let level = tell::number(LevelFilter::current().into_level()?);
    // Without a pipe only the child's events are lost.
    let (handle, theirs) = tap::records().ok()?;
    Some((Relay { handle: Arc::new(handle), dispatch, begun: Mutex::default() }, theirs, level))
}

maniple_sys::as_handle!(impl[] for Relay, |this| this.handle.as_handle());

impl Relay {
    pub(crate) fn handle(&self) -> &Arc<OwnedHandle> {
        &self.handle
    }

    /// Passes on the available events. Returns false if there will be no more.
    pub(crate) fn deliver(&self) -> bool {
        // Another thread delivers them; or this thread does, and a subscriber has called a method of the child.
        let Ok(mut begun) = self.begun.try_lock() else { return true };
        let mut buffer = [0; 1 << 14];
        // A child that sends without an end must not keep its parent from other work.
        for _ in 0..256 {
            match tap::drain(self.handle.as_handle(), &mut buffer) {
                Ok(Some(n)) if n > 0 => begun.extend_from_slice(&buffer[..n]),
                Ok(Some(_)) => return true,
                Ok(None) | Err(_) => return false,
            }
            let mut rest = &begun[..];
            while let Some((length, after)) = rest.split_first_chunk::<LENGTH>() {
                let Some((record, after)) = after.split_at_checked(usize::from(u16::from_le_bytes(*length))) else {
                    break;
                };
                if let Ok(record) = postcard::from_bytes::<Record>(record) {
                    dispatcher::with_default(&self.dispatch, || emit(&record));
                }
                rest = after;
            }
            let done = begun.len() - rest.len();
            begun.drain(..done);
        }
        true
    }
}

fn emit(record: &Record) {
    if record.lost > 0 {
        let place = Place {
            level: tell::number(Level::WARN),
            name: "events lost".into(),
            target: "maniple".into(),
            module: None,
            file: None,
            line: None,
            fields: vec!["message".into(), "lost".into()],
        };
        let text = "events of a process had no room in the pipe and are lost".to_owned();
        dispatch(site(&place), record.pid, "", &[(0, Content::Text(text)), (1, Content::Unsigned(record.lost))]);
    }
    dispatch(site(&record.place), record.pid, &record.spans, &record.values);
}

fn dispatch(site: &'static Site, pid: u32, spans: &str, values: &[(u32, Content)]) {
    let metadata = site.description();
    if !dispatcher::get_default(|dispatch| dispatch.enabled(metadata)) {
        return;
    }
    let fields: Vec<Field> = metadata.fields().iter().collect();
    let (Some(first), texts) = (fields.first(), values.iter().map(|(_, content)| content.text()).collect::<Vec<_>>())
    else {
        return;
    };
    let mut all: [(&Field, Option<&dyn Value>); MOST] = [(first, None); MOST];
    all[0].1 = Some(&pid);
    let spans = (!spans.is_empty()).then_some(spans);
    if let (Some(second), Some(spans)) = (fields.get(1), &spans) {
        all[1] = (second, Some(spans));
    }
    let own = values.iter().zip(&texts).filter_map(|((number, content), text)| {
        let value: &dyn Value = match content {
            Content::Text(_) => text.as_ref()?,
            Content::Str(text) => text,
            Content::Signed(number) => number,
            Content::Unsigned(number) => number,
            Content::Bool(yes) => yes,
            Content::Float(number) => number,
        };
        Some((fields.get(*number as usize + OURS.len())?, Some(value)))
    });
    for (place, value) in all[OURS.len()..].iter_mut().zip(own) {
        *place = value;
    }
    Event::child_of(None, metadata, &metadata.fields().value_set(&all));
}

impl Content {
    /// A text that is displayed without quotes.
    fn text(&self) -> Option<field::DisplayValue<&str>> {
        match self {
            Content::Text(text) => Some(field::display(text.as_str())),
            _ => None,
        }
    }
}

/// The description of the events of one place in the child's code. It is never freed, because tracing keeps it.
struct Site(OnceLock<Metadata<'static>>);

impl Callsite for Site {
    fn set_interest(&self, _: Interest) {}

    fn metadata(&self) -> &Metadata<'_> {
        self.0.get().unwrap_or(&UNDESCRIBED)
    }
}

impl Site {
    fn description(&'static self) -> &'static Metadata<'static> {
        self.0.get().unwrap_or(&UNDESCRIBED)
    }
}

/// A description refers to its site, so it can be set only when the site exists. No thread reads it in between.
static UNDESCRIBED: Metadata<'static> = {
    static NOBODY: Site = Site(OnceLock::new());
    let fields = FieldSet::new(&[], Identifier(&NOBODY));
    Metadata::new("maniple", "maniple", Level::TRACE, None, None, None, fields, Kind::EVENT)
};

/// Returns the description of a place. Makes it at the first use.
fn site(place: &Place) -> &'static Site {
    static SITES: Mutex<Option<HashMap<Place, &'static Site>>> = Mutex::new(None);
    let mut sites = SITES.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(known) = sites.get_or_insert_default().get(place) {
        return known;
    }
    let forever = |text: &str| -> &'static str { Box::leak(text.to_owned().into_boxed_str()) };
    let own = place.fields.iter().take(MOST - OURS.len()).map(|name| forever(name));
    let fields: &'static [&'static str] = Vec::leak(OURS.into_iter().chain(own).collect());
    let site: &'static Site = Box::leak(Box::new(Site(OnceLock::new())));
    let level = [Level::ERROR, Level::WARN, Level::INFO, Level::DEBUG, Level::TRACE];
    let _ = site.0.set(Metadata::new(
        forever(&place.name),
        forever(&place.target),
        level[usize::from(place.level.clamp(1, 5)) - 1],
        place.file.as_deref().map(forever),
        place.line,
        place.module.as_deref().map(forever),
        FieldSet::new(fields, Identifier(site)),
        Kind::EVENT,
    ));
    sites.get_or_insert_default().insert(place.clone(), site);
    drop(sites);
    callsite::register(site);
    site
}
