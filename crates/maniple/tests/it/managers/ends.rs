//! The ends of servers, clients and connections.

use super::{child, kill, server_is_back_to, stop, temporary, usage_of};
use crate::support::{LONG, SHORT, eventually, exists, is_listed, part, print_pids, read_pids, start_hub, watchdog};
use maniple::managers::{Event, List, Queue, Semaphore};
use maniple::{Bulk, Cause, Codec, Error, Exit, Manager, Postcard, Process};
use maniple_sys::testing::Signal;
use std::path::PathBuf;
use std::sync::Mutex;

#[test]
fn a_client_killed_within_a_message_leaves_the_server_as_it_was() {
    let _dog = watchdog();
    let manager = Manager::new().unwrap();
    let server = manager.pid().unwrap();
    let (list, ready) = (manager.list::<Bulk<u8>>().unwrap(), manager.event().unwrap());
    let before = usage_of(server);
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
    server_is_back_to(server, before);
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
    // On Windows all processes end with the one that has started them.
    if cfg!(not(windows)) {
        eventually("its client is told", || path.exists());
    }
    eventually("the client ends", || !exists(pids[1]));
    let _ = std::fs::remove_file(path);
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
    let before = usage_of(server);
    let address = manager.address().to_string().parse().unwrap();
    for message in [&b""[..], b"\0", b"\x02\0\0\0\x01\x01", b"\x03\0\0\0\x01\x01\x63", &[0xff; 1000]] {
        let socket = connect(&address, Some(manager.authkey().as_bytes()), None, &mut || false).unwrap();
        let mut stream = FramedStream::new(socket);
        stream.send(message, &mut || false).unwrap();
        while stream.receive(&mut || false).is_ok() {
            let _ = stream.send(message, &mut || false);
        }
    }
    server_is_back_to(server, before);
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
    let now = || usage_of(me);
    let before = now();
    (0..4).for_each(life);
    // A scope does not wait for its threads' last moments, in which they close what is theirs.
    eventually("nothing is left", || now() == before);
}

// Windows has no forks.
#[cfg(not(windows))]
#[test]
fn a_forked_child_has_connections_of_its_own() {
    use super::{Counted, counter};
    use maniple::StartMethod;

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

/// It is not lost by a crash: the program itself has ended it.
#[test]
fn a_call_after_the_shutdown_says_that_this_process_has_shut_it_down() {
    let _dog = watchdog();
    let manager = Manager::new().unwrap();
    let counts = manager.dict::<String, u32>().unwrap();
    counts.insert("a", &1).unwrap();
    manager.shutdown().unwrap();
    let elsewhere = counts.clone();
    for error in [
        counts.get("a").unwrap_err(),
        counts.get("a").unwrap_err(),
        std::thread::spawn(move || elsewhere.get("a").unwrap_err()).join().unwrap(),
    ] {
        let Error::ManagerLost(lost) = &error else { panic!("another error: {error}") };
        assert_eq!(lost.why, "this process has shut it down");
    }
    let manager = Manager::new().unwrap();
    let list = manager.list::<u8>().unwrap();
    drop(manager);
    assert!(list.len().unwrap_err().to_string().contains("this process has shut it down"));
}
