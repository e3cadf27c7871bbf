//! The life of a worker: prepare, run tasks, end.

use crate::call;
use crate::chunk::{Output, open};
use crate::error::{CallError, Error, Result, SystemError};
use crate::events;
use crate::failure::Failure;
use crate::panic;
use crate::registered::Run;
use crate::worker_setup::{self, OwnCall, WorkerSetup};
use maniple_engine::pool::{Answer, LACKING, Message, Packer, Packet, WorkerLink, worker_handles};
use maniple_sys::{self as sys, OwnedHandle};
use std::collections::HashMap;

/// Whether workers' standard error passes through the pool's process.
pub(crate) const TAPPED: bool = true;

/// The exit codes of a worker that ends by itself.
const DONE: i32 = 0;
const NOT_READY: i32 = 1;
const LINK_LOST: i32 = 2;

/// Runs this process as a worker, and ends it. `handles` are, in order, those of the link and those of the setup.
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
    let finalizer = match prepare(setup) {
        Ok(finalizer) => finalizer,
        Err(error) => {
            let mut why = Output::new(&packer);
            let said = why.item(&Failure::from(error)).and_then(|()| Ok(link.unfit(why.pack()?)?));
            return if said.is_ok() { NOT_READY } else { LINK_LOST };
        }
    };
    match serve(&mut link, &packer) {
        Ok(()) => {
            if let Err(error) = finalizer.run() {
                eprintln!("maniple: the finalizer of worker {} has failed: {error}", std::process::id());
            }
            DONE
        }
        Err(error) => {
            eprintln!("maniple: worker {} has failed: {error}", std::process::id());
            LINK_LOST
        }
    }
}

/// Takes the worker's place, sends events to the pool's process, if it wants any, and calls the pool's initializer, if it
/// has one. Returns the call that the worker makes at its end.
fn prepare(setup: Vec<OwnedHandle>) -> Result<OwnCall> {
    let WorkerSetup { place, events, initializer, finalizer } = worker_setup::read(setup)?;
    place.take().map_err(|error| Error::System(SystemError::doing("keep to the affinity of the pool", error)))?;
    if let Some((pipe, level)) = events {
        events::install(pipe, level);
    }
    initializer.run()?;
    Ok(finalizer)
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
                let answer = if output.has_failures() { Answer::DoneInPart } else { Answer::Done };
                let sent = ran.and_then(|()| output.pack()).and_then(|packet| Ok(link.reply(number, answer, packet)?));
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
