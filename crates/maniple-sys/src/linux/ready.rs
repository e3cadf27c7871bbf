//! Waits for any of several handles, and for a kick by another thread.

use crate::own::{Own, above_stdio};
use crate::{AsHandle, OwnedHandle};
use rustix::event::EventfdFlags;
use std::io;

pub use crate::unix::ready::{Interest, wait, wait_for};

/// Wakes a thread of this process out of [`wait`].
#[derive(Debug)]
pub struct Kick(Own);

impl Kick {
    /// Creates a kick that is not ready.
    pub fn new() -> io::Result<Kick> {
        let made = rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Kick(Own::new(above_stdio(made)?)))
    }

    /// Takes over a kick of another process: it wakes that process's threads, too.
    pub fn from_handle(handle: OwnedHandle) -> Kick {
        Kick(Own::new(handle))
    }

    /// Makes it ready, until the next [`Kick::clear`].
    pub fn kick(&self) {
        // The program may have closed the number, and opened another file under it.
        if self.0.is_there() {
            let _ = rustix::io::write(self.0.as_handle(), &1u64.to_ne_bytes());
        }
    }

    /// Makes it not ready again.
    pub fn clear(&self) {
        if self.0.is_there() {
            let _ = rustix::io::read(self.0.as_handle(), &mut [0u8; 8]);
        }
    }
}

crate::as_handle!(impl[] for Kick, |this| this.0.as_handle());

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::in_forked_child;
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    use std::time::Duration;

    #[test]
    fn a_closed_kick_does_not_touch_a_file_with_its_number() {
        let code = in_forked_child(|| {
            let Ok(kick) = Kick::new() else { return 1 };
            let Ok(file) = crate::memory::create("maniple-test", 8) else { return 2 };
            if rustix::io::pwrite(&file, b"not ours", 0) != Ok(8) {
                return 3;
            }
            // SAFETY: `kick` checks its file before each use, which this test shows; the child has no other thread.
            #[allow(unsafe_code)]
            let done = unsafe { libc::dup2(file.as_raw(), kick.as_handle().as_raw()) };
            if done == -1 {
                return 4;
            }
            kick.kick();
            kick.clear();
            let mut content = [0; 8];
            let found = rustix::io::pread(&file, &mut content, 0);
            i32::from(found != Ok(8) || &content != b"not ours" || rustix::fs::tell(&file) != Ok(0)) * 5
        });
        assert_eq!(code, 0);
    }

    #[test]
    fn a_wait_accepts_more_handles_than_a_lowered_limit() {
        // In a child, so that the limit affects no other process.
        let code = in_forked_child(|| {
            let kicks: Vec<Kick> = (0..8).filter_map(|_| Kick::new().ok()).collect();
            let before = getrlimit(Resource::Nofile);
            let lowered = Rlimit { current: Some(3), maximum: before.maximum };
            if kicks.len() < 8 || setrlimit(Resource::Nofile, lowered).is_err() {
                return 1;
            }
            let mut interests: Vec<_> = kicks.iter().map(|kick| Interest::new(kick.as_handle())).collect();
            if !matches!(wait(&mut interests, Some(Duration::from_millis(20))), Ok(0)) {
                return 2;
            }
            kicks[7].kick();
            let found = wait(&mut interests, None);
            i32::from(!matches!(found, Ok(1)) || interests[0].ready() || !interests[7].ready()) * 3
        });
        assert_eq!(code, 0);
    }
}
