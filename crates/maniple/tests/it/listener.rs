//! Listeners and clients between processes: of this crate, and of the standard package of every Python that is there.
// For what only the tests with Python use.
#![cfg_attr(windows, allow(dead_code, unused_imports))]

use crate::support::{kill_self, watchdog};
use maniple::{Address, Authkey, Bytes, Cause, Client, Connection, Error, Exit, Listener, Process};
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

const KEY: &str = "between us";

/// Python programs that find these names ready.
const PRELUDE: &str = r#"
import sys, os, json
from multiprocessing import AuthenticationError
from multiprocessing.connection import Client, Listener

def place(text):
    host, colon, port = text.rpartition(":")
    return (host, int(port)) if colon else text.replace("@", "\0", 1)

def key(text):
    return text.encode() if text else None

def say(*words):
    print(*words, flush=True)
"#;

/// A Python process; killed and reaped when dropped.
struct Python {
    child: Child,
    says: BufReader<ChildStdout>,
}

impl Python {
    fn start(python: &Path, program: &str, arguments: &[&str]) -> Python {
        let mut command = Command::new(python);
        command
            .args(["-c", &format!("{PRELUDE}{program}")])
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let says = BufReader::new(child.stdout.take().unwrap());
        Python { child, says }
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.says.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    /// What it still says until its end, which is to be a good one.
    fn end(mut self) -> String {
        let mut rest = String::new();
        self.says.read_to_string(&mut rest).unwrap();
        assert!(self.child.wait().unwrap().success(), "{rest}");
        rest.trim_end().to_owned()
    }
}

impl Drop for Python {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// `python3`, and the newer ones that are to be found: their forms of the authentication differ.
fn pythons() -> &'static [PathBuf] {
    static FOUND: OnceLock<Vec<PathBuf>> = OnceLock::new();
    FOUND.get_or_init(find_pythons)
}

fn find_pythons() -> Vec<PathBuf> {
    let pyenv = std::env::var_os("PYENV_ROOT").map(PathBuf::from);
    let pyenv = pyenv.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".pyenv"))).unwrap_or_default();
    let kept = std::fs::read_dir(pyenv.join("versions")).into_iter().flatten().flatten();
    let kept: Vec<PathBuf> = kept.map(|version| version.path().join("bin")).collect();
    let mut found: Vec<(String, PathBuf)> = Vec::new();
    for name in ["python3", "python3.11", "python3.12", "python3.13", "python3.14"] {
        // What is in the PATH may be a script that looks for it every time.
        let ask = "import sys; print(sys.version_info[:2]); print(sys.executable)";
        let candidates = [PathBuf::from(name)].into_iter().chain(kept.iter().map(|folder| folder.join(name)));
        for python in candidates.take(if name == "python3" { 1 } else { usize::MAX }) {
            let answer = Command::new(python).args(["-c", ask]).stderr(Stdio::null()).output();
            let Some(answer) = answer.ok().filter(|it| it.status.success()) else { continue };
            let text = String::from_utf8(answer.stdout).unwrap();
            let (version, executable) = text.trim().split_once('\n').unwrap();
            if found.iter().all(|(known, _)| known != version) {
                found.push((version.to_owned(), executable.into()));
            }
        }
    }
    eprintln!("with {found:?}");
    assert!(!found.is_empty(), "these tests need a python3 in the PATH");
    found.into_iter().map(|(_, python)| python).collect()
}

/// One of each kind; without a key where that is empty.
fn listeners(key: &str) -> Vec<Listener> {
    let builder = || match key {
        "" => Listener::builder(),
        key => Listener::builder().authkey(key),
    };
    // Not a name that was used before: a child that another test starts meanwhile has a listener's descriptor until its exec, so that
    // the address is still in use when the listener here is gone.
    static USED: AtomicU32 = AtomicU32::new(0);
    let name = format!("@maniple-test-{}-{}", std::process::id(), USED.fetch_add(1, Ordering::Relaxed));
    vec![builder().temporary().unwrap(), builder().bind("127.0.0.1:0").unwrap(), builder().bind(name).unwrap()]
}

fn client(key: &str) -> maniple::ClientBuilder {
    let builder = Client::builder().connect_timeout(Duration::from_secs(30)).keep_alive(true);
    if key.is_empty() { builder } else { builder.authkey(key) }
}

/// What both sides do: this one speaks first.
fn converse(line: &Connection<()>) {
    for size in [0, 1, 1000, 100_000, 3_000_000] {
        let bytes: Vec<u8> = (0..size).map(|n: u32| (n % 251) as u8).collect();
        line.send_bytes(&bytes).unwrap();
        let back = line.recv_bytes().unwrap();
        assert!(back.iter().rev().eq(&bytes), "{size}");
    }
    // Any format that both know will do.
    line.send_bytes(br#"{"numbers": [1, 2, 3]}"#).unwrap();
    assert_eq!(line.recv_bytes().unwrap(), br#"{"sum": 6}"#);
    assert!(matches!(line.recv_bytes(), Err(Error::Channel(maniple::ChannelError::Closed))));
}

const CONVERSE: &str = r#"
def converse(line):
    for _ in range(5):
        line.send_bytes(line.recv_bytes()[::-1])
    line.send_bytes(json.dumps({"sum": sum(json.loads(line.recv_bytes())["numbers"])}).encode())
    line.close()
"#;

// Needs a Python whose listeners are those of Unix.
#[cfg(not(windows))]
#[test]
fn python_connects_to_a_listener_here() {
    let _dog = watchdog();
    let program = format!(
        r#"{CONVERSE}
for where, which in zip(sys.argv[1::2], sys.argv[2::2]):
    converse(Client(place(where), authkey=key(which)))
"#
    );
    for python in pythons() {
        let all: Vec<(&str, Listener)> =
            ["", KEY].into_iter().flat_map(|key| listeners(key).into_iter().map(move |it| (key, it))).collect();
        let arguments: Vec<String> =
            all.iter().flat_map(|(key, it)| [it.address().to_string(), key.to_string()]).collect();
        let peer = Python::start(python, &program, &arguments.iter().map(String::as_str).collect::<Vec<_>>());
        all.iter().for_each(|(_, listener)| converse(&listener.accept().unwrap()));
        peer.end();
    }
}

// Needs a Python whose listeners are those of Unix.
#[cfg(not(windows))]
#[cfg(feature = "json")]
#[test]
fn values_pass_in_a_format_that_both_know() {
    use std::collections::BTreeMap;
    let _dog = watchdog();
    let listener = Listener::builder().authkey(KEY).temporary().unwrap();
    let program = r#"
with Client(sys.argv[1], authkey=b"between us") as line:
    given = json.loads(line.recv_bytes())
    line.send_bytes(json.dumps({word: len(word) for word in given}).encode())
"#;
    let peer = Python::start(&pythons()[0], program, &[&listener.address().to_string()]);
    let line = listener.accept::<()>().unwrap().cast::<Vec<String>, maniple::Json>();
    line.send(&vec!["one".into(), "three".into()]).unwrap();
    let lengths = line.cast::<BTreeMap<String, usize>, maniple::Json>().recv().unwrap();
    assert_eq!(lengths, BTreeMap::from([("one".into(), 3), ("three".into(), 5)]));
    peer.end();
}

// Needs a Python whose listeners are those of Unix.
#[cfg(not(windows))]
#[test]
fn a_listener_in_python_is_connected_to() {
    let _dog = watchdog();
    let program = format!(
        r#"{CONVERSE}
for which in sys.argv[1:]:
    for family in "AF_UNIX", "AF_INET":
        with Listener(None if family == "AF_UNIX" else ("localhost", 0), family, authkey=key(which)) as listener:
            address = listener.address
            say(address if family == "AF_UNIX" else ":".join(map(str, address)))
            converse(listener.accept())
"#
    );
    for python in pythons() {
        let mut peer = Python::start(python, &program, &["", KEY]);
        for key in ["", "", KEY, KEY] {
            let address = peer.line();
            converse(&client(key).connect(address).unwrap());
        }
        peer.end();
    }
}

// Needs a Python whose listeners are those of Unix.
#[cfg(not(windows))]
#[test]
fn a_wrong_key_is_refused_at_both_ends_when_python_connects() {
    let _dog = watchdog();
    let program = r#"
for where in sys.argv[1:]:
    try:
        Client(place(where), authkey=b"a guess")
    except AuthenticationError as error:
        say(error)
    with Client(place(where), authkey=b"between us") as line:
        line.send_bytes(b"it was the key")
"#;
    for python in pythons() {
        let all = listeners(KEY);
        let addresses: Vec<String> = all.iter().map(|it| it.address().to_string()).collect();
        let mut peer = Python::start(python, program, &addresses.iter().map(String::as_str).collect::<Vec<_>>());
        for (listener, address) in all.iter().zip(&addresses) {
            let Err(Error::Channel(maniple::ChannelError::Authentication(why))) = listener.accept::<()>() else {
                panic!()
            };
            assert!(why.contains(address) && why.contains("both ends need the same"), "{why}");
            // The listener continues.
            assert_eq!(listener.accept::<()>().unwrap().recv_bytes().unwrap(), b"it was the key");
            assert_eq!(peer.line(), "digest sent was rejected");
        }
        peer.end();
    }
}

// Needs a Python whose listeners are those of Unix.
#[cfg(not(windows))]
#[test]
fn a_wrong_key_is_refused_at_both_ends_when_python_listens() {
    let _dog = watchdog();
    let program = r#"
with Listener(authkey=b"between us") as listener:
    say(listener.address)
    try:
        listener.accept()
    except AuthenticationError as error:
        say(error)
    with listener.accept() as line:
        line.send_bytes(b"it was the key")
"#;
    for python in pythons() {
        let mut peer = Python::start(python, program, &[]);
        let address = peer.line();
        let Err(Error::Channel(maniple::ChannelError::Authentication(why))) = client("a guess").connect::<()>(&address)
        else {
            panic!()
        };
        assert!(why.contains(&address) && why.contains("digest sent was rejected"), "{why}");
        assert_eq!(client(KEY).connect::<()>(&address).unwrap().recv_bytes().unwrap(), b"it was the key");
        assert_eq!(peer.end(), "digest received was wrong");
    }
}

// Needs a Python whose listeners are those of Unix.
#[cfg(not(windows))]
#[test]
fn one_end_without_a_key_is_told_so() {
    let _dog = watchdog();
    let python = &pythons()[0];
    // A client without a key sends what it came to say.
    let listener = Listener::builder().authkey(KEY).temporary().unwrap();
    let address = listener.address().to_string();
    for word in ["b'hello'", "b'x' * 1000"] {
        let program =
            format!("line = Client(sys.argv[1])\nline.send_bytes({word})\nline.recv_bytes()\nsay(line.recv_bytes())");
        let peer = Python::start(python, &program, &[&address]);
        let Err(Error::Channel(maniple::ChannelError::Authentication(why))) = listener.accept::<()>() else { panic!() };
        assert!(why.contains("key"), "{why}");
        assert_eq!(peer.end(), "b'#FAILURE#'");
    }
    // And the other way round.
    let program = "with Listener() as listener:\n say(listener.address)\n listener.accept().send_bytes(b'hello')";
    let mut peer = Python::start(python, program, &[]);
    let Err(Error::Channel(maniple::ChannelError::Authentication(why))) = client(KEY).connect::<()>(peer.line()) else {
        panic!()
    };
    assert!(why.contains("sent \"hello\" instead of a challenge; does it have a key?"), "{why}");
    peer.end();
}

// Needs a Python whose listeners are those of Unix.
#[cfg(not(windows))]
#[test]
fn a_peer_that_is_killed_in_the_middle_of_it_is_an_error() {
    let _dog = watchdog();
    let python = &pythons()[0];
    let listener = Listener::builder().authkey(KEY).temporary().unwrap();
    let address = listener.address().to_string();
    let program = "
line = Client(sys.argv[1])
line.recv_bytes()
os.write(line.fileno(), b'\\0\\0')
os.kill(os.getpid(), 9)
";
    let peer = Python::start(python, program, &[&address]);
    let Err(Error::Channel(maniple::ChannelError::Authentication(why))) = listener.accept::<()>() else { panic!() };
    assert!(why.contains("closed the connection, or died, in the middle of the authentication"), "{why}");
    drop(peer);

    let program = "
with Listener() as listener:
    say(listener.address)
    line = listener.accept()
    line.send_bytes(b'#CHALLENGE#0123456789abcdefghij')
    line.recv_bytes()
    os.kill(os.getpid(), 9)
";
    let mut peer = Python::start(python, program, &[]);
    let Err(Error::Channel(maniple::ChannelError::Authentication(why))) = client(KEY).connect::<()>(peer.line()) else {
        panic!()
    };
    assert!(why.contains("closed the connection, or died, in the middle of the authentication"), "{why}");
}

type Letter = (u32, Bytes, Vec<String>);

fn echo((address, key, letters): (Address, Vec<u8>, u32)) -> maniple::Result<()> {
    let line = Client::builder().authkey(key).connect::<Letter>(address)?;
    for _ in 0..letters {
        let (number, bytes, words) = line.recv()?;
        line.send(&(number + 1, bytes, words))?;
    }
    Ok(())
}

#[test]
fn processes_of_this_crate_exchange_values_of_all_sizes() {
    let _dog = watchdog();
    let key = Authkey::random().unwrap();
    for bind in ["", "localhost:0"] {
        let builder = Listener::builder().authkey(&key);
        let listener = if bind.is_empty() { builder.temporary() } else { builder.bind(bind) }.unwrap();
        let argument = (listener.address().clone(), key.as_bytes().to_vec(), 3);
        let process = Process::new(echo, argument).unwrap();
        process.start().unwrap();
        let line = listener.accept::<Letter>().unwrap();
        for size in [0, 5000, 5_000_000] {
            let letter = (size as u32, Bytes::from(vec![7; size]), vec!["a word".to_owned(); 3]);
            line.send(&letter).unwrap();
            let (number, bytes, words) = line.recv().unwrap();
            assert!(number == size as u32 + 1 && bytes[..] == letter.1[..] && words == letter.2);
        }
        assert_eq!(process.join().unwrap(), Exit::Code(0));
        assert!(matches!(line.recv(), Err(Error::Channel(maniple::ChannelError::Closed))));
    }
}

#[test]
fn a_listener_whose_process_is_killed_ends_its_clients_waits() {
    let _dog = watchdog();
    let listener = Listener::temporary().unwrap();
    let process = Process::new(
        |tell: Address| -> maniple::Result<()> {
            let listener = Listener::builder().authkey(KEY).bind("127.0.0.1:0")?;
            let line = Client::connect::<Address>(tell)?;
            line.send(listener.address())?;
            let connection = listener.accept::<u8>()?;
            connection.send(&1)?;
            kill_self(maniple_sys::testing::Signal::KILL);
            Ok(())
        },
        listener.address().clone(),
    )
    .unwrap();
    process.start().unwrap();
    let address = listener.accept::<Address>().unwrap().recv().unwrap();
    let line = client(KEY).connect::<u8>(&address).unwrap();
    assert_eq!(line.recv().unwrap(), 1);
    assert!(matches!(line.recv(), Err(Error::Channel(maniple::ChannelError::Closed))));
    assert_eq!(process.join().unwrap(), Exit::Killed(Cause::KILL));
    let error = client(KEY).connect::<u8>(&address).unwrap_err();
    assert!(error.to_string().contains("no process listens at this address"), "{error}");
}

#[test]
fn a_listener_that_is_waited_for_in_several_threads_serves_them_all() {
    let _dog = watchdog();
    let listener = Listener::builder().authkey(KEY).temporary().unwrap();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..10 {
                    let line = listener.accept::<u32>().unwrap();
                    line.send(&(line.recv().unwrap() + 1)).unwrap();
                }
            });
        }
        for number in 0..40 {
            let line = client(KEY).connect::<u32>(listener.address()).unwrap();
            line.send(&number).unwrap();
            assert_eq!(line.recv().unwrap(), number + 1);
        }
    });
}

#[test]
fn addresses_are_what_they_were_after_a_journey() {
    for text in ["/a/path", "@name", "host:1", "[::1]:65535", "./here"] {
        let address: Address = text.parse().unwrap();
        let (a, b) = maniple::pipe::<Address>().unwrap();
        a.send(&address).unwrap();
        let back = b.recv().unwrap();
        assert_eq!((&back, back.to_string().as_str()), (&address, text));
    }
    for text in ["", "name", "host:", ":80", "host:65536", "host:-1"] {
        assert!(matches!(text.parse::<Address>(), Err(Error::Channel(maniple::ChannelError::Address(_)))), "{text}");
    }
    assert_eq!(Address::from(("::1", 80)).to_string(), "[::1]:80");
}

#[test]
fn a_client_without_a_key_learns_that_the_listener_asks_for_one() {
    let _dog = watchdog();
    let listener = Listener::builder().authkey(KEY).temporary().unwrap();
    let address = listener.address().clone();
    std::thread::scope(|scope| {
        let client = scope.spawn(move || Client::connect::<Vec<u32>>(address).unwrap().recv().unwrap_err());
        let refused = listener.accept::<Vec<u32>>();
        assert!(refused.is_err());
        let error = client.join().unwrap();
        assert!(matches!(error, Error::Channel(maniple::ChannelError::Authentication(_))), "{error}");
        assert!(error.to_string().starts_with("the listener asks for a key"), "{error}");
    });
}
