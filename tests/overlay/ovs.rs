//! Open vSwitch, whose datapath in user space speaks VXLAN without the kernel: as a tunnel to a host with a fast path, and with
//! rules that make it a peer of vxvde.
//!
//! ```text
//!   eth0 ── bridge phy (10.0.0.9) ··· tunnel ··· bridge seg ── seg (an interface, 10.9.0.9)
//! ```

use fief_testkit::{Child, Ns};

use crate::guest::Guest;
use crate::lan::{GROUP, Lan};
use crate::peers::peer;
use crate::room::SOON;
use crate::vde::Vde;

/// A switch in the namespace that is no host of ours.
struct Ovs {
    ns: Ns,
    run: String,
    /// Ends before the database.
    _daemon: Child,
    _database: Child,
}

impl Ovs {
    /// With the card in it. `None`, with a word, where scripts/peers.sh has not been.
    #[track_caller]
    fn start(lan: &Lan) -> Option<Ovs> {
        let ns = lan.out.clone();
        let [tool, server, daemon] = ["ovsdb-tool", "ovsdb-server", "ovs-vswitchd"]
            .map(|name| peer(name).map(|at| at.display().to_string()));
        let (tool, server, daemon) = (tool?, server?, daemon?);
        let schema = peer("ovsdb-tool")?.with_file_name("../root/usr/share/openvswitch/vswitch.ovsschema");
        let run = lan.lab.dir().join("ovs").display().to_string();
        std::fs::create_dir(&run).expect("the lab's directory is writable");
        let db = format!("{run}/conf.db");
        ns.run(&[tool.as_str(), "create", &db, &schema.display().to_string()]).ok();
        let spawn = |argv: &[&str]| {
            let command =
                ns.command(argv).env("OVS_RUNDIR", &run).env("OVS_DBDIR", &run).env("OVS_LOGDIR", &run);
            command.spawn()
        };
        let database = spawn(&[&server, &db, &format!("--remote=punix:{run}/db.sock")]);
        fief_testkit::eventually(SOON, || {
            let there = std::path::Path::new(&run).join("db.sock").exists();
            if there { Ok(()) } else { Err(database.output()) }
        });
        // --disable-system: without the kernel's datapath.
        let switch = spawn(&[&daemon, &format!("unix:{run}/db.sock"), "--disable-system"]);
        let ovs = Ovs { ns, run, _daemon: switch, _database: database };
        ovs.set("add-br phy -- set bridge phy datapath_type=netdev -- add-port phy eth0");
        ovs.set("add-br seg -- set bridge seg datapath_type=netdev");
        // The card's address is the bridge's now.
        ovs.ns.ip("addr flush dev eth0\naddr add 10.0.0.9/24 dev phy\nlink set phy up\n\
            addr add 10.9.0.9/24 dev seg\nlink set seg mtu 1450 up\n");
        Some(ovs)
    }

    /// Does something to its configuration.
    #[track_caller]
    fn set(&self, words: &str) {
        let tool = peer("ovs-vsctl").expect("it came with the others");
        self.ns.sh(&format!("{} --timeout=20 --db=unix:{}/db.sock {words}", tool.display(), self.run)).ok();
    }

    /// Replaces a bridge's rules.
    #[track_caller]
    fn flows(&self, bridge: &str, rules: &str) {
        let tool = peer("ovs-ofctl").expect("it came with the others").display().to_string();
        let at = format!("unix:{}/{bridge}.mgmt", self.run);
        self.ns.command(&[&tool, "-O", "OpenFlow14", "replace-flows", &at, "-"]).input(rules).run().ok();
    }

    /// Tells its daemon something.
    #[track_caller]
    fn tell(&self, words: &str) {
        let tool = peer("ovs-appctl").expect("it came with the others");
        self.ns
            .sh(&format!("{} --target=$(echo {}/ovs-vswitchd.*.ctl) {words}", tool.display(), self.run))
            .ok();
    }

    fn pings(&self, to: &str, size: usize) -> bool {
        self.ns.run(&["ping", "-c", "1", "-W", "2", "-s", &size.to_string(), to]).success()
    }

    #[track_caller]
    fn reaches(&self, to: &str, size: usize) {
        fief_testkit::eventually(SOON, || {
            if self.pings(to, size) { Ok(()) } else { Err(format!("{to} does not answer {size} bytes")) }
        });
    }
}

/// It knows the host by its address and hears no multicast, so the host knows it by its own, from the file of peers.
#[test]
fn vxvde_fast_path_with_open_vswitch() {
    let Some(mut lan) = Lan::open("ovs", 1, "") else { return };
    let Some(ovs) = Ovs::start(&lan) else { return };
    let config = lan.daemons[0].root().join("etc/fief");
    let peers = config.join("peers");
    std::fs::write(&peers, "10.0.0.9\n").expect("the lab's directory is writable");
    let text = format!("overlay: {{ device: eth0, peers: \"{}\" }}\n", peers.display());
    std::fs::write(config.join("fiefd.yaml"), text).expect("the lab's directory is writable");
    lan.daemons[0].restart();
    ovs.set(
        "add-port seg vx -- set interface vx type=vxlan options:remote_ip=10.0.0.1 options:key=1000 \
         options:dst_port=14789",
    );
    let a = Guest::joined(&lan, 0, (41_000, GROUP), "10.9.0.1/24");
    let other = Guest::joined(&lan, 0, (41_001, 1001), "10.9.0.2/24");
    for size in [56, 1400] {
        a.reaches("10.9.0.9", size);
        ovs.reaches("10.9.0.1", size);
    }
    assert!(!other.pings("10.9.0.9", 56) && !ovs.pings("10.9.0.2", 56), "another group's");
}

/// Has a device compute sums (SIOCETHTOOL, ETHTOOL_STXCSUM), which nobody does between devices of one machine and the switch
/// looks at.
const SUMS: &str = r"
import array, fcntl, socket, struct
off = array.array('B', struct.pack('=II', 0x17, 0))
fcntl.ioctl(socket.socket(socket.AF_INET, socket.SOCK_DGRAM), 0x8946,
            struct.pack('@16sP', b'eth0', off.buffer_info()[0]).ljust(40, b'\0'))
";

/// What makes it a peer of vxvde: frames for everybody go to the group, those of a known address to the host that it was heard
/// from, and a host is answered at the port that it sends from. A tunnel has no route to a group, so that the group is a host
/// that there is not, on the way to the tunnel.
const VXVDE: [(&str, &str); 2] = [
    (
        "seg",
        "table=0,in_port=vx,actions=learn(table=1,hard_timeout=128,NXM_OF_ETH_DST[]=NXM_OF_ETH_SRC[],\
         load:NXM_NX_TUN_IPV4_SRC[]->NXM_NX_TUN_IPV4_DST[],output:NXM_OF_IN_PORT[]),LOCAL\n\
         table=0,in_port=LOCAL,actions=resubmit(,1)\n\
         table=1,priority=0,actions=set_field:10.0.0.250->tun_dst,output:vx\n",
    ),
    (
        "phy",
        "table=0,priority=10,in_port=eth0,udp,nw_dst=239.0.3.232,tp_dst=14789,\
         actions=learn(table=1,priority=10,eth_type=0x800,nw_proto=17,NXM_OF_IP_DST[]=NXM_OF_IP_SRC[],\
         load:NXM_OF_UDP_SRC[]->NXM_OF_UDP_DST[]),mod_dl_dst:MAC,mod_nw_dst:10.0.0.9,LOCAL\n\
         table=0,priority=11,in_port=LOCAL,udp,nw_dst=10.0.0.250,tp_dst=14789,actions=mod_tp_src:14789,\
         mod_nw_dst:239.0.3.232,mod_dl_dst:01:00:5e:00:03:e8,output:eth0\n\
         table=0,priority=10,in_port=LOCAL,udp,tp_dst=14789,actions=mod_tp_src:14789,resubmit(,1),output:eth0\n\
         table=0,priority=0,actions=NORMAL\n",
    ),
];

#[test]
fn vxvde_plugs_with_open_vswitch() {
    let Some(lan) = Lan::open("ovs-plug", 2, "") else { return };
    let Some(vde) = Vde::unpack(&lan.lab) else { return };
    let Some(ovs) = Ovs::start(&lan) else { return };
    ovs.set(
        "add-port seg vx -- set interface vx type=vxlan options:remote_ip=flow options:key=1000 options:dst_port=14789",
    );
    for host in &lan.hosts {
        host.run(&["/usr/bin/python3", "-c", SUMS]).ok();
    }
    let mac = ovs.ns.mac("phy").map(|byte| format!("{byte:02x}")).join(":");
    for (bridge, rules) in VXVDE {
        ovs.flows(bridge, &rules.replace("MAC", &mac));
    }
    ovs.tell("tnl/neigh/set phy 10.0.0.250 02:00:00:00:00:fa");
    let a = vde.member(&lan, 0, GROUP, "vxvdex://", ("a", "10.9.0.1/24"));
    let b = vde.stock(&lan.hosts[1], "vxvde:///grp=1000/if=eth0", "10.9.0.2/24");
    let group = lan.wire_of(0, "eth0");
    for size in [56, 1400] {
        for to in ["10.9.0.1", "10.9.0.2"] {
            ovs.reaches(to, size);
        }
        fief_testkit::eventually(
            SOON,
            || {
                if a.pings("10.9.0.9", size) { Ok(()) } else { Err(a.plug.output()) }
            },
        );
    }
    // To its one port, and not to everybody.
    assert!(a.says("10.9.0.9", "KNOWN!!!"));
    assert!(group.wait_for(b"KNOWN!!!", SOON));
    let to_all = group.count(|frame| frame.contains(&[239, 0, 3, 232]) && frame.contains(b"KNOWN!!!"));
    assert_eq!(to_all, 0);
    let other = vde.member(&lan, 0, 1001, "vxvdex://", ("other", "10.9.0.3/24"));
    assert!(!other.pings("10.9.0.9", 56));
    drop(b);
}
