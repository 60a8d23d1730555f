//! A real DHCPv6 client: an address that is fixed, the name server for one that has its own, and nothing for strangers.

mod common;

use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use common::{Gate, SOON, Store, peer, wait};
use fief_services::{NetworkConfig, Services};
use fief_testkit::{Child, Lab, Ns, eventually};

/// What the client runs when something happens: it says what, and takes the address.
const SCRIPT: &str = "#!/bin/sh\n\
    echo \"EVENT $reason ip=$new_ip6_address dns=$new_dhcp6_name_servers names=$new_dhcp6_domain_search\"\n\
    case $reason in\n\
    BOUND6|REBIND6|RENEW6) ip -6 addr replace $new_ip6_address/128 dev $interface nodad ;;\n\
    esac\n\
    exit 0\n";

/// dhclient, in the foreground.
fn dhclient(lab: &Lab, client: &Ns, more: &[&str]) -> Option<Child> {
    let program = peer("dhclient")?;
    let script = lab.dir().join("script6");
    std::fs::write(&script, SCRIPT).unwrap();
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
    let script = script.display().to_string();
    let file = |kind: &str| lab.dir().join(format!("{}.{kind}", client.short())).display().to_string();
    let (leases, pid) = (file("leases6"), file("pid6"));
    let mut words = vec![program.as_str(), "-6", "-d", "-v", "-cf", "/dev/null", "-lf", &leases, "-pf", &pid];
    words.extend(["-sf", &script]);
    words.extend(more);
    words.push("eth0");
    Some(client.spawn(&words))
}

/// A client whose address of the link can be used.
fn client(gate: &Gate<'_>, last: u8) -> Ns {
    let client = gate.client(last);
    client.ip(&format!("addr flush dev eth0\naddr add fe80::{last}/64 dev eth0 nodad\n"));
    client
}

#[test]
fn dhclient_gets_its_fixed_address_and_reaches_the_gateway() {
    let Some(lab) = Lab::new("dhcp6") else { return };
    let (web, data) = (Gate::new(&lab, "web"), Gate::new(&lab, "data"));
    let services = Services::start(Store::default().boxed()).unwrap();
    web.serve(&services, web.settled_config());
    // The same prefix and Ethernet addresses, another tenant's, with other addresses.
    let mut config = NetworkConfig { domain: "data.red.example".to_owned(), ..data.settled_config() };
    config.endpoints[0].address6 = Some("2001:db8::99".parse().unwrap());
    data.serve(&services, config);
    let own = "ip=2001:db8::11 dns=2001:db8::1 names=web.blue.example.";
    let foreign = "ip=2001:db8::99 dns=2001:db8::1 names=data.red.example.";
    for (gate, expected, address) in [(&web, own, "2001:db8::11"), (&data, foreign, "2001:db8::99")] {
        let client = client(gate, 1);
        let Some(mut dhclient) = dhclient(&lab, &client, &[]) else { return };
        dhclient.wait_for_output(&format!("EVENT BOUND6 {expected}"), SOON);
        client.ip("route replace 2001:db8::/64 dev eth0\n");
        eventually(SOON, || {
            let output = client.run(&["ping", "-6", "-n", "-c1", "-W2", "-I", address, "2001:db8::1"]);
            if output.success() { Ok(()) } else { Err(output.to_string()) }
        });
    }
    let counters = services.counters("blue/web").unwrap();
    assert!(counters.dhcp6_replies >= 2, "an advertisement and a reply: {counters:?}");
    assert_eq!(counters.dhcp6_ignored, 0, "{counters:?}");
}

#[test]
fn who_has_no_fixed_address_is_told_the_name_server_only() {
    let Some(lab) = Lab::new("dhcp6-info") else { return };
    let gate = Gate::new(&lab, "web");
    let services = Services::start(Store::default().boxed()).unwrap();
    gate.serve(&services, gate.config(None));
    let known = client(&gate, 1);
    let Some(mut info) = dhclient(&lab, &known, &["-S"]) else { return };
    info.wait_for_output("ip= dns=2001:db8::1 names=web.blue.example.", SOON);
    drop(info);
    let mut stateful = dhclient(&lab, &known, &[]).unwrap();
    stateful.wait_for_output("Status code of no addrs", SOON);
    assert!(!stateful.output().contains("BOUND6"), "{}", stateful.output());

    // An Ethernet address that no endpoint has is not answered at all.
    let stranger = client(&gate, 9);
    let before = services.counters("blue/web").unwrap();
    let info = dhclient(&lab, &stranger, &["-S"]).unwrap();
    let ignored = || services.counters("blue/web").unwrap().dhcp6_ignored - before.dhcp6_ignored;
    eventually(SOON, || if ignored() >= 2 { Ok(()) } else { Err(info.output()) });
    wait(Duration::from_millis(300));
    assert!(!info.output().contains("dns=2001"), "{}", info.output());
}
