//! Outcomes of the engine as values and errors.

use super::Shared;
use crate::callee::{About, Callee};
use crate::chunk::{Input, open};
use crate::error::{CallError, Error, MemoryLimit, ProcessError, Result, TaskTimeout, WorkerLost, was};
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
    // Whether the call was cancelled, or the pool terminated; known from the items that were read.
    end: Option<End>,
}

/// Why items of a call have not run to their end.
#[derive(Debug, Clone, Copy)]
enum End {
    Cancelled,
    Terminated,
}

impl End {
    fn error(self) -> Error {
        Error::Call(match self {
            End::Cancelled => CallError::Cancelled,
            End::Terminated => CallError::Terminated,
        })
    }
}

impl Reader {
    pub(super) fn new(about: About, items: Option<usize>) -> Reader {
        Reader { about, items, items_before: 0, end: None }
    }

    /// Sets the index of the next item, if it is not the next in order.
    pub(super) fn go_to(&mut self, item: usize) {
        self.items_before = item;
    }

    /// Returns the index of the next item.
    pub(super) fn next_item(&self) -> usize {
        self.items_before
    }

    /// Returns how many items have no outcome: the call has ended before they were submitted.
    pub(super) fn items_left(&self) -> usize {
        self.items.map_or(0, |items| items.saturating_sub(self.items_before))
    }

    /// Returns the error of the items that have no outcome.
    pub(super) fn error_of_rest(&self, pool: &Shared) -> Error {
        let end = if pool.hub.is_terminated() { End::Terminated } else { End::Cancelled };
        self.end.unwrap_or(end).error()
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
        let (outcome, tries) = match settled.outcome {
            Outcome::AfterTries(tries) => (tries.last, tries.earlier),
            outcome => (outcome, Vec::new()),
        };
        match outcome {
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
                let earlier = tries.iter().filter_map(|before| match before {
                    Outcome::Lost(loss) => Some(lost(loss, &task, &[], pool).to_string()),
                    _ => None,
                });
                let earlier: Vec<String> = earlier.collect();
                for _ in 0..items {
                    each(Err(lost(&loss, &task, &earlier, pool)));
                }
            }
            // The last try has no earlier tries of its own.
            Outcome::Cancelled | Outcome::AfterTries(_) => self.ended(End::Cancelled, items, each),
            Outcome::Terminated => self.ended(End::Terminated, items, each),
        }
        self.items_before += items;
        None
    }

    #[cold]
    fn ended<R>(&mut self, end: End, items: usize, mut each: impl FnMut(Result<R>)) {
        self.end = Some(end);
        (0..items).for_each(|_| each(Err(end.error())));
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

/// Returns the error for a task whose worker has ended, or for which there was no worker.
fn lost(loss: &Loss, task: &str, earlier: &[String], pool: &Shared) -> Error {
    let exit = loss.exit.unwrap_or(Exit::Unknown);
    let (pid, task, earlier) = (loss.pid, task.to_owned(), earlier.to_vec());
    match &loss.cause {
        LossCause::Died => {
            let (stderr_tail, out_of_memory) = (loss.stderr.clone(), loss.out_of_memory);
            Error::WorkerLost(Box::new(WorkerLost { pid, exit, task, stderr_tail, out_of_memory, earlier }))
        }
        &LossCause::Overdue { limit, ran: elapsed } => {
            Error::TaskTimeout(Box::new(TaskTimeout { task, limit, elapsed, pid, earlier }))
        }
        &LossCause::TooLarge { limit, peak } => {
            Error::MemoryLimit(Box::new(MemoryLimit { task, limit, peak, pid, earlier }))
        }
        LossCause::Unready { limit } => Error::Process(ProcessError::Start(with_last_words(
            format!("worker {pid} was ended, because it was not ready within its worker_init_timeout of {limit:?}"),
            loss,
        ))),
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
            with_last_words(text, loss)
        }))),
    }
}

fn with_last_words(mut text: String, loss: &Loss) -> String {
    if !loss.stderr.is_empty() {
        text.push_str("; its standard error ended in:\n");
        text.push_str(&loss.stderr);
    }
    text
}
