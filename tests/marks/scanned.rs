//! `fief marks` as the tests ask it, and what it answers.

use std::collections::BTreeMap;
use std::fs::File;

use fief_testkit::{Lab, Ns, Output, bin};
use serde_json::Value;

/// One use of a mark, as it is told to programs.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Seen {
    pub place: String,
    pub mark: String,
    pub reads: u32,
    pub writes: u32,
    /// What it compares with, what it is not to be, and what it sets.
    pub is: Option<u32>,
    pub is_not: Option<u32>,
    pub becomes: Option<u32>,
    /// A short name, or `nobody`.
    pub owner: String,
}

impl Seen {
    /// A use as a person writes it down:
    /// `WHERE: MARK [reads BITS] [writes BITS] [is VALUE] [not VALUE] [becomes VALUE] [of OWNER]`.
    #[track_caller]
    pub fn declared(line: &str, owner: &str) -> Seen {
        let (place, rest) = line.rsplit_once(": ").unwrap_or_else(|| panic!("{line}"));
        let mut words = rest.split(' ');
        let mut seen = Seen {
            place: place.to_owned(),
            mark: words.next().expect("a mark").to_owned(),
            reads: 0,
            writes: 0,
            is: None,
            is_not: None,
            becomes: None,
            owner: owner.to_owned(),
        };
        while let (Some(what), Some(value)) = (words.next(), words.next()) {
            match what {
                "reads" => seen.reads = hexadecimal(value),
                "writes" => seen.writes = hexadecimal(value),
                "is" => seen.is = Some(hexadecimal(value)),
                "not" => seen.is_not = Some(hexadecimal(value)),
                "becomes" => seen.becomes = Some(hexadecimal(value)),
                "of" => value.clone_into(&mut seen.owner),
                other => panic!("{other} in {line}"),
            }
        }
        seen
    }
}

/// A row of a scan beside its use.
#[derive(Debug, Clone)]
pub struct Row {
    pub seen: Seen,
    pub netns: String,
    pub subsystem: String,
    pub count: u64,
    pub heuristic: bool,
    /// Whether the owner is known by a name, or by a value.
    pub by: String,
}

/// How often each of several equal things is there.
pub type Counted<T> = BTreeMap<T, u64>;

/// Runs `fief marks` in a namespace.
#[track_caller]
pub fn marks(lab: &Lab, ns: &Ns, words: &[&str]) -> Output {
    let (fief, root) = (bin("fief"), lab.dir().join("fief"));
    let mut command = ns.command(&[fief.as_os_str(), "--root".as_ref(), root.as_os_str(), "marks".as_ref()]);
    for word in words {
        command = command.arg(word);
    }
    command.run()
}

/// What a scan finds; nothing may be left unlooked at.
#[track_caller]
pub fn scan(lab: &Lab, ns: &Ns, words: &[&str]) -> Vec<Row> {
    let words: Vec<&str> = ["scan", "-o", "json"].iter().chain(words).copied().collect();
    let scanned = marks(lab, ns, &words).ok().json();
    assert_eq!(scanned["failures"], Value::Array(Vec::new()));
    assert_eq!(scanned["leftOut"], 0);
    rows(&scanned)
}

/// The rows of a scan, as it is told to programs.
pub fn rows(scanned: &Value) -> Vec<Row> {
    scanned["uses"].as_array().expect("uses are a list").iter().map(row).collect()
}

/// What a scan of this namespace finds in it; programs are the machine's, and other tests have some.
#[track_caller]
pub fn here(lab: &Lab, ns: &Ns) -> Vec<Row> {
    let mut rows = scan(lab, ns, &["--here"]);
    rows.retain(|row| row.subsystem != "bpf");
    rows
}

/// Only one of these at a time on the machine: a program that one test loads is in every other's scan.
pub fn alone(exclusive: bool) -> File {
    let path = std::env::temp_dir().join("fief-test-marks.lock");
    let file = File::create(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    if exclusive { file.lock() } else { file.lock_shared() }.expect("a file can be locked");
    file
}

/// A number of a scan, or of a declaration: hexadecimal.
#[track_caller]
pub fn hexadecimal(text: &str) -> u32 {
    let digits = text.strip_prefix("0x").unwrap_or_else(|| panic!("{text} is not hexadecimal"));
    u32::from_str_radix(digits, 16).unwrap_or_else(|error| panic!("{text}: {error}"))
}

fn row(row: &Value) -> Row {
    let text = |key: &str| row[key].as_str().unwrap_or_default().to_owned();
    let value = |key: &str| {
        let masked = row[key].as_str()?;
        Some(hexadecimal(masked.split_once('/').map_or(masked, |(value, _)| value)))
    };
    let seen = Seen {
        place: text("place"),
        mark: text("mark"),
        reads: hexadecimal(&text("reads")),
        writes: hexadecimal(&text("writes")),
        is: value("matches"),
        is_not: value("excludes"),
        becomes: value("sets"),
        owner: row["owner"]["name"].as_str().unwrap_or("nobody").to_owned(),
    };
    Row {
        seen,
        netns: text("netns"),
        subsystem: text("subsystem"),
        count: row["count"].as_u64().expect("a count"),
        heuristic: row["heuristic"].as_bool().expect("a truth value"),
        by: row["owner"]["by"].as_str().unwrap_or_default().to_owned(),
    }
}

/// How many are in both.
pub fn common<T: Ord>(one: &Counted<T>, other: &Counted<T>) -> u64 {
    one.iter().map(|(what, count)| *count.min(other.get(what).unwrap_or(&0))).sum()
}

/// What is in one and not in the other, a line each.
pub fn without<T: Ord + std::fmt::Debug>(one: &Counted<T>, other: &Counted<T>) -> Vec<String> {
    let more = one.iter().filter_map(|(what, count)| {
        let missing = count.saturating_sub(other.get(what).copied().unwrap_or(0));
        (missing > 0).then(|| format!("{missing} x {what:?}"))
    });
    more.collect()
}
