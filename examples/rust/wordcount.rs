//! Counts the words of every text file under a folder: first in this process, then in a pool of workers.
//!
//! ```sh
//! cargo run --release --example wordcount -- [FOLDER]
//! ```
//! If no folder is named, it counts the sources of the Python standard library.

use maniple::{CallOptions, Pool};
use std::collections::HashMap;
use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

type Counts = HashMap<String, u64>;

/// Whether a character is part of a word: an ASCII letter or digit, an underscore, or any character outside ASCII. The
/// Python example counts the same words; the two languages' own tables of letters differ.
fn is_in_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_' || !c.is_ascii()
}

/// The words of some files with their numbers. A file that is not text has none.
fn count_words(files: Vec<PathBuf>) -> Counts {
    let mut counts = Counts::new();
    for text in files.iter().filter_map(|file| fs::read_to_string(file).ok()) {
        let words = text.split(|c: char| !is_in_word(c)).filter(|word| !word.is_empty());
        for word in words {
            match counts.get_mut(word) {
                Some(count) => *count += 1,
                None => drop(counts.insert(word.to_owned(), 1)),
            }
        }
    }
    counts
}

/// Adds some files' counts to those of all.
fn add(all: &mut Counts, some: Counts) {
    for (word, count) in some {
        *all.entry(word).or_default() += count;
    }
}

/// The same by a pool, whose start and end are part of it.
fn count_on(workers: usize, files: &[PathBuf]) -> maniple::Result<Counts> {
    let pool = Pool::new(workers)?;
    // A batch returns one set of counts instead of one for each file: less to send, and less to add up here.
    let batches: Vec<Vec<PathBuf>> =
        files.chunks(files.len().div_ceil(8 * workers).max(1)).map(<[_]>::to_vec).collect();
    let mut all = Counts::new();
    for counts in pool.with(CallOptions::new().chunksize(1)).imap_unordered(count_words, batches)? {
        add(&mut all, counts?);
    }
    Ok(all)
}

/// What lies among the Python standard library's own sources, but was put there by pip and by the interpreter.
const INSTALLED: [&str; 3] = ["site-packages", "dist-packages", "__pycache__"];

/// Where the Python standard library is.
fn standard_library() -> Result<PathBuf, Box<dyn Error>> {
    const ASK: &str = "import sysconfig; print(sysconfig.get_path('stdlib'), end='')";
    let answer = Command::new("python3").args(["-c", ASK]).output();
    match answer {
        Ok(said) if said.status.success() => Ok(String::from_utf8(said.stdout)?.into()),
        _ => Err("there is no python3 whose standard library could be counted; name a folder: wordcount FOLDER".into()),
    }
}

/// Every file under `folder`, save what lies in folders of the names `without`.
fn files_under(folder: &Path, without: &[&str], found: &mut Vec<PathBuf>) -> std::io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        match entry.file_type()? {
            kind if kind.is_dir() && without.iter().any(|name| entry.file_name() == *name) => {}
            kind if kind.is_dir() => files_under(&entry.path(), without, found)?,
            kind if kind.is_file() => found.push(entry.path()),
            _ => {}
        }
    }
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    let (folder, without) = match std::env::args_os().nth(1) {
        Some(named) => (PathBuf::from(named), &[][..]),
        None => (standard_library()?, &INSTALLED[..]),
    };
    let mut files = Vec::new();
    files_under(&folder, without, &mut files).map_err(|error| format!("{}: {error}", folder.display()))?;
    println!("{} files under {}", files.len(), folder.display());

    let workers = std::thread::available_parallelism()?.get();
    let (mut serial, mut pooled) = (Counts::new(), Counts::new());
    let (mut serial_time, mut pool_time) = (Duration::MAX, Duration::MAX);
    // The best of three rounds in turn: a busy moment of the machine falls on both ways.
    for _ in 0..3 {
        let begin = Instant::now();
        serial = count_words(files.clone());
        serial_time = serial_time.min(begin.elapsed());

        let begin = Instant::now();
        pooled = count_on(workers, &files)?;
        pool_time = pool_time.min(begin.elapsed());
    }

    println!("in this process  {:8.1} ms", serial_time.as_secs_f64() * 1e3);
    let ratio = serial_time.as_secs_f64() / pool_time.as_secs_f64();
    println!(
        "on {workers} workers     {:8.1} ms, started and ended included ({ratio:.2} times the speed)",
        pool_time.as_secs_f64() * 1e3
    );
    if serial != pooled {
        return Err("the two counts differ".into());
    }

    let mut common: Vec<(&String, &u64)> = pooled.iter().collect();
    common.sort_by(|a, b| b.1.cmp(a.1).then(a.0.cmp(b.0)));
    let common: Vec<String> = common.iter().take(5).map(|(word, count)| format!("{word} {count}")).collect();
    println!(
        "equal counts: {} words, {} different; most often {}",
        pooled.values().sum::<u64>(),
        pooled.len(),
        common.join(", ")
    );
    Ok(())
}
