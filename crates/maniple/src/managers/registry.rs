//! The server's objects, and the references to them.
//!
//! An object lives as long as it has a holder:
//!
//! | holder | until |
//! | --- | --- |
//! | a [`Session`], for the proxies in a client process | each is released, or the control connection ends |
//! | a [`InTransit`], for a proxy in a message | it arrives; if it never does, some time after its sender's end |
//! | a proxy in the server itself, usually within another object | it is dropped |
//! | a call that is under way | it ends |

use super::ManagerError;
use std::any::{Any, type_name};
use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread::{Thread, ThreadId};
use std::time::{Duration, Instant};

/// How long an object waits for a proxy whose sender is gone.
const UNCLAIMED: Duration = Duration::from_secs(600);

/// An object of the server.
pub(super) struct Object {
    pub id: u64,
    pub type_name: &'static str,
    content: Box<dyn Any + Send + Sync>,
    home: Weak<Registry>,
}

impl Object {
    /// Returns its content, if it is a `C`.
    pub(super) fn content<C: 'static>(&self) -> Result<&C, ManagerError> {
        self.content.downcast_ref().ok_or_else(|| ManagerError::WrongType(self.type_name.into()))
    }
}

impl Drop for Object {
    fn drop(&mut self) {
        if let Some(registry) = self.home.upgrade() {
            locked(&registry.objects).remove(&self.id);
        }
    }
}

/// The content of an object that is being made.
pub(super) struct Content {
    content: Box<dyn Any + Send + Sync>,
    type_name: &'static str,
}

impl Content {
    pub(super) fn new<C: Any + Send + Sync>(content: C) -> Content {
        Content { content: Box::new(content), type_name: type_name::<C>() }
    }
}

/// A reference in transit.
struct InTransit {
    object: Arc<Object>,
    from: u64,
    // Set when the sender is gone.
    until: Option<Instant>,
}

/// All objects of the server.
#[derive(Default)]
pub(super) struct Registry {
    objects: Mutex<HashMap<u64, Weak<Object>>>,
    in_transit: Mutex<HashMap<u64, InTransit>>,
    next: AtomicU64,
}

pub(super) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Registry {
    fn number(&self) -> u64 {
        // The numbers only have to differ.
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    pub(super) fn add(self: &Arc<Self>, Content { content, type_name }: Content) -> Arc<Object> {
        let object = Arc::new(Object { id: self.number(), type_name, content, home: Arc::downgrade(self) });
        locked(&self.objects).insert(object.id, Arc::downgrade(&object));
        object
    }

    pub(super) fn find(&self, id: u64) -> Result<Arc<Object>, ManagerError> {
        // A statement of its own: this may be the last holder, and its drop takes the lock.
        let found = locked(&self.objects).get(&id).and_then(Weak::upgrade);
        found.ok_or(ManagerError::ObjectGone)
    }

    /// Records that the client of that number sends a proxy.
    pub(super) fn pass(&self, object: Arc<Object>, from: u64) -> u64 {
        let transit = self.number();
        locked(&self.in_transit).insert(transit, InTransit { object, from, until: None });
        transit
    }

    /// Records that a proxy has arrived. If its bytes were decoded before, the process must still have another proxy.
    pub(super) fn claim(&self, id: u64, transit: u64) -> Result<Arc<Object>, ManagerError> {
        let found = locked(&self.in_transit).remove(&transit);
        match found {
            Some(found) if found.object.id == id => Ok(found.object),
            _ => self.find(id),
        }
    }

    fn sender_gone(&self, session: u64) {
        let until = Instant::now() + UNCLAIMED;
        locked(&self.in_transit).values_mut().filter(|p| p.from == session).for_each(|p| p.until = Some(until));
    }

    /// Drops the references in transit that no process will end any more.
    pub(super) fn sweep(&self, now: Instant) {
        let late = |_: &u64, p: &mut InTransit| p.until.is_some_and(|until| until < now);
        let dead: Vec<InTransit> = locked(&self.in_transit).extract_if(late).map(|(_, gone)| gone).collect();
        drop(dead);
    }
}

/// A client process.
#[derive(Default)]
pub(super) struct Session {
    pub number: u64,
    // Set before its threads are unparked, which orders it with their check; and under the lock of `references`.
    gone: AtomicBool,
    references: Mutex<HashMap<u64, (Arc<Object>, u64)>>,
    threads: Mutex<HashMap<ThreadId, Thread>>,
}

impl Session {
    pub(super) fn new(number: u64) -> Session {
        Session { number, ..Session::default() }
    }

    /// Adds a proxy for the object.
    pub(super) fn hold(&self, object: Arc<Object>) {
        let mut references = locked(&self.references);
        if !self.gone.load(Ordering::SeqCst) {
            references.entry(object.id).or_insert((object, 0)).1 += 1;
        }
    }

    /// Removes a proxy.
    pub(super) fn release(&self, id: u64) {
        let mut references = locked(&self.references);
        let Some((_, count)) = references.get_mut(&id) else { return };
        *count -= 1;
        let last = (*count == 0).then(|| references.remove(&id));
        drop(references);
        // The destructor belongs to the user, and may call this server.
        drop(last);
    }

    /// Ends the session of a client process that is gone: its waits end, and its references are dropped.
    pub(super) fn end(&self, registry: &Registry) {
        let mut references = locked(&self.references);
        self.gone.store(true, Ordering::SeqCst);
        let all = std::mem::take(&mut *references);
        drop(references);
        locked(&self.threads).values().for_each(Thread::unpark);
        registry.sender_gone(self.number);
        drop(all);
    }
}

/// A lock or permit that a thread can hold without releasing it.
pub(super) trait Abandon: Send + Sync {
    /// The thread with that line is gone.
    fn abandon(&self, line: u64);
}

/// The server's record of a client's thread.
pub(super) struct Line {
    pub number: u64,
    pub session: Arc<Session>,
    held: Mutex<HashMap<usize, Arc<dyn Abandon>>>,
}

impl Line {
    pub(super) fn is_gone(&self) -> bool {
        self.session.gone.load(Ordering::SeqCst)
    }

    /// Records that the thread holds (a part of) it.
    pub(super) fn hold(&self, what: Arc<dyn Abandon>) {
        locked(&self.held).insert(Arc::as_ptr(&what).addr(), what);
    }

    /// Records that the thread holds nothing of it any more.
    pub(super) fn let_go<T>(&self, what: &Arc<T>) {
        let found = locked(&self.held).remove(&Arc::as_ptr(what).addr());
        drop(found);
    }
}

/// A line while it is served.
pub(super) struct Served(Arc<Line>);

impl Served {
    /// Makes the calling thread serve the line.
    pub(super) fn begin(session: Arc<Session>) -> Served {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let thread = std::thread::current();
        locked(&session.threads).insert(thread.id(), thread);
        // The numbers only have to differ.
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        Served(Arc::new(Line { number, session, held: Mutex::default() }))
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        locked(&self.0.session.threads).remove(&std::thread::current().id());
        let held = std::mem::take(&mut *locked(&self.0.held));
        held.values().for_each(|what| what.abandon(self.0.number));
    }
}

thread_local! {
    static CURRENT: RefCell<Option<Served>> = const { RefCell::new(None) };
}

/// Makes this the line of this thread, for as long as the value lives.
pub(super) fn serve_here(line: Served) {
    CURRENT.set(Some(line));
}

/// Releases the locks and permits that this thread's line holds.
pub(super) fn serve_no_more() {
    drop(CURRENT.take());
}

/// Returns the line that this thread of the server serves. A thread that serves none is itself a client, of the
/// server's own process.
pub(super) fn current_line() -> Arc<Line> {
    CURRENT.with_borrow_mut(|line| line.get_or_insert_with(|| Served::begin(Arc::default())).0.clone())
}

/// Returns whether the process for which this thread of the server works is gone.
pub(super) fn is_caller_gone() -> bool {
    CURRENT.with_borrow(|line| line.as_ref().is_some_and(|served| served.0.is_gone()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_that_nobody_receives_keeps_its_object_until_some_time_after_its_senders_end() {
        let registry = Arc::<Registry>::default();
        let sender = Session::new(5);
        let (object, claimed) = (registry.add(Content::new(1u8)), registry.add(Content::new(2u8)));
        let (id, other) = (object.id, claimed.id);
        registry.pass(object, sender.number);
        let transit = registry.pass(claimed, sender.number);
        let late = || Instant::now() + 2 * UNCLAIMED;
        registry.sweep(late());
        assert!(registry.find(id).is_ok());
        sender.end(&registry);
        registry.sweep(Instant::now());
        assert!(registry.find(id).is_ok());
        // A receiver that arrives in between keeps it.
        let claimed = registry.claim(other, transit).unwrap();
        registry.sweep(late());
        assert_eq!(registry.find(id).err(), Some(ManagerError::ObjectGone));
        assert_eq!(claimed.content::<u8>().ok(), Some(&2));
        drop(claimed);
        assert!(locked(&registry.objects).is_empty() && locked(&registry.in_transit).is_empty());
    }

    #[test]
    fn a_session_holds_each_object_as_often_as_it_has_proxies_for_it() {
        let registry = Arc::<Registry>::default();
        let session = Session::new(1);
        let object = registry.add(Content::new(()));
        let id = object.id;
        session.hold(object.clone());
        session.hold(object);
        session.release(id);
        assert!(registry.find(id).is_ok());
        session.release(id);
        assert!(registry.find(id).is_err());
        // More releases than it had references, and after its end: nothing happens.
        session.release(id);
        session.end(&registry);
        session.hold(registry.add(Content::new(())));
        assert!(locked(&registry.objects).is_empty());
    }
}
