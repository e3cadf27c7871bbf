//! What a pool does while this process lacks descriptors: it continues with what it has, and is whole again afterwards.

use crate::support::{METHODS, apart, descriptors, eventually, pool, watchdog};
use maniple::{Bulk, CallOptions, Error, Exit, Listener, Manager, Pool, Process, RawValue, StartMethod};
use maniple_sys::testing::{self, Resource, Rlimit, UnixStream, getrlimit, setrlimit};
use std::fs::File;
use std::io::{Read, Write};
use std::path::PathBuf;
use std::time::Duration;

/// The processes of a pool of two.
fn workers(pool: &Pool) -> Vec<u32> {
    let pid = |()| {
        std::thread::sleep(Duration::from_millis(20));
        std::process::id()
    };
    let mut pids = pool.with(CallOptions::new().chunksize(1)).map(pid, [(); 8]).unwrap();
    pids.sort_unstable();
    pids.dedup();
    pids
}

/// Takes all descriptors that there are.
fn take_all() -> Vec<File> {
    std::iter::from_fn(|| File::open("/dev/null").ok()).collect()
}

fn few_files() {
    setrlimit(Resource::Nofile, Rlimit { current: Some(96), maximum: Some(96) }).unwrap();
}

#[test]
fn the_other_workers_go_on_and_the_lost_one_is_replaced_later() {
    let _dog = watchdog();
    apart(|()| {
        for method in METHODS {
            let pool = pool(method, 2);
            let before = workers(&pool);
            few_files();
            let files = take_all();
            let busy = pool
                .apply_async(
                    |()| {
                        std::thread::sleep(Duration::from_millis(1200));
                        5u8
                    },
                    (),
                )
                .unwrap();
            std::thread::sleep(Duration::from_millis(50));
            let lost = pool.apply(|()| std::process::abort(), ()).map(|()| "never");
            assert!(matches!(lost, Err(Error::WorkerLost(_))), "{lost:?}");
            // Much longer than any number of unsuccessful starts takes.
            std::thread::sleep(Duration::from_millis(700));
            assert_eq!(busy.get().unwrap(), 5);
            assert_eq!(pool.apply(u64::count_ones, 7).unwrap(), 3);
            drop(files);
            eventually("there are two workers again", || workers(&pool).len() == 2);
            assert!(before.iter().any(|pid| workers(&pool).contains(pid)), "the healthy one was ended");
        }
    });
}

#[test]
fn a_pool_without_any_worker_waits_for_descriptors() {
    let _dog = watchdog();
    apart(|()| {
        for method in METHODS {
            let pool = pool(method, 1);
            assert_eq!(pool.apply(u64::count_ones, 7).unwrap(), 3);
            few_files();
            let files = take_all();
            let lost = pool.apply(|()| std::process::abort(), ()).map(|()| "never");
            assert!(matches!(lost, Err(Error::WorkerLost(_))), "{lost:?}");
            let waits = pool.apply_async(u64::count_ones, 15).unwrap();
            std::thread::sleep(Duration::from_millis(700));
            assert!(!waits.is_finished());
            drop(files);
            assert_eq!(waits.get().unwrap(), 4);
            assert_eq!(pool.map(u64::count_ones, 0..5).unwrap(), [0, 1, 1, 2, 1]);
        }
    });
}

#[test]
fn a_call_for_which_no_worker_can_be_started_says_what_is_short() {
    let _dog = watchdog();
    apart(|()| {
        let pool = pool(METHODS[0], 1);
        assert_eq!(pool.apply(u64::count_ones, 7).unwrap(), 3);
        few_files();
        let files = take_all();
        let lost = pool.apply(|()| std::process::abort(), ()).map(|()| "never");
        assert!(matches!(lost, Err(Error::WorkerLost(_))), "{lost:?}");
        let why = pool.apply(u64::count_ones, 15).unwrap_err().to_string();
        assert!(why.contains("too many open files") || why.contains("Too many open files"), "{why}");
        assert!(!why.contains("took its exit status") && !why.contains("worker 0"), "{why}");
        drop(files);
    });
}

#[test]
fn a_pool_that_nobody_wants_any_more_ends_without_descriptors() {
    let _dog = watchdog();
    apart(|()| {
        for method in METHODS {
            for terminated in [false, true] {
                few_files();
                let pool = pool(method, 2);
                let _files = take_all();
                let lost = pool.apply(|()| std::process::abort(), ()).map(|()| "never");
                assert!(matches!(lost, Err(Error::WorkerLost(_))), "{lost:?}");
                if terminated {
                    pool.terminate();
                }
                pool.join();
            }
        }
    });
}

#[test]
fn what_never_comes_back_is_an_error_in_the_end() {
    let _dog = watchdog();
    apart(|()| {
        let pool = Pool::new(1).unwrap();
        few_files();
        let files = take_all();
        let lost = pool.apply(|()| std::process::abort(), ()).map(|()| "never");
        assert!(matches!(lost, Err(Error::WorkerLost(_))), "{lost:?}");
        let error = pool.apply(u64::count_ones, 7).unwrap_err();
        assert!(
            matches!(&error, Error::Process(maniple::ProcessError::Start(why)) if why.contains("Too many open files")),
            "{error}"
        );
        // That was the end of the call, and not of the pool.
        drop(files);
        eventually("calls are answered again", || pool.apply(u64::count_ones, 7).is_ok_and(|ones| ones == 3));
    });
}

#[test]
fn a_worker_costs_the_pool_three_descriptors() {
    let _dog = watchdog();
    apart(|()| {
        for method in METHODS {
            let two = pool(method, 2);
            two.map(u64::count_ones, 0..4).unwrap();
            let before = descriptors();
            let ten = pool(method, 10);
            ten.map(u64::count_ones, 0..40).unwrap();
            let ten_cost = descriptors() - before;
            let before = descriptors();
            let four = pool(method, 4);
            four.map(u64::count_ones, 0..16).unwrap();
            let each = (ten_cost - (descriptors() - before)) as f64 / 6.0;
            assert!(each <= 3.0, "{each} descriptors for a worker by {method:?}");
        }
    });
}

#[test]
fn three_hundred_workers_fit_into_the_usual_limit() {
    let _dog = watchdog();
    apart(|()| {
        setrlimit(Resource::Nofile, Rlimit { current: Some(1024), maximum: Some(1024) }).unwrap();
        let pool = pool(StartMethod::ForkServer, 300);
        assert_eq!(pool.with(CallOptions::new().chunksize(1)).map(u64::count_ones, [7; 300]).unwrap(), [3; 300]);
    });
}

/// The children of this process.
fn children() -> Vec<i32> {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap().flatten();
    let lists = tasks.filter_map(|task| std::fs::read_to_string(task.path().join("children")).ok());
    lists.flat_map(|list| list.split_whitespace().map(|pid| pid.parse().unwrap()).collect::<Vec<_>>()).collect()
}

#[test]
fn workers_have_limits_that_were_raised_after_their_start() {
    let _dog = watchdog();
    apart(|()| {
        let usual = getrlimit(Resource::Nofile);
        let soft = |most| setrlimit(Resource::Nofile, Rlimit { current: Some(most), ..usual }).unwrap();
        let limits = |pool: &Pool| {
            let limit = |()| getrlimit(Resource::Nofile).current;
            pool.with(CallOptions::new().chunksize(1)).map(limit, [(); 8]).unwrap()
        };
        for method in METHODS {
            soft(200);
            let pool = pool(method, 2);
            assert_eq!(limits(&pool), [Some(200); 8]);
            for raised in [250, 300] {
                soft(raised);
                eventually("the workers have the new limit", || limits(&pool) == [Some(raised); 8]);
            }
            // So do those that the fork server forks later.
            let lost = pool.apply(|()| std::process::abort(), ()).map(|()| "never");
            assert!(matches!(lost, Err(Error::WorkerLost(_))), "{lost:?}");
            eventually("there are two workers again", || workers(&pool).len() == 2);
            assert_eq!(limits(&pool), [Some(300); 8]);
        }
    });
}

#[test]
fn a_fork_server_without_descriptors_refuses_and_lives_on() {
    let _dog = watchdog();
    apart(|()| {
        let pool = pool(StartMethod::ForkServer, 2);
        workers(&pool);
        let [server] = children()[..] else { panic!("more children than the fork server: {:?}", children()) };
        let open = std::fs::read_dir(format!("/proc/{server}/fd")).unwrap().count() as u64;
        let usual = getrlimit(Resource::Nofile);
        for room in 0..6 {
            let low = Rlimit { current: Some(open + room), ..usual };
            testing::limit_of(server as u32, Resource::Nofile, low);
            let lost = pool.apply(|()| std::process::abort(), ()).map(|()| "never");
            assert!(matches!(lost, Err(Error::WorkerLost(_))), "{lost:?}");
            // The other worker continues.
            std::thread::sleep(Duration::from_millis(100));
            assert_eq!(pool.apply(u64::count_ones, 7).unwrap(), 3);
            testing::limit_of(server as u32, Resource::Nofile, usual);
            eventually("there are two workers again", || workers(&pool).len() == 2);
            assert_eq!(children(), [server], "the server was replaced");
        }
    });
}

#[test]
fn a_lazy_map_for_whose_input_there_is_no_thread_is_not_waited_for() {
    let _dog = watchdog();
    apart(|()| {
        let pool = pool(StartMethod::Spawn, 1);
        assert_eq!(pool.apply(u64::count_ones, 7).unwrap(), 3);
        let usual = getrlimit(Resource::As);
        // Less than a thread's stack.
        setrlimit(Resource::As, Rlimit { current: Some(mapped("self") + (1 << 20)), ..usual }).unwrap();
        let refused = pool.imap(u64::count_ones, [7, 7]).map(drop);
        setrlimit(Resource::As, usual).unwrap();
        assert!(matches!(refused, Err(Error::Process(maniple::ProcessError::Start(_)))), "{refused:?}");
        assert_eq!(pool.imap(u64::count_ones, [7, 7]).unwrap().map(Result::unwrap).collect::<Vec<_>>(), [3, 3]);
        pool.close();
        pool.join();
    });
}

/// The bytes of address space that a process has.
fn mapped(pid: &str) -> u64 {
    let statm = std::fs::read_to_string(format!("/proc/{pid}/statm")).unwrap();
    statm.split(' ').next().unwrap().parse::<u64>().unwrap() * testing::page_size() as u64
}

#[test]
fn a_value_whose_bytes_find_no_memory_is_refused() {
    let _dog = watchdog();
    apart(|()| {
        let (here, there) = maniple::pipe::<Vec<u32>>().unwrap();
        // Five bytes for each.
        let value = vec![u32::MAX; 8 << 20];
        let usual = getrlimit(Resource::As);
        setrlimit(Resource::As, Rlimit { current: Some(mapped("self") + (8 << 20)), ..usual }).unwrap();
        let refused = here.send(&value);
        setrlimit(Resource::As, usual).unwrap();
        assert!(matches!(&refused, Err(error) if error.to_string().contains("no memory")), "{refused:?}");
        here.send(&vec![7]).unwrap();
        assert_eq!(there.recv().unwrap(), [7]);
    });
}

#[test]
fn a_manager_without_a_thread_for_a_client_is_not_lost() {
    let _dog = watchdog();
    apart(|()| {
        let manager = Manager::new().unwrap();
        let numbers = manager.dict::<u32, u32>().unwrap();
        numbers.insert(&1, &2).unwrap();
        let [server] = children()[..] else { panic!("more children than the server: {:?}", children()) };
        let in_other_thread = || std::thread::scope(|scope| scope.spawn(|| numbers.get(&1)).join().unwrap());
        let usual = getrlimit(Resource::As);
        // Less than a thread's stack.
        let low = Rlimit { current: Some(mapped(&server.to_string()) + (1 << 20)), ..usual };
        testing::limit_of(server as u32, Resource::As, low);
        let refused = in_other_thread();
        assert!(matches!(refused, Err(Error::Manager(maniple::managers::ManagerError::NoThread))), "{refused:?}");
        assert_eq!(numbers.get(&1).unwrap(), Some(2));
        testing::limit_of(server as u32, Resource::As, usual);
        assert_eq!(in_other_thread().unwrap(), Some(2));
    });
}

/// An initializer that ends its worker with the exit code of a shortage, as long as there is such a file.
fn lack_while(place: PathBuf) {
    if let Ok(mut tries) = std::fs::OpenOptions::new().append(true).open(place) {
        tries.write_all(b"x").unwrap();
        drop(tries);
        std::process::exit(75);
    }
}

#[test]
fn a_pool_whose_workers_lack_something_as_they_start_is_not_given_up() {
    let _dog = watchdog();
    for method in METHODS {
        let place = std::env::temp_dir().join(format!("maniple-lack-{}-{method:?}", std::process::id()));
        File::create(&place).unwrap();
        let pool =
            Pool::builder().processes(2).start_method(method).initializer(lack_while, place.clone()).build().unwrap();
        let waits = pool.apply_async(u64::count_ones, 15).unwrap();
        // Many more than are tried for a pool whose workers end for another reason.
        eventually("it is tried again", || std::fs::metadata(&place).unwrap().len() >= 8);
        assert!(!waits.is_finished());
        std::fs::remove_file(&place).unwrap();
        assert_eq!(waits.get().unwrap(), 4);
        eventually("there are two workers", || workers(&pool).len() == 2);
    }
}

#[test]
fn large_values_come_over_a_pipe_without_a_descriptor() {
    let _dog = watchdog();
    apart(|()| {
        let (here, there) = maniple::pipe::<Bulk<u8>>().unwrap();
        let one = |value: u8| Bulk::from(vec![value; 3 << 20]);
        here.send(&one(1)).unwrap();
        assert_eq!(there.recv().unwrap()[..], one(1)[..]);
        few_files();
        here.send(&one(2)).unwrap();
        here.send(&one(3)).unwrap();
        let files = take_all();
        for value in 2..4 {
            assert_eq!(there.recv().unwrap()[..], one(value)[..]);
        }
        drop(files);
        here.send(&one(4)).unwrap();
        assert_eq!(there.recv().unwrap()[..], one(4)[..]);
    });
}

#[test]
fn a_process_whose_start_fails_for_lack_of_a_descriptor_has_not_begun() {
    let _dog = watchdog();
    apart(|()| {
        let start = |limit: u64| {
            let begun = RawValue::new(0_u32).unwrap();
            let process = Process::new(|begun: RawValue<u32>| begun.set(1), begun.clone()).unwrap();
            let loose = getrlimit(Resource::Nofile);
            setrlimit(Resource::Nofile, Rlimit { current: Some(limit), ..loose }).unwrap();
            let started = process.start();
            setrlimit(Resource::Nofile, loose).unwrap();
            started.map(|()| assert_eq!((process.join().unwrap(), begun.get()), (Exit::Code(0), 1)))
        };
        start(1024).unwrap();
        let before = testing::pages_of_reaped_children();
        // A limit from which on it works is found before the process has that many descriptors.
        let fails = (3..200).take_while(|&limit| start(limit).is_err()).count();
        assert!((3..190).contains(&fails), "{fails}");
        let after_one = testing::pages_of_reaped_children();
        assert!(after_one > before);
        for limit in 3..3 + fails as u64 {
            start(limit).unwrap_err();
        }
        assert_eq!(testing::pages_of_reaped_children(), after_one, "a child was started and ended");
    });
}

#[test]
fn a_client_of_a_listener_without_descriptors_is_disconnected_and_the_listener_goes_on() {
    let _dog = watchdog();
    apart(|()| {
        for key in [None, Some("between us")] {
            let builder = key.into_iter().fold(Listener::builder(), |builder, key| builder.authkey(key));
            let listener = builder.temporary().unwrap();
            let path = listener.address().to_string();
            few_files();
            for _ in 0..2 {
                let mut client = UnixStream::connect(&path).unwrap();
                client.set_nonblocking(true).unwrap();
                let files = take_all();
                eventually("the client's connection is closed", || {
                    let refused = listener.accept_timeout::<()>(Duration::from_millis(10));
                    assert!(refused.is_err());
                    matches!(client.read(&mut [0]), Ok(0))
                });
                drop(files);
            }
            // The shortage is over: a client waits for its turn.
            let client = UnixStream::connect(&path).unwrap();
            match key {
                None => drop(listener.accept::<()>().unwrap()),
                Some(_) => {
                    let refused = listener.accept_timeout::<()>(Duration::from_millis(10));
                    assert!(refused.is_err());
                    client.set_nonblocking(true).unwrap();
                    assert!((&client).read(&mut [0]).is_ok_and(|len| len == 1), "no challenge");
                }
            }
        }
    });
}

#[test]
fn a_manager_whose_server_has_no_descriptor_for_a_client_does_not_start() {
    let _dog = watchdog();
    apart(|()| {
        // The manager's server inherits the limit of the fork server.
        let start = || Manager::builder().start_method(StartMethod::ForkServer).build();
        start().unwrap();
        let [server] = children()[..] else { panic!("more children than the fork server: {:?}", children()) };
        let open = std::fs::read_dir(format!("/proc/{server}/fd")).unwrap().count() as u64;
        let usual = getrlimit(Resource::Nofile);
        let (mut served, mut refused) = (0, 0);
        for room in 0..24 {
            testing::limit_of(server as u32, Resource::Nofile, Rlimit { current: Some(open + room), ..usual });
            let started = start();
            testing::limit_of(server as u32, Resource::Nofile, usual);
            match started {
                Ok(manager) => {
                    let event = manager.event().unwrap();
                    event.set().unwrap();
                    assert!(event.is_set().unwrap());
                    served += 1;
                }
                Err(why) => {
                    let why = why.to_string();
                    assert!(why.contains("Too many open files") && why.contains("ulimit -n"), "{why}");
                    refused += u32::from(why.contains("reserve a descriptor for a client"));
                }
            }
        }
        assert!(served > 0 && refused > 0, "{served} {refused}");
    });
}

#[test]
fn a_client_of_a_manager_without_a_descriptor_gets_an_error() {
    let _dog = watchdog();
    apart(|()| {
        let manager = Manager::new().unwrap();
        let event = manager.event().unwrap();
        event.set().unwrap();
        let server = manager.pid().unwrap();
        let usual = getrlimit(Resource::Nofile);
        let open = std::fs::read_dir(format!("/proc/{server}/fd")).unwrap().count() as u64;
        testing::limit_of(server, Resource::Nofile, Rlimit { current: Some(open + 4), ..usual });
        let address = manager.address();
        let mut why = None;
        // Each thread has a line of its own.
        std::thread::scope(|scope| {
            let (done, waits) = std::sync::mpsc::channel::<()>();
            let waits = std::sync::Arc::new(std::sync::Mutex::new(waits));
            for _ in 0..64 {
                let (say, hear) = std::sync::mpsc::channel();
                let (event, waits) = (event.clone(), waits.clone());
                scope.spawn(move || {
                    say.send(event.is_set().map_err(|e| e.to_string())).unwrap();
                    let _ = waits.lock().unwrap().recv();
                });
                if let Err(e) = hear.recv().unwrap() {
                    why = Some(e);
                    break;
                }
            }
            drop(done);
        });
        let why = why.expect("all were served");
        assert!(why.contains("ulimit -n"), "{why}");
        testing::limit_of(server, Resource::Nofile, usual);
        assert!(std::thread::scope(|scope| scope.spawn(|| event.is_set().unwrap()).join().unwrap()), "{address}");
    });
}
