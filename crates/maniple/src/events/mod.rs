//! With the feature `tracing`, the `tracing` events of a worker or a [`Process`](crate::Process) reach the subscriber
//! of the process that started it.
//!
//! Each child has a pipe for records of one event each. The records outlive the child: the last records before an abort
//! are read as well. The thread that has the event writes its record in one piece. It does not wait for the parent,
//! unless the pipe (1 MiB, if the system allows that) is full. Then it waits for at most a tenth of a second, and
//! counts the events that found no room. A pool's keeper reads the records when there are any. For a `Process`, which
//! has no thread in its parent, the thread reads them that waits for it or calls another of its methods
//! ([`active_children`](crate::active_children) does so for all).
//!
//! | file | what it is for |
//! | --- | --- |
//! | `mod` | the record, and the functions that the rest of the crate calls, with the feature or without |
//! | `tell` | the child's side: the subscriber that writes records |
//! | `relay` | the parent's side: from records to events again |
//!
//! A child receives its parent's greatest level when it starts. Without a subscriber in the parent there is no pipe. In
//! the parent an event has the level, the target, the module, file and line, and the fields that it had in the child.
//! Before these fields it has `pid` and, within spans, `spans`: their names (`outer:inner`). tracing requires that the
//! description of an event lives forever. So one description is made and kept for each place in the code that has
//! events. A forked child ([`ProcessBuilder::fork`](crate::ProcessBuilder::fork)) keeps its parent's subscriber.

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

/// A place in the code that has events.
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
    /// A text: of a message, or of a type that tracing knows only by its `Debug`.
    Text(String),
    Str(String),
    Signed(i64),
    Unsigned(u64),
    Bool(bool),
    Float(f64),
}

/// The record of an event.
#[cfg(feature = "tracing")]
#[derive(Debug, Serialize, Deserialize)]
struct Record {
    pid: u32,
    /// The number of events without room since the last event that had room.
    lost: u64,
    place: Place,
    spans: String,
    /// The values of the fields, by the index of their names in `place.fields`.
    values: Vec<(u32, Content)>,
}

/// The length of the number before each record that says how long the record is.
#[cfg(feature = "tracing")]
const LENGTH: usize = 2;

#[cfg(not(feature = "tracing"))]
mod without {
    use maniple_sys::OwnedHandle;

    /// Without the feature no event is relayed.
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
