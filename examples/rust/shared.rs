//! Processes that work on the same memory: each draws its share of the Mandelbrot set into one picture.

use maniple::{Array, Barrier, Exit, Mutex, Process, RawValue};

const WIDTH: usize = 60;
const HEIGHT: usize = 24;
const WORKERS: usize = 3;

/// What the workers share. All of it are handles: what a process gets is the same thing, not a copy.
#[derive(Clone, serde::Serialize, serde::Deserialize)]
struct Canvas {
    /// How long each point lasted.
    picture: Array<u8>,
    /// The next row that no worker has begun.
    next: RawValue<u64>,
    /// How many points each worker drew.
    done: Mutex<[u32; WORKERS]>,
    ready: Barrier,
}

fn endurance(column: usize, row: usize) -> u8 {
    let (a, b) = (column as f64 * 3.0 / WIDTH as f64 - 2.2, row as f64 * 2.4 / HEIGHT as f64 - 1.2);
    let (mut x, mut y) = (0.0, 0.0);
    for round in 0..40 {
        if x * x + y * y > 4.0 {
            return round;
        }
        (x, y) = (x * x - y * y + a, 2.0 * x * y + b);
    }
    40
}

fn draw((canvas, me): (Canvas, usize)) -> maniple::Result<()> {
    // No worker begins before all have started.
    canvas.ready.wait()?;
    loop {
        let row = canvas.next.fetch_update(|row| row + 1) as usize;
        if row >= HEIGHT {
            return Ok(());
        }
        let points: Vec<u8> = (0..WIDTH).map(|column| endurance(column, row)).collect();
        canvas.picture.lock()?[row * WIDTH..][..WIDTH].copy_from_slice(&points);
        canvas.done.lock()?[me] += WIDTH as u32;
    }
}

fn main() -> maniple::Result<()> {
    let canvas = Canvas {
        picture: Array::new(WIDTH * HEIGHT)?,
        next: RawValue::new(0)?,
        done: Mutex::new([0; WORKERS])?,
        ready: Barrier::new(WORKERS)?,
    };
    let workers = (0..WORKERS).map(|me| Process::new(draw, (canvas.clone(), me)));
    let workers = workers.collect::<maniple::Result<Vec<_>>>()?;
    workers.iter().try_for_each(Process::start)?;
    for worker in &workers {
        assert_eq!(worker.join()?, Exit::Code(0));
    }
    for row in canvas.picture.lock()?.chunks(WIDTH) {
        let line: String = row.iter().map(|&n| b" .:-=+*%@"[usize::from(n) / 5] as char).collect();
        println!("{}", line.trim_end());
    }
    let done = canvas.done.lock()?;
    println!("{} points by {WORKERS} processes", done.iter().sum::<u32>());
    Ok(())
}
