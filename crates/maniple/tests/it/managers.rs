//! Objects in a manager's server: which processes can use them, and how long they live.

mod ends;
mod waiting;

use crate::support::{LONG, METHODS, eventually, is_listed, watchdog};
use maniple::managers::{Dict, Event, List, Lock, ManagerError, Namespace, Queue, Value};
use maniple::{Bulk, Codec, Error, Exit, Manager, Postcard, Process, Proxy};
use maniple_sys::testing::{self, Signal};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

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
    testing::handles_of(pid)
}

fn threads_of(pid: u32) -> usize {
    testing::threads_of(pid)
}

/// The descriptors and threads of a process.
fn usage_of(pid: u32) -> (usize, usize) {
    (descriptors_of(pid), threads_of(pid))
}

/// Waits until the server uses no more than before. It may use less: a client connects anew if another thread of its
/// process forks meanwhile, so a connection that was about to end may be part of `before`.
fn server_is_back_to(server: u32, before: (usize, usize)) {
    eventually("the server uses no more than before", || {
        let now = usage_of(server);
        now.0 <= before.0 && now.1 <= before.1
    });
}

fn temporary(name: &str) -> PathBuf {
    std::env::temp_dir().join(format!("maniple-test-{name}-{}", std::process::id()))
}

/// Stops a process, and waits until it is stopped.
fn stop(pid: u32) {
    kill(pid, Signal::STOP);
    eventually("it stands still", || testing::is_stopped(pid));
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
    let before = usage_of(manager.pid().unwrap());
    assert_eq!(shop.call(Shop::sell, "bread".into()).unwrap(), Ok(2));
    assert_eq!(shop.call(Shop::sell, "salt".into()).unwrap(), Err("never heard of it".into()));
    assert_eq!(stock.get("bread").unwrap(), Some(2));
    assert!(lock.try_lock().unwrap().is_some());
    server_is_back_to(manager.pid().unwrap(), before);
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
