//! One library's turn at one case: a process of its own, so that a crash, a hang or a leftover stays its own.

use crate::case::{Case, Failure};
use crate::peers;
use maniple_sys::testing::{CommandExt, Signal, kill_group};
use std::io::Read;
use std::process::{Command, ExitCode, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

/// The first argument of a process that takes a turn, before the library's and the case's name.
pub const TURN: &str = "--turn";

/// How a turn went.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// Seconds per unit of the case.
    Seconds(f64),
    NotOffered(String),
    /// A word for the table, and the reason.
    Failed(&'static str, String),
}

/// Inside the process: take the turn and print how it went.
pub fn take(library: &str, case: &str) -> ExitCode {
    let case = Case::ALL.into_iter().find(|one| one.key() == case);
    let (Some(peer), Some(case)) = (peers::named(library), case) else {
        eprintln!("there is no such library or case");
        return ExitCode::FAILURE;
    };
    // A library that panics, in whichever thread, has its message in the table instead of a backtrace on the terminal.
    std::panic::set_hook(Box::new(|panic| {
        let payload = panic.payload();
        let text = payload.downcast_ref::<&str>().copied().or(payload.downcast_ref::<String>().map(String::as_str));
        let text = text.unwrap_or("").split_whitespace().collect::<Vec<_>>().join(" ");
        println!("error panicked: {text}");
        std::process::exit(101);
    }));
    match peer.run(case) {
        Ok(taken) => println!("ok {}", taken.as_secs_f64()),
        Err(Failure::NotOffered(why)) => println!("absent {why}"),
        Err(Failure::Wrong(why)) => println!("wrong {why}"),
        Err(Failure::Broken(error)) => println!("error {error}"),
    }
    ExitCode::SUCCESS
}

/// From the outside: start such a process and wait for its word, `cap` at most.
pub fn ask(library: &str, case: Case, cap: Duration) -> std::io::Result<Outcome> {
    let mut child = Command::new(std::env::current_exe()?)
        .args([TURN, library, &case.key()])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .process_group(0) // so that all of it can be ended
        .spawn()?;
    let group = child.id();
    let (sender, word) = mpsc::channel();
    if let Some(mut output) = child.stdout.take() {
        // Ends with the pipe; a worker left over may hold that open, so only the group's end is sure to end it.
        thread::spawn(move || {
            let (mut text, mut bytes) = (Vec::new(), [0; 512]);
            while !text.contains(&b'\n') {
                match output.read(&mut bytes) {
                    Ok(read @ 1..) => text.extend_from_slice(&bytes[..read]),
                    _ => break,
                }
            }
            // A receiver that is gone has given this turn up.
            let _ = sender.send(String::from_utf8_lossy(&text).trim().to_owned());
        });
    }
    let outcome = match word.recv_timeout(cap) {
        Err(_) => Outcome::Failed("hang", format!("no answer in {} s", cap.as_secs())),
        Ok(text) => parse(&text),
    };
    if matches!(outcome, Outcome::Failed("hang", _)) {
        // A process of the group may have ended meanwhile, which is the aim.
        let _ = kill_group(group, Signal::KILL);
    }
    let status = child.wait()?;
    let _ = kill_group(group, Signal::KILL);
    Ok(match outcome {
        Outcome::Failed("died", _) => Outcome::Failed("died", format!("the process ended with {status}")),
        other => other,
    })
}

fn parse(text: &str) -> Outcome {
    let (word, rest) = text.split_once(' ').unwrap_or((text, ""));
    match (word, rest.parse()) {
        ("ok", Ok(seconds)) => Outcome::Seconds(seconds),
        ("absent", _) => Outcome::NotOffered(rest.to_owned()),
        ("wrong", _) => Outcome::Failed("WRONG", rest.to_owned()),
        ("error", _) => Outcome::Failed("error", rest.to_owned()),
        _ => Outcome::Failed("died", String::new()),
    }
}
