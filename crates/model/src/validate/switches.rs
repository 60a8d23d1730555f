//! One switch by itself, and what only switches have.

use super::Findings;
use crate::Network;

/// The numbers that IEEE 802.1Q leaves to operators: 0 is no VLAN, 4095 is reserved.
const VLANS: std::ops::RangeInclusive<u16> = 1..=4094;

pub(super) fn check(network: &Network, findings: &mut Findings<'_>) {
    let spec = &network.spec;
    let of_local = [
        ("subnets", "subnets", !spec.subnets.is_empty()),
        ("gateways", "gateways", !spec.gateways.is_empty()),
        ("dhcp", "DHCP server", spec.dhcp.is_some()),
        ("dns", "names", !spec.dns.is_empty()),
        ("portMaps", "port maps", !spec.port_maps.is_empty()),
        ("ntp", "time servers", !spec.ntp.is_empty()),
    ];
    for (key, what, _) in of_local.into_iter().filter(|(.., is_written)| *is_written) {
        let help = format!(
            "delete `{key}`: who is on its uplinks gives addresses and names; or write `type: local`"
        );
        findings.refuse(&format!("spec.{key}"), format!("a switch has no {what}"), help);
    }
    let Some(vlan) = spec.vlan else { return };
    if !VLANS.contains(&vlan) {
        findings.refuse("spec.vlan", format!("{vlan} is no VLAN"), "write a whole number, 1 to 4094");
    }
    if spec.uplinks.is_empty() {
        let help = "name the device, as in `uplinks: [eth0]`, or delete `vlan`";
        findings.refuse("spec.vlan", format!("VLAN {vlan} is of no uplink"), help);
    }
}

/// What a local network cannot have.
pub(super) fn check_absent(network: &Network, findings: &mut Findings<'_>) {
    let spec = &network.spec;
    let of_switches = [("vlan", "VLAN", spec.vlan.is_some()), ("stp", "spanning tree", spec.stp.is_some())];
    for (key, what, _) in of_switches.into_iter().filter(|(.., is_written)| *is_written) {
        let help = format!("delete `{key}`, or write `type: switch`");
        findings.refuse(&format!("spec.{key}"), format!("a local network has no {what} of its own"), help);
    }
}
