//! nftables: what is generated, and what its listing says.

use serde_json::Value;

use super::super::scanned::Counted;
use super::oracle::{Bits, CONNECTION, Marks, OTHER, PACKET, SOCKET, Touched, hexadecimal};
use super::random::Random;

pub const FAMILIES: [&str; 4] = ["inet", "ip", "ip6", "bridge"];
const CHAINS: usize = 20;

/// A table of this family with so many rules.
pub fn generate(random: &mut Random, family: &str, rules: usize) -> String {
    let mut text = format!("table {family} generated {{\n{}\n", named(random));
    for chain in 0..CHAINS {
        let rules = (0..rules / CHAINS).map(|_| format!("        {}\n", rule(random, family)));
        text += &format!("    chain c{chain} {{\n{}    }}\n", rules.collect::<String>());
    }
    text + "}\n"
}

/// Sets and maps with names.
fn named(random: &mut Random) -> String {
    let mut text = String::new();
    for i in 0..8 {
        let (a, b) = (random.word() & !1, random.word() | 1);
        text += &format!(
            "    map addresses{i} {{ type ether_addr : mark; elements = {{ 02:00:00:00:00:01 : {a:#x}, \
             02:00:00:00:00:02 : {b:#x} }}; }}\n"
        );
        text += &format!(
            "    map marks{i} {{ type mark : mark; elements = {{ {a:#x} : {b:#x}, {b:#x} : {a:#x} }}; }}\n"
        );
        text +=
            &format!("    map verdicts{i} {{ type mark : verdict; elements = {{ {a:#x} : accept }}; }}\n");
        text += &format!("    set marked{i} {{ type mark; elements = {{ {a:#x}, {b:#x} }}; }}\n");
        let (low, high) = (a.min(b), a.max(b));
        text += &format!(
            "    set runs{i} {{ type mark; flags interval; elements = {{ {low:#x}-{high:#x} }}; }}\n"
        );
        text += &format!(
            "    set pairs{i} {{ type ether_addr . mark; elements = {{ 02:00:00:00:00:01 . {a:#x} }}; }}\n"
        );
        text += &format!("    map cells{i} {{ type mark . ether_addr : verdict; }}\n");
        text += &format!("    set learnt{i} {{ type mark; size 100; flags dynamic; }}\n");
        text += &format!("    set learnt-pairs{i} {{ type ether_addr . mark; size 100; flags dynamic; }}\n");
        text += &format!("    map learnt-marks{i} {{ type ether_addr : mark; size 100; flags dynamic; }}\n");
    }
    text
}

fn rule(random: &mut Random, family: &str) -> String {
    let has_connections = family != "bridge";
    let marks: &[&str] = match family {
        "bridge" => &["meta mark"],
        _ => &["meta mark", "meta mark", "ct mark", "ct mark", "socket mark"],
    };
    let pick = |random: &mut Random| marks[random.below(marks.len() as u32) as usize];
    let first = match random.below(4) {
        0 => comparison(random, pick),
        1 => lookup(random, pick),
        _ => String::new(),
    };
    let second = match random.below(5) {
        0 => comparison(random, pick),
        1 => lookup(random, pick),
        2 if has_connections => copy(random),
        3 if has_connections => setting(random, "ct mark"),
        _ => setting(random, "meta mark"),
    };
    let elsewhere = match random.below(12) {
        0 if has_connections => "fib daddr . mark type local",
        1 => "meta priority 1:2",
        2 => "ether saddr 02:00:00:00:00:01",
        3 => "meta priority set meta mark map { 0x1 : 1:2, 0x2 : 1:3 }",
        4 => "log prefix \"meta mark set 1\"",
        _ => "",
    };
    format!("{first} {elsewhere} {second}")
}

/// Whole, or under a mask.
fn operand(random: &mut Random, mark: &str) -> String {
    match random.below(8) {
        0..=2 => mark.to_owned(),
        3..=6 => format!("{mark} & {:#x}", random.bits()),
        _ => format!("{mark} | {:#x}", random.bits()),
    }
}

fn comparison(random: &mut Random, pick: impl Fn(&mut Random) -> &'static str) -> String {
    let mark = pick(random);
    let (value, mask) = random.masked();
    let (low, high) = (value & 0x7fff_ffff, (value & 0x7fff_ffff) + 1 + random.below(1000));
    match random.below(10) {
        0 => format!("{mark} {value:#x}"),
        1 => format!("{mark} != {value:#x}"),
        2 | 3 => format!("{mark} & {mask:#x} == {value:#x}"),
        4 => format!("{mark} & {mask:#x} != {value:#x}"),
        5 => format!("{mark} | {mask:#x} == {:#x}", random.word() | mask),
        6 => format!("{mark} {low:#x}-{high:#x}"),
        7 => format!("{mark} != {low:#x}-{high:#x}"),
        8 => format!("{mark} & {mask:#x} > {low:#x}"),
        _ => format!("{mark} <= {high:#x}"),
    }
}

fn lookup(random: &mut Random, pick: impl Fn(&mut Random) -> &'static str) -> String {
    let mark = pick(random);
    let i = random.below(8);
    let (a, b) = (random.word() & !1, random.word() | 1);
    match random.below(17) {
        0 => format!("{} {{ {a:#x}, {b:#x} }}", operand(random, mark)),
        1 => format!("{mark} != {{ {a:#x}, {b:#x} }}"),
        2 => format!("{} @marked{i}", operand(random, mark)),
        3 => format!("{mark} @runs{i}"),
        4 => format!("{mark} {{ {:#x}-{:#x}, {:#x} }}", 0x10, 0x20 + (a & 0xff), 0x1000 | b),
        5 => format!("ether saddr . {mark} @pairs{i}"),
        6 => format!("ether saddr . {mark} {{ 02:00:00:00:00:01 . {a:#x} }}"),
        7 => format!("{mark} . ether saddr vmap @cells{i}"),
        8 => format!("{} vmap {{ {a:#x} : accept, {b:#x} : drop }}", operand(random, mark)),
        9 => format!("{mark} vmap @verdicts{i}"),
        10 => format!("add @learnt{i} {{ {mark} }}"),
        11 => format!("update @learnt-pairs{i} {{ ether saddr . {mark} }}"),
        12 | 13 => format!("add @learnt-marks{i} {{ ether saddr : {} }}", operand(random, mark)),
        14 => format!("delete @learnt{i} {{ {mark} }}"),
        15 => format!("add @learnt{i} {{ {mark} limit rate 1/second }}"),
        _ => format!("tcp dport set {} map {{ {a:#x} : 80, {b:#x} : 443 }}", operand(random, mark)),
    }
}

fn setting(random: &mut Random, mark: &str) -> String {
    let (value, mask) = random.masked();
    let i = random.below(8);
    let of = match random.below(14) {
        0 => format!("{value:#x}"),
        1..=3 => format!("{mark} & {:#x} | {value:#x}", !mask),
        4 => format!("{mark} & {mask:#x}"),
        5 => format!("{mark} | {mask:#x}"),
        6 => format!("{mark} ^ {mask:#x}"),
        7 => format!("{mark} & {:#x} ^ {value:#x}", random.word()),
        8 => format!("ether saddr map @addresses{i}"),
        9 => format!(
            "ether saddr map {{ 02:00:00:00:00:01 : {value:#x}, 02:00:00:00:00:02 : {:#x} }}",
            random.word()
        ),
        10 => format!("{mark} map @marks{i}"),
        11 => format!("numgen inc mod {} offset {}", 1 + random.below(100), random.below(0x10000)),
        12 => format!("{mark} << {}", 1 + random.below(31)),
        _ => format!("{mark} >> {}", 1 + random.below(31)),
    };
    format!("{mark} set {of}")
}

fn copy(random: &mut Random) -> String {
    let (to, from) = match random.below(5) {
        0 | 1 => ("meta mark", "ct mark"),
        2 | 3 => ("ct mark", "meta mark"),
        _ => ("meta mark", "socket mark"),
    };
    let (value, mask) = random.masked();
    match random.below(5) {
        0 => format!("{to} set {from}"),
        1 => format!("{to} set {from} & {mask:#x}"),
        2 => format!("{to} set {from} | {mask:#x}"),
        3 => format!("{to} set {from} & {:#x} | {value:#x}", !mask),
        _ => format!("{to} set {from} map @marks{}", random.below(8)),
    }
}

/// What `nft -j list ruleset` lists, executed.
#[track_caller]
pub fn expected(listing: &Value, rules: usize) -> Counted<Bits> {
    let mut expected = Counted::new();
    let objects = listing["nftables"].as_array().expect("a list of objects");
    let listed: Vec<&Value> = objects.iter().filter_map(|object| object.get("rule")).collect();
    assert_eq!(listed.len(), rules);
    for rule in listed {
        let mut touched = Touched::default();
        for statement in rule["expr"].as_array().expect("a rule has statements") {
            execute(statement, &mut touched);
        }
        let text = |key: &str| rule[key].as_str().unwrap_or_default();
        touched.count(&format!("{} {} {}", text("family"), text("table"), text("chain")), &mut expected);
    }
    expected
}

/// What can be computed from marks.
enum Term {
    Mark(usize),
    Constant(u32),
    Operation(String, Box<[Term; 2]>),
}

impl Term {
    fn read(json: &Value) -> Option<Term> {
        if let Some(number) = json.as_u64() {
            return Some(Term::Constant(number as u32));
        }
        if let Some(mark) = mark_of(json) {
            return Some(Term::Mark(mark));
        }
        let (operator, operands) = json.as_object()?.iter().next()?;
        let [one, other] = operands.as_array()?.as_slice() else { return None };
        let known = ["&", "|", "^", "<<", ">>"].contains(&operator.as_str());
        known.then_some(())?;
        Some(Term::Operation(operator.clone(), Box::new([Term::read(one)?, Term::read(other)?])))
    }

    fn value(&self, marks: Marks) -> u32 {
        match self {
            Term::Mark(mark) => marks.0[*mark],
            Term::Constant(value) => *value,
            Term::Operation(operator, operands) => {
                let [one, other] = operands.each_ref().map(|term| term.value(marks));
                match operator.as_str() {
                    "&" => one & other,
                    "|" => one | other,
                    "^" => one ^ other,
                    "<<" => one << other,
                    _ => one >> other,
                }
            }
        }
    }
}

fn mark_of(json: &Value) -> Option<usize> {
    let kinds = [("meta", PACKET), ("ct", CONNECTION), ("socket", SOCKET)];
    kinds.into_iter().find(|(kind, _)| json[kind]["key"] == "mark").map(|(_, mark)| mark)
}

fn execute(statement: &Value, touched: &mut Touched) {
    let compared = &statement["match"];
    if let (Some(term), Some(length)) =
        (Term::read(&compared["left"]), compared["right"]["prefix"]["len"].as_u64())
    {
        // A mask of leading bits is listed as a prefix.
        return touched.decided(|marks| term.value(marks) >> (32 - length));
    }
    if let Some(text) = statement.as_str() {
        return copied_into_map(text, touched);
    }
    let Some(mangle) = statement.get("mangle") else { return go_by(statement, touched) };
    let Some(mark) = mark_of(&mangle["key"]) else { return go_by(&mangle["value"], touched) };
    match Term::read(&mangle["value"]) {
        Some(term) => touched.stored(mark, |marks| term.value(marks)),
        None => {
            go_by(&mangle["value"], touched);
            touched.stored(mark, |marks| marks.0[OTHER]);
        }
    }
}

/// `add @map { ether saddr : ct mark & 0xff }`, which is listed as text even among JSON.
#[track_caller]
fn copied_into_map(text: &str, touched: &mut Touched) {
    let (_, data) = text.split_once(" : ").unwrap_or_else(|| panic!("not understood: {text}"));
    let words: Vec<&str> = data.trim_end_matches(" }").split(' ').collect();
    let mark = match words[0] {
        "meta" => PACKET,
        "ct" => CONNECTION,
        _ => SOCKET,
    };
    match words[1..] {
        ["mark"] => touched.decided(|marks| marks.0[mark]),
        ["mark", "&", mask] => touched.decided(|marks| marks.0[mark] & hexadecimal(mask)),
        ["mark", "|", bits] => touched.decided(|marks| marks.0[mark] | hexadecimal(bits)),
        _ => panic!("not understood: {text}"),
    }
}

/// Everything in here decides something, or is copied somewhere.
fn go_by(json: &Value, touched: &mut Touched) {
    if json["fib"]["flags"].as_array().is_some_and(|flags| flags.iter().any(|flag| flag == "mark")) {
        touched.packet_read();
    }
    if let Some(term) = Term::read(json) {
        return touched.decided(|marks| term.value(marks));
    }
    match json {
        Value::Object(parts) => parts.values().for_each(|part| go_by(part, touched)),
        Value::Array(parts) => parts.iter().for_each(|part| go_by(part, touched)),
        _ => {}
    }
}
