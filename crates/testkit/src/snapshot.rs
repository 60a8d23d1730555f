//! Everything that configuration is made of in a network namespace, as text.

use std::collections::HashMap;
use std::fmt::Write;
use std::fs;
use std::path::Path;

use crate::ns::Ns;

/// What tools say about the namespace as a whole. Counters are left out, and handles, which only count as well.
const QUESTIONS: &[&[&str]] = &[
    &["ip", "-d", "link", "show"],
    &["ip", "addr", "show"],
    &["ip", "-4", "rule", "show"],
    &["ip", "-6", "rule", "show"],
    &["ip", "-4", "mrule", "show"],
    &["ip", "-6", "mrule", "show"],
    &["ip", "-4", "route", "show", "table", "all"],
    &["ip", "-6", "route", "show", "table", "all"],
    &["ip", "nexthop", "show"],
    &["ip", "neigh", "show", "nud", "permanent"],
    &["ip", "neigh", "show", "proxy"],
    &["nft", "--stateless", "list", "ruleset"],
    &["tc", "qdisc", "show"],
    &["bpftool", "net", "show"],
];

/// Sysctls that count or change by themselves.
const RESTLESS: &[&str] = &["nf_conntrack_count", "netdev_rss_key"];

/// The configuration of a namespace at one moment, to be compared byte for byte.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    sections: Vec<(String, String)>,
}

impl Snapshot {
    /// Of this namespace.
    #[track_caller]
    pub fn of(ns: &Ns) -> Snapshot {
        ns.enter(Snapshot::here)
    }

    /// Of the namespace of the calling thread.
    pub fn here() -> Snapshot {
        let mut sections: Vec<(String, String)> =
            QUESTIONS.iter().map(|argv| (argv.join(" "), steady(&ask(argv)))).collect();
        for device in devices() {
            for hook in ["ingress", "egress"] {
                let argv = ["tc", "filter", "show", "dev", &device, hook];
                sections.push((argv.join(" "), steady(&ask(&argv))));
            }
        }
        let mut sysctls = String::new();
        walk(Path::new("/proc/sys/net"), &mut sysctls);
        sections.push(("sysctl".to_owned(), sysctls));
        Snapshot { sections }
    }

    /// All of it.
    pub fn text(&self) -> String {
        self.sections.iter().map(|(title, body)| format!("== {title}\n{body}\n")).collect()
    }

    /// The differences, `-` in `self` only and `+` in `after` only; `None` if there are none.
    pub fn diff(&self, after: &Snapshot) -> Option<String> {
        if self == after {
            return None;
        }
        let mut text = String::new();
        for (title, body) in &self.sections {
            let now = after.section(title).unwrap_or_default();
            text += &changes(title, body, now);
        }
        for (title, body) in after.sections.iter().filter(|(title, _)| self.section(title).is_none()) {
            text += &changes(title, "", body);
        }
        Some(text)
    }

    /// Fails the test with the differences, if there are any.
    #[track_caller]
    pub fn assert_same(&self, after: &Snapshot) {
        if let Some(diff) = self.diff(after) {
            panic!("the namespace is not as it was:\n{diff}");
        }
    }

    fn section(&self, title: &str) -> Option<&str> {
        self.sections.iter().find(|(known, _)| known == title).map(|(_, body)| body.as_str())
    }
}

/// A program's answer; its complaint, if it fails, is part of the picture too.
fn ask(argv: &[&str]) -> String {
    match std::process::Command::new(argv[0]).args(&argv[1..]).output() {
        Ok(output) => {
            [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat()
        }
        Err(error) => format!("{}: {error}\n", argv[0]),
    }
}

/// Without what runs down or up by itself: `gc_timer 12.00`, `expires 99sec`, `valid_lft 99sec`, `promiscuity 1`; and without
/// the numbers that the kernel gives to programs when they are loaded.
fn steady(text: &str) -> String {
    let line = |line: &str| {
        let is_program = line.contains(" bpf ") && line.contains(" direct-action ");
        let restless = |word: &str| {
            word.ends_with("_timer")
                || ["expires", "valid_lft", "preferred_lft", "promiscuity", "ageing"].contains(&word)
                || (is_program && word == "id")
        };
        let mut previous = "";
        let mut kept = Vec::new();
        for word in line.split(' ') {
            // ip(8) pads some numbers with spaces.
            if word.is_empty() && restless(previous) {
                continue;
            }
            let fixed = !restless(previous) || word == "forever";
            kept.push(if fixed { word } else { "~" });
            previous = word;
        }
        kept.join(" ") + "\n"
    };
    text.lines().map(line).collect()
}

fn devices() -> Vec<String> {
    let listed = nix::net::if_::if_nameindex().expect("devices can be listed");
    let mut names: Vec<String> =
        listed.iter().map(|device| device.name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

/// Every readable sysctl below `path`, sorted.
fn walk(path: &Path, text: &mut String) {
    let mut entries: Vec<_> =
        fs::read_dir(path).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    entries.sort();
    for path in entries {
        let restless = path.file_name().is_some_and(|name| RESTLESS.iter().any(|known| name == *known));
        if path.is_dir() {
            walk(&path, text);
        } else if !restless && let Ok(value) = fs::read_to_string(&path) {
            let name = path.strip_prefix("/proc/sys").unwrap_or(&path).display();
            writeln!(text, "{name} = {}", value.trim_end().replace('\n', " ")).expect("a string grows");
        }
    }
}

/// The lines that one side has more often than the other.
fn changes(title: &str, before: &str, after: &str) -> String {
    if before == after {
        return String::new();
    }
    let mut balance: HashMap<&str, i64> = HashMap::new();
    before.lines().for_each(|line| *balance.entry(line).or_default() += 1);
    after.lines().for_each(|line| *balance.entry(line).or_default() -= 1);
    let surplus = |text: &str, sign: char, step: i64| -> String {
        let more = text.lines().filter(|line| balance.get(line).is_some_and(|count| count * step > 0));
        more.map(|line| format!("{sign} {line}\n")).collect()
    };
    let lines = surplus(before, '-', 1) + &surplus(after, '+', -1);
    let body = if lines.is_empty() { "  the same lines in another order\n".to_owned() } else { lines };
    format!("== {title}\n{body}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_runs_by_itself_is_left_out() {
        let text = "    gc_timer 12.3 topology\n valid_lft 99sec preferred_lft forever\n";
        assert_eq!(steady(text), "    gc_timer ~ topology\n valid_lft ~ preferred_lft forever\n");
        let filter = "filter protocol all pref 1 bpf fief-way-in direct-action not_in_hw id 846 name gate_in";
        assert_eq!(steady(filter), filter.replace("846", "~") + "\n");
    }

    #[test]
    fn a_difference_shows_only_what_differs() {
        assert_eq!(changes("x", "a\nb\nc\n", "a\nd\nc\n"), "== x\n- b\n+ d\n");
        assert_eq!(changes("x", "a\nb\n", "b\na\n"), "== x\n  the same lines in another order\n");
    }
}
