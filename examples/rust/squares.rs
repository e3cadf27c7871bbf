//! The first example of Python's multiprocessing documentation, in Rust.

use maniple::Pool;

fn f(x: i64) -> i64 {
    x * x
}

fn main() -> maniple::Result<()> {
    let pool = Pool::new(5)?;
    println!("{:?}", pool.map(f, [1, 2, 3])?);
    Ok(())
}
