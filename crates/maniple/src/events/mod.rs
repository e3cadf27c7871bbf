//! With the feature `tracing`: the `tracing` events of a worker or a [`Process`](crate::Process) reach the subscriber of the process that
//! started it.
//!
//! Each child has a pipe of its own for records of one event each, which outlive it: the last ones before an abort are read as well. A
//! record is written in one piece by the thread that has the event, which does not wait for the parent, unless the pipe (1 MiB, where
//! the system allows it) is full: then for at most a tenth of a second, and what has no room is counted instead. The reader is a pool's
//! keeper, when there is something; for a `Process`, which has no thread in its parent, the thread that waits for it or calls another of its
//! methods ([`active_children`](crate::active_children) does for all).
//!
//! | file | what it is for |
//! | --- | --- |
//! | `mod` | the record, and what the rest of the crate calls, with the feature or without |
//! | `tell` | the child's side: the subscriber that writes records |
//! | `relay` | the parent's side: from records to events again |
//!
//! A child receives its parent's greatest level when it starts; without a subscriber in the parent there is no pipe. In the parent an
//! event has the level, the target, the module, file and line, and the fields that it had in the child, and before them `pid` and, within
//! spans, `spans`, their names (`outer:inner`). tracing wants the description of an event to live forever: one description is made, and
//! kept, for each place in the code that events come from. A forked child ([`ProcessBuilder::fork`](crate::ProcessBuilder::fork)) has its
//! parent's subscriber, and is left alone.

#[cfg(feature = "tracing")]
mod relay;
#[cfg(feature = "tracing")]
mod tell;

#[cfg(feature = "tracing")]
pub(crate) use relay::{Relay, relay};
#[cfg(feature = "tracing")]
pub(crate) use tell::install;

#[cfg(feature = "tracing")]
use serde::{Deserialize, Serialize};

/// A place in the code that events come from.
#[cfg(feature = "tracing")]
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
struct Place {
    /// 1 for errors to 5 for traces.
    level: u8,
    name: String,
    target: String,
    module: Option<String>,
    file: Option<String>,
    line: Option<u32>,
    fields: Vec<String>,
}

/// A field's value.
#[cfg(feature = "tracing")]
#[derive(Debug, Serialize, Deserialize)]
enum Content {
    /// In words: of a type that tracing knows only by its `Debug`, or a message.
    Text(String),
    Str(String),
    Signed(i64),
    Unsigned(u64),
    Bool(bool),
    Float(f64),
}

/// An event on its way.
#[cfg(feature = "tracing")]
#[derive(Debug, Serialize, Deserialize)]
struct Record {
    pid: u32,
    /// How many had no room since the last one that had.
    lost: u64,
    place: Place,
    spans: String,
    /// By the place of their names in `place.fields`.
    values: Vec<(u32, Content)>,
}

/// Bytes before each record that say how long it is.
#[cfg(feature = "tracing")]
const LENGTH: usize = 2;

#[cfg(not(feature = "tracing"))]
mod without {
    use maniple_sys::OwnedHandle;

    /// Nothing is ever relayed.
    #[derive(Debug)]
    pub(crate) enum Relay {}

    impl Relay {
        pub(crate) fn deliver(&self) -> bool {
            match *self {}
        }

        pub(crate) fn handle(&self) -> &std::sync::Arc<OwnedHandle> {
            match *self {}
        }
    }

    maniple_sys::as_handle!(impl[] for Relay, |this| this.handle().as_handle());

    pub(crate) fn relay() -> Option<(Relay, OwnedHandle, u8)> {
        None
    }

    pub(crate) fn install(_: OwnedHandle, _: u8) {}
}

#[cfg(not(feature = "tracing"))]
pub(crate) use without::{Relay, install, relay};
