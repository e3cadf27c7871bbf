//! Every wait with a time limit has the same error, which says what it waited for.

use crate::support;
use maniple::{
    Barrier, BoundedSemaphore, Condition, Error, Event, JoinableQueue, Listener, Lock, Manager, Mutex, Pool, Process,
    Queue, RLock, RwLock, Semaphore, Value, channel, pipe, wait_timeout,
};
use std::time::Duration;

const SHORT: Duration = Duration::from_millis(3);

/// What a call that was late says it waited for.
fn late<T>(result: Result<T, impl Into<Error>>) -> &'static str {
    match result.map(drop).map_err(Into::into) {
        Err(error @ Error::Timeout(late)) => {
            assert_eq!(late.timeout(), SHORT);
            assert_eq!(error.to_string(), format!("timed out after 3ms: waited for {}", late.waited_for()));
            assert_eq!(std::io::Error::from(error).kind(), std::io::ErrorKind::TimedOut);
            late.waited_for()
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_late_message_value_client_or_process_is_named() {
    let _alive = support::watchdog();
    let (a, b) = pipe::<u8>().unwrap();
    assert_eq!((b.recv_timeout(SHORT).unwrap(), b.recv_bytes_timeout(9, SHORT).unwrap()), (None, None));
    while a.try_send(&1).unwrap() {}
    assert_eq!(late(a.send_timeout(&1, SHORT)), "room to send a message");
    assert_eq!(late(a.send_bytes_timeout(b"1", SHORT)), "room to send a message");
    let (sender, receiver) = channel::<u8>().unwrap();
    assert_eq!(receiver.recv_timeout(SHORT).unwrap(), None);
    assert_eq!(late(wait_timeout(&[&receiver], SHORT)), "something to become ready");
    while sender.try_send(&1).unwrap() {}
    assert_eq!(late(sender.send_timeout(&1, SHORT)), "room to send a message");
    let queue = Queue::bounded(1).unwrap();
    assert_eq!(queue.get_timeout(SHORT).unwrap(), None);
    queue.put(&1).unwrap();
    assert_eq!(late(queue.put_timeout(&2, SHORT)), "room in the queue");
    let jobs = JoinableQueue::new().unwrap();
    jobs.put(&1).unwrap();
    assert_eq!(late(jobs.join_timeout(SHORT)), "the values of the queue to be processed");
    assert_eq!(late(Listener::temporary().unwrap().accept_timeout::<()>(SHORT)), "a client to connect");
    let process = Process::builder()
        .daemon(true)
        .build(
            |()| -> i32 {
                loop {
                    std::thread::park()
                }
            },
            (),
        )
        .unwrap();
    process.start().unwrap();
    assert_eq!(process.join_timeout(SHORT).unwrap(), None);
    let pool = Pool::new(1).unwrap();
    let mut job = pool
        .apply_async(
            |()| -> u8 {
                loop {
                    std::thread::park()
                }
            },
            (),
        )
        .unwrap();
    assert_eq!(late(job.get_timeout(SHORT)), "the job to end");
    assert_eq!(late(job.wait_timeout(SHORT)), "the job to end");
}

#[test]
fn a_late_lock_unit_event_or_party_is_named() {
    let _alive = support::watchdog();
    let elsewhere =
        |body: &(dyn Fn() -> &'static str + Sync)| std::thread::scope(|scope| scope.spawn(body).join().unwrap());
    let held = "the lock, which others, or this thread, held";
    let (lock, rlock) = (Lock::new().unwrap(), RLock::new().unwrap());
    let (mutex, value) = (Mutex::new(1).unwrap(), Value::new(1).unwrap());
    let _held = (lock.lock().unwrap(), rlock.lock().unwrap(), mutex.lock().unwrap(), value.lock().unwrap());
    assert_eq!(elsewhere(&|| late(lock.lock_timeout(SHORT))), held);
    let by_others = "the lock, which others held";
    assert_eq!(elsewhere(&|| late(RLock::lock_timeout(&rlock.clone(), SHORT))), by_others);
    assert_eq!(elsewhere(&|| late(mutex.lock_timeout(SHORT))), held);
    assert_eq!(elsewhere(&|| late(value.lock_timeout(SHORT))), held);
    // By this thread.
    assert_eq!((late(lock.lock_timeout(SHORT)), late(mutex.lock_timeout(SHORT))), (held, held));
    let shared = RwLock::new(1).unwrap();
    let _reads = shared.read().unwrap();
    assert_eq!(late(shared.write_timeout(SHORT)), held);
    assert_eq!(late(Semaphore::new(0).unwrap().acquire_timeout(SHORT)), "a unit of the semaphore");
    let bounded = BoundedSemaphore::new(1).unwrap();
    let _permit = bounded.acquire().unwrap();
    assert_eq!(late(bounded.acquire_timeout(SHORT)), "a unit of the semaphore");
    assert_eq!(late(Event::new().unwrap().wait_timeout(SHORT)), "the event to be set");
    assert_eq!(late(Barrier::new(2).unwrap().wait_timeout(SHORT)), "the other parties of the barrier");
    let (_, waited) = Condition::new().unwrap().wait_timeout(Lock::new().unwrap().lock().unwrap(), SHORT).unwrap();
    assert!(waited.timed_out());
}

/// What holds the lock or the unit may be this thread, another thread or another process; the texts fit all of them.
#[test]
fn a_try_and_a_release_in_vain_do_not_blame_others() {
    let (lock, bounded) = (Lock::new().unwrap(), BoundedSemaphore::new(1).unwrap());
    for error in [bounded.release().unwrap_err(), lock.release().unwrap_err()] {
        assert!(!error.to_string().contains("another process"), "{error}");
        assert!(error.to_string().contains("this process holds no unit of the bounded semaphore"), "{error}");
    }
    let _held = (lock.lock().unwrap(), bounded.acquire().unwrap());
    for error in [Error::from(lock.try_lock().unwrap_err()), bounded.try_acquire().unwrap_err().into()] {
        assert!(!error.to_string().contains("another holder"), "{error}");
    }
}

#[test]
fn a_managers_late_objects_are_named() {
    let _alive = support::watchdog();
    let manager = Manager::new().unwrap();
    let queue = manager.queue::<u8>(1).unwrap();
    assert_eq!(queue.get_timeout(SHORT).unwrap(), None);
    queue.put(&1).unwrap();
    assert_eq!(late(queue.put_timeout(&2, SHORT)), "room in the queue");
    let lock = manager.lock().unwrap();
    let _held = lock.lock().unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| assert_eq!(late(lock.lock_timeout(SHORT)), "the lock, which others held"));
    });
    assert_eq!(late(manager.semaphore(0).unwrap().acquire_timeout(SHORT)), "a permit of the semaphore");
    assert_eq!(late(manager.event().unwrap().wait_timeout(SHORT)), "the event to be set");
    let condition = manager.condition().unwrap();
    let mut guard = condition.lock().unwrap();
    assert_eq!(late(guard.wait_timeout(SHORT)), "a notification of the condition");
    assert_eq!(late(guard.wait_timeout_while(SHORT, || Ok(true))), "a condition to come true");
    guard.wait_timeout_while(SHORT, || Ok(false)).unwrap();
}
