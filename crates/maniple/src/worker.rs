//! The life of a worker: prepare, run tasks, end.

use crate::call;
use crate::chunk::{Input, Output, open};
use crate::error::{CallError, Error, Result};
use crate::events;
use crate::failure::Failure;
use crate::panic;
use crate::registered::Run;
use maniple_engine::pool::{Answer, LACKING, Message, Packer, Packet, WorkerLink, worker_handles};
use maniple_sys::{self as sys, AsHandle, OwnedHandle, memory};
use std::collections::HashMap;

/// Whether workers' standard error passes through the pool's process.
pub(crate) const TAPPED: bool = true;

/// The exit codes of a worker that ends by itself.
const DONE: i32 = 0;
const NOT_READY: i32 = 1;
const LINK_LOST: i32 = 2;

/// Runs this process as a worker, and ends it. `handles` are, in order: those of the link; the memory that says which
/// events are wanted (one byte) and contains the initializer; the pipe for events, if any are wanted; those in the
/// initializer's arguments.
pub(crate) fn run(mut handles: Vec<OwnedHandle>) -> ! {
    sys::process::worker_signals();
    sys::process::take_name();
    panic::install_hook();
    let setup = handles.split_off(worker_handles(TAPPED).min(handles.len()));
    let code = match WorkerLink::open(handles) {
        Ok(link) => work(link, setup),
        Err(error) => {
            eprintln!("maniple: a worker cannot open its link: {error}");
            if error.is_shortage() { LACKING } else { NOT_READY }
        }
    };
    std::process::exit(code);
}

fn work(mut link: WorkerLink, setup: Vec<OwnedHandle>) -> i32 {
    let packer = link.packer().clone();
    if let Err(error) = initialize(setup) {
        let mut why = Output::new(&packer);
        let said = why.item(&Failure::from(error)).and_then(|()| Ok(link.unfit(why.pack()?)?));
        return if said.is_ok() { NOT_READY } else { LINK_LOST };
    }
    match serve(&mut link, &packer) {
        Ok(()) => DONE,
        Err(error) => {
            eprintln!("maniple: worker {} has failed: {error}", std::process::id());
            LINK_LOST
        }
    }
}

/// Sends events to the pool's process, if it wants any, and calls the pool's initializer, if it has one.
fn initialize(setup: Vec<OwnedHandle>) -> Result<()> {
    let mut setup = setup.into_iter();
    let Some(memory) = setup.next() else { return Ok(()) };
    let bytes = memory::read_all(memory.as_handle())
        .map_err(|e| Error::Call(CallError::Remote(format!("the initializer's arguments cannot be read: {e}"))))?;
    let Some((&level, bytes)) = bytes.split_first() else { return Ok(()) };
    if level > 0
        && let Some(pipe) = setup.next()
    {
        events::install(pipe, level);
    }
    if bytes.is_empty() {
        return Ok(());
    }
    let mut input = Input::with_handles(bytes, setup.collect());
    let mut output = Output::plain();
    call::receive(&mut input)?.run(&mut input, &mut output)?;
    let mut result = Input::plain(output.bytes());
    result.chunk::<()>()?;
    result.outcome::<()>()?
}

/// Describes the failure of a whole task. A long text may need memory of its own, which may be missing.
fn failed(packer: &Packer, task: u64, error: &Error) -> Result<Packet> {
    let packed = |error: &Error| {
        let mut why = Output::new(packer);
        why.begin_task(task);
        why.item(&Failure::from(error))?;
        why.pack()
    };
    packed(error).or_else(|why| {
        packed(&Error::Call(CallError::Remote(format!(
            "the task failed, and the reason is too long to be sent: {why}"
        ))))
    })
}

fn serve(link: &mut WorkerLink, packer: &Packer) -> Result<()> {
    let mut functions: HashMap<u32, Result<Box<dyn Run>>> = HashMap::new();
    let mut output = Output::new(packer);
    link.hello()?;
    loop {
        match link.next()? {
            Message::Define(number, incoming) => {
                functions
                    .insert(number, incoming.map_err(Error::from).and_then(|incoming| open(incoming, call::receive)));
            }
            Message::Forget(number) => {
                let gone = functions.remove(&number);
                // The drop of a state runs the user's code.
                let _ = panic::caught(|| drop(gone));
            }
            Message::Task(task) => {
                let number = task.number;
                output.begin_task(number);
                let ran = task.content.map_err(Error::from).and_then(|content| {
                    open(content, |input| match functions.get(&task.func) {
                        Some(Ok(function)) => function.run(input, &mut output),
                        Some(Err(error)) => Err(Error::from(Failure::from(error))),
                        None => Err(Error::Call(CallError::Remote("a task arrived without its function".into()))),
                    })
                });
                let sent =
                    ran.and_then(|()| output.pack()).and_then(|packet| Ok(link.reply(number, Answer::Done, packet)?));
                if let Err(error) = sent {
                    // The task failed, or its answer needs a resource that is missing. Then the answer is that error,
                    // which is short.
                    link.reply(number, Answer::Failed, failed(packer, number, &error)?)?;
                }
            }
            Message::Stop => return Ok(()),
            Message::Interrupted => {}
        }
    }
}
