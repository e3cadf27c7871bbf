//! The Debug form of the crate's public types: one short line that shows no internals.

use crate::support::watchdog;
use maniple::{
    Array, Authkey, Barrier, BoundedSemaphore, CallOptions, Client, Condition, Event, Handle, JoinableQueue, Listener,
    Lock, Manager, Mutex, Pool, Process, Queue, RLock, RawArray, RawValue, RwLock, Semaphore, ShareableList,
    SharedMemory, SimpleQueue, Stdio, Value, channel, pipe,
};
use std::fmt::Debug;
use std::time::Duration;

fn is_short(what: impl Debug) -> String {
    let shown = format!("{what:?}");
    assert!(shown.len() <= 240, "{} characters: {shown}", shown.len());
    for inner in ["PhantomData", "data: ", "Weak", "0x", "\n"] {
        assert!(!shown.contains(inner), "{inner} in {shown}");
    }
    shown
}

#[test]
fn what_a_pool_gives_out() {
    let _dog = watchdog();
    let pool = Pool::new(2).unwrap();
    assert!(is_short(&pool).starts_with("Pool { start_method: "));
    is_short(pool.with(CallOptions::new().chunksize(3)));
    let limited = CallOptions::new().task_timeout(Duration::from_secs(2)).priority(-1);
    assert_eq!(is_short(limited), "CallOptions { task_timeout: 2s, priority: -1 }");
    is_short(pool.with(limited.retries(3)));
    is_short(
        Pool::builder().initializer(|()| (), ()).processes(3).task_timeout(Duration::from_secs(2)).memory_limit(9),
    );
    let secret = is_short(Pool::builder().processes(3).env("TOKEN", "secret").current_dir("/").min_processes(1));
    assert_eq!(secret, "PoolBuilder { processes: 3, min_processes: 1, env: [\"TOKEN\"], current_dir: \"/\", .. }");
    assert_eq!(is_short(Pool::builder()), "PoolBuilder { .. }");
    let job = pool.apply_async(u32::count_ones, 7).unwrap();
    job.wait();
    assert_eq!(is_short(&job), "JobHandle { finished: true, .. }");
    is_short(pool.map_async(u32::count_ones, 0..1000).unwrap());
    let mut results = pool.imap(u32::count_ones, 0..1000).unwrap();
    results.next().unwrap().unwrap();
    is_short(&results);
    is_short(results.indexed());
    #[cfg(feature = "async")]
    {
        is_short(pool.imap(u32::count_ones, [7]).unwrap().into_stream());
        is_short(pool.imap(u32::count_ones, [7]).unwrap().into_stream().indexed());
    }
}

#[test]
fn processes_and_what_they_are_made_of() {
    let _dog = watchdog();
    is_short(Process::builder().name("scanner"));
    is_short(Stdio::Null);
    let process = Process::new(|()| (), ()).unwrap();
    assert!(is_short(&process).ends_with("state: not started }"));
    process.start().unwrap();
    is_short(&process);
    process.join().unwrap();
    assert!(is_short(&process).ends_with("state: exited with code 0 }"));
    is_short(maniple::spawn(|()| 1, ()).unwrap());
    is_short(maniple::current_process());
}

#[test]
fn connections_and_queues() {
    let _dog = watchdog();
    let (ours, theirs) = pipe::<u8>().unwrap();
    is_short((&ours, &theirs));
    let (sender, receiver) = channel::<u8>().unwrap();
    is_short((&sender, &receiver));
    is_short(receiver.iter());
    is_short(receiver.into_iter());
    let queue = Queue::<u8>::new().unwrap();
    is_short(&queue);
    is_short(queue.iter());
    is_short(JoinableQueue::<u8>::new().unwrap());
    is_short(SimpleQueue::<u8>::new().unwrap());
    let listener = Listener::builder().authkey("between us").temporary().unwrap();
    is_short(&listener);
    is_short(listener.incoming::<u8>());
    is_short(Listener::builder().authkey("between us"));
    is_short(Client::builder().authkey("between us"));
    is_short(Authkey::from("between us"));
    is_short(Handle::new(std::io::stdout()));
}

#[test]
fn locks_and_shared_values() {
    let _dog = watchdog();
    let (lock, rlock, mutex) = (Lock::new().unwrap(), RLock::new().unwrap(), Mutex::new(1).unwrap());
    is_short((&lock, &rlock, &mutex));
    is_short((lock.lock().unwrap(), rlock.lock().unwrap(), mutex.lock().unwrap()));
    let shared = RwLock::new(1).unwrap();
    is_short(&shared);
    is_short(shared.read().unwrap());
    is_short(shared.write().unwrap());
    is_short((Semaphore::new(1).unwrap(), BoundedSemaphore::new(1).unwrap()));
    is_short(BoundedSemaphore::new(1).unwrap().acquire().unwrap());
    is_short((Condition::new().unwrap(), Event::new().unwrap(), Barrier::new(2).unwrap()));
    is_short((Value::new(1).unwrap(), RawValue::new(1).unwrap()));
    is_short((Array::<u8>::new(9).unwrap(), RawArray::<u8>::new(9).unwrap()));
    is_short((SharedMemory::new(9).unwrap(), ShareableList::new(["a"]).unwrap()));
}

#[test]
fn managed_objects() {
    let _dog = watchdog();
    let manager = Manager::new().unwrap();
    is_short(&manager);
    is_short(Manager::builder().authkey("between us"));
    is_short((manager.list::<u8>().unwrap(), manager.dict::<u8, u8>().unwrap()));
    is_short((manager.queue::<u8>(0).unwrap(), manager.event().unwrap()));
    is_short(manager.barrier(2).unwrap());
    let (lock, condition, semaphore) =
        (manager.lock().unwrap(), manager.condition().unwrap(), manager.semaphore(2).unwrap());
    is_short((&lock, &condition));
    is_short(&semaphore);
    is_short(lock.lock().unwrap());
    is_short(condition.lock().unwrap());
    is_short(semaphore.acquire().unwrap());
}
