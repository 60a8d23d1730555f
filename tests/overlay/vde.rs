//! Programs of Debian's that speak VDE, with Debian's plug-ins and ours beside them.

use std::path::PathBuf;

use fief_testkit::{Child, Command, Lab, Ns, missing};

use crate::lan::Lan;
use crate::peers::peer;
use crate::room::SOON;

/// What they need, in a directory that every user can read.
pub struct Vde {
    dir: PathBuf,
}

impl Vde {
    /// `None`, with a word, where scripts/peers.sh has not been.
    #[track_caller]
    pub fn unpack(lab: &Lab) -> Option<Vde> {
        let (bin, ours) =
            (peer("vde_plug")?, fief_testkit::bin("fiefd").with_file_name("libvdeplug_vxvdex.so"));
        if !ours.is_file() {
            missing(&format!("{} is not there; `cargo build -p fief-vdeplug` makes it", ours.display()));
            return None;
        }
        let root = bin.parent().and_then(|bin| bin.parent()).expect("it lies in peers/bin").join("root");
        let dir = lab.dir().join("vde");
        std::fs::create_dir_all(&dir).expect("the lab's directory is writable");
        let line = format!(
            "set -e; cd '{}'; cp -L usr/bin/vde_plug usr/bin/vdens usr/lib/*/libvdeplug*.so.* usr/lib/*/libexecs.so.0 \
             usr/lib/*/vdeplug/*.so '{}' '{}'",
            root.display(),
            ours.display(),
            dir.display()
        );
        lab.ns("unpack").sh(&line).ok();
        // Everybody may make interfaces of this kind in a namespace of his own; some machines' /dev says otherwise.
        let tun = lab.dir().join("tun").display().to_string();
        let line = format!(
            "set -e; mkdir {tun}; mount -t tmpfs tun {tun}; mknod -m 666 {tun}/tun c 10 200; mount --bind {tun}/tun \
             /dev/net/tun"
        );
        lab.ns("unpack").sh(&line).ok();
        Some(Vde { dir })
    }

    /// One of the programs.
    pub fn program(&self, ns: &Ns, argv: &[&str]) -> Command {
        let program = self.dir.join(argv[0]).display().to_string();
        let argv: Vec<&str> = [program.as_str()].into_iter().chain(argv[1..].iter().copied()).collect();
        ns.command(&argv).env("LD_LIBRARY_PATH", &self.dir).env("VDEPLUGIN_PATH", &self.dir)
    }

    /// A member of a group on a host, in a namespace of his own with an interface `eth0` that has this address.
    #[track_caller]
    pub fn member(
        &self,
        lan: &Lan,
        host: usize,
        group: u32,
        url: &str,
        (name, address): (&str, &str),
    ) -> Member {
        let ns = lan.lab.ns(name);
        let command =
            self.program(&ns, &["vde_plug", url, "tap://eth0"]).env("FIEF_SOCKETS", lan.sockets(host));
        // The privilege is for the interface; whose segment it is, the group says.
        let plug = command.user(0, group).spawn();
        Member::on(ns, plug, "eth0", address)
    }

    /// QEMU instead, which hands on frames between a segment and `eth0` as it does between one and a guest. `None`, with a word,
    /// where scripts/test-vm.sh has not been.
    #[track_caller]
    pub fn qemu(&self, lan: &Lan, host: usize, group: u32, (name, address): (&str, &str)) -> Option<Member> {
        let peers = peer("vde_plug")?;
        let run = peers.ancestors().nth(3).expect("it lies in target/peers/bin").join("vm/run");
        if !run.is_file() {
            fief_testkit::skip("QEMU is not below target/vm; scripts/vm/fetch.sh puts it there");
            return None;
        }
        let ns = lan.lab.ns(name);
        let run = run.display().to_string();
        let argv = [
            &run,
            "qemu-system-x86_64",
            "-M",
            "none",
            "-display",
            "none",
            "-netdev",
            "vde,id=segment,sock=vxvdex://",
            "-netdev",
            "tap,id=tap,ifname=eth0,script=no,downscript=no",
            "-netdev",
            "hubport,id=a,hubid=0,netdev=segment",
            "-netdev",
            "hubport,id=b,hubid=0,netdev=tap",
        ];
        let command =
            ns.command(&argv).env("VDEPLUGIN_PATH", &self.dir).env("FIEF_SOCKETS", lan.sockets(host));
        let plug = command.user(0, group).spawn();
        Some(Member::on(ns, plug, "eth0", address))
    }

    /// Root of a host, by Debian's own plug-in; the interface is `tap0` of the host.
    #[track_caller]
    pub fn stock(&self, ns: &Ns, url: &str, address: &str) -> Member {
        let plug = self.program(ns, &["vde_plug", url, "tap://tap0"]).spawn();
        Member::on(ns.clone(), plug, "tap0", address)
    }
}

/// A namespace on a segment. The plug goes when this does.
pub struct Member {
    pub plug: Child,
    pub ns: Ns,
}

impl Member {
    #[track_caller]
    fn on(ns: Ns, mut plug: Child, device: &str, address: &str) -> Member {
        fief_testkit::eventually(SOON, || {
            if let Some(status) = plug.ended() {
                panic!("vde_plug ended ({status}): {}", plug.output());
            }
            let there = ns.sh(&format!("ip link show {device}")).success();
            if there { Ok(()) } else { Err(format!("no {device}: {}", plug.output())) }
        });
        ns.ip(&format!("link set {device} mtu 9000 up\naddr add {address} dev {device} nodad\n"));
        Member { plug, ns }
    }

    /// Does an address answer a ping with this text in it?
    pub fn says(&self, to: &str, text: &str) -> bool {
        let pattern: String = text.bytes().map(|byte| format!("{byte:02x}")).collect();
        self.ns.run(&["ping", "-c", "1", "-W", "2", "-p", &pattern, to]).success()
    }

    /// Does an address answer a ping of this size?
    pub fn pings(&self, to: &str, size: usize) -> bool {
        self.ns.run(&["ping", "-c", "1", "-W", "2", "-s", &size.to_string(), to]).success()
    }
}
