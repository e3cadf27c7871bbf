//! Objects in a manager's server: which processes can use them, how long they live, and that nothing hangs or leaks when a process
//! dies.

use crate::support::{
    LONG, METHODS, SHORT, eventually, exists, is_listed, part, print_pids, read_pids, start_hub, watchdog,
};
use maniple::managers::{
    Barrier, Condition, Dict, Event, List, Lock, ManagerError, Namespace, Queue, Semaphore, Value, is_caller_gone,
};
use maniple::{Bulk, Cause, Codec, Error, Exit, Manager, Postcard, Process, Proxy, StartMethod};
use maniple_sys::testing::{self, Signal};
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// A child that runs `f`.
fn child<A: maniple::Payload, R: maniple::IntoExitCode + 'static>(f: fn(A) -> R, argument: A) -> Process {
    let child = Process::builder().daemon(true).build(f, argument).unwrap();
    child.start().unwrap();
    child
}

fn kill(pid: u32, signal: Signal) {
    testing::kill(pid, signal).unwrap();
}

fn descriptors_of(pid: u32) -> usize {
    std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count()
}

fn threads_of(pid: u32) -> usize {
    std::fs::read_dir(format!("/proc/{pid}/task")).unwrap().count()
}

fn temporary(name: &str) -> PathBuf {
    std::env::temp_dir().join(format!("maniple-test-{name}-{}", std::process::id()))
}

/// Stops a process, and waits until it is stopped.
fn stop(pid: u32) {
    kill(pid, Signal::STOP);
    let stat = || std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    eventually("it stands still", || stat().rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('T')));
}

/// Living ones in the server.
static LIVING: AtomicU32 = AtomicU32::new(0);

struct Counted;

impl Counted {
    fn new((): ()) -> Counted {
        LIVING.fetch_add(1, Ordering::SeqCst);
        Counted
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        LIVING.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Tells how many `Counted` the server has.
fn counter(manager: &Manager) -> impl Fn() -> u32 + use<> {
    let teller = manager.serve(|()| (), ()).unwrap();
    move || teller.call(|(), ()| LIVING.load(Ordering::SeqCst), ()).unwrap()
}

/// Whether the time was up.
fn is_late<T>(result: maniple::Result<T>) -> bool {
    matches!(result, Err(Error::Timeout(_)))
}

#[test]
fn all_start_methods_serve_threads_and_children() {
    let _dog = watchdog();
    for method in METHODS {
        let manager = Manager::builder().start_method(method).build().unwrap();
        let total = manager.value(&0u64).unwrap();
        let children: Vec<Process> = (1..=2)
            .map(|by| {
                child(
                    |(total, by): (Value<u64>, u64)| (0..50).try_for_each(|_| total.with(|total, by| *total += by, by)),
                    (total.clone(), by),
                )
            })
            .collect();
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| (0..50).for_each(|_| total.with(|total, ()| *total += 1000, ()).unwrap()));
            }
        });
        for child in children {
            assert_eq!(child.join().unwrap(), Exit::Code(0));
        }
        assert_eq!(total.get().unwrap(), 100_150);
        let server = manager.pid().unwrap();
        assert_eq!(manager.shutdown().unwrap(), Some(Exit::Code(0)));
        assert!(!is_listed(server));
        assert!(matches!(total.get(), Err(Error::ManagerLost(_))));
    }
}

#[test]
fn an_object_lives_until_the_last_proxy_is_dropped_wherever_it_is() {
    let _dog = watchdog();
    let manager = Manager::new().unwrap();
    let living = counter(&manager);
    let proxy = manager.serve(Counted::new, ()).unwrap();
    let clone = proxy.clone();
    drop(proxy);
    assert_eq!(living(), 1);
    drop(clone);
    eventually("the object goes with its last proxy", || living() == 0);

    // In another object, which holds the last one.
    let list = manager.list::<Proxy<Counted>>().unwrap();
    list.push(&manager.serve(Counted::new, ()).unwrap()).unwrap();
    let back = list.get(0).unwrap().unwrap();
    assert_eq!((living(), list.len().unwrap()), (1, 1));
    drop(list);
    back.call(|_, ()| (), ()).unwrap();
    drop(back);
    eventually("the object goes with what held its proxy", || living() == 0);

    // Sent, and dropped here before it has arrived.
    let event = manager.event().unwrap();
    let process = child(
        |(proxy, event): (Proxy<Counted>, Event)| {
            event.wait()?;
            proxy.call(|_, ()| (), ())
        },
        (manager.serve(Counted::new, ()).unwrap(), event.clone()),
    );
    assert_eq!(living(), 1);
    event.set().unwrap();
    assert_eq!(process.join().unwrap(), Exit::Code(0));
    eventually("the object goes with the child that had it", || living() == 0);

    // And with a child that is killed.
    let ready = manager.event().unwrap();
    let process = child(
        |(_proxy, ready): (Proxy<Counted>, Event)| {
            ready.set().unwrap();
            std::thread::sleep(LONG);
        },
        (manager.serve(Counted::new, ()).unwrap(), ready.clone()),
    );
    ready.wait().unwrap();
    assert_eq!(living(), 1);
    process.kill().unwrap();
    eventually("the object goes with the killed child", || living() == 0);
}

mod this {
    #[derive(serde::Serialize)]
    pub(super) struct Same(pub maniple::Proxy<super::Counted>);
}

mod that {
    #[derive(serde::Deserialize)]
    pub(super) struct Same(pub maniple::Proxy<String>);
}

#[test]
fn the_server_knows_that_an_object_is_of_another_type_than_its_proxy() {
    let _dog = watchdog();
    let manager = Manager::new().unwrap();
    let mut bytes = Vec::new();
    // The codec takes them for one type.
    Postcard::encode(&this::Same(manager.serve(Counted::new, ()).unwrap()), &mut bytes).unwrap();
    let that::Same(other) = Postcard::decode(&mut &bytes[..]).unwrap();
    let error = other.call(|_, ()| (), ()).unwrap_err();
    assert!(error.to_string().contains("another type"), "{error}");
}

#[test]
fn a_proxy_can_be_decoded_twice_while_another_is_left() {
    let _dog = watchdog();
    let manager = Manager::new().unwrap();
    let living = counter(&manager);
    let proxy = manager.serve(Counted::new, ()).unwrap();
    let mut bytes = Vec::new();
    Postcard::encode(&proxy, &mut bytes).unwrap();
    let first: Proxy<Counted> = Postcard::decode(&mut &bytes[..]).unwrap();
    let second: Proxy<Counted> = Postcard::decode(&mut &bytes[..]).unwrap();
    drop((proxy, first));
    second.call(|_, ()| (), ()).unwrap();
    let error = Postcard::decode::<Proxy<String>>(&mut &bytes[..]).unwrap_err();
    assert!(error.to_string().contains("another type"), "{error}");
    drop(second);
    eventually("the object goes", || living() == 0);
    let error = Postcard::decode::<Proxy<Counted>>(&mut &bytes[..]).unwrap_err();
    assert!(error.to_string().contains("no longer has this object"), "{error}");
}

#[test]
fn proxies_lie_in_another_managers_values() {
    let _dog = watchdog();
    let (shelf, maker) = (Manager::new().unwrap(), Manager::new().unwrap());
    let dict = shelf.dict::<String, Value<u32>>().unwrap();
    dict.insert("total", &maker.value(&1u32).unwrap()).unwrap();
    let process = child(
        |dict: Dict<String, Value<u32>>| dict.get("total").unwrap().unwrap().with(|n, ()| *n += 10, ()).unwrap(),
        dict.clone(),
    );
    assert_eq!(process.join().unwrap(), Exit::Code(0));
    assert_eq!(dict.get("total").unwrap().unwrap().get().unwrap(), 11);
}

#[test]
fn proxies_go_by_every_way_to_a_process_that_knows_nothing_of_their_manager() {
    let _dog = watchdog();
    let manager = Manager::new().unwrap();
    let living = counter(&manager);
    let total = manager.value(&0u32).unwrap();
    let (here, there) = maniple::pipe::<Value<u32>>().unwrap();
    type Both = (Value<u32>, Proxy<Counted>);
    let queue = maniple::Queue::<Both>::new().unwrap();
    let process = child(
        |(there, queue): (maniple::Connection<Value<u32>>, maniple::Queue<Both>)| {
            let first = there.recv().unwrap();
            first.with(|total, ()| *total += 1, ()).unwrap();
            there.send(&first).unwrap();
            let (second, object) = queue.get().unwrap();
            drop(first);
            object.call(|_, ()| (), ()).unwrap();
            second.with(|total, ()| *total += 10, ()).unwrap();
        },
        (there, queue.clone()),
    );
    here.send(&total).unwrap();
    assert_eq!(here.recv().unwrap().get().unwrap(), 1);
    // The only proxy for the object is the one in the queue.
    queue.put(&(total.clone(), manager.serve(Counted::new, ()).unwrap())).unwrap();
    assert_eq!(process.join().unwrap(), Exit::Code(0));
    eventually("the object goes with the child", || living() == 0);
    // A pool's workers, one of them after the other, and a result.
    let pool = maniple::Pool::new(2).unwrap();
    let add = |total: Value<u32>| {
        total.with(|total, ()| *total += 100, ()).unwrap();
        total
    };
    let back = pool.map(add, vec![total.clone(); 4]).unwrap();
    assert_eq!((back.len(), back[3].get().unwrap()), (4, 411));
    pool.close();
    pool.join();
}

#[test]
fn descriptors_in_a_managers_values_are_refused() {
    let _dog = watchdog();
    let manager = Manager::new().unwrap();
    let (_reader, writer) = std::io::pipe().unwrap();
    let list = manager.list::<maniple::Handle<std::io::PipeWriter>>().unwrap();
    let error = list.push(&maniple::Handle::new(writer)).unwrap_err();
    assert!(matches!(&error, Error::Codec { .. }) && error.to_string().contains("cannot be sent this way"), "{error}");
    assert!(list.is_empty().unwrap());
}

#[test]
fn a_key_stays_in_maniples_own_encoding() {
    let _dog = watchdog();
    let key = b"a key that is easily found";
    let manager = Manager::builder().authkey(&key[..]).build().unwrap();
    let list = manager.list::<u8>().unwrap();
    let mut bytes = Vec::new();
    Postcard::encode(&list, &mut bytes).unwrap();
    assert!(!bytes.windows(key.len()).any(|part| part == key));
    let told = manager.value(&String::new()).unwrap();
    let process = child(
        |(bytes, address, told): (Vec<u8>, String, Option<Value<String>>)| {
            assert!(told.is_none());
            let error = Postcard::decode::<List<u8>>(&mut &bytes[..]).unwrap_err();
            assert!(error.to_string().contains("Manager::connect"), "{error}");
            let _manager = Manager::connect(&address, b"a key that is easily found").unwrap();
            let list: List<u8> = Postcard::decode(&mut &bytes[..]).unwrap();
            list.push(&7).unwrap();
        },
        (bytes, manager.address().to_string(), None::<Value<String>>),
    );
    assert_eq!(process.join().unwrap(), Exit::Code(0));
    assert_eq!(list.to_vec().unwrap(), [7]);
    drop(told);
}

#[test]
fn a_panic_is_the_callers_and_poisons_what_it_was_changing() {
    let _dog = watchdog();
    let manager = Manager::new().unwrap();
    let proxy = manager.serve(|()| 1u32, ()).unwrap();
    let looking = proxy.call::<_, ()>(|_, ()| panic!("while looking"), ()).unwrap_err();
    assert!(matches!(&looking, Error::Panicked(p) if p.message == "while looking"), "{looking}");
    assert_eq!(proxy.call(|n, ()| *n, ()).unwrap(), 1);
    let changing = proxy
        .call_mut::<_, ()>(
            |n, ()| {
                *n = 2;
                panic!("while changing")
            },
            (),
        )
        .unwrap_err();
    assert!(matches!(changing, Error::Panicked(_)));
    assert!(matches!(proxy.call(|n, ()| *n, ()), Err(Error::Manager(ManagerError::Poisoned))));
    assert!(matches!(proxy.call_mut(|n, ()| *n, ()), Err(Error::Manager(ManagerError::Poisoned))));
    proxy.clear_poison().unwrap();
    assert_eq!(proxy.call(|n, ()| *n, ()).unwrap(), 2);

    let dict = manager.dict::<u8, u8>().unwrap();
    assert!(matches!(dict.with::<_, ()>(|_, ()| panic!(), ()), Err(Error::Panicked(_))));
    assert!(matches!(dict.get(&1), Err(Error::Manager(ManagerError::Poisoned))));
    dict.clear_poison().unwrap();
    assert_eq!(dict.get(&1).unwrap(), None);
    assert!(matches!(manager.serve(|()| -> u8 { panic!() }, ()), Err(Error::Panicked(_))));
}

#[test]
fn large_values_come_through_whole() {
    let _dog = watchdog();
    let manager = Manager::new().unwrap();
    let dict = manager.dict::<String, Bulk<u32>>().unwrap();
    let large: Bulk<u32> = (0..4 << 20).collect();
    dict.insert("large", &large).unwrap();
    assert_eq!(dict.get("large").unwrap().unwrap(), large);
}

#[test]
fn objects_in_the_server_use_each_other_without_a_connection() {
    let _dog = watchdog();
    struct Shop {
        stock: Dict<String, u32>,
        lock: Lock,
    }
    impl Shop {
        fn sell(&self, what: String) -> Result<u32, String> {
            let told = |e: Error| e.to_string();
            let _held = self.lock.lock().map_err(told)?;
            let left = self.stock.get(&what).map_err(told)?.ok_or("never heard of it")?;
            self.stock.insert(&what, &(left - 1)).map_err(told)?;
            Ok(left - 1)
        }
    }
    let manager = Manager::new().unwrap();
    let (stock, lock) = (manager.dict().unwrap(), manager.lock().unwrap());
    stock.insert("bread", &3).unwrap();
    let shop = manager.serve(|(stock, lock)| Shop { stock, lock }, (stock.clone(), lock.clone())).unwrap();
    let before = descriptors_of(manager.pid().unwrap());
    assert_eq!(shop.call(Shop::sell, "bread".into()).unwrap(), Ok(2));
    assert_eq!(shop.call(Shop::sell, "salt".into()).unwrap(), Err("never heard of it".into()));
    assert_eq!(stock.get("bread").unwrap(), Some(2));
    assert!(lock.try_lock().unwrap().is_some());
    assert_eq!(descriptors_of(manager.pid().unwrap()), before);
}

#[test]
fn an_object_that_calls_itself_gets_an_error_instead_of_waiting_for_itself() {
    let _dog = watchdog();
    let manager = Manager::new().unwrap();
    let list = manager.list::<List<u8>>().unwrap();
    list.push(&manager.list().unwrap()).unwrap();
    let own = manager.namespace().unwrap();
    own.set("own", &own).unwrap();
    let nested = own.with::<Namespace, _, _>("own", |own, ()| own.names().map_err(|e| e.to_string()), ()).unwrap();
    assert!(nested.unwrap().unwrap_err().contains("is in use by the function"));
    // Another one is no matter.
    let pushed = list.with(|lists, ()| lists[0].push(&1).and_then(|()| lists[0].len()).unwrap(), ()).unwrap();
    assert_eq!((pushed, own.names().unwrap()), (1, vec!["own".to_owned()]));
}

#[test]
fn proxies_and_managers_are_for_all_threads() {
    fn shared<T: Send + Sync>() {}
    shared::<(Manager, Proxy<std::cell::Cell<u8>>, Dict<String, u8>, Queue<u8>, Lock)>();
}

#[test]
fn a_wait_keeps_only_its_caller_waiting_and_ends_in_time() {
    let _dog = watchdog();
    let manager = Manager::new().unwrap();
    let queue = manager.queue::<u32>(2).unwrap();
    assert_eq!(queue.get_timeout(SHORT).unwrap(), None);
    std::thread::scope(|scope| {
        let getters: Vec<_> = (0..3).map(|_| scope.spawn(|| queue.get().unwrap())).collect();
        for item in 0..3 {
            queue.put(&item).unwrap();
        }
        let mut got: Vec<u32> = getters.into_iter().map(|getter| getter.join().unwrap()).collect();
        got.sort_unstable();
        assert_eq!(got, [0, 1, 2]);
        // Full: those who put wait for those who get.
        let putter = scope.spawn(|| (0..10).for_each(|item| queue.put(&item).unwrap()));
        assert_eq!((0..10).map(|_| queue.get().unwrap()).collect::<Vec<_>>(), (0..10).collect::<Vec<_>>());
        putter.join().unwrap();
    });
    assert!(queue.try_put(&1).unwrap() && queue.try_put(&2).unwrap() && is_late(queue.put_timeout(&3, SHORT)));
    for _ in 0..15 {
        queue.task_done().unwrap();
    }
    queue.join().unwrap();
    assert!(matches!(queue.task_done(), Err(Error::Manager(ManagerError::TaskDoneTooOften))));

    let lock = manager.lock().unwrap();
    let held = lock.lock().unwrap();
    assert!(matches!(lock.lock(), Err(Error::Manager(ManagerError::WouldDeadlock))));
    std::thread::scope(|scope| {
        scope.spawn(|| assert!(is_late(lock.lock_timeout(SHORT)))).join().unwrap();
        let waiter = scope.spawn(|| lock.lock().unwrap().is_abandoned());
        std::thread::sleep(SHORT);
        held.release().unwrap();
        assert!(!waiter.join().unwrap());
    });
    let (semaphore, event) = (manager.bounded_semaphore(1).unwrap(), manager.event().unwrap());
    let permit = semaphore.acquire().unwrap();
    assert!(is_late(semaphore.acquire_timeout(SHORT)));
    assert!(matches!(semaphore.release(1), Err(Error::Manager(ManagerError::ReleasedTooOften))));
    drop(permit);
    assert_eq!(semaphore.value().unwrap(), 1);
    assert!(is_late(event.wait_timeout(SHORT)) && !event.is_set().unwrap());
    let condition = manager.condition().unwrap();
    let mut guard = condition.lock().unwrap();
    assert!(is_late(guard.wait_timeout(SHORT)));
    assert!(is_late(guard.wait_timeout_while(SHORT, || Ok(true))));
    drop(guard);
    let barrier = manager.barrier(2).unwrap();
    assert!(matches!(barrier.wait_timeout(SHORT), Err(Error::Manager(ManagerError::BrokenBarrier))));
    assert!(matches!(barrier.wait(), Err(Error::Manager(ManagerError::BrokenBarrier))));
    barrier.reset().unwrap();
    std::thread::scope(|scope| {
        let other = scope.spawn(|| barrier.wait().unwrap());
        assert_eq!(barrier.wait().unwrap().index() + other.join().unwrap().index(), 1);
    });
}

#[test]
fn what_a_killed_process_held_is_given_back_and_the_next_is_told() {
    let _dog = watchdog();
    let manager = Manager::new().unwrap();
    let (lock, condition) = (manager.lock().unwrap(), manager.condition().unwrap());
    let (semaphore, ready) = (manager.semaphore(3).unwrap(), manager.event().unwrap());
    let process = child(
        |(lock, condition, semaphore, ready): (Lock, Condition, Semaphore, Event)| {
            let _held = (lock.lock().unwrap(), condition.lock().unwrap(), condition.lock().unwrap());
            let _permits = (semaphore.acquire().unwrap(), semaphore.acquire().unwrap());
            semaphore.acquire().unwrap().forget().unwrap();
            ready.set().unwrap();
            std::thread::sleep(LONG);
        },
        (lock.clone(), condition.clone(), semaphore.clone(), ready.clone()),
    );
    ready.wait().unwrap();
    assert!(lock.try_lock().unwrap().is_none());
    assert_eq!(semaphore.value().unwrap(), 0);
    std::thread::scope(|scope| {
        let waiter = scope.spawn(|| lock.lock().unwrap().is_abandoned());
        let permit = scope.spawn(|| drop(semaphore.acquire().unwrap()));
        let other = scope.spawn(|| condition.lock().unwrap().is_abandoned());
        std::thread::sleep(SHORT);
        process.kill().unwrap();
        assert!(waiter.join().unwrap() && other.join().unwrap());
        permit.join().unwrap();
    });
    assert!(!lock.lock().unwrap().is_abandoned());
    eventually("the permits are back but the one that was forgotten", || semaphore.value().unwrap() == 2);
}

#[test]
fn a_thread_that_ends_with_a_lock_gives_it_back() {
    let _dog = watchdog();
    let manager = Manager::new().unwrap();
    let lock = manager.lock().unwrap();
    let forgetful = lock.clone();
    std::thread::spawn(move || std::mem::forget(forgetful.lock().unwrap())).join().unwrap();
    assert!(lock.lock().unwrap().is_abandoned());
    assert!(!lock.lock().unwrap().is_abandoned());
}

#[test]
fn whoever_is_killed_while_it_waits_takes_nothing_along() {
    let _dog = watchdog();
    let manager = Manager::new().unwrap();
    let server = manager.pid().unwrap();
    let (queue, lock) = (manager.queue::<u32>(0).unwrap(), manager.lock().unwrap());
    let (condition, barrier) = (manager.condition().unwrap(), manager.barrier(2).unwrap());
    let (event, waiting) = (manager.event().unwrap(), manager.semaphore(0).unwrap());
    lock.try_lock().unwrap();
    let before = (descriptors_of(server), threads_of(server));
    let held = lock.lock().unwrap();
    type All = (Queue<u32>, Lock, Condition, Barrier, Event, Semaphore);
    let process = child(
        |(queue, lock, condition, barrier, event, waiting): All| {
            let begin = || waiting.release(1).unwrap();
            std::thread::scope(|scope| {
                scope.spawn(|| (begin(), queue.get().unwrap()));
                scope.spawn(|| (begin(), drop(lock.lock().unwrap())));
                scope.spawn(|| (begin(), barrier.wait().unwrap()));
                scope.spawn(|| (begin(), event.wait().unwrap()));
                scope.spawn(|| {
                    let mut guard = condition.lock().unwrap();
                    begin();
                    guard.wait().unwrap();
                });
            });
        },
        (queue.clone(), lock.clone(), condition.clone(), barrier.clone(), event.clone(), waiting.clone()),
    );
    for _ in 0..5 {
        waiting.acquire().unwrap().forget().unwrap();
    }
    eventually("it waits at the barrier", || barrier.waiting().unwrap() == 1);
    // The condition's lock is free: its owner waits for a call.
    drop(condition.lock().unwrap());
    std::thread::sleep(SHORT);
    process.kill().unwrap();
    process.join().unwrap();
    eventually("the barrier is broken", || barrier.is_broken().unwrap());
    eventually("the server is rid of it", || (descriptors_of(server), threads_of(server)) == before);
    queue.put(&5).unwrap();
    assert_eq!(queue.try_get().unwrap(), Some(5));
    drop(held);
    assert!(!lock.lock().unwrap().is_abandoned());
    let guard = condition.lock().unwrap();
    guard.notify_all().unwrap();
}

#[test]
fn a_function_of_ones_own_can_see_that_its_caller_is_gone() {
    let _dog = watchdog();
    fn wait(state: &Mutex<bool>, (): ()) {
        *state.lock().unwrap() = true;
        while !is_caller_gone() {
            std::thread::sleep(Duration::from_millis(1));
        }
        *state.lock().unwrap() = false;
    }
    let manager = Manager::new().unwrap();
    let waits = manager.serve(|()| Mutex::new(false), ()).unwrap();
    let process = child(|waits: Proxy<Mutex<bool>>| waits.call(wait, ()), waits.clone());
    let is_waiting = || waits.call(|state, ()| *state.lock().unwrap(), ()).unwrap();
    eventually("it waits", is_waiting);
    process.kill().unwrap();
    eventually("it sees", || !is_waiting());
}

#[test]
fn a_client_killed_within_a_message_leaves_the_server_as_it_was() {
    let _dog = watchdog();
    let manager = Manager::new().unwrap();
    let server = manager.pid().unwrap();
    let (list, ready) = (manager.list::<Bulk<u8>>().unwrap(), manager.event().unwrap());
    let before = (descriptors_of(server), threads_of(server));
    let process = child(
        |(list, ready): (List<Bulk<u8>>, Event)| {
            let large = Bulk::from(vec![1u8; 64 << 20]);
            ready.set().unwrap();
            list.push(&large)
        },
        (list.clone(), ready.clone()),
    );
    ready.wait().unwrap();
    // It sends more than the socket holds, to a peer that reads nothing.
    stop(server);
    std::thread::sleep(5 * SHORT);
    process.kill().unwrap();
    process.join().unwrap();
    kill(server, Signal::CONT);
    eventually("the server is rid of it", || (descriptors_of(server), threads_of(server)) == before);
    assert!(list.len().unwrap() <= 1);
}

#[test]
fn when_the_server_is_killed_all_that_wait_get_an_error_at_once() {
    let _dog = watchdog();
    let manager = Manager::new().unwrap();
    let (queue, lock, barrier) =
        (manager.queue::<u32>(0).unwrap(), manager.lock().unwrap(), manager.barrier(5).unwrap());
    let waits = manager.serve(|()| Mutex::new(()), ()).unwrap();
    let ready = manager.semaphore(0).unwrap();
    let held = lock.lock().unwrap();
    let process = child(
        |(queue, ready): (Queue<u32>, Semaphore)| {
            ready.release(1).unwrap();
            match queue.get() {
                Err(Error::ManagerLost(lost)) if lost.exit.is_none() => 7,
                other => panic!("{other:?}"),
            }
        },
        (queue.clone(), ready.clone()),
    );
    ready.acquire().unwrap().forget().unwrap();
    let lost = |error: Error| match error {
        Error::ManagerLost(lost) => assert_eq!(lost.exit, Some(Exit::Killed(Cause::KILL)), "{lost}"),
        other => panic!("{other}"),
    };
    std::thread::scope(|scope| {
        scope.spawn(|| lost(queue.get().unwrap_err()));
        scope.spawn(|| lost(lock.lock().unwrap_err()));
        scope.spawn(|| lost(barrier.wait().unwrap_err()));
        scope.spawn(|| lost(waits.call(|_, ()| std::thread::sleep(LONG), ()).unwrap_err()));
        std::thread::sleep(SHORT);
        kill(manager.pid().unwrap(), Signal::KILL);
    });
    assert_eq!(process.join().unwrap(), Exit::Code(7));
    lost(held.release().unwrap_err());
    lost(queue.try_get().unwrap_err());
    lost(manager.dict::<u8, u8>().unwrap_err());
    let mut bytes = Vec::new();
    let error = Postcard::encode(&queue, &mut bytes).unwrap_err();
    assert!(error.to_string().contains("is lost"), "{error}");
    lost(manager.shutdown().unwrap_err());
}

#[test]
fn a_function_that_ends_the_server_is_told_with_its_exit_code() {
    let _dog = watchdog();
    let manager = Manager::new().unwrap();
    let proxy = manager.serve(|()| (), ()).unwrap();
    let error = proxy.call::<_, ()>(|(), ()| std::process::exit(3), ()).unwrap_err();
    assert!(matches!(&error, Error::ManagerLost(lost) if lost.exit == Some(Exit::Code(3))), "{error}");
    assert!(error.to_string().contains("exited with code 3"), "{error}");
}

#[test]
fn the_server_ends_with_its_parent() {
    let _dog = watchdog();
    let path = temporary("orphan");
    if part().is_some() {
        let manager = Manager::new().unwrap();
        let (queue, ready) = (manager.queue::<u32>(0).unwrap(), manager.event().unwrap());
        // No daemon: it outlives its parent for a moment, to tell.
        let process = Process::new(
            |(queue, ready, path): (Queue<u32>, Event, PathBuf)| {
                // The server may end before it has answered.
                let _ = ready.set();
                let error = queue.get().unwrap_err();
                assert!(matches!(error, Error::ManagerLost(_)));
                std::fs::write(path, "told").unwrap();
            },
            (queue, ready.clone(), PathBuf::from(std::env::var_os("MANIPLE_TEST_PATH").unwrap())),
        )
        .unwrap();
        process.start().unwrap();
        ready.wait().unwrap();
        print_pids(&[manager.pid().unwrap(), process.pid().unwrap()]);
        std::thread::sleep(LONG);
        unreachable!();
    }
    // SAFETY: only this test's hub looks at it, and no thread of this program reads the environment meanwhile but to
    // start others.
    unsafe { std::env::set_var("MANIPLE_TEST_PATH", &path) };
    let mut hub = start_hub(module_path!(), "the_server_ends_with_its_parent", "hub");
    let pids = read_pids(&mut hub);
    hub.kill().unwrap();
    hub.wait().unwrap();
    eventually("the server ends", || !exists(pids[0]));
    eventually("its client is told", || path.exists());
    eventually("the client ends", || !exists(pids[1]));
    std::fs::remove_file(path).unwrap();
}

#[test]
fn who_knows_the_key_connects_and_finds_what_has_a_name() {
    let _dog = watchdog();
    let path = temporary("manager.socket");
    for address in [format!("{}", path.display()), "127.0.0.1:0".to_owned()] {
        let manager = Manager::builder().address(&address).authkey("key").build().unwrap();
        let list = manager.list::<String>().unwrap();
        manager.names().unwrap().set("list", &list).unwrap();
        let refused = Manager::connect(manager.address(), b"another").unwrap_err();
        assert!(refused.to_string().contains("key"), "{refused}");
        let process = child(
            |address: String| {
                let there = Manager::connect(&address, b"key").unwrap();
                assert_eq!(there.pid(), None);
                let list: List<String> = there.names().unwrap().get("list").unwrap().unwrap();
                // A list of its own, found by the others after its end.
                let own = there.list::<u8>().unwrap();
                own.push(&1).unwrap();
                there.names().unwrap().set("own", &own).unwrap();
                drop(there);
                list.push(&"hello".to_owned()).unwrap();
            },
            manager.address().to_string(),
        );
        assert_eq!(process.join().unwrap(), Exit::Code(0));
        assert_eq!(list.to_vec().unwrap(), ["hello"]);
        let own: List<u8> = manager.names().unwrap().get("own").unwrap().unwrap();
        assert_eq!(own.to_vec().unwrap(), [1]);
        let names = manager.names().unwrap();
        assert_eq!(names.names().unwrap(), ["list", "own"]);
        assert!(names.remove("own").unwrap() && !names.remove("own").unwrap());
    }
    assert!(!path.exists());
    // A killed server's path goes, too; a file that was put in its place stays.
    let build = || Manager::builder().address(&*path).build().unwrap();
    let manager = build();
    assert!(path.exists());
    kill(manager.pid().unwrap(), Signal::KILL);
    drop(manager);
    assert!(!path.exists());
    let manager = build();
    assert!(matches!(
        Manager::builder().address(manager.address()).build().unwrap_err(),
        Error::Process(maniple::ProcessError::Start(why)) if why.contains("listen")
    ));
    std::fs::remove_file(&path).unwrap();
    std::fs::write(&path, "mine").unwrap();
    drop(manager);
    assert_eq!(std::fs::read(&path).unwrap(), b"mine");
    std::fs::remove_file(path).unwrap();
}

#[test]
fn a_server_that_does_nothing_any_more_is_killed_and_one_may_end_it_from_afar() {
    let _dog = watchdog();
    let manager = Manager::new().unwrap();
    let (server, list) = (manager.pid().unwrap(), manager.list::<u8>().unwrap());
    stop(server);
    std::thread::scope(|scope| {
        let caller = scope.spawn(|| list.push(&1));
        // It wants to send a proxy, and has the control connection for that.
        let sender = scope.spawn(|| Postcard::encode(&list, &mut Vec::new()));
        std::thread::sleep(SHORT);
        drop(manager);
        assert!(matches!(caller.join().unwrap(), Err(Error::ManagerLost(_))));
        assert!(sender.join().unwrap().is_err());
    });
    assert!(!is_listed(server));

    let manager = Manager::builder().authkey("key").build().unwrap();
    let process = child(
        |address: String| {
            let there = Manager::connect(&address, b"key").unwrap();
            assert_eq!(there.shutdown().unwrap(), None);
        },
        manager.address().to_string(),
    );
    assert_eq!(process.join().unwrap(), Exit::Code(0));
    assert!(matches!(manager.dict::<u8, u8>(), Err(Error::ManagerLost(lost)) if lost.exit == Some(Exit::Code(0))));
}

#[test]
fn nonsense_from_a_client_with_the_key_ends_only_its_connection() {
    use maniple_engine::channel::framed_stream::FramedStream;
    use maniple_engine::channel::listener::connect;
    let _dog = watchdog();
    let manager = Manager::new().unwrap();
    let server = manager.pid().unwrap();
    let value = manager.value(&5u8).unwrap();
    assert_eq!(value.get().unwrap(), 5);
    let before = (descriptors_of(server), threads_of(server));
    let address = manager.address().to_string().parse().unwrap();
    for message in [&b""[..], b"\0", b"\x02\0\0\0\x01\x01", b"\x03\0\0\0\x01\x01\x63", &[0xff; 1000]] {
        let socket = connect(&address, Some(manager.authkey().as_bytes()), None, &mut || false).unwrap();
        let mut stream = FramedStream::new(socket);
        stream.send(message, &mut || false).unwrap();
        while stream.receive(&mut || false).is_ok() {
            let _ = stream.send(message, &mut || false);
        }
    }
    eventually("the connections have ended", || (descriptors_of(server), threads_of(server)) == before);
    assert_eq!(value.get().unwrap(), 5);
}

#[test]
fn nothing_is_left_of_a_manager() {
    let _dog = watchdog();
    // Alone in a process, so that no other code opens descriptors.
    if part().is_none() {
        let mut hub = start_hub(module_path!(), "nothing_is_left_of_a_manager", "hub");
        assert!(hub.wait().unwrap().success());
        return;
    }
    let me = std::process::id();
    let life = |how: u32| {
        let manager = Manager::new().unwrap();
        let server = manager.pid().unwrap();
        let queue = manager.queue::<u32>(0).unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| queue.put(&1).unwrap());
            assert_eq!(queue.get().unwrap(), 1);
        });
        match how {
            0 => drop((manager, queue)),
            1 => drop((queue, manager)),
            2 => {
                kill(server, Signal::KILL);
                assert!(queue.get().is_err());
                drop((manager, queue));
            }
            _ => {
                manager.shutdown().unwrap();
                assert!(queue.get().is_err());
            }
        }
        assert!(!is_listed(server));
    };
    let now = || (descriptors_of(me), threads_of(me));
    let before = now();
    (0..4).for_each(life);
    // A scope does not wait for its threads' last moments, in which they close what is theirs.
    eventually("nothing is left", || now() == before);
}

#[test]
fn a_forked_child_has_connections_of_its_own() {
    let _dog = watchdog();
    // In a process with no other threads but the harness's own, which wait.
    if part().is_none() {
        let mut hub = start_hub(module_path!(), "a_forked_child_has_connections_of_its_own", "hub");
        assert!(hub.wait().unwrap().success());
        return;
    }
    let manager = Manager::builder().start_method(StartMethod::Spawn).build().unwrap();
    let living = counter(&manager);
    let (value, lock) = (manager.value(&1u32).unwrap(), manager.lock().unwrap());
    let object = manager.serve(Counted::new, ()).unwrap();
    let held = lock.lock().unwrap();
    let ready = manager.event().unwrap();
    // SAFETY: the threads of the harness and the watchdog hold nothing that is used in the child.
    let child = unsafe {
        Process::builder().daemon(true).fork(|| {
            assert!(lock.try_lock().unwrap().is_none());
            value.set(&2).unwrap();
            object.call(|_, ()| (), ()).unwrap();
            ready.set().unwrap();
            std::thread::sleep(LONG);
        })
    }
    .unwrap();
    ready.wait().unwrap();
    assert_eq!(value.get().unwrap(), 2);
    drop(object);
    assert_eq!(living(), 1);
    held.release().unwrap();
    child.kill().unwrap();
    child.join().unwrap();
    eventually("the child's reference goes with it", || living() == 0);
    assert!(!lock.lock().unwrap().is_abandoned());
}
