//! `fief marks`: who uses which bits, without a daemon.

mod common;

use std::fs;

use common::{Ran, fief};
use tempfile::tempdir;

#[test]
fn a_mark_is_decoded_by_everybody_whose_it_may_be() {
    let root = tempdir().unwrap();
    let Ran { status, out, .. } = fief(root.path(), ["marks", "decode", "0x12340F56"]);
    assert_eq!(status, 0);
    let cilium = out.lines().find(|line| line.starts_with("Cilium")).expect("a line of Cilium's");
    assert!(cilium.contains("with an identity") && cilium.contains("identity 0x561234"), "{cilium}");
    let Ran { out, .. } = fief(root.path(), ["marks", "decode", "0x12340F56", "-o", "json"]);
    assert!(out.contains("\"name\": \"cilium\""), "{out}");
    let Ran { status, err, .. } = fief(root.path(), ["marks", "decode", "0x1234567890"]);
    assert!(status == 2 && err.contains("is not a mark; write for example"), "{err}");
}

#[test]
fn bits_have_users_and_a_drawing() {
    let root = tempdir().unwrap();
    let Ran { out, .. } = fief(root.path(), ["marks", "who", "0x2000"]);
    assert!(out.lines().any(|line| line.starts_with("CNI portmap")), "{out}");
    assert!(!out.contains("kube-proxy"), "{out}");
    let Ran { out, .. } =
        fief(root.path(), ["marks", "explain", "kubernetes", "cni-portmap", "calico", "istio"]);
    assert!(
        out.contains("free for all  .... .... .... .... ...# .... .... ....\n"),
        "only bit 12 is free:\n{out}"
    );
}

#[test]
fn a_simulation_says_what_collides_and_where_there_is_room() {
    let root = tempdir().unwrap();
    let with =
        |list: &str, mask: &str| fief(root.path(), ["marks", "simulate", "--with", list, "--mask", mask]);
    let Ran { status, out, .. } = with("calico,kubernetes,cni-portmap", "0xffff");
    assert_eq!(status, 1);
    assert!(out.contains("cni-portmap  fief  packet  0x2000"), "{out}");
    assert!(out.contains("fits at 0x1fff, for 8095 tenants"), "{out}");
    let Ran { status, out, .. } = with("calico,kubernetes,cni-portmap", "0x1fff");
    assert!(status == 0 && out.starts_with("nothing collides"), "{out}");
    let Ran { status, out, .. } = with("cilium", "0xffff");
    assert!(status == 1 && out.contains("fits nowhere beside them"), "{out}");
    let Ran { status, err, .. } = with("nobody", "0xffff");
    assert!(status == 1 && err.contains("nobody is known as `nobody`"), "{err}");
}

#[test]
fn a_host_adds_files_of_its_own() {
    let root = tempdir().unwrap();
    let directory = root.path().join("etc/fief/marks.d");
    fs::create_dir_all(&directory).unwrap();
    let own = "software:\n  - name: own\n    title: Our own\n    uses: [{ mark: packet, mask: \"0x100000\", purpose: x }]\n";
    fs::write(directory.join("own.yaml"), own).unwrap();
    let Ran { out, .. } = fief(root.path(), ["marks", "who", "0x100000"]);
    assert!(out.lines().any(|line| line.starts_with("Our own")), "{out}");
    fs::write(directory.join("wrong.yaml"), own.replace("0x100000", "many")).unwrap();
    let Ran { status, err, .. } = fief(root.path(), ["marks", "list"]);
    assert!(status == 1 && err.contains("wrong.yaml") && err.contains("`many` is not a mark"), "{err}");
}
