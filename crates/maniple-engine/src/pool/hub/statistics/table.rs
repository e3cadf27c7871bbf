//! Statistics as a table, for people.

use super::{Latency, PoolStats, WorkerState, WorkerStats};
use std::fmt::{Display, Formatter, Result};
use std::time::Duration;

/// A time with three digits and a unit.
struct Time(Duration);

impl Display for Time {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        let seconds = self.0.as_secs_f64();
        if seconds == 0.0 {
            return f.pad("0");
        }
        let unit = [(1e-3, 1e6, "µs"), (1.0, 1e3, "ms"), (100.0, 1.0, "s")].into_iter().find(|unit| seconds < unit.0);
        if let Some((_, factor, unit)) = unit {
            return f.pad(&format!("{} {unit}", three_digits(seconds * factor)));
        }
        let (minutes, seconds) = (self.0.as_secs() / 60, self.0.as_secs() % 60);
        match (minutes / 60, minutes % 60) {
            (0, minutes) => f.pad(&format!("{minutes} min {seconds:02} s")),
            (hours, minutes) => f.pad(&format!("{hours} h {minutes:02} min")),
        }
    }
}

fn three_digits(number: f64) -> String {
    let places = match number {
        ..10.0 => 2,
        ..100.0 => 1,
        _ => 0,
    };
    format!("{number:.places$}")
}

/// A number of bytes.
fn memory(bytes: u64) -> String {
    let mib = bytes as f64 / f64::from(1 << 20);
    match bytes {
        0 => "-".to_owned(),
        _ if mib < 1000.0 => format!("{} MiB", three_digits(mib)),
        _ => format!("{} GiB", three_digits(mib / 1024.0)),
    }
}

impl Display for Latency {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        let mean = u32::try_from(self.count).ok().and_then(|count| self.total.checked_div(count)).unwrap_or_default();
        let [mean, p50, p90, p99, max] = [mean, self.p50, self.p90, self.p99, self.max].map(Time);
        write!(f, "mean {mean}, p50 {p50}, p90 {p90}, p99 {p99}, max {max}")
    }
}

const HEADS: [&str; 13] = [
    "worker",
    "pid",
    "state",
    "done",
    "failed",
    "lost",
    "timed out",
    "start-up",
    "init",
    "waiting",
    "working",
    "memory",
    "task",
];

fn cells(of: &WorkerStats) -> [String; 13] {
    let time = |time| Time(time).to_string();
    let name = if of.task.is_empty() { "?" } else { &*of.task };
    let is_busy = of.state == WorkerState::Busy;
    [
        of.number.to_string(),
        if of.pid == 0 { "-".to_owned() } else { of.pid.to_string() },
        of.state.name().to_owned(),
        of.tasks_completed.to_string(),
        of.tasks_failed.to_string(),
        of.tasks_lost.to_string(),
        of.tasks_timed_out.to_string(),
        time(of.start_up_time),
        time(of.init_time),
        time(of.waiting_time),
        time(of.working_time),
        memory(of.memory),
        if is_busy { format!("{name} for {}", time(of.task_time)) } else { String::new() },
    ]
}

impl Display for PoolStats {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        let s = self;
        writeln!(
            f,
            "tasks    {} received: {} completed, {} failed, {} lost, {} timed out, {} cancelled, {} waiting, {} running",
            s.tasks_received,
            s.tasks_completed,
            s.tasks_failed,
            s.tasks_lost,
            s.tasks_timed_out,
            s.tasks_cancelled,
            s.tasks_waiting,
            s.tasks_running
        )?;
        writeln!(
            f,
            "         {} launched, {} retried; {} items done, {} items not in tasks yet",
            s.tasks_launched, s.tasks_retried, s.items_done, s.items_pending
        )?;
        writeln!(
            f,
            "workers  {} alive: {} busy, {} idle, {} starting; {} created, at most {} busy at once",
            s.workers_alive,
            s.workers_busy,
            s.workers_idle,
            s.workers_starting,
            s.workers_created,
            s.max_workers_busy_concurrently
        )?;
        writeln!(f, "         {} % of their time in tasks", three_digits(100.0 * s.working_ratio()))?;
        writeln!(f, "waiting  {}", s.waiting)?;
        write!(f, "running  {}", s.running)?;
        for (place, slow) in s.slowest.iter().enumerate() {
            let head = if place == 0 { "slowest" } else { "" };
            let name = if slow.function.is_empty() { "?" } else { &*slow.function };
            write!(f, "\n{head:7}  {}  {name}", Time(slow.duration))?;
        }
        if s.workers.is_empty() {
            return Ok(());
        }
        let rows: Vec<[String; 13]> =
            std::iter::once(HEADS.map(str::to_owned)).chain(s.workers.iter().map(cells)).collect();
        let widths: [usize; 13] =
            std::array::from_fn(|at| rows.iter().map(|row| row[at].chars().count()).max().unwrap_or(0));
        writeln!(f)?;
        for row in &rows {
            let line: Vec<String> = row.iter().zip(widths).map(|(cell, width)| format!("{cell:>width$}")).collect();
            write!(f, "\n{}", line.join("  ").trim_end())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_sizes_have_three_digits() {
        let shown = |nanos| Time(Duration::from_nanos(nanos)).to_string();
        assert_eq!([0, 1234, 12_345_000, 1_500_000_000].map(shown), ["0", "1.23 µs", "12.3 ms", "1.50 s"]);
        assert_eq!([125, 3723].map(|s| shown(s * 1_000_000_000)), ["2 min 05 s", "1 h 02 min"]);
        assert_eq!([0, 10 << 20, 3 << 30].map(memory), ["-", "10.0 MiB", "3.00 GiB"]);
    }
}
