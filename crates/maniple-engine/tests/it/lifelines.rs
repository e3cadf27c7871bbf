//! The lifelines of started programs: such a program ends with the one that holds the other end. (The tests beside
//! `process/lifeline.rs` fork, which not every system can.)

use crate::support::{LIMIT, until, watchdog};
use maniple_engine::process::{Cause, Child, Exit, Launch, Stdio, inherited, lifeline};
use maniple_sys::process::until_hung_up;
use maniple_sys::{AsHandle, OwnedHandle, testing};
use std::time::Duration;

const PART: &str = "MANIPLE_TEST_LIFELINE_PART";
const MAKER: &str = "MANIPLE_TEST_LIFELINE_MAKER";

/// A program that plays a part, with handles: the pipe by which it reports, and others.
fn plays(part: &str, maker: u32, tell: OwnedHandle, mut others: Vec<OwnedHandle>) -> Child {
    others.insert(0, tell);
    let program = Launch::program(std::env::current_exe().unwrap());
    let arguments = ["--exact", "lifelines::part", "--nocapture", "--test-threads=1"];
    let launch = arguments.into_iter().fold(program, Launch::arg).env(PART, part).env(MAKER, maker.to_string());
    launch.stdout(Stdio::Null).role("lifeline").handles(others).start().unwrap()
}

/// A program with the end of a lifeline, which has armed it.
fn armed(part: &str, maker: u32, worker: OwnedHandle) -> Child {
    let (told, tell) = maniple_sys::process::lifeline().unwrap();
    let child = plays(part, maker, tell, vec![worker]);
    assert_eq!(testing::told(told.as_handle()), 1, "the program could not arm");
    child
}

/// Not a test of its own: what [`plays`] starts.
#[test]
fn part() {
    let Ok(part) = std::env::var(PART) else { return };
    let maker = std::env::var(MAKER).unwrap().parse::<u32>().unwrap();
    // SAFETY: the other thread of this process waits for this one.
    let mut handles = unsafe { inherited() }.unwrap().handles.into_iter();
    let (tell, line) = (handles.next().unwrap(), handles.next().unwrap());
    match &*part {
        "waits" => {
            testing::tell(tell.as_handle());
            return until_hung_up(line.as_handle());
        }
        "gentle" => {
            lifeline::arm_gently(line.as_handle(), maker as i32, Duration::from_millis(50)).unwrap();
            std::mem::forget(line);
        }
        _ => lifeline::arm(line).unwrap(),
    }
    testing::tell(tell.as_handle());
    if part == "busy" {
        loop {
            std::hint::black_box(0);
        }
    }
    std::thread::sleep(Duration::from_secs(3600));
}

fn exit_of(child: &Child) -> Exit {
    child.wait_timeout(LIMIT).unwrap().expect("the program outlived its hub")
}

#[test]
fn an_idle_and_a_busy_worker_die_with_their_hub() {
    let _alive = watchdog();
    let hub = lifeline::Lifelines::new().unwrap();
    let workers = ["idle", "busy", "idle"].map(|part| armed(part, 0, hub.share().unwrap()));
    drop(hub);
    for worker in workers {
        assert_eq!(exit_of(&worker), Exit::Killed(Cause::KILL));
    }
}

#[test]
fn a_worker_that_arms_after_the_hub_died_ends_there() {
    let _alive = watchdog();
    let (hub, worker) = lifeline::pair().unwrap();
    drop(hub);
    let (_told, tell) = maniple_sys::process::lifeline().unwrap();
    assert_eq!(exit_of(&plays("idle", 0, tell, vec![worker])), Exit::Killed(Cause::KILL));
}

#[test]
fn a_gently_armed_program_ends_once_its_maker_has_ended_and_the_lifeline_is_closed() {
    let _alive = watchdog();
    let (maker_waits, maker_ends) = maniple_sys::process::lifeline().unwrap();
    let maker = armed("waits", 0, maker_waits);
    let (hub, worker) = lifeline::pair().unwrap();
    let program = armed("gentle", maker.pid(), worker);
    drop(hub);
    assert_eq!(program.wait_timeout(Duration::from_millis(300)).unwrap(), None, "its maker still runs");
    drop(maker_ends);
    assert_eq!(exit_of(&maker), Exit::Code(0));
    assert_eq!(exit_of(&program), Exit::Killed(Cause::TERMINATE));

    let (hub, worker) = lifeline::pair().unwrap();
    let program = armed("gentle", maker.pid(), worker);
    assert_eq!(program.wait_timeout(Duration::from_millis(300)).unwrap(), None, "the lifeline is open");
    drop(hub);
    assert_eq!(exit_of(&program), Exit::Killed(Cause::TERMINATE));
    until(|| maniple_sys::holder::is_gone(program.pid(), 0));
}
