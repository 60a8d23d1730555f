//! Who enters a tenant's place, and by which door.

use super::Table;
use crate::node::{http, in_vrfs};
use crate::room::outcome;
use crate::town::Town;

/// `fief exec` and the option: what is there, and what is said where it is not.
#[test]
fn who_enters_and_by_which_door() {
    let Some(table) = Table::open("net-enter") else { return };
    let node = &table.node;
    let exec = |user: u32, words: &[&str]| {
        let words = [&["exec", "ni1", "--"], words].concat();
        node.daemon.cli_command(&words).cgroup(node.town.lab.cgroup()).user(user, user).run()
    };
    const NOBODY: u32 = 65_534;
    let curl = node.town.tools.curl.display().to_string();
    let ask = [curl.as_str(), "-sS", "--noproxy", "*", "--max-time", "5", &http(Town::SITE)];
    assert_eq!(exec(0, &ask).ok().stdout.trim(), format!("site sees {}", Town::host_address(0)));
    let told = exec(NOBODY, &ask);
    let says = match in_vrfs() {
        true => format!(
            "the networks of tenant ni1 are in VRF {}, which only an administrator of the host may enter",
            node.vrf("ni1")
        ),
        false => {
            "tenant ni1 has a network namespace, which only an administrator of the host may enter".to_owned()
        }
    };
    assert!(told.code() == 125 && told.stderr.contains(&says), "{told}");
    // No option of a socket, a thread or a process reaches there, and none is changed by trying.
    for whose in [libfief::Whose::Socket, libfief::Whose::Thread, libfief::Whose::Process] {
        let refused = crate::room::seen(node.town.lab.cgroup(), &node.town.host, || {
            let socket = libfief::any_socket().expect("a socket");
            let set = libfief::set(&socket, whose, "ni1");
            (outcome(&set), libfief::number(&socket, libfief::Whose::Process).unwrap_or(0))
        });
        println!("{whose:?}: {refused:?}");
        assert!(["ENOENT", "ENOPROTOOPT", "EOPNOTSUPP"].contains(&refused.0.as_str()), "{refused:?}");
        assert_eq!(refused.1, 0);
    }
}
