//! Cables between namespaces.
//!
//! ```text
//!   veth:   a [eth0]────────[port0] b
//!
//!   wire:   a [eth0]──[p0]┐
//!                         br0            br0: learns, never filters, has no address, says nothing itself
//!           b [eth0]──[p1]┘
//! ```

use std::fmt::Write;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::lab::Lab;
use crate::ns::Ns;

/// An Ethernet segment: a bridge in a namespace of its own. The kernel's limit is 1023 plugs.
#[derive(Debug)]
pub struct Wire {
    /// The bridge's namespace; the ports are `p0`, `p1`, ... in the order of attachment.
    pub ns: Ns,
    plugs: AtomicUsize,
}

/// One end that a wire is to get.
pub(crate) struct Plug<'a> {
    pub(crate) ns: &'a Ns,
    pub(crate) device: &'a str,
    pub(crate) mac: Option<[u8; 6]>,
}

impl Lab {
    /// A pair of devices that are each other's far end (veth(4)); both up.
    #[track_caller]
    pub fn veth(&self, (a, device): (&Ns, &str), (b, peer): (&Ns, &str)) {
        a.ip(&format!(
            "link add {device} type veth peer name {peer} netns {}\nlink set {device} up\n",
            b.name()
        ));
        b.ip(&format!("link set {peer} up\n"));
    }

    /// A segment to plug namespaces into.
    #[track_caller]
    pub fn wire(&self, name: &str) -> Wire {
        let ns = self.ns(name);
        ns.set_sysctl("net.ipv6.conf.default.disable_ipv6", 1);
        ns.ip("link add br0 type bridge stp_state 0 forward_delay 0 mcast_snooping 0\nlink set br0 up\n");
        // A fresh namespace has 1 where br_netfilter is loaded: frames would run through iptables and conntrack.
        for family in ["iptables", "ip6tables", "arptables"] {
            let path = format!("/proc/sys/net/bridge/bridge-nf-call-{family}");
            ns.enter(|| drop(std::fs::write(path, "0")));
        }
        Wire { ns, plugs: AtomicUsize::new(0) }
    }
}

impl Wire {
    /// Gives `ns` a device on this wire, up, and says which port of the bridge is its far end.
    #[track_caller]
    pub fn attach(&self, ns: &Ns, device: &str) -> String {
        let port = self.attach_all(&[Plug { ns, device, mac: None }]).remove(0);
        ns.ip(&format!("link set {device} up\n"));
        port
    }

    /// As [`Wire::attach`], with an Ethernet address of the caller's choice.
    #[track_caller]
    pub fn attach_as(&self, ns: &Ns, device: &str, mac: [u8; 6]) -> String {
        let port = self.attach_all(&[Plug { ns, device, mac: Some(mac) }]).remove(0);
        ns.ip(&format!("link set {device} up\n"));
        port
    }

    /// Many at once, in one process. The far ends are up, the devices not yet.
    #[track_caller]
    pub(crate) fn attach_all(&self, plugs: &[Plug<'_>]) -> Vec<String> {
        let mut lines = String::new();
        let mut ports = Vec::new();
        for Plug { ns, device, mac } in plugs {
            let port = format!("p{}", self.plugs.fetch_add(1, Ordering::Relaxed));
            let mac = mac.map(|mac| format!(" address {}", mac_text(mac))).unwrap_or_default();
            let netns = ns.name();
            writeln!(lines, "link add {port} type veth peer name {device} netns {netns}{mac}")
                .expect("a string grows");
            writeln!(lines, "link set {port} master br0 up").expect("a string grows");
            ports.push(port);
        }
        self.ns.ip(&lines);
        ports
    }
}

/// `02:00:00:00:00:01`.
pub(crate) fn mac_text(mac: [u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}
