//! Listeners and those who connect to them: with silent, dying and lying clients beside the good ones, and what is
//! left behind.

use maniple_engine::channel::auth::{self, Refusal};
use maniple_engine::channel::frame::{self, Partial, Until, Way};
use maniple_engine::channel::listener::{Address, Cause, ContactError, Listener, Step, connect};
use maniple_engine::{Error, Result};
use maniple_sys::process::leave;
use maniple_sys::testing::Stream;
use maniple_sys::{AsHandle, OwnedHandle};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

const KEY: &[u8] = b"between us";

fn never() -> impl FnMut() -> bool {
    || false
}

fn accept(listener: &Listener, key: Option<&[u8]>) -> Result<OwnedHandle> {
    Ok(listener.accept(key, None, &mut never())?.unwrap())
}

fn soon() -> Option<Instant> {
    Some(Instant::now() + Duration::from_millis(30))
}

fn contact(error: Error) -> ContactError {
    match error {
        Error::Other(why) => *why.downcast().unwrap(),
        other => panic!("{other}"),
    }
}

fn send(end: &OwnedHandle, body: &[u8]) {
    frame::send(end.as_handle(), false, body, &[], &mut Vec::new(), &mut never()).unwrap();
}

fn receive(end: &OwnedHandle) -> Vec<u8> {
    let mut partial = Partial::default();
    let way = Way { adaptive: None, brings: false, is_socket: true, until: Until::Ever };
    assert!(partial.begin(end.as_handle(), way, &mut never()).unwrap());
    partial.finish(end.as_handle(), &mut never()).unwrap();
    frame::Message::from(partial).content
}

fn path_of(listener: &Listener) -> PathBuf {
    match listener.address() {
        Address::Local(path) => path.clone(),
        Address::Tcp(_) => panic!("not local"),
    }
}

/// A client that does nothing of its own accord.
fn raw(listener: &Listener) -> Stream {
    Stream::connect(path_of(listener)).unwrap()
}

fn read_message(stream: &mut impl Read) -> Vec<u8> {
    let mut head = [0; 4];
    stream.read_exact(&mut head).unwrap();
    let mut body = vec![0; u32::from_be_bytes(head) as usize];
    stream.read_exact(&mut body).unwrap();
    body
}

fn message(body: &[u8]) -> Vec<u8> {
    [&(body.len() as u32).to_be_bytes(), body].concat()
}

/// An empty folder of this test's own.
fn folder(what: &str) -> PathBuf {
    let folder = std::env::temp_dir().join(format!("maniple-test-{what}-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir(&folder).unwrap();
    folder
}

#[test]
fn messages_pass_over_every_kind_of_address_with_and_without_a_key() {
    let folder = folder("kinds");
    let name = format!("@maniple-test-{}", std::process::id());
    let path = folder.join("socket").to_str().unwrap().to_owned();
    for address in [path.as_str(), &name, "127.0.0.1:0", "localhost:0"] {
        for key in [None, Some(KEY), Some(&b""[..])] {
            let listener = Listener::bind(&address.parse().unwrap(), 1).unwrap();
            let address = listener.address().clone();
            assert!(!address.to_string().ends_with(":0"));
            let client = thread::spawn(move || {
                let end = connect(&address, key, None, &mut never()).unwrap();
                send(&end, b"from the client");
                receive(&end)
            });
            let end = accept(&listener, key).unwrap();
            assert_eq!(receive(&end), b"from the client");
            send(&end, b"from the listener");
            assert_eq!(client.join().unwrap(), b"from the listener");
        }
    }
    // Nothing is left.
    std::fs::remove_dir(folder).unwrap();
}

#[test]
fn a_temporary_place_is_private_and_goes_with_its_listener() {
    let listener = Listener::temporary(1).unwrap();
    let path = path_of(&listener);
    let folder = path.parent().unwrap().to_owned();
    // A folder of Windows has no such bits: it is as private as the folder for temporary files, which is the user's.
    #[cfg(not(windows))]
    {
        use maniple_sys::testing::PermissionsExt;
        assert_eq!(std::fs::metadata(&folder).unwrap().permissions().mode() & 0o777, 0o700);
    }
    assert!(path.exists());
    drop(listener);
    assert!(!folder.exists());
}

const LEAVES: &str = "MANIPLE_TEST_LEAVES_A_LISTENER";

/// Not a test of its own: a process that [`what_a_killed_process_left_goes_with_the_next_listener`] starts.
#[test]
fn leaves_a_listener() {
    if std::env::var_os(LEAVES).is_some() {
        let listener = Listener::temporary(1).unwrap();
        println!("listens at {}", path_of(&listener).display());
        std::io::stdout().flush().unwrap();
        leave(0);
    }
}

#[test]
fn what_a_killed_process_left_goes_with_the_next_listener() {
    let mut program = std::process::Command::new(std::env::current_exe().unwrap());
    program.args(["--exact", "listener::leaves_a_listener", "--nocapture"]).env(LEAVES, "1");
    let said = program.stdin(std::process::Stdio::null()).output().unwrap().stdout;
    let said = String::from_utf8(said).unwrap();
    let path = Path::new(said.lines().find_map(|line| line.split_once("listens at ")).unwrap().1).to_owned();
    assert!(path.parent().unwrap().exists(), "a killed process cleans nothing up");
    let other = Listener::temporary(1).unwrap();
    assert!(!path.parent().unwrap().exists() && path_of(&other).exists());
}

#[test]
fn a_path_that_was_replaced_belongs_to_another() {
    let folder = folder("replaced");
    let address = Address::Local(folder.join("socket"));
    let first = Listener::bind(&address, 1).unwrap();
    std::fs::remove_file(folder.join("socket")).unwrap();
    let second = Listener::bind(&address, 1).unwrap();
    drop(first);
    assert!(folder.join("socket").exists());
    assert!(connect(&address, None, None, &mut never()).is_ok());
    drop(second);
    std::fs::remove_dir(folder).unwrap();
}

// Windows has no forks.
#[cfg(not(windows))]
#[test]
fn a_forked_child_takes_nothing_away() {
    let listener = Listener::temporary(1).unwrap();
    let copy = std::mem::ManuallyDrop::new(listener);
    let child = maniple_sys::testing::fork();
    if child.is_none() {
        drop(std::mem::ManuallyDrop::into_inner(copy));
        leave(0);
    }
    child.unwrap().wait();
    assert!(path_of(&copy).exists());
    drop(std::mem::ManuallyDrop::into_inner(copy));
}

#[test]
fn keys_that_differ_are_told_of_at_both_ends_and_the_listener_goes_on() {
    let listener = Listener::temporary(1).unwrap();
    let address = listener.address().clone();
    let client = thread::spawn(move || {
        let error = connect(&address, Some(b"another"), None, &mut never()).unwrap_err();
        (error, connect(&address, Some(KEY), None, &mut never()).unwrap())
    });
    let error = contact(accept(&listener, Some(KEY)).unwrap_err());
    assert!(error.is_one_client() && matches!(error.cause, Cause::Refusal(Refusal::WrongKey)), "{error}");
    let text = error.to_string();
    assert!(text.contains(&listener.address().to_string()) && text.contains("both ends need the same"), "{text}");
    assert!(text.contains(&format!("process {}", std::process::id())), "{text}");
    accept(&listener, Some(KEY)).unwrap();
    let (error, _end) = client.join().unwrap();
    let error = contact(error);
    assert!(matches!(error.cause, Cause::Refusal(Refusal::Rejected(_))) && error.step == Step::GetIn, "{error}");
}

#[test]
fn a_silent_client_keeps_nobody_waiting() {
    let mut listener = Listener::temporary(8).unwrap();
    listener.set_patience(Duration::from_secs(3600));
    let silent: Vec<Stream> = (0..5).map(|_| raw(&listener)).collect();
    // One says something, slowly.
    (&silent[0]).write_all(&[0, 0]).unwrap();
    let address = listener.address().clone();
    let client = thread::spawn(move || connect(&address, Some(KEY), None, &mut never()).unwrap());
    accept(&listener, Some(KEY)).unwrap();
    client.join().unwrap();
    assert!(listener.accept(Some(KEY), soon(), &mut never()).unwrap().is_none());
}

#[test]
fn a_client_that_is_too_slow_is_turned_out() {
    let mut listener = Listener::temporary(8).unwrap();
    listener.set_patience(Duration::from_millis(20));
    let mut silent = raw(&listener);
    let error = contact(accept(&listener, Some(KEY)).unwrap_err());
    assert!(matches!(error.cause, Cause::Late(_)) && error.is_one_client(), "{error}");
    assert!(read_message(&mut silent).starts_with(b"#CHALLENGE#"));
    assert_eq!(silent.read(&mut [0]).unwrap(), 0);
}

#[test]
fn of_too_many_unfinished_the_oldest_goes() {
    let mut listener = Listener::temporary(100).unwrap();
    listener.set_patience(Duration::from_secs(3600));
    let mut clients: Vec<Stream> = (0..65).map(|_| raw(&listener)).collect();
    let error = contact(accept(&listener, Some(KEY)).unwrap_err());
    assert!(matches!(error.cause, Cause::Crowded), "{error}");
    read_message(&mut clients[0]);
    assert_eq!(clients[0].read(&mut [0]).unwrap(), 0);
    // The others are as they were.
    let challenge = read_message(&mut clients[1]);
    clients[1].write_all(&message(&auth::answer(KEY, &challenge).unwrap())).unwrap();
    assert!(listener.accept(Some(KEY), soon(), &mut never()).unwrap().is_none());
    assert_eq!(read_message(&mut clients[1]), b"#WELCOME#");
}

#[test]
fn a_client_that_goes_at_any_step_is_reported_and_leaves_nothing() {
    let listener = Listener::temporary(8).unwrap();
    for step in 0..4 {
        let mut client = raw(&listener);
        if step >= 1 {
            // In the middle of a message.
            client.write_all(&[0, 0, 0]).unwrap();
        }
        if step >= 2 {
            assert!(listener.accept(Some(KEY), soon(), &mut never()).unwrap().is_none());
            let challenge = read_message(&mut client);
            client.write_all(&message(&auth::answer(KEY, &challenge).unwrap())[3..]).unwrap();
        }
        if step >= 3 {
            assert!(listener.accept(Some(KEY), soon(), &mut never()).unwrap().is_none());
            client.write_all(&message(b"#CHALLENGE#0123456789abcdefghij")).unwrap();
        }
        drop(client);
        let error = contact(accept(&listener, Some(KEY)).unwrap_err());
        assert!(matches!(error.cause, Cause::Gone) && error.is_one_client(), "{step}: {error}");
    }
}

#[test]
fn what_a_stranger_sends_is_not_read_beyond_the_first_message() {
    let listener = Listener::temporary(8).unwrap();
    for sent in [
        &b"\xff\xff\xff\xff\0\0\0\0\0\0\x01\x01 and more"[..],
        b"\0\0\x01\x01 and more",
        b"\x80\0\0\0",
        b"GET / HTTP/1.1\r\n\r\n",
        b"\xff\xff\xff\xff\0\0\0\0\0\0\0\x09123456789 and more",
    ] {
        let mut client = raw(&listener);
        client.write_all(sent).unwrap();
        let error = contact(accept(&listener, Some(KEY)).unwrap_err());
        match sent[0] {
            0x80 => assert!(matches!(error.cause, Cause::Refusal(Refusal::BadLength)), "{error}"),
            _ if sent.ends_with(b"9 and more") => {
                assert!(matches!(error.cause, Cause::Refusal(Refusal::UnknownForm(_))), "{error}");
            }
            _ => assert!(matches!(error.cause, Cause::Refusal(Refusal::TooLong(_))), "{error}"),
        }
        read_message(&mut client);
        assert_eq!(read_message(&mut client), b"#FAILURE#");
        assert!(matches!(client.read(&mut [0]), Ok(0) | Err(_)));
    }
}

#[test]
fn what_comes_behind_the_authentication_stays_for_the_reader() {
    let listener = Listener::temporary(1).unwrap();
    let mut client = raw(&listener);
    let theirs = [b"#CHALLENGE#", &[b'x'; 20][..]].concat();
    assert!(listener.accept(Some(KEY), soon(), &mut never()).unwrap().is_none());
    let challenge = read_message(&mut client);
    // It says all at once what it is to say, and its first message, too.
    let response = auth::answer(KEY, &challenge).unwrap();
    let all = [message(&response), message(&theirs), message(b"#WELCOME#"), message(b"first")].concat();
    client.write_all(&all).unwrap();
    let end = accept(&listener, Some(KEY)).unwrap();
    assert_eq!(receive(&end), b"first");
    assert_eq!(read_message(&mut client), b"#WELCOME#");
    auth::verify(KEY, &theirs[11..], &read_message(&mut client)).unwrap();
}

#[test]
fn an_unfinished_client_is_handed_on_to_whoever_waits() {
    let listener = Listener::temporary(8).unwrap();
    let mut slow = raw(&listener);
    // Taken in, and left by the only thread that was there.
    assert!(listener.accept(Some(KEY), soon(), &mut never()).unwrap().is_none());
    thread::scope(|scope| {
        let others: Vec<_> = (0..2).map(|_| scope.spawn(|| accept(&listener, Some(KEY)).unwrap())).collect();
        // The thread that has the slow client returns with this one; the other thread has to serve the slow client.
        let address = listener.address().clone();
        connect(&address, Some(KEY), None, &mut never()).unwrap();
        let challenge = read_message(&mut slow);
        slow.write_all(&message(&auth::answer(KEY, &challenge).unwrap())).unwrap();
        slow.write_all(&message(b"#CHALLENGE#0123456789abcdefghij")).unwrap();
        slow.write_all(&message(b"#WELCOME#")).unwrap();
        others.into_iter().for_each(|other| drop(other.join().unwrap()));
    });
}

#[test]
fn waiting_ends_at_the_deadline_and_when_it_is_interrupted() {
    let listener = Listener::temporary(8).unwrap();
    assert!(listener.accept(None, Some(Instant::now()), &mut never()).unwrap().is_none());
    assert!(matches!(listener.accept(None, soon(), &mut || true), Err(Error::Interrupted)));
    // The listener does not accept it, so there is no answer.
    let error = contact(connect(listener.address(), Some(KEY), soon(), &mut never()).unwrap_err());
    assert!(matches!(error.cause, Cause::Late(_)) && error.step == Step::GetIn, "{error}");
    assert!(matches!(connect(listener.address(), Some(KEY), soon(), &mut || true), Err(Error::Interrupted)));
    // A client is there already: no time is needed.
    let _client = raw(&listener);
    assert!(listener.accept(None, Some(Instant::now()), &mut never()).unwrap().is_some());
}

#[test]
fn errors_name_the_address_and_what_to_do() {
    let nowhere = Address::Local("/nonexistent/socket".into());
    let error = connect(&nowhere, None, None, &mut never()).unwrap_err().to_string();
    assert!(error.starts_with("could not connect to /nonexistent/socket: "), "{error}");
    assert!(error.ends_with("does the listener exist?"), "{error}");
    let error = Listener::bind(&nowhere, 1).unwrap_err().to_string();
    assert!(error.starts_with("could not listen at /nonexistent/socket: "), "{error}");

    let first = Listener::bind(&"127.0.0.1:0".parse().unwrap(), 1).unwrap();
    let error = Listener::bind(first.address(), 1).unwrap_err().to_string();
    assert!(error.contains(&first.address().to_string()) && error.contains("port 0"), "{error}");
    let address = first.address().clone();
    drop(first);
    let error = connect(&address, None, None, &mut never()).unwrap_err().to_string();
    assert!(error.contains("no process listens at this address"), "{error}");

    let temporary = Listener::temporary(1).unwrap();
    let error = Listener::bind(temporary.address(), 1).unwrap_err().to_string();
    assert!(error.contains("remove the path"), "{error}");
    let long = Address::Local(Path::new("/tmp").join("x".repeat(300)));
    let error = Listener::bind(&long, 1).unwrap_err().to_string();
    assert!(error.contains(&format!("{} bytes", maniple_sys::socket::LONGEST_PATH)), "{error}");
    let error = connect(&Address::Tcp("no such host:1".into()), None, None, &mut never()).unwrap_err().to_string();
    assert!(error.contains("no such host:1"), "{error}");
}

#[test]
fn a_listener_that_goes_ends_its_clients_waits() {
    let listener = Listener::bind(&"127.0.0.1:0".parse().unwrap(), 4).unwrap();
    let Address::Tcp(text) = listener.address() else { panic!() };
    // One in the backlog, one in the middle of its authentication.
    let mut first = TcpStream::connect(text).unwrap();
    assert!(listener.accept(Some(KEY), soon(), &mut never()).unwrap().is_none());
    let address = listener.address().clone();
    let second = thread::spawn(move || connect(&address, Some(KEY), None, &mut never()));
    thread::sleep(Duration::from_millis(20));
    drop(listener);
    read_message(&mut first);
    assert!(matches!(first.read(&mut [0]), Ok(0) | Err(_)));
    assert!(second.join().unwrap().is_err());
}

#[test]
fn patience_counts_only_while_somebody_accepts() {
    let mut listener = Listener::temporary(4).unwrap();
    // Longer than the authentication of another client takes, for which Wine needs its time.
    let patience = Duration::from_millis(if cfg!(windows) { 2000 } else { 250 });
    listener.set_patience(patience);
    let silent = raw(&listener);
    assert!(listener.accept(Some(KEY), soon(), &mut never()).unwrap().is_none());
    thread::sleep(patience * 12 / 5);
    let address = listener.address().clone();
    let client = thread::spawn(move || connect(&address, Some(KEY), None, &mut never()).unwrap());
    let end = accept(&listener, Some(KEY)).unwrap();
    send(&end, b"in time");
    assert_eq!(receive(&client.join().unwrap()), b"in time");
    let late = contact(accept(&listener, Some(KEY)).unwrap_err());
    assert!(matches!(late.cause, Cause::Late(_)));
    drop(silent);
}

#[test]
fn a_signal_that_arrives_while_a_guest_is_served_ends_the_next_wait() {
    let listener = Listener::bind(&Address::Local(folder("served").join("socket")), 1).unwrap();
    let mut guest = raw(&listener);
    // The hook is true from then on, as if a signal had arrived during the first of these steps.
    let begun = Instant::now();
    assert!(matches!(listener.accept(Some(KEY), None, &mut || true), Err(Error::Interrupted)));
    // A guest may be silent for twenty seconds.
    assert!(begun.elapsed() < Duration::from_secs(10));
    // The guest is still there.
    assert!(guest.read(&mut [0; 100]).unwrap() > 0);
}

#[test]
fn a_wait_calls_the_hook_again_if_a_signal_arrived_just_before_it() {
    let listener = Listener::bind(&Address::Local(folder("just-before").join("socket")), 1).unwrap();
    let mut calls = 0;
    let mut third = || {
        calls += 1;
        calls == 3
    };
    assert!(matches!(listener.accept(Some(KEY), None, &mut third), Err(Error::Interrupted)));
}

// On Windows no other program has local listeners.
#[cfg(not(windows))]
#[test]
fn a_listening_socket_of_the_programs_own_may_be_in_blocking_mode() {
    use maniple_engine::channel::reception::{Reception, Refused};

    let path = folder("blocking").join("socket");
    let socket = maniple_sys::testing::UnixListener::bind(&path).unwrap();
    let reception = Reception::new().unwrap();
    let admit = |until| reception.admit(socket.as_handle(), None, until, &mut never());
    assert!(admit(soon()).unwrap().is_none());
    let client = Stream::connect(&path).unwrap();
    assert!(admit(None).unwrap().is_some());
    // It is what it was.
    let other = Stream::connect(&path).unwrap();
    socket.accept().unwrap();
    thread::scope(|s| {
        let waiting = s.spawn(|| admit(None));
        thread::sleep(Duration::from_millis(30));
        reception.close();
        assert!(matches!(waiting.join().unwrap(), Err(Refused::Closed)));
    });
    drop((client, other));
    std::fs::remove_dir_all(path.parent().unwrap()).unwrap();
}
