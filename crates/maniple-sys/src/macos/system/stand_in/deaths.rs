//! The ends of processes, by `poll` on handles on them.

use crate::own::above_stdio;
use crate::unix::ready::{Interest, wait};
use crate::{AsHandle, OwnedHandle};
use rustix::process::{Pid, PidfdFlags};
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The processes that this process waits for.
#[derive(Debug)]
pub struct Deaths {
    watched: Mutex<Vec<(OwnedHandle, u64)>>,
    changed: (OwnedHandle, OwnedHandle),
}

impl Deaths {
    /// Creates a list without processes.
    pub fn new() -> io::Result<Deaths> {
        Ok(Deaths { watched: Mutex::default(), changed: crate::stream::pipe()? })
    }

    fn watched(&self) -> MutexGuard<'_, Vec<(OwnedHandle, u64)>> {
        self.watched.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes [`Deaths::next`] return `id` when the process ends. False: it has ended.
    pub fn watch(&self, pid: u32, id: u64) -> io::Result<bool> {
        let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) else { return Ok(false) };
        match rustix::process::pidfd_open(pid, PidfdFlags::empty()) {
            Ok(handle) => self.watched().push((above_stdio(handle)?, id)),
            Err(rustix::io::Errno::SRCH) => return Ok(false),
            Err(error) => return Err(error.into()),
        }
        rustix::io::write(&self.changed.1, b"!")?;
        Ok(true)
    }

    /// Waits for the next end, and returns its process's `id`.
    pub fn next(&self) -> io::Result<u64> {
        loop {
            let copies = {
                let watched = self.watched();
                let copy = |(handle, id): &(OwnedHandle, u64)| Ok((handle.try_clone()?, *id));
                watched.iter().map(copy).collect::<io::Result<Vec<_>>>()?
            };
            let handles = copies.iter().map(|(handle, _)| handle.as_handle());
            let mut interests: Vec<_> = handles.chain([self.changed.0.as_handle()]).map(Interest::new).collect();
            wait(&mut interests, None)?;
            let ended = interests.iter().zip(&copies).find(|(interest, _)| interest.ready());
            if let Some((_, (_, id))) = ended {
                self.watched().retain(|(_, other)| other != id);
                return Ok(*id);
            }
            if interests.last().is_some_and(Interest::ready) {
                let _ = rustix::io::read(&self.changed.0, &mut [0; 64]);
            }
        }
    }
}
