//! A pipeline of processes: one finds files, some count their lines, one adds up. Queues between them, and a pipe for the result.
//!
//! `cargo run --example pipeline -- FOLDER`; without a folder, the sources of this crate.

use maniple::{Exit, Process, Queue, Receiver, Sender, channel};
use std::path::{Path, PathBuf};

type Counted = (PathBuf, usize);

fn find((folder, files): (PathBuf, Queue<PathBuf>)) -> Result<(), Box<dyn std::error::Error>> {
    let mut folders = vec![folder];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                folders.push(entry.path());
            } else {
                // Waits while the counters have enough to do.
                files.put(&entry.path())?;
            }
        }
    }
    // The items that are in it can still be taken; then every counter receives the end of the queue.
    files.close()?;
    Ok(())
}

fn count((files, counts): (Queue<PathBuf>, Queue<Counted>)) -> maniple::Result<()> {
    while let Ok(path) = files.get() {
        let lines = std::fs::read(&path).map_or(0, |text| text.iter().filter(|&&b| b == b'\n').count());
        counts.put(&(path, lines))?;
    }
    Ok(())
}

fn add((counts, result): (Queue<Counted>, Sender<Vec<Counted>>)) -> maniple::Result<()> {
    let mut all = Vec::new();
    while let Ok(counted) = counts.get() {
        all.push(counted);
    }
    all.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    result.send(&all)
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let sources = concat!(env!("CARGO_MANIFEST_DIR"), "/src");
    let folder = PathBuf::from(std::env::args().nth(1).unwrap_or_else(|| sources.into()));

    let (files, counts) = (Queue::bounded(64)?, Queue::new()?);
    let (sender, receiver): (Sender<Vec<Counted>>, Receiver<_>) = channel()?;

    let finder = Process::new(find, (folder.clone(), files.clone()))?;
    let counters = (0..2).map(|_| Process::new(count, (files.clone(), counts.clone())));
    let counters = counters.collect::<maniple::Result<Vec<_>>>()?;
    let adder = Process::new(add, (counts.clone(), sender))?;
    for process in counters.iter().chain([&finder, &adder]) {
        process.start()?;
    }
    for process in counters.iter().chain([&finder]) {
        assert_eq!(process.join()?, Exit::Code(0));
    }
    counts.close()?;

    let all = receiver.recv()?;
    let lines: usize = all.iter().map(|(_, lines)| lines).sum();
    println!("{lines} lines in {} files of {}; the longest:", all.len(), folder.display());
    for (path, lines) in all.iter().take(3) {
        println!("{lines:6} {}", path.strip_prefix(&folder).unwrap_or(Path::new("")).display());
    }
    assert_eq!(adder.join()?, Exit::Code(0));
    Ok(())
}
