//! A function in a separate process: its start, its settings, its end, and that nothing of it is left.

use crate::support::{
    LONG, METHODS, eventually, exists, is_listed, kill_self, part, print_pids, read_pids, start_hub, watchdog,
};
use maniple::{
    Cause, Error, Exit, Handle, Process, Sender, StartMethod, Stdio, active_children, channel, cpu_count,
    current_process, parent_process,
};
use maniple_sys::testing::{self, Signal};
use std::io::{PipeWriter, Read, Seek, Write};
use std::time::Duration;

fn started<A: maniple::Payload, R: maniple::IntoExitCode + 'static>(
    method: StartMethod,
    f: fn(A) -> R,
    argument: A,
) -> Process {
    let process = Process::builder().start_method(method).build(f, argument).unwrap();
    process.start().unwrap();
    process
}

#[test]
fn an_error_about_the_state_of_a_process_names_the_process() {
    let _dog = watchdog();
    let process = Process::builder().name("scanner").build(|()| (), ()).unwrap();
    let text = process.join().unwrap_err().to_string();
    assert_eq!(text, "the process \"scanner\" was not started; call start() first");
    process.start().unwrap();
    let text = process.start().unwrap_err().to_string();
    assert_eq!(text, "the process \"scanner\" has already been started; make another process");
    process.join().unwrap();
}

fn end(how: u32) -> Result<i32, String> {
    match how {
        0 => Ok(0),
        1 => Ok(7),
        2 => Err("an error of its own".into()),
        3 => panic!("on purpose"),
        4 => std::process::exit(4),
        5 => std::process::abort(),
        _ => {
            kill_self(Signal::KILL);
            Ok(0)
        }
    }
}

#[test]
fn it_tells_how_it_ended_in_every_way() {
    let _dog = watchdog();
    let exits = [
        Exit::Code(0),
        Exit::Code(7),
        Exit::Code(1),
        Exit::Code(101),
        Exit::Code(4),
        Exit::Killed(Cause::ABORT),
        Exit::Killed(Cause::KILL),
    ];
    for method in METHODS {
        for (how, exit) in (0..).zip(exits) {
            let process = started(method, end, how);
            assert_eq!(process.join().unwrap(), exit, "{method:?} {how}");
            assert_eq!(process.exit_status(), Some(exit));
            assert!(!process.is_alive());
            assert!(!is_listed(process.pid().unwrap()));
        }
    }
}

#[test]
fn an_error_and_a_panic_are_told_on_standard_error() {
    let _dog = watchdog();
    for method in METHODS {
        for (how, said) in [(2, "Error: \"an error of its own\""), (3, "on purpose")] {
            let (mut reader, writer) = std::io::pipe().unwrap();
            let process = Process::builder().start_method(method).stderr(writer).build(end, how).unwrap();
            process.start().unwrap();
            let mut text = String::new();
            reader.read_to_string(&mut text).unwrap();
            assert!(text.contains(said), "{text}");
        }
    }
}

/// A folder that is not this process's own.
fn root() -> std::path::PathBuf {
    std::env::temp_dir().ancestors().last().unwrap().to_owned()
}

#[test]
fn it_is_what_its_builder_said() {
    let _dog = watchdog();
    for method in METHODS {
        let (mut reader, writer) = std::io::pipe().unwrap();
        let process = Process::builder()
            .start_method(method)
            .name("scribe")
            .env("MANIPLE_TEST_SET", "yes")
            .env_remove("PATH")
            .current_dir(root())
            .stdin(Stdio::Null)
            .stdout(writer)
            .build(
                |()| {
                    let mut input = String::new();
                    std::io::stdin().read_to_string(&mut input).unwrap();
                    let (set, path) = (std::env::var("MANIPLE_TEST_SET").unwrap(), std::env::var_os("PATH").is_none());
                    let folder = std::env::current_dir().unwrap();
                    let me = current_process();
                    let parent = parent_process().unwrap();
                    println!("{input:?} {set} {path} {} {} {}", folder.display(), me.name(), me.is_daemon());
                    println!("{} {} {}", parent.name(), parent.pid(), parent.is_alive());
                },
                (),
            )
            .unwrap();
        assert_eq!((process.name(), process.is_daemon(), process.pid()), ("scribe", false, None));
        process.start().unwrap();
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        let me = std::process::id();
        let text = text.replace("\r\n", "\n");
        assert_eq!(text, format!("\"\" yes true {} scribe false\nMainProcess {me} true\n", root().display()));
        assert_eq!(process.join().unwrap(), Exit::Code(0));
    }
    assert!(parent_process().is_none() && cpu_count() > 0);
}

#[test]
fn a_folder_that_is_not_there_is_an_error_or_an_exit_code() {
    let _dog = watchdog();
    let build = |method| Process::builder().start_method(method).current_dir("/no/such/place").build(end, 0).unwrap();
    assert!(matches!(build(StartMethod::Spawn).start(), Err(Error::Process(maniple::ProcessError::Start(_)))));
    if !METHODS.contains(&StartMethod::ForkServer) {
        return;
    }
    let process = build(StartMethod::ForkServer);
    process.start().unwrap();
    assert_eq!(process.join().unwrap(), Exit::Code(1));
}

#[test]
fn the_wrong_order_of_calls_is_an_error() {
    let _dog = watchdog();
    let process = Process::new(end, 0).unwrap();
    assert!(matches!(process.join(), Err(Error::Process(_))));
    assert!(matches!(process.kill(), Err(Error::Process(_))));
    assert!(!process.is_alive() && process.exit_status().is_none());
    process.start().unwrap();
    assert!(matches!(process.start(), Err(Error::Process(_))));
    process.join().unwrap();
    assert!(matches!(process.start(), Err(Error::Process(_))));
}

#[test]
fn it_can_be_waited_for_asked_to_end_and_ended() {
    let _dog = watchdog();
    for method in METHODS {
        let process = started(method, std::thread::sleep, LONG);
        assert_eq!(process.join_timeout(Duration::from_millis(20)).unwrap(), None);
        assert!(process.is_alive() && process.exit_status().is_none());
        assert!(active_children().iter().any(|child| child.pid() == process.pid()));
        process.terminate().unwrap();
        assert_eq!(process.join().unwrap(), Exit::Killed(Cause::TERMINATE));
        process.terminate().unwrap();
        assert!(!active_children().iter().any(|child| child.pid() == process.pid()));

        let process = started(method, std::thread::sleep, LONG);
        process.kill().unwrap();
        let sentinel = process.sentinel().unwrap();
        assert_eq!(maniple::wait(&[&sentinel]).unwrap(), [0]);
        assert_eq!(process.exit_status(), Some(Exit::Killed(Cause::KILL)));
    }
}

#[test]
fn several_threads_learn_how_it_ended() {
    let _dog = watchdog();
    let process = started(StartMethod::Spawn, end, 1);
    let waiters: Vec<_> =
        (0..4).map(|_| process.clone()).map(|p| std::thread::spawn(move || p.join().unwrap())).collect();
    assert!(waiters.into_iter().all(|w| w.join().unwrap() == Exit::Code(7)));
}

#[test]
fn the_last_handle_ends_a_daemon_and_waits_for_others() {
    let _dog = watchdog();
    for method in METHODS {
        let daemon = Process::builder().start_method(method).daemon(true).build(std::thread::sleep, LONG).unwrap();
        daemon.start().unwrap();
        let pid = daemon.pid().unwrap();
        drop(daemon.clone());
        assert!(exists(pid));
        drop(daemon);
        assert!(!is_listed(pid));

        let other = started(method, std::thread::sleep, Duration::from_millis(200));
        let pid = other.pid().unwrap();
        drop(other);
        assert!(!is_listed(pid));
    }
}

#[test]
fn a_daemon_dies_with_its_parent_and_another_child_does_not() {
    let _dog = watchdog();
    if part().is_some() {
        let mut processes = Vec::new();
        for method in METHODS {
            for daemon in [true, false] {
                let builder = Process::builder().start_method(method).daemon(daemon);
                let process = builder.build(std::thread::sleep, LONG).unwrap();
                process.start().unwrap();
                processes.push(process);
            }
        }
        let pids: Vec<u32> = processes.iter().filter_map(Process::pid).collect();
        print_pids(&pids);
        std::thread::sleep(LONG);
        return;
    }
    let mut hub = start_hub(module_path!(), "a_daemon_dies_with_its_parent_and_another_child_does_not", "parent");
    let pids = read_pids(&mut hub);
    hub.kill().unwrap();
    hub.wait().unwrap();
    // By twos: a daemon, and another.
    eventually("the daemons' end", || pids.iter().step_by(2).all(|&pid| !exists(pid)));
    for &pid in pids.iter().skip(1).step_by(2) {
        assert!(exists(pid));
        testing::kill(pid, Signal::KILL).unwrap();
    }
    eventually("the others' end", || pids.iter().all(|&pid| !exists(pid)));
}

/// Reports its number, waits for the end of its parent, and works for a while after it.
fn outlive(told: Sender<String>) {
    told.send(&std::process::id().to_string()).unwrap();
    parent_process().unwrap().join().unwrap();
    // What the system ends with the parent is ended by then.
    std::thread::sleep(Duration::from_millis(500));
    told.send(&"after its parent".to_owned()).unwrap();
    let child = Process::new(end, 1).unwrap();
    child.start().unwrap();
    told.send(&format!("{:?}", child.join().unwrap())).unwrap();
}

#[test]
fn a_process_that_is_no_daemon_works_on_after_its_killed_parent() {
    let _dog = watchdog();
    for method in METHODS {
        let (told, word) = channel::<String>().unwrap();
        let parent = started(
            method,
            |(method, told): (u8, Sender<String>)| {
                let _child = started(METHODS[usize::from(method)], outlive, told);
                std::thread::sleep(LONG);
            },
            (METHODS.iter().position(|m| *m == method).unwrap() as u8, told),
        );
        let pid: u32 = word.recv().unwrap().parse().unwrap();
        parent.kill().unwrap();
        assert_eq!(parent.join().unwrap(), Exit::Killed(Cause::KILL), "{method:?}");
        assert_eq!(word.recv().unwrap(), "after its parent", "{method:?}");
        assert_eq!(word.recv().unwrap(), format!("{:?}", Exit::Code(7)), "{method:?}");
        assert!(matches!(word.recv(), Err(Error::Channel(maniple::ChannelError::Closed))));
        eventually("its own end", || !exists(pid));
    }
}

// Windows has no forks.
#[cfg(not(windows))]
#[test]
fn a_fork_has_all_that_its_parent_had() {
    let _dog = watchdog();
    // In a process with one thread, which a test is not.
    let process = started(
        StartMethod::Spawn,
        |()| {
            let captured = String::from("seven");
            let (mut reader, writer) = std::io::pipe().unwrap();
            // SAFETY: this process has no other thread.
            let fork = unsafe {
                Process::builder().name("twin").stdout(writer).fork(|| {
                    println!("{} {captured} {}", current_process().name(), parent_process().unwrap().pid());
                    assert!(active_children().is_empty());
                    captured.len() as i32
                })
            }
            .unwrap();
            let exit = fork.join().unwrap();
            drop(fork);
            let mut text = String::new();
            reader.read_to_string(&mut text).unwrap();
            assert_eq!(text, format!("twin seven {}\n", std::process::id()));
            assert_eq!(exit, Exit::Code(5));
            // SAFETY: as above.
            let panicking = unsafe { Process::builder().stderr(Stdio::Null).fork(|| -> i32 { panic!("on purpose") }) };
            assert_eq!(panicking.unwrap().join().unwrap(), Exit::Code(101));
        },
        (),
    );
    assert_eq!(process.join().unwrap(), Exit::Code(0));
}

// Windows has no forks.
#[cfg(not(windows))]
#[test]
fn a_forked_child_knows_whether_its_parents_process_runs() {
    let _dog = watchdog();
    for method in METHODS {
        let process = started(method, |()| std::thread::sleep(Duration::from_secs(60)), ());
        let runs = || process.is_alive() && process.exit_status().is_none();
        assert!(runs());
        let in_child = testing::in_forked_child(|| {
            let in_time = process.join_timeout(Duration::from_millis(50)).unwrap();
            i32::from(!runs() || in_time.is_some())
        });
        assert_eq!(in_child, 0, "{method:?}");
        process.kill().unwrap();
        assert_eq!(process.join().unwrap(), Exit::Killed(Cause::KILL), "{method:?}");
    }
}

#[test]
fn processes_start_processes_and_pools() {
    let _dog = watchdog();
    for method in METHODS {
        let process = started(
            method,
            |()| {
                let inner = Process::new(end, 1).unwrap();
                inner.start().unwrap();
                assert_eq!(inner.join().unwrap(), Exit::Code(7));
                let pool = maniple::Pool::new(1).unwrap();
                assert_eq!(pool.map(|x: u8| x + 1, [1, 2]).unwrap(), [2, 3]);
            },
            (),
        );
        assert_eq!(process.join().unwrap(), Exit::Code(0));
    }
}

// Wine sends no Ctrl-C without a console.
#[cfg(not(windows))]
#[test]
fn ctrl_c_ends_a_process_as_it_would_the_program() {
    let _dog = watchdog();
    for method in METHODS {
        let process = started(
            method,
            |()| {
                kill_self(Signal::INT);
            },
            (),
        );
        assert_eq!(process.join().unwrap(), Exit::Killed(Cause::INTERRUPT), "{method:?}");
    }
}

/// Files in a value in a value.
#[derive(serde::Serialize, serde::Deserialize)]
struct Parcel {
    ends: Vec<Handle<PipeWriter>>,
    #[serde(with = "maniple::handle")]
    input: std::fs::File,
}

fn copy_to_all(mut parcel: Parcel) -> std::io::Result<()> {
    let mut text = String::new();
    parcel.input.read_to_string(&mut text)?;
    parcel.ends.iter_mut().try_for_each(|end| end.write_all(text.as_bytes()))
}

#[test]
fn files_and_pipes_go_along_in_its_argument() {
    let _dog = watchdog();
    for method in METHODS {
        let mut input = tempfile();
        input.write_all(b"a few words").unwrap();
        input.rewind().unwrap();
        let (readers, ends): (Vec<_>, Vec<_>) =
            (0..3).map(|_| std::io::pipe().unwrap()).map(|(r, w)| (r, Handle::new(w))).unzip();
        let process = started(method, copy_to_all, Parcel { ends, input });
        for mut reader in readers {
            let mut text = String::new();
            // Ends only if the child alone has the other end: no copy is left here.
            reader.read_to_string(&mut text).unwrap();
            assert_eq!(text, "a few words", "{method:?}");
        }
        assert_eq!(process.join().unwrap(), Exit::Code(0));
    }
}

fn tempfile() -> std::fs::File {
    testing::temporary_file(0)
}

/// As in `main`: the system's default would end the process.
#[test]
fn writing_what_nobody_reads_is_an_error() {
    let _dog = watchdog();
    for method in METHODS {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let fails = |mut writer: Handle<PipeWriter>| i32::from(writer.write_all(b"x").is_ok());
        assert_eq!(started(method, fails, writer.into()).join().unwrap(), Exit::Code(0), "{method:?}");
    }
}
