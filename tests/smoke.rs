//! The shortest way through everything: two tenants on one wire, one server, both answered.

use std::time::Duration;

use fief_testkit::{Daemon, DaemonOptions, Dial, Families, Lab, Street};

#[test]
fn one_server_answers_two_tenants_whose_clients_have_the_same_address() {
    let Some(lab) = Lab::new("smoke") else { return };
    let street = Street::new(&lab, 2, Families::Both);
    let daemon = Daemon::start(&lab, &street.host, DaemonOptions::default());
    daemon.apply(&street.documents()).ok();
    let peer = fief_testkit::peer();
    let mut server =
        street.host.spawn_in_cgroup(lab.cgroup(), &[peer.to_str().unwrap(), "serve", "[::]:8000"]);
    server.wait_for_output("8000", Duration::from_secs(5));
    for tenant in 0..2 {
        for address in [street.local4(tenant).to_string(), format!("[{}]", street.local6(tenant))] {
            let nonce = format!("nonce of tenant {tenant} {address}");
            let target = format!("{address}:8000").parse().unwrap();
            let answer = street
                .client(tenant)
                .enter(|| Dial::to(target).timeout(Duration::from_secs(3)).tcp(nonce.as_bytes()));
            let answer =
                answer.unwrap_or_else(|e| panic!("tenant {tenant} {address}: {e}\n{}", daemon.log()));
            assert_eq!(String::from_utf8_lossy(&answer), nonce);
        }
    }
}
