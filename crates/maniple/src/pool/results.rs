//! Outcomes of the engine as values and errors.

use super::Shared;
use crate::callee::{About, Callee};
use crate::chunk::{Input, open};
use crate::error::{CallError, Error, ProcessError, Result, WorkerLost, was};
use crate::failure::Failure;
use maniple_engine::pool::{Loss, LossCause, Outcome, ReceivedPacket, Settled};
use maniple_engine::process::Exit;
use serde::de::DeserializeOwned;
use std::any::Any;

/// A panic of the caller's own code (an iterator's `next`), to resume in the caller.
pub(super) struct CallersPanic(pub Box<dyn Any + Send>);

impl std::fmt::Debug for CallersPanic {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("CallersPanic")
    }
}

/// Converts outcomes to results, in order.
#[derive(Debug)]
pub(super) struct Reader {
    about: About,
    // The number of items, if it is known.
    items: Option<usize>,
    items_before: usize,
}

impl Reader {
    pub(super) fn new(about: About, items: Option<usize>) -> Reader {
        Reader { about, items, items_before: 0 }
    }

    /// Sets the index of the next item, if it is not the next in order.
    pub(super) fn go_to(&mut self, item: usize) {
        self.items_before = item;
    }

    /// Returns the index of the next item.
    pub(super) fn next_item(&self) -> usize {
        self.items_before
    }

    /// Returns whether all items were read.
    pub(super) fn is_complete(&self) -> bool {
        self.items.is_none_or(|n| n == self.items_before)
    }

    /// Passes to `each` one result for every item of a task. Returns a panic of the caller's own code, which takes the
    /// place of an item: it resumes after all results before it were delivered.
    pub(super) fn read<R: DeserializeOwned + 'static>(
        &mut self,
        settled: Settled,
        pool: &Shared,
        mut each: impl FnMut(Result<R>),
    ) -> Option<CallersPanic> {
        let (items, first) = (settled.items, self.items_before);
        let number = settled.number;
        match settled.outcome {
            Outcome::Done(incoming) => {
                let mut read = 0;
                let all = open(incoming, |input| {
                    check_task(input, number)?;
                    if input.chunk::<R>()? as usize != items {
                        return Err(Error::Call(CallError::Remote(
                            "a worker returned more or fewer results than it was sent items".into(),
                        )));
                    }
                    if let Some(numbers) = input.numbers::<R>(items) {
                        numbers.for_each(|number| each(Ok(number)));
                        read = items;
                    }
                    while read < items {
                        let mut result = input.outcome::<R>()?;
                        if let Err(error) = &mut result {
                            self.place(error, first + read, 1);
                        }
                        read += 1;
                        each(result);
                    }
                    Ok(())
                });
                if let Err(why) = all {
                    self.same_for_all(why, first + read, items - read, each);
                }
            }
            Outcome::Failed(incoming) => self.same_for_all(said(incoming, number), first, items, each),
            Outcome::Unsent(why) => match why.downcast::<CallersPanic>() {
                Ok(panic) => return Some(*panic),
                Err(why) => self.same_for_all(unsent(why), first, items, each),
            },
            Outcome::Unreceived(why) => self.same_for_all(Error::from(*why), first, items, each),
            Outcome::Lost(loss) => {
                let task = self.describe(first, items);
                for _ in 0..items {
                    each(Err(lost(&loss, task.clone(), pool)));
                }
            }
            Outcome::AfterTries(tries) => {
                return self.read(Settled { outcome: tries.last, index: settled.index, number, items }, pool, each);
            }
            Outcome::Cancelled | Outcome::Terminated => {
                (0..items).for_each(|_| each(Err(Error::Call(CallError::Cancelled))))
            }
        }
        self.items_before += items;
        None
    }

    /// Adds to the error of a function, an argument or a result which items of the call it is of.
    #[cold]
    fn place(&mut self, error: &mut Error, first: usize, items: usize) {
        match error {
            Error::Panicked(panicked) if panicked.task.is_empty() => panicked.task = self.describe(first, items),
            Error::Codec { why: text, .. } | Error::Call(CallError::Remote(text)) => {
                text.push_str(&format!(" ({})", self.describe(first, items)));
            }
            _ => {}
        }
    }

    /// Passes the same error to `each` for so many items from `first` on.
    fn same_for_all<R>(&mut self, mut why: Error, first: usize, items: usize, mut each: impl FnMut(Result<R>)) {
        if items == 0 {
            return;
        }
        self.place(&mut why, first, items);
        for _ in 1..items {
            each(Err(Error::from(Failure::from(&why))));
        }
        each(Err(why));
    }

    fn describe(&mut self, first: usize, items: usize) -> String {
        // Found once: a call may have many errors.
        let name = self.about.function.to_string();
        self.about.function = Callee::Named(name.into());
        let About { method, ref function } = self.about;
        match items {
            _ if method == "apply" => format!("apply of {function}"),
            1 => format!("item {first} of {method} of {function}"),
            _ => format!("items {first} to {} of {method} of {function}", (first + items).saturating_sub(1)),
        }
    }
}

/// Checks that an answer was made for the task that it arrived for.
fn check_task(input: &mut Input<'_>, number: u64) -> Result<()> {
    match input.task()? {
        task if task == number => Ok(()),
        _ => Err(Error::Call(CallError::Remote(
            "a worker sent the answer to another task; this is a fault in maniple, please report it".into(),
        ))),
    }
}

/// Reads a worker's description of a failure.
fn said(incoming: ReceivedPacket, number: u64) -> Error {
    let read = |input: &mut Input<'_>| {
        check_task(input, number)?;
        input.item::<Failure>()
    };
    match open(incoming, read) {
        Ok(Ok(failure)) => failure.into(),
        Ok(Err(error)) | Err(error) => error,
    }
}

fn unsent(why: Box<dyn Any + Send>) -> Error {
    match why.downcast::<Error>() {
        Ok(error) => *error,
        Err(why) => match why.downcast::<maniple_engine::Error>() {
            Ok(error) => (*error).into(),
            Err(_) => Error::Call(CallError::Remote("a task could not be sent".into())),
        },
    }
}

fn lost(loss: &Loss, task: String, pool: &Shared) -> Error {
    let exit = loss.exit.unwrap_or(Exit::Unknown);
    match &loss.cause {
        LossCause::Died | LossCause::Overdue { .. } | LossCause::TooLarge { .. } | LossCause::Unready { .. } => {
            Error::WorkerLost(Box::new(WorkerLost { pid: loss.pid, exit, task, stderr_tail: loss.stderr.clone() }))
        }
        LossCause::Unfit(Some(incoming)) => {
            let failure = Input::plain(incoming.bytes()).item::<Failure>();
            Error::Call(CallError::Initializer(Box::new(failure.and_then(|f| f).map_or_else(|e| e, Error::from))))
        }
        LossCause::Unfit(None) => Error::Process(ProcessError::Start(pool.start_error().unwrap_or_else(|| {
            if loss.pid == 0 && !loss.stderr.is_empty() {
                // There was no process. The text is the reason.
                return loss.stderr.clone();
            }
            let mut text = format!("worker {} {}{exit} before it was ready", loss.pid, was(exit));
            if let Some(program) = pool.program() {
                text = format!(
                    "{text}; it ran the program {}, which has to link maniple and, if it is built without the feature \
                     auto-init, to call maniple::init() at the beginning of main",
                    program.display()
                );
            }
            if !loss.stderr.is_empty() {
                text = format!("{text}; its standard error ended in:\n{}", loss.stderr);
            }
            text
        }))),
    }
}
