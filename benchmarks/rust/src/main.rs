//! Compares maniple's Rust front with what else moves work between processes, rounds taken in turn.
//!
//! `cargo run --release -- --help` lists the options; `../README.md` says what is measured.

mod case;
mod peers;
mod report;
mod turn;

use case::{Case, WORKERS};
use report::{Row, Series};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use turn::Outcome;

const HELP: &str = "Options:
  --quick         3 rounds instead of 7
  --rounds N      so many rounds
  --cases A,B     only these cases, by the beginnings of their keys
  --peers A,B     only these libraries beside maniple; 'none' for maniple alone
  --strict        exit with 1 if a floor is missed
  --cap SECONDS   give a turn up after that long (30)
  --json FILE     where the figures go (../results/rust.json beside this package)";

struct Options {
    rounds: usize,
    cases: Vec<Case>,
    names: Vec<&'static str>,
    cap: Duration,
    json: PathBuf,
    strict: bool,
}

fn main() -> ExitCode {
    peers::init();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match words[..] {
        [turn::TURN, library, case] => return turn::take(library, case),
        [peers::ipc_channel::CHILD, kind, server] => peers::ipc_channel::serve(kind, server),
        ["--help" | "-h"] => {
            println!("{HELP}");
            Ok(())
        }
        _ => options(&words).and_then(|options| compare(&options)),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn options(words: &[&str]) -> Result<Options, Box<dyn Error>> {
    let mut chosen = Options {
        rounds: 7,
        cases: Case::ALL.to_vec(),
        names: peers::NAMES.to_vec(),
        cap: Duration::from_secs(30),
        json: Path::new(env!("CARGO_MANIFEST_DIR")).join("../results/rust.json"),
        strict: false,
    };
    let mut rest = words.iter();
    while let Some(&word) = rest.next() {
        let mut value = || rest.next().copied().ok_or(format!("{word} wants a value"));
        match word {
            "--quick" => chosen.rounds = 3,
            "--strict" => chosen.strict = true,
            "--rounds" => chosen.rounds = value()?.parse()?,
            "--cap" => chosen.cap = Duration::from_secs(value()?.parse()?),
            "--json" => chosen.json = value()?.into(),
            "--cases" => {
                let keys: Vec<&str> = value()?.split(',').collect();
                chosen.cases.retain(|case| keys.iter().any(|key| case.key().starts_with(key)));
            }
            "--peers" => {
                let names: Vec<&str> = value()?.split(',').collect();
                chosen.names.retain(|name| *name == peers::SUBJECT || names.contains(name));
            }
            _ => return Err(format!("unknown option {word}\n{HELP}").into()),
        }
    }
    Ok(chosen)
}

fn compare(options: &Options) -> Result<(), Box<dyn Error>> {
    let machine = machine();
    println!("{}", machine["summary"].as_str().unwrap_or_default());
    println!("{WORKERS} workers, {} rounds in turn; times are medians, ± their median deviation\n", options.rounds);
    let mut rows = Vec::new();
    for &case in &options.cases {
        let mut series: BTreeMap<_, Series> = options.names.iter().map(|name| (*name, Series::default())).collect();
        for _ in 0..options.rounds {
            for (name, one) in order(&options.names, &mut series) {
                match turn::ask(name, case, options.cap)? {
                    Outcome::Seconds(seconds) => one.seconds.push(seconds),
                    other => one.other = Some(other),
                }
            }
        }
        rows.push(Row { case, series });
    }
    println!("{}", report::text(&rows, &options.names));
    let (floors, reached) = report::floors(&rows);
    print!("{floors}");
    if let Some(folder) = options.json.parent() {
        std::fs::create_dir_all(folder)?;
    }
    std::fs::write(&options.json, format!("{:#}\n", report::json(&rows, machine, options.rounds)))?;
    println!("figures in {}", options.json.display());
    let trouble = rows.iter().any(|row| matches!(row.series.get(peers::SUBJECT), Some(Series { other: Some(_), .. })));
    if trouble {
        return Err("maniple did not complete every case".into());
    }
    if options.strict && !reached { Err("a floor was missed".into()) } else { Ok(()) }
}

/// The libraries that are still in, in the table's order.
fn order<'a>(
    names: &[&'static str],
    series: &'a mut BTreeMap<&'static str, Series>,
) -> Vec<(&'static str, &'a mut Series)> {
    let mut still: Vec<_> =
        series.iter_mut().filter(|(_, one)| one.other.is_none()).map(|(name, one)| (*name, one)).collect();
    still.sort_by_key(|(name, _)| names.iter().position(|one| one == name));
    still
}

/// What the figures were taken on.
fn machine() -> Value {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let cpuinfo = read("/proc/cpuinfo");
    let model = cpuinfo
        .lines()
        .find_map(|line| line.strip_prefix("model name"))
        .unwrap_or("")
        .trim_start_matches([' ', '\t', ':']);
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let load = read("/proc/loadavg").split(' ').take(3).collect::<Vec<_>>().join(" ");
    let when = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let summary = format!("{model}, {cores} cores, load average {load}, {}", std::env::consts::OS);
    json!({"summary": summary, "model": model, "cores": cores, "load": load, "unix_time": when})
}
