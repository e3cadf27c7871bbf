//! A depot that several processes order from: an object of the program's own type in a manager's server, used by its
//! methods.
//!
//!     cargo run --example depot
//!
//! One of the clerks is killed while it holds the till's lock. The next clerk acquires the lock with an error; the goods are
//! right all the same, since they are only changed by whole calls.

use maniple::managers::{Lock, Queue};
use maniple::{Exit, Manager, Process, Proxy, Result};
use std::collections::BTreeMap;

/// Of what, and how many.
type Order = (String, u32);

/// Lives in the server. It need not be serializable; only what its methods take and give travels.
struct Depot {
    goods: BTreeMap<String, u32>,
}

impl Depot {
    fn new(goods: Vec<(String, u32)>) -> Depot {
        Depot { goods: goods.into_iter().collect() }
    }

    /// Hands out so many, or none.
    fn order(&mut self, (what, count): Order) -> Result<u32, String> {
        let left = self.goods.get_mut(&what).ok_or_else(|| format!("we have no {what}"))?;
        *left = left.checked_sub(count).ok_or_else(|| format!("only {left} of {what} left"))?;
        Ok(*left)
    }
}

fn clerk((depot, orders): (Proxy<Depot>, Queue<Option<Order>>)) -> Result<()> {
    while let Some(order) = orders.get()? {
        // A panic or an error in there would be this clerk's alone.
        let _ = depot.call_mut(Depot::order, order)?;
        orders.task_done()?;
    }
    Ok(())
}

fn thief(till: Lock) -> Result<()> {
    let _held = till.lock()?;
    std::process::abort()
}

fn main() -> Result<()> {
    let manager = Manager::new()?;
    let depot = manager.serve(Depot::new, vec![("nails".to_owned(), 1000), ("paint".to_owned(), 3)])?;
    let (orders, till) = (manager.queue(0)?, manager.lock()?);

    let clerks: Vec<Process> =
        (0..2).map(|_| Process::new(clerk, (depot.clone(), orders.clone()))).collect::<Result<_>>()?;
    for clerk in &clerks {
        clerk.start()?;
    }
    for _ in 0..50 {
        orders.put(&Some(("nails".to_owned(), 10)))?;
    }
    orders.join()?;
    for _ in &clerks {
        orders.put(&None)?;
    }
    for clerk in &clerks {
        assert_eq!(clerk.join()?, Exit::Code(0));
    }
    println!("nails left: {}", depot.call(|depot, what: String| depot.goods[&what], "nails".into())?);
    match depot.call_mut(Depot::order, ("paint".into(), 4))? {
        Ok(left) => println!("paint left: {left}"),
        Err(why) => println!("paint: {why}"),
    }

    let process = Process::new(thief, till.clone())?;
    process.start()?;
    println!("the thief: {}", process.join()?);
    println!("the till's lock was abandoned: {}", till.lock()?.is_abandoned());
    Ok(())
}
