//! Processes.

use crate::{Child, LONG, calm, idle, is_ready, is_ready_within};
use maniple_sys::process::memory_group::MemoryGroups;
use maniple_sys::process::{self, Cause, Exit, Stdio, image, maker};
use maniple_sys::{AsHandle, BorrowedHandle, OwnedHandle, stream};
use std::time::Duration;

#[test]
fn a_process_ends_with_its_code_and_its_handle_tells_of_it() {
    let mut child = Child::plays("ends with 7", Vec::new());
    assert_eq!(child.ends(), Exit::Code(7));
    // A process that has ended is not affected.
    process::kill(child.handle.as_handle(), child.pid).unwrap();
    process::terminate(child.handle.as_handle(), child.pid).unwrap();
}

#[test]
fn a_process_is_ended_and_tells_by_what() {
    type End = fn(BorrowedHandle<'_>, u32) -> std::io::Result<()>;
    for (end, cause) in [(process::kill as End, Cause::KILL), (process::terminate, Cause::TERMINATE)] {
        let mut child = Child::plays("idles", Vec::new());
        assert!(child.runs() && !is_ready(child.handle.as_handle()));
        end(child.handle.as_handle(), child.pid).unwrap();
        assert_eq!(child.ends(), Exit::Killed(cause));
    }
    let mut child = Child::plays("idles", Vec::new());
    process::end_by_number(child.pid);
    assert_eq!(child.ends(), Exit::Killed(Cause::KILL));
}

#[test]
fn a_discarded_child_is_gone() {
    let child = Child::plays("idles", Vec::new());
    process::discard(child.pid);
    assert!(is_ready(child.handle.as_handle()));
    // There is nothing left to reap.
    process::discard(child.pid);
}

#[test]
fn any_process_can_be_watched() {
    if !process::has_handles() {
        return;
    }
    let me = process::open(maniple_sys::process_id()).unwrap();
    assert!(!is_ready(me.as_handle()));
    let mut child = Child::plays("idles", Vec::new());
    let watch = process::open(child.pid).unwrap();
    process::kill(watch.as_handle(), 0).unwrap();
    assert!(is_ready_within(watch.as_handle(), LONG));
    child.ends();
    let _ = process::exit_told(watch.as_handle());
}

/// The part of the process that says where it is.
pub fn look_about(_: Vec<OwnedHandle>) -> i32 {
    let right = std::env::var("MANIPLE_CONFORMANCE_WORD").as_deref() == Ok("a word")
        && std::env::current_dir().unwrap().canonicalize().unwrap() == std::env::temp_dir().canonicalize().unwrap()
        && std::io::read_to_string(std::io::stdin()).unwrap() == "in";
    // SAFETY: this thread alone looks at the environment.
    unsafe { process::set_variable("MANIPLE_CONFORMANCE_WORD".as_ref(), None) };
    println!("out");
    eprint!("err");
    i32::from(!right || std::env::var_os("MANIPLE_CONFORMANCE_WORD").is_some())
}

#[test]
fn a_process_has_the_environment_folder_and_streams_that_it_was_given() {
    let ((input, give), (out, output), (err, errors)) =
        (stream::pipe().unwrap(), stream::pipe().unwrap(), stream::pipe().unwrap());
    stream::write_all(give.as_handle(), b"in").unwrap();
    drop(give);
    let mut child = Child::starts("looks about", Vec::new(), |start| {
        start.environment.push(("MANIPLE_CONFORMANCE_WORD".into(), "a word".into()));
        start.folder = Some(std::env::temp_dir());
        start.stdio = [Stdio::Handle(input), Stdio::Handle(output), Stdio::Handle(errors)];
    });
    assert_eq!(child.ends(), Exit::Code(0));
    let out = stream::read_to_end(out.as_handle()).unwrap();
    assert!(String::from_utf8_lossy(&out).contains("out\n"));
    assert_eq!(stream::read_to_end(err.as_handle()).unwrap(), b"err");
}

/// The part of the process that has been given an end of a pipe.
pub fn has_handles(handles: Vec<OwnedHandle>) -> i32 {
    // SAFETY: it is claimed already, which is detected; only `handles` has it.
    let again = unsafe { process::claim(handles[0].as_raw()) };
    stream::write_all(handles[0].as_handle(), b"claimed").unwrap();
    // Until the test has seen what it has to.
    process::until_hung_up(handles[1].as_handle());
    i32::from(again.is_some())
}

#[test]
fn a_process_has_the_handles_that_it_was_given_and_no_others() {
    let (reader, writer) = stream::pipe().unwrap();
    let (other, held) = stream::pipe().unwrap();
    let (worker, hub) = process::lifeline().unwrap();
    let mut child = Child::plays("has handles", vec![writer, worker]);
    // The child has no copy of it. (One that another test starts just now may have, for a moment.)
    drop(held);
    assert!(is_ready_within(other.as_handle(), LONG) && child.runs());
    drop(hub);
    assert_eq!(stream::read_to_end(reader.as_handle()).unwrap(), b"claimed");
    assert_eq!(child.ends(), Exit::Code(0));
}

#[test]
fn the_empty_handle_reads_as_empty_and_discards_writes() {
    let _calm = calm();
    let nothing = process::nothing().unwrap();
    stream::write_all(nothing.as_handle(), b"gone").unwrap();
    assert_eq!(stream::read_to_end(nothing.as_handle()).unwrap(), b"");
}

#[test]
fn a_lifeline_tells_when_its_other_end_is_gone() {
    let _calm = calm();
    let (worker, hub) = process::lifeline().unwrap();
    assert!(!process::hung_up(worker.as_handle()).unwrap());
    drop(hub);
    assert!(process::hung_up(worker.as_handle()).unwrap());
    process::until_hung_up(worker.as_handle());
}

/// The part of the process that is killed when its maker's end of the lifeline goes.
pub fn die_with_its_maker(handles: Vec<OwnedHandle>) -> i32 {
    let held = process::die_when_hung_up(handles[0].as_handle());
    stream::write_all(handles[1].as_handle(), if held.is_ok() { b"y" } else { b"n" }).unwrap();
    if held.is_ok() { idle() } else { 0 }
}

/// What a part that arms itself says: whether it could.
fn has_armed(told: &OwnedHandle) -> bool {
    let mut word = [0];
    assert_eq!(stream::read_into(told.as_handle(), &mut word).unwrap(), 1, "the part has said nothing");
    &word == b"y"
}

#[test]
fn a_process_that_hangs_on_a_lifeline_is_killed_when_it_is_cut() {
    let ((worker, hub), (told, tell)) = (process::lifeline().unwrap(), stream::pipe().unwrap());
    let mut child = Child::plays("dies with its maker", vec![worker, tell]);
    if has_armed(&told) {
        assert!(child.runs());
        drop(hub);
        assert_eq!(child.ends(), Exit::Killed(Cause::KILL));
    }
}

/// The part of the process that starts one which does not depend on it.
pub fn start_free(handles: Vec<OwnedHandle>) -> i32 {
    let free = Child::begins(process::start_free, "answers", handles, |_| {});
    // It is not ended by this process, which is killed.
    std::mem::forget(free);
    idle()
}

/// The part of the process that answers each byte, until the other end is closed.
pub fn answer(line: Vec<OwnedHandle>) -> i32 {
    stream::write_all(line[0].as_handle(), b"here").unwrap();
    let mut byte = [0];
    while read(&line[0], &mut byte) == 1 {
        stream::write_all(line[0].as_handle(), &[byte[0] + 1]).unwrap();
    }
    0
}

fn read(line: &OwnedHandle, bytes: &mut [u8]) -> usize {
    loop {
        match stream::read_into(line.as_handle(), bytes) {
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            read => return read.unwrap(),
        }
    }
}

#[test]
fn a_free_process_continues_when_the_one_that_started_it_is_killed() {
    let (line, theirs) = stream::pair().unwrap();
    let mut maker = Child::plays("starts a free process", vec![theirs]);
    let mut word = [0; 4];
    assert_eq!(read(&line, &mut word), 4);
    process::kill(maker.handle.as_handle(), maker.pid).unwrap();
    assert_eq!(maker.ends(), Exit::Killed(Cause::KILL));
    // What the system ends with the maker is ended by then.
    std::thread::sleep(Duration::from_millis(500));
    stream::write_all(line.as_handle(), b"a").unwrap();
    assert_eq!(read(&line, &mut word), 1, "it has ended");
    assert_eq!(word[0], b'b');
    stream::shut(line.as_handle(), false).unwrap();
    // And it ends by itself.
    assert_eq!(read(&line, &mut word), 0);
}

/// The part of the process that must end when its maker, which has ended, drops the lifeline.
pub fn end_after_its_maker(handles: Vec<OwnedHandle>) -> i32 {
    let maker = std::env::var("MANIPLE_CONFORMANCE_MAKER").unwrap().parse().unwrap();
    let armed = maker::end_after(handles[0].as_handle(), maker, Duration::from_secs(10));
    stream::write_all(handles[1].as_handle(), if armed.is_ok() { b"y" } else { b"n" }).unwrap();
    if armed.is_ok() { idle() } else { 0 }
}

#[test]
fn a_process_is_asked_to_end_after_its_maker() {
    assert!(maker::runs(maniple_sys::process_id() as i32));
    let mut maker = Child::plays("idles", Vec::new());
    let ((worker, hub), (told, tell)) = (process::lifeline().unwrap(), stream::pipe().unwrap());
    let mut child = Child::starts("ends after its maker", vec![worker, tell], |start| {
        start.environment.push(("MANIPLE_CONFORMANCE_MAKER".into(), maker.pid.to_string().into()));
    });
    if has_armed(&told) {
        drop(hub);
        // The maker runs without its end.
        assert!(!is_ready_within(child.handle.as_handle(), Duration::from_millis(100)));
        process::kill(maker.handle.as_handle(), maker.pid).unwrap();
        maker.ends();
        assert_eq!(child.ends(), Exit::Killed(Cause::TERMINATE));
    }
}

#[test]
fn an_exit_is_the_number_that_python_has_for_it() {
    assert_eq!(Exit::Code(3).number(), Some(3));
    assert_eq!(Exit::Killed(Cause::KILL).number(), Some(-9));
    assert_eq!(Exit::from_number(-15), Exit::Killed(Cause::TERMINATE));
    assert!(process::cause_name(Cause::KILL).is_some());
}

#[test]
fn the_image_contains_this_programs_code() {
    let here = the_image_contains_this_programs_code as fn() as usize;
    let image = image::image();
    assert!(image.text.iter().any(|range| range.contains(&here)));
    assert_ne!(image.build, 0);
    if let Some(name) = image::symbol(here) {
        assert!(name.contains("the_image_contains_this_programs_code"), "{name}");
    }
}

#[test]
fn this_process_has_no_more_rights_than_its_starter() {
    assert!(!process::privileged());
    process::take_name();
    process::ignore_broken_pipes();
}

/// The part of the process that uses 300 MB once a pipe's other end is closed.
pub fn grow(pipe: Vec<OwnedHandle>) -> i32 {
    process::until_hung_up(pipe[0].as_handle());
    let _held = std::hint::black_box(vec![1u8; 300_000_000]);
    idle()
}

#[test]
fn a_group_limits_the_memory_of_a_process_where_the_system_has_groups() {
    const LIMIT: u64 = 64_000_000;
    let Some(groups) = MemoryGroups::new() else { return };
    let (pipe, held) = process::lifeline().unwrap();
    let mut child = Child::plays("grows", vec![pipe]);
    let Some(mut group) = groups.hold(child.pid) else { return };
    // It has no limit yet.
    assert_eq!((group.excess(), group.killed()), (None, None));
    group.confine(LIMIT);
    assert_eq!((group.excess(), group.killed()), (None, None));
    assert!(child.runs());
    drop(held);
    let begun = std::time::Instant::now();
    let used = loop {
        if let Some(bytes) = group.excess().or_else(|| group.killed()) {
            break bytes;
        }
        assert!(begun.elapsed() < LONG);
        std::thread::sleep(Duration::from_millis(20));
    };
    assert!(used > LIMIT);
    // A process that is left continues without a limit.
    let _ = (group, groups);
    let _ = process::kill(child.handle.as_handle(), child.pid);
    assert_eq!(child.ends(), Exit::Killed(Cause::KILL));
}
