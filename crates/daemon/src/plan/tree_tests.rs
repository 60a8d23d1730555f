//! The tree walked as the kernel walks it (fib_rules_lookup).

use super::*;

fn tree(mask: u32) -> Tree {
    Tree {
        links: Links("248.0.0.0/12".parse().unwrap()),
        field: Some((MarkLayout::new(mask).unwrap(), 0)),
        also: None,
        entry: 10,
        table_base: 256_000_000,
        move_local: false,
        vrf_rule_is_ours: false,
        aliases: Ranges { v4: "240.0.0.0/5".parse().unwrap(), v6: "fd00::/64".parse().unwrap() },
        detour: Detour(1),
        short_way: true,
    }
}

/// The rules of 16 bits.
fn of_marks(set: &BTreeSet<Slot>) -> Vec<Rule> {
    tree(0xffff).rules(Family::V4, set, &BTreeMap::new())
}

fn slots(numbers: impl IntoIterator<Item = u16>) -> BTreeSet<Slot> {
    numbers.into_iter().filter_map(Slot::new).collect()
}

/// The rules in the kernel's order.
fn in_order(mut rules: Vec<Rule>) -> Vec<Rule> {
    rules.sort_by_key(|r| r.preference);
    rules
}

/// The table a mark ends in, `None` for unreachable, with the number of rules looked at. Panics if it falls out.
/// `list` is in the kernel's order.
fn walk(list: &[Rule], mark: u32) -> (Option<u32>, usize) {
    let (mut at, mut looked) = (0, 0);
    loop {
        let rule = list.get(at).unwrap_or_else(|| panic!("mark {mark:#x} fell out of the list"));
        looked += 1;
        let hit = (mark & rule.mask == rule.mark) != rule.invert;
        at += 1;
        match rule.action {
            _ if !hit => {}
            RuleAction::Unreachable => return (None, looked),
            RuleAction::Vrf => {}
            RuleAction::Lookup(table) => return (Some(table), looked),
            // An unresolved goto is passed over.
            RuleAction::Goto(target) => {
                let to = list.partition_point(|r| r.preference < target);
                if list.get(to).is_some_and(|r| r.preference == target) {
                    assert!(to >= at, "goto {target} leads backwards");
                    at = to;
                }
            }
        }
    }
}

#[test]
fn every_slot_finds_its_table_and_every_other_number_nothing() {
    for mask in [0xffff, 0xffff_0000, 0x0fff_0000, 0xf0] {
        let tree = tree(mask);
        let highest = tree.field.unwrap().0.highest();
        for set in [
            slots([1]),
            slots([1, 2, 15, 16, 17]),
            slots((1..=highest).step_by(7)),
            slots([highest & 0xff0c]),
        ] {
            let set: BTreeSet<Slot> = set.into_iter().filter(|s| s.number() <= highest).collect();
            let rules = in_order(tree.rules_by_mark(tree.field.unwrap(), &set));
            for number in (1..=highest).step_by(3).chain(set.iter().map(|s| s.number())) {
                let wanted = Slot::new(number)
                    .filter(|s| set.contains(s))
                    .map(|s| 256_000_000 + u32::from(s.number()));
                let mark = tree.field.unwrap().0.mark(number).unwrap();
                assert_eq!(walk(&rules, mark).0, wanted, "slot {number} under {mask:#x}");
                assert_eq!(walk(&rules, mark | !mask).0, wanted, "slot {number} with foreign bits");
            }
        }
    }
}

#[test]
fn sixteen_thousand_tenants_cost_few_rules() {
    let set = slots(1..=16_384);
    let rules = in_order(of_marks(&set));
    assert!(rules.len() as f64 / (set.len() as f64) < 1.14, "{} rules", rules.len());
    let worst = set.iter().map(|s| walk(&rules, u32::from(s.number())).1).max().unwrap();
    assert!(worst <= 1 + 11 + 16, "{worst} rules looked at");
    assert_eq!(walk(&in_order(of_marks(&slots([1]))), 1).1, 2, "one tenant: the entry and its leaf");
}

#[test]
fn a_packet_without_a_slot_is_left_to_the_host() {
    let rules = of_marks(&slots([1, 700]));
    let entry = rules.iter().find(|r| r.preference == 10).unwrap();
    assert!(entry.invert && entry.mark == 0, "the entry must let mark 0 pass: {entry:?}");
    let before = rules.iter().filter(|r| r.preference <= 32_767 && r.preference != 10);
    let before: Vec<_> = before.map(|r| (r.preference, r.action)).collect();
    assert_eq!(before, [(12, RuleAction::Lookup(256_000_000))], "beside it only the aliases are looked up");
}

#[test]
fn one_tenant_more_or_less_touches_a_bucket_and_loses_nobody_on_the_way() {
    let tree = tree(0xffff);
    let before = slots((1..600).step_by(5));
    let list = |set: &BTreeSet<Slot>| tree.rules(Family::V4, set, &BTreeMap::new());
    for number in [2u16, 3, 601, 4096, 40_000] {
        let mut after = before.clone();
        after.insert(Slot::new(number).unwrap());
        for (from, to) in [(&before, &after), (&after, &before)] {
            let (add, remove) = changes(Family::V4, &list(from), &list(to));
            assert!(add.len() + remove.len() <= 6, "slot {number}: {add:?} {remove:?}");
            let mut rules = list(from);
            rules.sort_by_key(|r| r.preference);
            for change in add.iter().chain(&remove) {
                match change {
                    Change::AddRule(_, r) => {
                        let at = rules.partition_point(|o| o.preference <= r.preference);
                        rules.insert(at, *r);
                    }
                    Change::DeleteRule(_, r) => {
                        let same = |o: &Rule| {
                            (o.preference, o.mark, o.mask) == (r.preference, r.mark, r.mask)
                                && std::mem::discriminant(&o.action) == std::mem::discriminant(&r.action)
                        };
                        let at = rules.iter().position(same).unwrap();
                        rules.remove(at);
                    }
                    other => panic!("{other:?}"),
                }
                for slot in from.intersection(to) {
                    let table = 256_000_000 + u32::from(slot.number());
                    assert_eq!(walk(&rules, slot.number().into()).0, Some(table), "{slot} after {change:?}");
                }
            }
            let mut wanted = list(to);
            wanted.sort();
            rules.sort();
            assert_eq!(rules, wanted);
        }
    }
}

/// While the field moves there are two trees; a mark that says the slot in either place, or in both, finds its table.
#[test]
fn two_trees_lead_to_the_same_tables() {
    let also = MarkLayout::new(0xffff_0000).unwrap();
    let both = Tree { also: Some((also, 1)), ..tree(0xffff) };
    let set = slots((1..4000).step_by(7).chain([0xff0c]));
    let rules = in_order(both.rules(Family::V4, &set, &BTreeMap::new()));
    for number in set.iter().map(|s| s.number()).chain([2, 3, 0x8001]) {
        let wanted =
            Slot::new(number).filter(|s| set.contains(s)).map(|s| 256_000_000 + u32::from(s.number()));
        let (old, new) = (u32::from(number), u32::from(number) << 16);
        for mark in [old, new, old | new] {
            assert_eq!(walk(&rules, mark).0, wanted, "mark {mark:#x}");
        }
    }
    let entries: Vec<_> = rules.iter().filter(|r| r.preference == 10).collect();
    assert!(entries.len() == 2 && entries.iter().all(|r| r.invert), "{entries:?}");
}

/// The kernel's walk where packets have sources and no marks.
fn walk_by_source(list: &[Rule], source: &str) -> Option<u32> {
    let source: std::net::Ipv4Addr = source.parse().unwrap();
    let mut at = 0;
    loop {
        let rule = list.get(at)?;
        at += 1;
        if rule.source.is_some_and(|net| !net.contains(&source)) {
            continue;
        }
        match rule.action {
            RuleAction::Unreachable => return Some(0),
            RuleAction::Lookup(table) => return Some(table),
            RuleAction::Goto(target) => at = list.partition_point(|r| r.preference < target),
            RuleAction::Vrf => {}
        }
    }
}

#[test]
fn without_marks_a_source_finds_its_uplink_and_nobody_elses() {
    let tree = Tree { field: None, ..tree(0xffff) };
    let (set, uplinks) = (slots([5, 9]), slots([5, 9]).into_iter().zip([0, 3]).collect());
    let rules = in_order(tree.rules(Family::V4, &set, &uplinks));
    assert!(rules.iter().all(|rule| rule.mask == 0 && rule.mark == 0));
    for (source, table) in [
        ("248.1.0.7", Some(256_000_005)),
        ("248.1.255.252", Some(256_000_005)),
        ("248.4.0.7", Some(256_000_009)),
        ("248.0.0.1", Some(256_000_000)),
        // An uplink that there is not, and no link at all.
        ("248.2.0.7", Some(0)),
        ("192.0.2.1", Some(256_000_000)),
    ] {
        assert_eq!(walk_by_source(&rules, source), table, "{source}");
    }
    assert!(tree.rules(Family::V6, &set, &uplinks).is_empty(), "links have no IPv6");
    assert!(tree.rules(Family::V4, &BTreeSet::new(), &BTreeMap::new()).is_empty());

    // What is led there comes last.
    let (add, _) = changes(Family::V4, &[], &rules);
    assert_eq!(add.last(), Some(&Change::AddRule(Family::V4, tree.entry_by_source())));
}
