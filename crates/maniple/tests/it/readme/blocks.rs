//! The Rust blocks of README.md, each in a function, and what they use. A block is changed in both files.

use serde::{Deserialize, Serialize};

pub(super) fn first() -> maniple::Result<()> {
    use maniple::Pool;

    fn f(x: i64) -> i64 {
        x * x
    }

    fn main() -> maniple::Result<()> {
        let pool = Pool::new(5)?;
        println!("{:?}", pool.map(f, [1, 2, 3])?);
        Ok(())
    }

    main()
}

fn slow(number: u32) -> u32 {
    number + 1
}

fn risky(number: u32) -> Result<u32, String> {
    number.checked_sub(1).ok_or_else(|| "nothing is left".into())
}

#[derive(Serialize, Deserialize)]
struct Model {
    factor: u32,
}

fn score(model: &Model, number: u32) -> u32 {
    model.factor * number
}

pub(super) fn pools(lines: Vec<String>, others: Vec<String>) -> maniple::Result<()> {
    let (inputs, items, input, model) = (vec![1, 2], vec![3], 0, Model { factor: 2 });

    use maniple::{CallOptions, Error, Pool};

    let pool = Pool::builder().processes(4).build()?;
    let lengths = pool.map(|line: String| line.len(), lines)?;
    let single = pool.with(CallOptions::new().chunksize(1)).map(slow, inputs.clone())?;
    let outcomes = pool.try_map(risky, inputs)?;               // a Result for each item
    let scores = pool.map_with(&model, score, items)?;         // the model travels once per worker
    for (index, length) in pool.imap_unordered(|line: String| line.len(), others)?.indexed() {
        println!("line {index}: {} bytes", length?);           // as they come; without indexed() only the lengths
    }
    match pool.apply(risky, input) {
        Err(Error::WorkerLost(lost)) => eprintln!("{lost}"),   // pid, signal or exit code, task, last words on stderr
        other => println!("{:?}", other?),
    }

    assert_eq!((lengths, single, scores), (vec![3, 5], vec![2, 3], vec![6]));
    assert!(outcomes.iter().all(Result::is_ok));
    Ok(())
}

pub(super) fn limits() -> maniple::Result<()> {
    let inputs = vec![1, 2];

    use maniple::{CallOptions, Pool};
    use std::time::Duration;

    let pool = Pool::builder().memory_limit(4_000_000_000).task_timeout(Duration::from_secs(60)).build()?;
    let urgent = CallOptions::new().task_timeout(Duration::from_secs(2)).retries(3).priority(-1);
    let outcomes = pool.with(urgent).try_map(risky, inputs.clone())?;
    let job = pool.map_async(slow, inputs)?.abort_on_drop();
    job.cancel();                                              // what has not begun; abort(): what runs, too

    assert_eq!(outcomes.len(), 2);
    Ok(())
}

pub(super) fn sizes(folder: std::path::PathBuf) -> maniple::Result<()> {
    use maniple::{Affinity, CallError, Error, Pool};
    use std::time::Duration;

    let pool = Pool::builder()
        .processes(8)
        .min_processes(1)                                      // the number of workers follows the work
        .idle_timeout(Duration::from_secs(30))
        .max_backlog(1000)                                     // a further apply_async blocks; submit_async awaits
        .current_dir(folder)
        .env("TOKENIZERS_PARALLELISM", "false")
        .threads_per_worker(1)
        .affinity(Affinity::Spread)                            // or sets: [[0, 1], [2, 3]]
        .finalizer(|name| std::fs::remove_file(name).unwrap_or_default(), "scratch".to_string())
        .build()?;
    match pool.try_apply_async(slow, 7) {
        Err(Error::Call(CallError::BacklogFull { max_backlog })) => println!("{max_backlog} calls wait already"),
        call => println!("{}", call?.get()?),
    }
    pool.resize(2)?;                                           // surplus workers end after their tasks
    let numbers = pool.map(|()| maniple::worker_id(), [(); 10])?;  // Some(0) or Some(1); None outside of workers

    assert_eq!(numbers.len(), 10);
    assert!(numbers.iter().all(Option::is_some));
    Ok(())
}

fn sum(numbers: Vec<u32>) -> u32 {
    numbers.iter().sum()
}

fn index(_folder: String) {
    std::thread::sleep(std::time::Duration::from_secs(60));
}

#[allow(dead_code)]
fn processes(numbers: Vec<u32>, folder: String) -> maniple::Result<()> {
    use maniple::{Cause, Exit, Process};
    use std::time::Duration;

    let total = maniple::spawn(sum, numbers)?;                  // a JoinHandle: join, join_timeout, join_async().await
    println!("{}", total.join()?);

    let process = Process::builder().name("indexer").daemon(true).build(index, folder)?;
    process.start()?;
    if process.join_timeout(Duration::from_secs(10))?.is_none() {
        process.kill()?;
    }
    assert_eq!(process.join()?, Exit::Killed(Cause::KILL));
    Ok(())
}

#[derive(Serialize, Deserialize)]
pub(super) struct Job;

pub(super) fn pipes(job: Job) -> maniple::Result<()> {
    use maniple::{Connection, Process, Queue};

    let (ours, theirs) = maniple::pipe::<String>()?;           // channel(): one direction
    let process = Process::new(|line: Connection<String>| line.send(&line.recv()?.to_uppercase()), theirs)?;
    process.start()?;
    ours.send(&"hello".into())?;
    assert_eq!(ours.recv()?, "HELLO");                         // recv_timeout, try_recv, recv_async().await

    let jobs = Queue::<Job>::bounded(100)?;                    // any number of processes on both sides; JoinableQueue, SimpleQueue
    jobs.put(&job)?;                                           // get, try_get, get_timeout, iter, close

    let ready = maniple::wait(&[&ours, &jobs, &process.sentinel()?])?;                // wait_timeout
    assert!(ready.contains(&1));                               // the positions of those that are ready; 1 is `jobs`
    Ok(())
}

#[allow(dead_code)]
fn locks() -> maniple::Result<()> {
    use maniple::{Array, Barrier, Condition, Mutex, ShareableList};
    use std::time::Duration;

    let (total, changed) = (Mutex::new(0u64)?, Condition::new()?);
    *total.lock()? += 1;                                       // Lock, RLock, Semaphore, BoundedSemaphore, Event
    let seen = changed.wait_while(total.lock()?, |n| **n == 0)?;
    Barrier::new(3)?.wait_timeout(Duration::from_secs(5))?;    // an error if a party was killed
    let image = Array::<f32>::new(1_000_000)?;                 // Value, RawValue, RawArray, SharedMemory
    image.lock()?.fill(1.0);
    let list = ShareableList::create("settings", ["fast"])?;   // Python: ShareableList(name="settings")
    Ok(())
}

struct Account {
    balance: std::sync::atomic::AtomicU32,
}

impl Account {
    fn new(balance: u32) -> Account {
        Account { balance: balance.into() }
    }

    fn deposit(&self, amount: u32) {
        self.balance.fetch_add(amount, std::sync::atomic::Ordering::Relaxed);
    }

    fn balance(&self, (): ()) -> u32 {
        self.balance.load(std::sync::atomic::Ordering::Relaxed)
    }
}

pub(super) fn managers() -> maniple::Result<()> {
    use maniple::{Manager, Process, Proxy, managers::Dict};

    let manager = Manager::new()?;                             // .builder().address(…).authkey(…) for other machines
    let counts = manager.dict::<String, u32>()?;
    let account = manager.serve(Account::new, 100)?;           // Proxy<Account>; Account need not be serializable, its methods take &self
    let child = Process::new(|(counts, account): (Dict<String, u32>, Proxy<Account>)| {
        counts.with(|all, word| *all.entry(word).or_default() += 1, "a".to_string())?;  // one call, no other in between
        account.call(Account::deposit, 20).map(drop)
    }, (counts.clone(), account.clone()))?;

    child.start()?;
    assert_eq!(child.join()?, maniple::Exit::Code(0));
    assert_eq!((counts.get("a")?, account.call(Account::balance, ())?), (Some(1), 120));
    Ok(())
}

#[allow(dead_code)]
fn python() -> maniple::Result<()> {
    use maniple::Listener;

    let listener = Listener::builder().authkey("between us").bind("127.0.0.1:4000")?;
    let line = listener.accept::<()>()?;                       // Python: Client(("127.0.0.1", 4000), authkey=b"between us")
    line.send_bytes(b"hello")?;                                // with the feature json: line.cast::<T, Json>().send(&value)
    Ok(())
}

#[derive(Serialize, Deserialize)]
struct Photo {
    width: u32,
}

impl Photo {
    fn scaled_to(self, width: u32) -> Photo {
        Photo { width: self.width.min(width) }
    }
}

#[cfg(feature = "macros")]
#[maniple::task]
fn thumbnail(photo: Photo) -> Photo {
    photo.scaled_to(128)
}

#[allow(dead_code)]
fn other_programs(photo: Photo) -> maniple::Result<()> {
    use maniple::Pool;

    let pool = Pool::builder().program("./worker").build()?;
    let small: Photo = pool.apply_named("worker::thumbnail", photo)?;
    Ok(())
}
