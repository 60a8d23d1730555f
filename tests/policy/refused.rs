//! Refused in one clear word, and nothing changed.

use std::fmt::Write;
use std::time::{Duration, Instant};

use crate::shop::{Shop, WEB, policy, tenant};

/// Refuses `documents`, says each of `says`, and changes nothing.
#[track_caller]
fn refuse(shop: &Shop, what: &str, documents: &str, says: &[&str]) {
    let before = (shop.dump(), shop.identities());
    for verb in [&["apply", "-f", "-"][..], &["apply", "--dry-run", "-f", "-"], &["diff", "-f", "-"]] {
        let output =
            shop.daemon.cli_command(verb).input(documents).timeout(Duration::from_secs(300)).run().fails();
        for part in says {
            let shown: String = output.stderr.chars().take(2000).collect();
            assert!(output.stderr.contains(part), "{what}: {verb:?} does not say {part:?}: {shown}");
        }
        assert!(output.stdout.is_empty(), "{what}");
    }
    assert_eq!((shop.dump(), shop.identities()), before, "{what}");
    assert_eq!(shop.test("front", "back", "http").code(), 0, "{what}");
    assert_eq!(shop.test("other", "back", "http").code(), 1, "{what}");
}

#[test]
fn policies_that_say_what_nobody_can_do_are_refused() {
    let Some(shop) = Shop::furnished("policy-refused") else { return };
    let hidden = "{ podSelector: {}, ingress: [{}, { from: [{ podSelector: { matchLabels: { pod-template-hash: a } } }] }] }";
    let cases: [(&str, String, &[&str]); 6] = [
        (
            "an unknown field",
            WEB.replace("  podSelector", "  podSelectors"),
            &["podSelectors", "-:5:3", "did you mean"],
        ),
        ("an unknown tenant", policy("nobody", "p", "{}"), &["there is no tenant `nobody`", "-:3:"]),
        ("no tenant", WEB.replace(", labels: { fief/tenant: blue }", ""), &["no tenant's", "--tenant"]),
        (
            "a label that makes no identity",
            policy("blue", "p", hidden),
            &["pod-template-hash", "makes no identity", "-:4:"],
        ),
        ("described twice", WEB.to_owned() + "---\n" + WEB, &["blue/shop/web", "described twice"]),
        (
            "another version",
            WEB.replace("k8s.io/v1", "k8s.io/v1beta1"),
            &["unknown apiVersion", "networking.k8s.io/v1"],
        ),
    ];
    for (what, documents, says) in &cases {
        refuse(&shop, what, documents, says);
        // Whatever is right beside it is refused with it.
        let unplaced: Vec<&str> = says.iter().copied().filter(|part| !part.starts_with("-:")).collect();
        refuse(&shop, what, &(policy("blue", "right", "{ podSelector: {} }") + documents), &unplaced);
    }
    let bomb: String = (1..30)
        .map(|level| format!("a{level}: &a{level} [{}]\n", format!("*a{}, ", level - 1).repeat(9)))
        .collect();
    refuse(&shop, "a bomb", &format!("{WEB}---\na0: &a0 [x]\n{bomb}"), &["anchors and aliases copy"]);
}

/// The largest that a process has been, in MiB.
fn peak(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() / 1024
}

#[test]
fn a_hundred_thousand_documents_are_one_word() {
    let Some(shop) = Shop::furnished("policy-crowd") else { return };
    let mut text = String::new();
    for n in 0..100_000 {
        text += &policy("blue", &format!("p{n}"), "{ podSelector: {} }");
    }
    let begin = Instant::now();
    let said = shop.apply(&[], &text).fails().stderr;
    let took = begin.elapsed();
    println!("{} bytes refused in {took:?}; fiefd has had {} MiB", text.len(), peak(shop.daemon.pid()));
    assert_eq!(said.lines().filter(|line| line.contains("error")).count(), 1, "{said}");
    assert!(said.contains("65536 at most") || said.contains("values in one input"), "{said}");
    assert!(took < Duration::from_secs(120), "{took:?}");
    assert!(peak(shop.daemon.pid()) < 3072, "{} MiB", peak(shop.daemon.pid()));
    assert_eq!(shop.policies(), ["blue/web"]);
    // The positive control: a hundredth of it is taken.
    let some: String = (0..1000).map(|n| policy("blue", &format!("p{n}"), "{ podSelector: {} }")).collect();
    shop.apply(&[], &some).ok();
    assert_eq!(shop.policies().len(), 1001);
}

#[test]
fn what_the_tables_cannot_hold_is_refused_before_it_is_kept() {
    let Some(shop) = Shop::furnished("policy-full") else { return };
    let block = |n: usize| format!("10.{}.{}.{}/32", n >> 15, n >> 7 & 0xff, (n & 0x7f) << 1);
    let wide = |count: usize| {
        let mut text = String::from("{ podSelector: { matchLabels: { app: back } }, ingress: [{ from: [\n");
        for n in 0..count {
            writeln!(text, "  {{ ipBlock: {{ cidr: {} }} }},", block(n)).unwrap();
        }
        policy("blue", "wide", &(text + "] }] }"))
    };
    let begin = Instant::now();
    let says =
        ["table `blocks` would need", "has room for 131072", "tenant blue, NetworkPolicy shop/wide at -:4"];
    refuse(&shop, "too many blocks", &wide(140_000), &says);
    println!("three times in {:?}", begin.elapsed());
    // The positive controls: less of it is taken, and the daemon goes on.
    shop.apply(&[], &wide(1_000)).ok();
    assert_eq!(shop.test(&block(7).replace("/32", ""), "back", "80").code(), 0);
    assert_eq!(shop.test("192.0.2.1", "back", "80").code(), 1);
}

#[test]
fn more_label_sets_than_there_are_numbers_are_refused() {
    let Some(shop) = Shop::furnished("policy-many") else { return };
    let red = |count: usize| -> String {
        let endpoints = (0..count).map(|n| {
            format!(
                "apiVersion: fief/v1alpha1\nkind: Endpoint\nmetadata: {{ name: e{n}, tenant: red, labels: {{ n: \"{n}\" }} \
                 }}\nspec: {{ networks: [{{ network: net }}], attach: {{ netns: red }} }}\n---\n"
            )
        });
        tenant("red") + &endpoints.collect::<String>()
    };
    let begin = Instant::now();
    let said = shop.apply(&[], &red(65_281)).fails().stderr;
    println!("refused in {:?}; fiefd has had {} MiB", begin.elapsed(), peak(shop.daemon.pid()));
    assert!(said.contains("tenant red: all 65280 identities of the tenant are given"), "{said}");
    assert_eq!(shop.identities().len(), 3);
    // The positive control. Numbers are each tenant's own: red's begin where blue's do.
    shop.apply(&[], &red(300)).ok();
    assert_eq!(shop.identities().len(), 303);
    assert_eq!(shop.identities().into_iter().filter(|(_, number)| *number == 256).count(), 2);
    assert_eq!(shop.test("front", "back", "http").code(), 0);
}
