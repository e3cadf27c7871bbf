//! The common parts of all tests: no test hangs, and no process is left behind.
#![allow(dead_code)]

use maniple::{Exit, IntoExitCode, Payload, Pool, Process, StartMethod};
use maniple_sys::testing;
use std::future::Future;
use std::io::{Read, Write};
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

/// All ways to start workers.
#[cfg(not(windows))]
pub const METHODS: [StartMethod; 2] = [StartMethod::Spawn, StartMethod::ForkServer];

/// All ways to start workers: Windows has no fork server.
#[cfg(windows)]
pub const METHODS: [StartMethod; 1] = [StartMethod::Spawn];

/// How long a test may take.
// A start takes half a second under Wine, and some tests start a hundred processes.
pub const LIMIT: Duration = Duration::from_secs(if cfg!(windows) { 300 } else { 60 });

/// How long a test waits for what has an end: less, so that it says what did not come.
pub const LONG: Duration = Duration::from_secs(if cfg!(windows) { 200 } else { 50 });

/// How long it waits for what has none.
pub const SHORT: Duration = Duration::from_millis(20);

/// Ends the whole test program if the returned value still lives when the time is over.
#[must_use]
pub fn watchdog() -> Sender<()> {
    let (alive, watch) = channel::<()>();
    let test = std::thread::current().name().unwrap_or("a test").to_owned();
    std::thread::spawn(move || {
        if watch.recv_timeout(LIMIT) == Err(std::sync::mpsc::RecvTimeoutError::Timeout) {
            // Not by `eprintln!`, which the harness keeps until the test's end.
            let _ = writeln!(std::io::stderr(), "{test} hangs");
            std::process::abort();
        }
    });
    alive
}

/// A pool of so many workers, started so.
pub fn pool(method: StartMethod, processes: usize) -> Pool {
    Pool::builder().processes(processes).start_method(method).build().unwrap()
}

/// Waits until `done`.
pub fn eventually(what: &str, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < LONG, "{what}: in vain");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Whether a process of this number exists and is not a zombie of another parent.
pub fn exists(pid: u32) -> bool {
    testing::exists(pid)
}

/// Whether anything of this number is there, were it a zombie.
pub fn is_listed(pid: u32) -> bool {
    testing::is_listed(pid)
}

/// How an exit by `kill` is named.
pub const KILLED: &str = if cfg!(windows) { "signal 9 (ended at once)" } else { "signal 9 (SIGKILL)" };

/// The name of a function in texts. Windows has the names of functions in files of their own: there it is the type.
pub fn named(name: &str, type_name: &str) -> String {
    if cfg!(windows) { format!("a function of type {type_name}") } else { name.to_owned() }
}

/// Sends this process a signal that ends it.
pub fn kill_self(signal: testing::Signal) {
    testing::kill_self(signal);
    std::thread::sleep(LIMIT);
}

/// The process that this one is a worker of, or was started by.
pub fn parent() -> u32 {
    testing::parent()
}

/// The process that owns the pool which this process is a worker of: its parent.
#[cfg(windows)]
pub fn parent_hub() -> u32 {
    parent()
}

/// The process that owns the pool which this process is a worker of: its parent, or the fork server's.
#[cfg(not(windows))]
pub fn parent_hub() -> u32 {
    let field = |pid: u32, name: &str| {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        status.lines().find_map(|l| l.strip_prefix(name)).unwrap().trim().to_owned()
    };
    let parent = parent();
    // Both have the same arguments; only the hub itself was started by a program with others.
    let command = |pid: u32| std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let above: u32 = field(parent, "PPid:").parse().unwrap();
    if command(above) == command(parent) { above } else { parent }
}

/// In the environment of a program that a test starts to be its hub: which part it plays.
const PART: &str = "MANIPLE_TEST_PART";

/// Which part this process plays, if a test started it.
pub fn part() -> Option<String> {
    std::env::var(PART).ok()
}

/// Starts this test program once more, to run only `test` of the module (its `module_path!()`), in a process group of its own.
pub fn start_hub(module: &str, test: &str, part: &str) -> Child {
    let test = &format!("{}::{test}", module.trim_start_matches("it::"));
    let mut hub = Command::new(std::env::current_exe().unwrap());
    hub.args(["--exact", test, "--nocapture", "--test-threads=1"])
        .env(PART, part)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    testing::in_own_group(&mut hub);
    hub.spawn().unwrap()
}

/// The numbers that the hub printed on a line `pids …`; reads until then.
pub fn read_pids(hub: &mut Child) -> Vec<u32> {
    let stdout = hub.stdout.as_mut().unwrap();
    let mut text = Vec::new();
    let mut byte = [0];
    loop {
        assert_eq!(stdout.read(&mut byte).unwrap(), 1, "the hub ended: {}", String::from_utf8_lossy(&text));
        text.push(byte[0]);
        let so_far = String::from_utf8_lossy(&text);
        if let Some((_, line)) = so_far.split_once("pids ")
            && line.ends_with('\n')
        {
            return line.split_whitespace().map(|pid| pid.parse().unwrap()).collect();
        }
    }
}

/// Prints the line that [`read_pids`] reads.
pub fn print_pids(pids: &[u32]) {
    let list: Vec<String> = pids.iter().map(u32::to_string).collect();
    println!("pids {}", list.join(" "));
}

/// The folder of the programs in `examples/rust`, built as this test was: running one test alone does not build them.
pub fn examples() -> PathBuf {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    let build = || {
        let this = std::env::current_exe().unwrap();
        let profile = this.parent().unwrap().parent().unwrap();
        // A program of Windows that is run elsewhere finds no cargo; `scripts/test_windows.sh` has built them.
        if cfg!(windows) {
            return profile.join("examples");
        }
        let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| env!("CARGO").into()));
        cargo.args(["build", "--quiet", "--locked", "--package", "maniple", "--examples"]);
        cargo.arg("--target-dir").arg(profile.parent().unwrap());
        if profile.ends_with("release") {
            cargo.arg("--release");
        }
        if cfg!(feature = "tracing") {
            // Not built anew after `cargo test --all-features`.
            cargo.arg("--all-features");
        }
        assert!(cargo.current_dir(env!("CARGO_MANIFEST_DIR")).stdin(Stdio::null()).status().unwrap().success());
        profile.join("examples")
    };
    BUILT.get_or_init(build).clone()
}

/// A process that runs `f`.
pub fn started<A: Payload, R: IntoExitCode + 'static>(f: fn(A) -> R, argument: A) -> Process {
    let process = Process::new(f, argument).unwrap();
    process.start().unwrap();
    process
}

/// Runs `body` in a process of its own, where no other test opens descriptors.
pub fn apart(body: fn(())) {
    let process = Process::builder().daemon(true).build(body, ()).unwrap();
    process.start().unwrap();
    assert_eq!(process.join_timeout(LONG).unwrap(), Some(Exit::Code(0)));
}

/// Descriptors of this process.
pub fn descriptors() -> usize {
    testing::handles()
}

struct Thread(std::thread::Thread);

impl Wake for Thread {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// What the future comes to.
pub fn block_on<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    let waker = Waker::from(Arc::new(Thread(std::thread::current())));
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(value) => return value,
            Poll::Pending => std::thread::park(),
        }
    }
}

/// A folder for a test's files, which goes with it.
pub struct Folder(PathBuf);

impl Folder {
    pub fn new() -> Folder {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        loop {
            let number = COUNT.fetch_add(1, Ordering::Relaxed);
            let path = std::env::temp_dir().join(format!("maniple-folder-{}-{number}", std::process::id()));
            match std::fs::create_dir(&path) {
                Ok(()) => return Folder(path),
                // Left by a test that was killed, whose number the system uses again.
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
                Err(error) => panic!("{}: {error}", path.display()),
            }
        }
    }
}

impl Deref for Folder {
    type Target = Path;

    fn deref(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Records that the call of the number has begun, and waits until it may end.
pub fn begin_and_wait((folder, number): (PathBuf, u32)) -> u32 {
    std::fs::write(folder.join(format!("begun {number}")), "").unwrap();
    while !folder.join("go").exists() {
        std::thread::sleep(Duration::from_millis(2));
    }
    number
}

/// Lets the calls of [`begin_and_wait`] end.
pub fn let_go(folder: &Path) {
    std::fs::write(folder.join("go"), "").unwrap();
}

/// Waits until the call of the number has begun.
pub fn wait_for_begin(folder: &Path, number: u32) {
    eventually("the call begins", || folder.join(format!("begun {number}")).exists());
}
