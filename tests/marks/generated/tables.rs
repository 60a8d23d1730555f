//! iptables of every kind: what is generated, and what its listing says.

use super::super::scanned::Counted;
use super::oracle::{Bits, CONNECTION, Marks, PACKET, SOCKET, Touched, hexadecimal};
use super::random::Random;

/// Tables with the built-in chains that are used here, and how much each gets of eight parts.
const TABLES: [(&str, &[&str], usize); 4] = [
    ("mangle", &["PREROUTING", "OUTPUT", "POSTROUTING"], 5),
    ("raw", &["PREROUTING", "OUTPUT"], 1),
    ("filter", &["FORWARD", "INPUT"], 1),
    ("nat", &["POSTROUTING", "OUTPUT"], 1),
];
/// Chains of one's own in each table.
const OWN: u32 = 6;

/// Lines for iptables-restore with so many rules.
pub fn generate(random: &mut Random, v6: bool, rules: usize) -> String {
    let mut lines = String::new();
    for (table, built_in, parts) in TABLES {
        lines += &format!("*{table}\n");
        lines.extend((0..OWN).map(|i| format!(":OWN-{i} -\n")));
        for _ in 0..rules * parts / 8 {
            let chain = match random.below(OWN + 2) {
                i if i < OWN => format!("OWN-{i}"),
                _ => built_in[random.below(built_in.len() as u32) as usize].to_owned(),
            };
            let (matches, target) = (matches(random), target(random, table, &chain));
            let from = match (random.one_in(3), v6) {
                (false, _) => String::new(),
                (true, false) => format!(" -s 10.0.{}.0/24", random.below(256)),
                (true, true) => format!(" -s 2001:db8:{:x}::/64", random.below(0xffff)),
            };
            lines += &format!("-A {chain}{from}{matches}{target}\n");
        }
        lines += "COMMIT\n";
    }
    lines
}

fn matches(random: &mut Random) -> String {
    let mut text = String::new();
    for kind in ["mark", "connmark"] {
        if random.one_in(3) {
            let (value, mask) = random.masked();
            let not = if random.one_in(3) { "! " } else { "" };
            let mask = if random.one_in(4) { String::new() } else { format!("/{mask:#x}") };
            text += &format!(" -m {kind} {not}--mark {value:#x}{mask}");
        }
    }
    if random.one_in(8) {
        text += " -m comment --comment \"a --set-xmark 0x1/0x1 that is none\"";
    }
    text
}

fn target(random: &mut Random, table: &str, chain: &str) -> String {
    let arriving = chain == "PREROUTING";
    match (random.below(20), table) {
        (0..=7, _) => format!(" -j MARK {}", setting(random)),
        (8..=10, _) => format!(" -j CONNMARK {}", setting(random)),
        (11..=16, _) => format!(" -j CONNMARK {}", copying(random)),
        (17, "mangle") if arriving => {
            let (value, mask) = random.masked();
            format!(" -p tcp -j TPROXY --on-port 80 --tproxy-mark {value:#x}/{mask:#x}")
        }
        (18, "mangle" | "raw") if arriving => " -m rpfilter --validmark --invert -j DROP".into(),
        (19, "mangle") if arriving => " -m socket --transparent --restore-skmark -j ACCEPT".into(),
        (17..=19, "raw") => " -j CT --zone mark".into(),
        _ => " -j RETURN".into(),
    }
}

fn setting(random: &mut Random) -> String {
    let (value, mask) = (random.mask(), random.mask());
    match random.below(6) {
        0 => format!("--set-xmark {value:#x}/{mask:#x}"),
        1 => format!("--set-mark {:#x}/{mask:#x}", value & mask),
        2 => format!("--set-mark {value:#x}"),
        3 => format!("--and-mark {value:#x}"),
        4 => format!("--or-mark {value:#x}"),
        _ => format!("--xor-mark {value:#x}"),
    }
}

fn copying(random: &mut Random) -> String {
    let direction = if random.one_in(2) { "--save-mark" } else { "--restore-mark" };
    let (nf, ct) = (random.mask(), random.mask());
    match random.below(6) {
        0 => direction.to_owned(),
        1 => format!("{direction} --mask {nf:#x}"),
        2 | 3 => format!("{direction} --nfmask {nf:#x} --ctmask {nf:#x}"),
        4 => format!("{direction} --nfmask {nf:#x} --ctmask {ct:#x}"),
        _ => {
            let way = if random.one_in(2) { "left" } else { "right" };
            format!(
                "{direction} --nfmask {nf:#x} --ctmask {ct:#x} --{way}-shift-mark {}",
                1 + random.below(31)
            )
        }
    }
}

/// What iptables-save lists, executed.
pub fn expected(tool: &str, listing: &str) -> Counted<Bits> {
    let (mut table, mut expected) = ("", Counted::new());
    for line in listing.lines() {
        if let Some(name) = line.strip_prefix('*') {
            table = name;
        }
        let Some(rule) = line.strip_prefix("-A ") else { continue };
        let words = words(rule);
        let mut touched = Touched::default();
        execute(&words[1..], &mut touched);
        touched.count(&format!("{tool} {table} {}", words[0]), &mut expected);
    }
    expected
}

/// Words by spaces; what stands in quotes is one.
fn words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    for (i, part) in line.split('"').enumerate() {
        if i % 2 == 1 {
            words.push("a comment".to_owned());
        } else {
            words.extend(part.split_whitespace().map(str::to_owned));
        }
    }
    words
}

fn execute(words: &[String], touched: &mut Touched) {
    let value = |option: &str| {
        let at = words.iter().position(|word| word == option)?;
        words.get(at + 1).map(String::as_str)
    };
    let masked = |text: &str| {
        let (value, mask) = text.split_once('/').unwrap_or((text, "0xffffffff"));
        (hexadecimal(value), hexadecimal(mask))
    };
    let has = |option: &str| words.iter().any(|word| word == option);
    // The same option belongs to whichever match was named last.
    let mut matching = "";
    for (i, word) in words.iter().enumerate() {
        match word.as_str() {
            "-m" => matching = &words[i + 1],
            "--mark" => {
                let (_, mask) = masked(&words[i + 1]);
                let mark = if matching == "connmark" { CONNECTION } else { PACKET };
                touched.decided(|marks| marks.0[mark] & mask);
            }
            "--validmark" => touched.packet_read(),
            "--restore-skmark" => touched.stored(PACKET, |marks| marks.0[SOCKET]),
            "--tproxy-mark" => {
                let (value, mask) = masked(&words[i + 1]);
                touched.stored(PACKET, |marks| marks.0[PACKET] & !mask ^ value);
            }
            _ => {}
        }
    }
    if value("--zone") == Some("mark") {
        touched.decided(|marks| marks.0[PACKET] & 0xffff);
    }
    let Some(target @ ("MARK" | "CONNMARK")) = value("-j") else { return };
    let own = if target == "MARK" { PACKET } else { CONNECTION };
    let shifted = |word: u32| {
        let by = |option| value(option).map_or(0, |bits: &str| bits.parse::<u32>().expect("a number"));
        word << by("--left-shift-mark") >> by("--right-shift-mark")
    };
    if let Some((value, mask)) = value("--set-xmark").map(masked) {
        return touched.stored(own, |marks| shifted(marks.0[own] & !mask ^ value));
    }
    let mask = |option| value(option).map_or(u32::MAX, hexadecimal);
    let (nf, ct) = (mask("--nfmask"), mask("--ctmask"));
    let save = |marks: Marks| marks.0[CONNECTION] & !ct ^ shifted(marks.0[PACKET] & nf);
    let restore = |marks: Marks| marks.0[PACKET] & !nf ^ shifted(marks.0[CONNECTION] & ct);
    match (has("--save-mark"), has("--restore-mark")) {
        (true, _) => touched.stored(CONNECTION, save),
        (_, true) => touched.stored(PACKET, restore),
        _ => panic!("not understood: {words:?}"),
    }
}
