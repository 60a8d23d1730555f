//! What was found, for people and for programs.

use std::io;
use std::path::Path;

use serde::Serialize;

/// One benchmark's result.
#[derive(Debug, Clone, Serialize)]
pub struct Row {
    /// Its id, `tenants.send.4096`.
    pub id: String,
    /// What was measured, against what.
    pub what: String,
    /// The median.
    pub value: f64,
    /// Its unit.
    pub unit: &'static str,
    /// The median of what it is compared with, in the same unit.
    pub baseline: Option<f64>,
    /// One to the other; the median over the rounds.
    pub ratio: Option<f64>,
    /// The most that the ratio may be; of the value, where there is none or it is only told ([`Row::limit`]). The least,
    /// where the unit is of speed ([`Row::least`]).
    pub goal: Option<f64>,
    /// Is it within the goal? True where there is none.
    pub met: bool,
}

impl Row {
    /// A value with a limit of its own.
    pub fn value(id: impl Into<String>, what: impl Into<String>, value: f64, unit: &'static str) -> Row {
        Row {
            id: id.into(),
            what: what.into(),
            value,
            unit,
            baseline: None,
            ratio: None,
            goal: None,
            met: true,
        }
    }

    /// What it is compared with.
    pub fn against(mut self, baseline: f64, ratio: f64) -> Row {
        (self.baseline, self.ratio) = (Some(baseline), Some(ratio));
        self
    }

    /// The most that the value may be, whatever it is compared with.
    pub fn limit(mut self, most: f64) -> Row {
        (self.goal, self.met) = (Some(most), self.value <= most);
        self
    }

    /// The most it may be.
    pub fn goal(mut self, goal: f64) -> Row {
        self.goal = Some(goal);
        self.met = self.ratio.unwrap_or(self.value) <= goal;
        self
    }

    /// The least that the ratio may be, of two speeds.
    pub fn least(mut self, goal: f64) -> Row {
        self.goal = Some(goal);
        self.met = self.ratio.unwrap_or(self.value) >= goal;
        self
    }
}

/// Prints the heading of the table.
pub fn heading() {
    println!("{:<26} {:>10} {:>10} {:>7} {:>7}", "id", "value", "baseline", "ratio", "goal");
}

/// Prints one line of it.
pub fn line(row: &Row) {
    let number = |value: Option<f64>| value.map_or("-".to_owned(), figures);
    println!(
        "{:<26} {:>10} {:>10} {:>7} {:>7}  {:<3} {:<4} {}",
        row.id,
        figures(row.value),
        number(row.baseline),
        row.ratio.map_or("-".to_owned(), |ratio| format!("{ratio:.3}")),
        number(row.goal),
        row.unit,
        match (row.goal, row.met) {
            (None, _) => "",
            (_, true) => "ok",
            (_, false) => "MISS",
        },
        row.what
    );
}

/// Writes all of them, whole or not at all.
pub fn write(rows: &[Row], path: &Path) -> io::Result<()> {
    let text = serde_json::to_string_pretty(rows)?;
    if let Some(directory) = path.parent() {
        std::fs::create_dir_all(directory)?;
    }
    let new = path.with_extension("json.new");
    std::fs::write(&new, text + "\n")?;
    std::fs::rename(new, path)
}

/// As many digits as mean something.
fn figures(value: f64) -> String {
    match value.abs() {
        v if v >= 100.0 => format!("{value:.0}"),
        v if v >= 1.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_goal_is_about_the_ratio_if_there_is_one() {
        assert!(Row::value("a", "", 900.0, "ns").against(800.0, 1.1).goal(1.2).met);
        assert!(!Row::value("a", "", 900.0, "ns").against(600.0, 1.5).goal(1.2).met);
        assert!(Row::value("a", "", 30.0, "MiB").goal(64.0).met);
        assert!(!Row::value("a", "", 65.0, "MiB").goal(64.0).met);
        assert!(Row::value("a", "", 65.0, "s").met);
        assert!(Row::value("a", "", 65.0, "Gbit/s").against(60.0, 1.1).least(0.95).met);
        assert!(!Row::value("a", "", 65.0, "Gbit/s").against(70.0, 0.93).least(0.95).met);
        assert!(Row::value("a", "", 65.0, "ms").limit(70.0).against(1.0, 65.0).met);
        assert!(!Row::value("a", "", 75.0, "ms").limit(70.0).against(150.0, 0.5).met);
    }

    #[test]
    fn programs_read_every_field() {
        let text = serde_json::to_value(Row::value("a", "b", 1.0, "ns")).unwrap();
        for field in ["id", "what", "value", "unit", "baseline", "ratio", "goal", "met"] {
            assert!(text.get(field).is_some(), "{field}");
        }
    }
}
