//! From rounds to medians, and from medians to a table and JSON.

use crate::case::Case;
use crate::peers::SUBJECT;
use crate::turn::Outcome;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// One library in one case.
#[derive(Default)]
pub struct Series {
    pub seconds: Vec<f64>,
    /// The first outcome that was no time.
    pub other: Option<Outcome>,
}

impl Series {
    pub fn median(&self) -> Option<f64> {
        if self.other.is_some() { None } else { median(self.seconds.clone()) }
    }

    /// The median distance from the median.
    fn deviation(&self) -> Option<f64> {
        let middle = self.median()?;
        median(self.seconds.iter().map(|one| (one - middle).abs()).collect())
    }

    fn cell(&self) -> String {
        match (&self.other, self.median(), self.deviation()) {
            (Some(Outcome::NotOffered(_)), ..) => "-".into(),
            (Some(Outcome::Failed(word, _)), ..) => (*word).into(),
            (_, Some(middle), Some(off)) => {
                format!("{} ±{:.0}%", time(middle), 100.0 * off / middle)
            }
            _ => String::new(),
        }
    }

    fn json(&self) -> Value {
        match &self.other {
            Some(Outcome::NotOffered(why)) => json!({"status": "absent", "why": why}),
            Some(Outcome::Failed(word, why)) => json!({"status": word, "why": why}),
            _ => {
                json!({"status": "ok", "seconds": self.seconds, "median": self.median(), "mad": self.deviation()})
            }
        }
    }
}

/// One case and what every library made of it.
pub struct Row {
    pub case: Case,
    pub series: BTreeMap<&'static str, Series>,
}

impl Row {
    /// How many times as long as maniple the library takes.
    fn ratio(&self, name: &str) -> Option<f64> {
        Some(self.series.get(name)?.median()? / self.series.get(SUBJECT)?.median()?)
    }
}

/// A line for each floor that could be compared, and whether all of them are reached.
pub fn floors(rows: &[Row]) -> (String, bool) {
    let (mut text, mut reached) = (String::new(), true);
    for row in rows {
        let Some((name, floor)) = row.case.floor() else { continue };
        let Some(ratio) = row.ratio(name) else { continue };
        reached &= ratio >= floor;
        let word = if ratio >= floor { "ok" } else { "short" };
        text +=
            &format!("floor: {}, {ratio:.2} times the rate of {name}, at least {floor}: {word}\n", row.case.title());
    }
    (text, reached)
}

fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let half = values.len() / 2;
    match values.len() {
        0 => None,
        count if count % 2 == 1 => Some(values[half]),
        _ => Some((values[half - 1] + values[half]) / 2.0),
    }
}

fn time(seconds: f64) -> String {
    match seconds {
        0.0..1e-6 => format!("{:.1} ns", seconds * 1e9),
        1e-6..1e-3 => format!("{:.1} us", seconds * 1e6),
        1e-3..1.0 => format!("{:.2} ms", seconds * 1e3),
        _ => format!("{seconds:.2} s"),
    }
}

/// The medians, then how many times as long as maniple each takes, then why cells have no time.
pub fn text(rows: &[Row], names: &[&'static str]) -> String {
    let head = |title: &str| std::iter::once(title).chain(names.iter().copied()).map(String::from).collect();
    let lines = |cell: &dyn Fn(&Row, &str) -> String| -> Vec<Vec<String>> {
        rows.iter()
            .map(|row| std::iter::once(row.case.title()).chain(names.iter().map(|name| cell(row, name))).collect())
            .collect()
    };
    let medians = lines(&|row, name| row.series.get(name).map(Series::cell).unwrap_or_default());
    let ratios = lines(&|row, name| row.ratio(name).map(|ratio| format!("{ratio:.2}x")).unwrap_or_default());
    let mut text = align(head("median ± deviation"), medians);
    text += "\n";
    text += &align(head("times as long as maniple"), ratios);
    for row in rows {
        for (name, series) in &row.series {
            if let Some(Outcome::Failed(word, why)) = &series.other {
                text += &format!("\n{name}: {}: {word}: {why}", row.case.key());
            }
        }
    }
    text
}

fn align(head: Vec<String>, lines: Vec<Vec<String>>) -> String {
    let all: Vec<&Vec<String>> = std::iter::once(&head).chain(&lines).collect();
    let width = |place: usize| all.iter().map(|line| line[place].chars().count()).max().unwrap_or(0);
    let mut text = String::new();
    for line in &all {
        for (place, cell) in line.iter().enumerate() {
            let width = width(place);
            text += &if place == 0 { format!("{cell:<width$}") } else { format!("  {cell:>width$}") };
        }
        text = text.trim_end().to_owned() + "\n";
    }
    text
}

/// Everything, every round included.
pub fn json(rows: &[Row], machine: Value, rounds: usize) -> Value {
    let cases: Vec<Value> = rows
        .iter()
        .map(|row| {
            let results: BTreeMap<_, _> = row.series.iter().map(|(name, series)| (*name, series.json())).collect();
            let ratios: BTreeMap<_, _> = row.series.keys().map(|name| (*name, row.ratio(name))).collect();
            let floor = row.case.floor().map(|(name, floor)| json!({"peer": name, "rate": floor}));
            json!({"case": row.case.key(), "title": row.case.title(), "results": results, "times_as_long_as_maniple": ratios, "floor": floor})
        })
        .collect();
    json!({"machine": machine, "rounds": rounds, "cases": cases})
}
