//! Work that may take forever, and work that may crash: neither ends the program.

use maniple::{Error, Exit, Pool, Process};
use std::time::Duration;

/// Steps until the Collatz sequence from `n` comes to 1; from 0 it never does.
fn steps(mut n: u64) -> i32 {
    let mut count = 0;
    while n != 1 {
        n = if n.is_multiple_of(2) { n / 2 } else { 3 * n + 1 };
        count += 1;
    }
    count
}

fn main() -> maniple::Result<()> {
    for n in [27, 0] {
        let process = Process::builder().name(format!("collatz of {n}")).daemon(true).build(steps, n)?;
        process.start()?;
        match process.join_timeout(Duration::from_millis(500))? {
            Some(Exit::Code(count)) => println!("{}: {count} steps", process.name()),
            Some(other) => println!("{}: {other}", process.name()),
            None => {
                process.kill()?;
                println!("{}: no end in sight, {}", process.name(), process.join()?);
            }
        }
    }

    // In a pool only the task that crashed is lost; a new worker takes the place of the old.
    let pool = Pool::new(2)?;
    let calls: Vec<_> = [1, 0, 4].into_iter().map(|n| pool.apply_async(ratio, n)).collect::<Result<_, _>>()?;
    for call in calls {
        match call.get() {
            Ok(value) => println!("ratio: {value}"),
            Err(Error::WorkerLost(lost)) => println!("ratio: the worker {}", lost.exit),
            Err(other) => println!("ratio: {other}"),
        }
    }
    Ok(())
}

fn ratio(n: u32) -> u32 {
    if n == 0 {
        // As a fault in a C library would.
        std::process::abort();
    }
    100 / n
}
