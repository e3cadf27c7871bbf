//! Work in another process, on locks and the like that both have.
//!
//! Where processes can be forked, the process is a fork, which has them already. Elsewhere it is this program once
//! more: it receives the addresses of the work in the program, and what the work is about, as any process receives it.

use super::{LIMIT, until};
use maniple_engine::process::{Child, Exit};
use maniple_engine::sync::arena::CellRef;
use maniple_engine::sync::barrier::Barrier;
use maniple_engine::sync::condition::Condition;
use maniple_engine::sync::event::Event;
use maniple_engine::sync::lock::{Lock, RLock};
use maniple_engine::sync::owned_semaphore::OwnedSemaphore;
use maniple_engine::sync::rwlock::RwLock;
use maniple_engine::sync::semaphore::Semaphore;
use maniple_sys::OwnedHandle;
use std::collections::VecDeque;

/// What travels to a process that is started.
#[derive(Default)]
pub struct Bag {
    numbers: VecDeque<u64>,
    handles: VecDeque<OwnedHandle>,
}

impl Bag {
    fn pack(&mut self, cell: CellRef) {
        self.handles.push_back(maniple_sys::memory::duplicate(cell.arena.handle()).unwrap());
        self.numbers.push_back(cell.number.into());
    }

    fn cell(&mut self) -> CellRef {
        let arena = maniple_engine::sync::arena::Arena::open(self.handles.pop_front().unwrap()).unwrap();
        CellRef { arena, number: self.number() as u32 }
    }

    fn number(&mut self) -> u64 {
        self.numbers.pop_front().unwrap()
    }
}

/// What the work in another process can be about.
pub trait Passed: Copy {
    fn pack(self, bag: &mut Bag);
    fn unpack(bag: &mut Bag) -> Self;
}

macro_rules! passed {
    ($($type:ty, |$this:ident| $place:expr, |$cell:ident| $open:expr;)+) => {$(
        impl Passed for &$type {
            fn pack(self, bag: &mut Bag) {
                let $this = self;
                bag.pack($place.send());
            }

            fn unpack(bag: &mut Bag) -> Self {
                let $cell = bag.cell();
                Box::leak(Box::new($open.unwrap()))
            }
        }
    )+};
}

passed! {
    Lock, |this| this.place(), |cell| Lock::open(cell);
    RLock, |this| this.lock().place(), |cell| RLock::open(cell);
    Semaphore, |this| this.place(), |cell| Semaphore::open(cell);
    Condition, |this| this.place(), |cell| Condition::open(cell);
    Event, |this| this.place(), |cell| Event::open(cell);
    Barrier, |this| this.place(), |cell| Barrier::open(cell);
    OwnedSemaphore, |this| this.place(), |cell| OwnedSemaphore::open(cell);
    RwLock, |this| this.region().place(), |cell| RwLock::open(cell, None);
}

impl Passed for u32 {
    fn pack(self, bag: &mut Bag) {
        bag.numbers.push_back(self.into());
    }

    fn unpack(bag: &mut Bag) -> Self {
        bag.number() as u32
    }
}

macro_rules! passed_together {
    ($($name:ident)+) => {
        impl<$($name: Passed),+> Passed for ($($name,)+) {
            #[allow(non_snake_case)]
            fn pack(self, bag: &mut Bag) {
                let ($($name,)+) = self;
                $($name.pack(bag);)+
            }

            fn unpack(bag: &mut Bag) -> Self {
                ($($name::unpack(bag),)+)
            }
        }
    };
}

passed_together!(A B);
passed_together!(A B C);
passed_together!(A B C D);

/// Killed and reaped when dropped.
pub struct Elsewhere {
    child: Child,
    #[cfg_attr(not(windows), allow(dead_code))]
    begun: Option<maniple_sys::ready::Kick>,
}

impl Elsewhere {
    /// Runs `work` in a forked child.
    #[cfg(not(windows))]
    pub fn fork(work: impl FnOnce()) -> Elsewhere {
        use maniple_engine::process::{Forked, fork};
        use std::panic::{AssertUnwindSafe, catch_unwind};

        // SAFETY: the children of these tests use memory that the allocator has ready after a fork, and locks of the engine.
        match unsafe { fork() }.unwrap() {
            Forked::Parent(child) => Elsewhere { child, begun: None },
            Forked::Child => {
                let fine = catch_unwind(AssertUnwindSafe(work)).is_ok();
                maniple_sys::process::leave(i32::from(!fine))
            }
        }
    }

    /// Runs `work` in another process.
    #[cfg(not(windows))]
    pub fn run<A: Passed>(with: A, work: fn(A)) -> Elsewhere {
        Elsewhere::fork(|| work(with))
    }

    /// Runs `work` in another process.
    #[cfg(windows)]
    pub fn run<A: Passed>(with: A, work: fn(A)) -> Elsewhere {
        started::run(with, work)
    }

    /// Waits for the end of its work, which must have gone well.
    pub fn ends_well(self) {
        let exit = self.child.wait_timeout(LIMIT).unwrap();
        assert_eq!(exit, Some(Exit::Code(0)), "the work of the other process");
    }

    /// Waits until it sleeps.
    #[cfg(not(windows))]
    pub fn until_asleep(&self) {
        let stat = || std::fs::read_to_string(format!("/proc/{}/stat", self.child.pid())).unwrap();
        until(|| stat().rsplit(')').next().is_some_and(|rest| rest.starts_with(" S")));
    }

    /// Waits until its work has begun, and for a while: the system does not tell which threads sleep.
    #[cfg(windows)]
    pub fn until_asleep(&self) {
        self.until_begun();
        std::thread::sleep(std::time::Duration::from_millis(200));
    }

    /// Waits until its work has begun, where that is not at once.
    pub fn until_begun(&self) {
        use maniple_sys::AsHandle;
        use maniple_sys::ready::{Interest, wait};
        let now = Some(std::time::Duration::ZERO);
        until(|| {
            self.begun.as_ref().is_none_or(|begun| wait(&mut [Interest::new(begun.as_handle())], now).unwrap() > 0)
        });
    }

    /// Kills it; its parent does not reap it.
    pub fn kill_and_leave_unreaped(self) {
        self.child.kill().unwrap();
        assert!(self.child.watch().wait(Some(LIMIT)).unwrap());
        std::mem::forget(self);
    }
}

impl Drop for Elsewhere {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[cfg(windows)]
mod started {
    use super::{Bag, Elsewhere, Passed};
    use maniple_engine::process::{Launch, Stdio, inherited};
    use maniple_sys::AsHandle;
    use maniple_sys::process::image::image;
    use maniple_sys::ready::Kick;

    const NUMBERS: &str = "MANIPLE_TEST_ELSEWHERE";

    /// Unpacks what the work is about, and does it.
    type Enter = fn(usize, &mut Bag);

    fn enter<A: Passed>(work: usize, bag: &mut Bag) {
        // SAFETY: `run` has taken it from a function of this type, in the same program.
        let work: fn(A) = unsafe { std::mem::transmute(work) };
        work(A::unpack(bag));
    }

    pub fn run<A: Passed>(with: A, work: fn(A)) -> Elsewhere {
        let begun = Kick::new().unwrap();
        let enter: Enter = enter::<A>;
        let mut bag = Bag::default();
        bag.numbers.extend([enter as usize, work as usize].map(|address| (address - image().base) as u64));
        bag.handles.push_back(begun.as_handle().try_clone_to_owned().unwrap());
        with.pack(&mut bag);
        let numbers: Vec<_> = bag.numbers.iter().map(u64::to_string).collect();
        let program = Launch::program(std::env::current_exe().unwrap());
        let child = ["--exact", "support::elsewhere::started::part", "--nocapture", "--test-threads=1"]
            .into_iter()
            .fold(program, Launch::arg)
            .env(NUMBERS, numbers.join(" "))
            .stdout(Stdio::Null)
            .role("elsewhere")
            .handles(bag.handles.into())
            .start()
            .unwrap();
        Elsewhere { child, begun: Some(begun) }
    }

    /// Not a test of its own: does the work in a process that [`run`] has started.
    #[test]
    fn part() {
        let Ok(numbers) = std::env::var(NUMBERS) else { return };
        // SAFETY: the other thread of this process waits for this one.
        let handles = unsafe { inherited() }.unwrap().handles;
        let numbers = numbers.split(' ').map(|number| number.parse().unwrap());
        let mut bag = Bag { numbers: numbers.collect(), handles: handles.into() };
        let [enter, work] = [bag.number(), bag.number()].map(|offset| image().base + offset as usize);
        // SAFETY: `run` has taken it from a function of this type, in the same program.
        let enter: Enter = unsafe { std::mem::transmute(enter) };
        Kick::from_handle(bag.handles.pop_front().unwrap()).kick();
        enter(work, &mut bag);
    }
}
