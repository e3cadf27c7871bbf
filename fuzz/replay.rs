//! The fuzzer's corpus through its targets, without the fuzzer: part of the ordinary tests of each crate that has targets.
//!
//! `corpus/TARGET.txt` has an input per line, in hexadecimal digits; a line that begins with `#` is a comment. Each target's inputs go
//! through a process of their own, with a limit to its memory and to the time that one input takes.

use maniple_sys::testing;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

/// A target's name, and what feeds it.
type Target = (&'static str, fn(&[u8]));

/// Names the target that this process is to run, and the corpus's folder.
const CHILD: &str = "MANIPLE_REPLAY";
const FOLDER: &str = "MANIPLE_REPLAY_FOLDER";
/// Seconds that one input may take, many times what it takes on a machine that is busy.
const LIMIT: &str = "MANIPLE_REPLAY_LIMIT";

/// Runs all inputs of all targets. `test` is the name of the calling test, with its modules; `most`: bytes of address space beyond what the
/// process has at its beginning.
pub fn replay(test: &str, targets: &[Target], most: u64) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus");
    if let Err(why) = replay_from(&folder, 60, test, targets, most) {
        panic!("{why}");
    }
}

fn replay_from(folder: &Path, limit: u64, test: &str, targets: &[Target], most: u64) -> Result<(), String> {
    if let Ok(name) = std::env::var(CHILD) {
        let folder = PathBuf::from(std::env::var_os(FOLDER).unwrap());
        let limit = Duration::from_secs(std::env::var(LIMIT).unwrap().parse().unwrap());
        let (_, feed) = targets.iter().find(|(target, _)| *target == name).unwrap();
        run(&inputs(&folder, &name), limit, *feed);
        std::process::exit(0);
    }
    for (name, _) in targets {
        assert!(!inputs(folder, name).is_empty(), "{name} has no corpus in {}", folder.display());
        let mut child = Command::new(std::env::current_exe().unwrap());
        child.args(["--exact", test, "--nocapture", "--test-threads", "1"]);
        child.env(CHILD, name).env(FOLDER, folder).env(LIMIT, limit.to_string());
        child.stdin(Stdio::null());
        testing::bound(&mut child, most);
        let ended = child.output().unwrap();
        if !ended.status.success() {
            let said = [ended.stdout, ended.stderr].concat();
            return Err(format!("{name}: {}\n{}", ended.status, String::from_utf8_lossy(&said)));
        }
    }
    Ok(())
}

fn inputs(folder: &Path, name: &str) -> Vec<Vec<u8>> {
    let text = std::fs::read_to_string(folder.join(name).with_extension("txt")).unwrap_or_default();
    text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).map(bytes).collect()
}

fn bytes(line: &str) -> Vec<u8> {
    // `-`: an input without bytes.
    let digits = line.strip_prefix('-').unwrap_or(line).as_bytes();
    digits.chunks(2).map(|two| u8::from_str_radix(std::str::from_utf8(two).unwrap(), 16).unwrap()).collect()
}

fn run(inputs: &[Vec<u8>], limit: Duration, feed: fn(&[u8])) {
    let (begun, watched) = mpsc::channel();
    std::thread::spawn(move || {
        let mut number = None;
        loop {
            match watched.recv_timeout(limit) {
                Ok(next) => number = Some(next),
                Err(mpsc::RecvTimeoutError::Disconnected) => return,
                Err(mpsc::RecvTimeoutError::Timeout) => {
                    eprintln!("input {number:?} takes more than {limit:?}");
                    std::process::abort();
                }
            }
        }
    });
    for (number, input) in inputs.iter().enumerate() {
        begun.send(number).unwrap();
        eprintln!("input {number}");
        feed(input);
    }
}

/// That this file's functions tell of each kind of fault: a check that cannot fail would be none.
pub fn assert_that_faults_are_told(test: &str) {
    const MOST: u64 = 512 << 20;
    fn hang(_: &[u8]) {
        loop {
            std::thread::sleep(Duration::from_millis(10));
        }
    }
    fn fail(input: &[u8]) {
        assert_ne!(input, b"\xff", "a wrong value");
    }
    #[allow(unconditional_recursion)]
    fn overflow(input: &[u8]) {
        let here = std::hint::black_box([input[0]; 4096]);
        overflow(std::hint::black_box(&here[..]));
    }
    fn take(_: &[u8]) {
        std::hint::black_box(Vec::<u8>::with_capacity(usize::try_from(1u64 << 40).unwrap_or(isize::MAX as usize)));
    }
    let folder = std::env::temp_dir().join(format!("maniple-replay-{}", std::process::id()));
    if std::env::var_os(CHILD).is_none() {
        std::fs::create_dir(&folder).unwrap();
    }
    let kinds: [(Target, &str); 4] = [
        (("hang", hang), "takes more than"),
        (("fail", fail), "a wrong value"),
        (("overflow", overflow), "overflow"),
        (("take", take), "allocation"),
    ];
    let every: Vec<Target> = kinds.iter().map(|(target, _)| *target).collect();
    if std::env::var_os(CHILD).is_some() {
        let _ = replay_from(&folder, 1, test, &every, MOST);
    }
    for (target, says) in kinds {
        std::fs::write(folder.join(target.0).with_extension("txt"), "# one input\nff\n").unwrap();
        let told = replay_from(&folder, 1, test, &[target], MOST);
        assert!(told.as_ref().is_err_and(|why| why.contains(says)), "{told:?}");
    }
    std::fs::remove_dir_all(&folder).unwrap();
}
