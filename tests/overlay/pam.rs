//! A login that ends up on the segment of its group: su(1), PAM, Debian's libpam-net and `fief join`, as docs/overlay.md has it.

use fief_testkit::eventually;

use crate::guest::Guest;
use crate::lan::{GROUP, Lan};
use crate::peers::peer;
use crate::room::SOON;

/// What stands in docs/overlay.md, with this test's paths.
const SERVICE: &str = "auth sufficient pam_rootok.so\naccount required pam_permit.so\n\
    session required MODULE group=private\nsession required pam_exec.so SCRIPT\n";
const SCRIPT: &str = "#!/bin/sh\n[ \"$PAM_TYPE\" = open_session ] || exit 0\n\
    id -nG \"$PAM_USER\" | grep -qw private || exit 0\nexec FIEF join --group \"$(id -g \"$PAM_USER\")\"\n";

#[test]
fn join_at_login_by_libpam_net() {
    let Some(mut lan) = Lan::open("pam", 2, "") else { return };
    let Some(any) = peer("vde_plug") else { return };
    let root = any.parent().and_then(|bin| bin.parent()).expect("it lies in peers/bin").join("root");
    let host = lan.hosts[0].clone();
    let module = host.sh(&format!("ls '{}'/lib/*/security/pam_newnet.so", root.display())).ok().stdout;
    let cli = lan.lab.expose(&fief_testkit::bin("fief"));
    let fief = format!("'{}' --root '{}'", cli.display(), lan.daemons[0].root().display());
    let at = |name: &str| lan.lab.dir().join(name).display().to_string();
    let write = |name: &str, text: &str| {
        std::fs::write(at(name), text).expect("the lab's directory is writable");
        at(name)
    };
    let script = write("login", &SCRIPT.replace("FIEF", &fief));
    let service = write("su-l", &SERVICE.replace("MODULE", module.trim()).replace("SCRIPT", &script));
    let people = "root:x:0:0:root:/root:/bin/sh\nada:x:41000:1000::/:/bin/sh\nben:x:41001:1000::/:/bin/sh\n";
    let people = write("passwd", people);
    let groups = write("group", "root:x:0:\nlab:x:1000:\nprivate:x:990:ada\n");
    host.run(&["chmod", "755", &script]).ok();
    // In the lab's mount namespace.
    for (ours, there) in [(service, "/etc/pam.d/su-l"), (people, "/etc/passwd"), (groups, "/etc/group")] {
        host.run(&["mount", "--bind", &ours, there]).ok();
    }
    let b = Guest::new(&lan, 1, (41_002, GROUP));
    b.join(&[]).ok();
    let hears = "import socket\ns = socket.socket(socket.AF_INET6); s.bind(('::', 7000)); s.listen()\n\
        print('listens', flush=True)\nwhile True: print(s.accept()[0].recv(100).decode(), flush=True)\n";
    let mut hears = b.command(&["/usr/bin/python3", "-c", hears]).spawn();
    hears.wait_for_output("listens\n", SOON);
    let own = eventually(SOON, || {
        let said =
            b.run(&["ip", "-o", "-6", "addr", "show", "dev", "eth0", "scope", "link", "-tentative"]).stdout;
        let address = said.split("inet6 ").nth(1).and_then(|rest| rest.split('/').next()).map(str::to_owned);
        address.ok_or(said)
    });
    let speaks = format!(
        "id -un; ip -o link | cut -d: -f2 | tr -d '\\n'; echo; ip addr add 10.9.0.9/24 dev eth0 && echo has power; \
         /usr/bin/python3 -c \"import socket, time\nfor i in range(50):\n    try: socket.create_connection(('{own}%eth0', \
         7000), 2).send(b'hello of ada'); print('reached'); break\n    except OSError as e: print(e); time.sleep(0.2)\n\
         try: socket.create_connection(('10.0.0.2', 22), 2)\nexcept OSError as e: print('beside:', e.errno)\n\""
    );
    let said = host.run(&["su", "-", "ada", "-c", &speaks]);
    assert!(said.stdout.starts_with("ada\n lo eth0@"), "{said}");
    assert!(said.stdout.contains("reached\n"), "{said}");
    // ENETUNREACH: there is the segment and nothing else. And it is not his to configure.
    assert!(said.stdout.contains(&format!("beside: {}\n", libc::ENETUNREACH)), "{said}");
    assert!(!said.stdout.contains("has power"), "{said}");
    hears.wait_for_output("hello of ada\n", SOON);
    // Who is not in the group logs in as ever.
    let said = host.run(&["su", "-", "ben", "-c", "id -un; ip -o -4 addr show dev eth0"]).ok();
    assert!(said.stdout.starts_with("ben\n") && said.stdout.contains("10.0.0.1/24"), "{said}");
    // With the login's last process it is over.
    eventually(SOON, || {
        let all = lan.daemons[0].cli(&["-o", "json", "get", "overlays"]).ok().json();
        if all == serde_json::json!([]) { Ok(()) } else { Err(all.to_string()) }
    });
    // And who cannot join does not log in.
    lan.daemons[0].stop();
    let said = host.run(&["su", "-", "ada", "-c", "echo in"]).fails();
    assert!(!said.stdout.contains("in\n"), "{said}");
    host.run(&["su", "-", "ben", "-c", "echo in"]).ok();
}
