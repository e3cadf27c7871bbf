//! The start of a child, by a new program or by the fork server.

use super::Running;
use super::child::{self, Setup};
use super::stdio::{Stdio, stream};
use crate::error::{Error, ProcessError, Result};
use crate::events;
use crate::startup::{self, StartMethod};
use crate::surroundings::Surroundings;
use maniple_engine::process::{self as engine, ExitWatch, Launch, Server, lifeline};
use maniple_sys::{AsHandle, OwnedHandle, memory};
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

/// The data that a start needs.
pub(super) struct Plan {
    pub(super) setup: Setup,
    pub(super) call: child::Called,
    pub(super) stdio: [Stdio; 3],
    pub(super) method: StartMethod,
    pub(super) program: Option<PathBuf>,
}

/// The fork server of this program, for all processes that use this start method.
static SERVER: Mutex<Option<Server>> = Mutex::new(None);

impl Plan {
    pub(super) fn start(self) -> Result<Running> {
        self.try_start().map_err(|error| Error::Process(ProcessError::Start(error.to_string())))
    }

    fn try_start(self) -> maniple_engine::Result<Running> {
        let Plan { mut setup, call, stdio, method, program } = self;
        let (held, theirs) = setup.daemon.then(lifeline::pair).transpose()?.unzip();
        let me = ExitWatch::of(std::process::id())?.into_handle()?;
        let mut handles = vec![me];
        let mut relay = None;
        if let Some((ours, pipe, level)) = events::relay() {
            setup.events = level;
            relay = Some(ours);
            handles.push(pipe);
        }
        handles.extend(theirs);
        let child = match method {
            StartMethod::Spawn => {
                let around =
                    Surroundings { environment: std::mem::take(&mut setup.environment), folder: setup.folder.take() };
                let launch = around.add_to(startup::launch(program.as_deref()).role(startup::PROCESS));
                let launch = if setup.daemon { launch } else { launch.free() };
                let [stdin, stdout, stderr] = stdio.map(stream);
                handles.insert(0, lay_out(&setup, &[false; 3], &call.bytes)?);
                handles.extend(call.handles);
                launch.stdin(stdin).stdout(stdout).stderr(stderr).handles(handles).start()?
            }
            StartMethod::ForkServer => {
                // The server has this process's streams, folder and environment. The child changes those that its
                // settings name.
                let mut given = [false; 3];
                for (stdio, given) in stdio.into_iter().zip(&mut given) {
                    match stdio {
                        Stdio::Inherit => continue,
                        Stdio::Null => handles.push(engine::nothing()?),
                        Stdio::To(handle) => handles.push(handle),
                    }
                    *given = true;
                }
                handles.insert(0, lay_out(&setup, &given, &call.bytes)?);
                handles.extend(call.handles);
                from_server(&handles)?
            }
        };
        Ok(Running { child, relay, _lifeline: held })
    }
}

fn from_server(handles: &[OwnedHandle]) -> maniple_engine::Result<maniple_engine::process::Child> {
    let mut server = SERVER.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(running) = &*server {
        match running.fork(handles) {
            Err(error) if error.is_shortage() && running.is_alive() => return Err(error),
            Err(_) => {}
            child => return child,
        }
    }
    // There is none yet, or another process has killed it.
    let started = Server::start(Launch::this_program().role(startup::PROCESS_SERVER))?;
    let child = started.fork(handles);
    *server = Some(started);
    child
}

/// Writes the setup, which the child reads first, into memory of its own.
fn lay_out(setup: &Setup, given: &[bool; 3], call: &[u8]) -> maniple_engine::Result<OwnedHandle> {
    let doing =
        |source| maniple_engine::Error::Os { doing: "store the function and the argument of a process", source };
    let bytes = child::encode(setup, *given, call);
    let memory = memory::create("maniple-setup", bytes.len()).map_err(doing)?;
    memory::write_at(memory.as_handle(), &bytes, 0).map_err(doing)?;
    Ok(memory)
}
