//! app3 as a real virtual machine: QEMU on the TAP device that fief made, Debian's kernel, busybox's DHCP client.

use std::path::PathBuf;
use std::time::Duration;

use fief_testkit::{Child, eventually};

use super::{APP3, Evenet};
use crate::node::endpoint;
use crate::room::{MOVE, SOON};
use crate::town::Town;

/// An emulated processor needs some seconds to boot, and many times that on a machine that does other things.
const BOOTED: Duration = Duration::from_secs(100);
/// The port map, as the guest is told of it.
const PLACE: &str = "192.168.0.2:8080";

/// What scripts/vm fetches and makes; `None`, with a word, where it has not.
fn machine() -> Option<[PathBuf; 3]> {
    let bin = fief_testkit::bin("fiefd");
    let vm = bin.ancestors().map(|dir| dir.join("vm")).find(|vm| vm.join("guest.cpio").is_file());
    let Some(vm) = vm else {
        fief_testkit::skip(
            "QEMU and a guest are not below target/vm; `make test-vm` puts them there and runs this",
        );
        return None;
    };
    let kernel = std::fs::read_dir(vm.join("linux-6.12/boot")).ok()?.flatten().map(|entry| entry.path());
    let kernel = kernel.into_iter().find(|path| path.to_string_lossy().contains("vmlinuz"))?;
    Some([vm.join("run"), kernel, vm.join("guest.cpio")])
}

/// Boots it where the tenant's TAP device is, as the documentation says. It is killed when this is dropped.
#[track_caller]
fn boot(scene: &Evenet, [run, kernel, initramfs]: &[PathBuf; 3]) -> Child {
    let share = run.with_file_name("root").join("usr/share");
    let [qemu, seabios] = ["qemu", "seabios"].map(|name| share.join(name).display().to_string());
    let [run, kernel, initramfs] = [run, kernel, initramfs].map(|path| path.display().to_string());
    let append =
        format!("console=ttyS0 quiet panic=-1 mitigations=off guest.names=site.example guest.places={PLACE}");
    let card = format!("virtio-net-pci,netdev=card,mac={APP3},romfile=");
    let words = [
        &["exec", "ni3", "--", &run, "qemu-system-x86_64", "-L", &qemu, "-L", &seabios][..],
        // As scripts/vm/boot.sh has it.
        &["-accel", "tcg", "-cpu", "max,cx16=off", "-m", "256", "-nographic", "-no-reboot", "-nodefaults"],
        &["-serial", "stdio", "-kernel", &kernel, "-initrd", &initramfs, "-append", &append],
        &["-netdev", "tap,id=card,ifname=vm3,script=no,downscript=no", "-device", &card],
    ];
    scene.node.daemon.cli_command(&words.concat()).spawn()
}

#[test]
fn evenet_e09_and_e10_with_a_guest_of_qemu() {
    let Some(machine) = machine() else { return };
    let Some(scene) = Evenet::open("qemu", MOVE) else { return };
    let card = format!("{{ network: net, interface: eth0, mac: {APP3:?} }}");
    scene.node.apply(&[endpoint("ni3", "app3", &[card], "attach: { tap: vm3 }")]);
    scene.node.wait_phase("endpoint", "ni3", "app3", "Ready");
    let mut guest = boot(&scene, &machine);
    guest.wait_for_output("guest done", BOOTED);
    let said = guest.output();
    let answer = |to: &str| {
        let line = said.lines().find_map(|line| line.split_once(&format!("guest {to}")));
        let (_, answer) = line.unwrap_or_else(|| panic!("the guest did not say {to:?}:\n{said}"));
        answer.trim().to_owned()
    };
    let address = answer("address ");
    assert!(address.starts_with("10.10.1.") && address.ends_with("router 10.10.1.1"), "{address}");
    assert_eq!(answer("name site.example:"), Town::SITE.to_string());
    // E9: behind its own uplink's address.
    assert_eq!(answer("page site.example:"), format!("site sees {}", Town::host_address(1)));
    // E10: its source was an address of NI2's subnet, and is translated.
    let mapped = answer(&format!("page {PLACE}:"));
    assert!(
        mapped.starts_with("app2 sees ") && !mapped.contains(" 192.168.1.") && !mapped.contains(" 10.10.1."),
        "{mapped}"
    );
    // Its lease is fief's, and its card's.
    eventually(SOON, || {
        let view = scene.node.view("endpoint", "ni3", "app3")["status"]["interfaces"][0]["address"].clone();
        let leased = view.as_str().unwrap_or_default().to_owned();
        if address.starts_with(&format!("{leased}/")) {
            Ok(())
        } else {
            Err(format!("{view}, not {address}"))
        }
    });
    guest.kill();
}
