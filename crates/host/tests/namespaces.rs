//! Network namespaces that live by a file, against nsenter(1), ip(8) and mountinfo.

mod common;

use std::fs;
use std::path::Path;

use common::{in_a_place, json, run};
use fief_host::namespaces::Namespace;
use nix::sched::{CloneFlags, unshare};

fn mounts_of(path: &Path) -> usize {
    let text = fs::read_to_string("/proc/thread-self/mountinfo").expect("mountinfo");
    text.lines().filter(|line| line.split(' ').nth(4) == path.to_str()).count()
}

#[test]
fn one_is_made_once_and_has_lo_up() {
    in_a_place(|place| {
        let path = place.join("deep/down/blue");
        let made = Namespace::create(&path).expect("made");
        let again = Namespace::create(&path).expect("opened");
        assert_eq!(made.identity(), again.identity());
        assert_ne!(made.identity(), Namespace::current().identity());
        assert_eq!((mounts_of(&path), mounts_of(path.parent().unwrap())), (1, 1));
        let flags = json(&path, "ip -j link show dev lo")[0]["flags"].to_string();
        assert!(flags.contains("\"UP\""), "{flags}");
        let shown = run(&path, "stat -Lc %i /proc/self/ns/net");
        assert_eq!(shown.trim().parse().ok(), made.inode());

        let other = Namespace::create(&path.with_file_name("red")).expect("made");
        assert_ne!(made.identity(), other.identity());
        fs::write(path.with_file_name("plain"), "").expect("a file");
        assert_eq!(Namespace::list(path.parent().unwrap()), ["blue", "red"]);
        assert_eq!(Namespace::list(&place.join("nowhere")), [""; 0]);
    });
}

#[test]
fn a_file_that_was_left_over_is_mounted_over() {
    in_a_place(|place| {
        let path = place.join("blue");
        fs::write(&path, "left over").expect("a file");
        assert!(Namespace::at(&path).is_err());
        let made = Namespace::create(&path).expect("made");
        assert_eq!(Namespace::at(&path).expect("there").identity(), made.identity());
        fs::create_dir(place.join("directory")).expect("a directory");
        assert!(Namespace::create(&place.join("directory")).is_err());
        assert!(Namespace::remove(&place.join("directory")).is_err());
        assert!(place.join("directory").is_dir());
    });
}

#[test]
fn one_goes_and_is_no_error_when_it_is_gone() {
    in_a_place(|place| {
        let path = place.join("blue");
        Namespace::create(&path).expect("made");
        Namespace::remove(&path).expect("removed");
        assert!(!path.exists());
        assert_eq!(mounts_of(&path), 0);
        Namespace::remove(&path).expect("nothing to remove");
        // One over the other, as two makers who do not know of each other leave it.
        Namespace::create(&path).expect("made");
        nix::mount::mount(Some(&path), &path, None::<&str>, nix::mount::MsFlags::MS_BIND, None::<&str>)
            .expect("mounted twice");
        assert_eq!(mounts_of(&path), 2);
        Namespace::remove(&path).expect("removed");
        assert!(!path.exists());
    });
}

#[test]
fn only_network_namespaces_are_opened() {
    in_a_place(|place| {
        let refused = |path: &str| Namespace::at(Path::new(path)).expect_err("not one").to_string();
        assert!(refused("/proc/self/ns/uts").contains("/proc/self/ns/uts is not a network namespace"));
        assert!(refused("/dev/null").contains("is not a network namespace"));
        assert!(refused(place.join("nowhere").to_str().unwrap()).contains("No such file"));
        let own = Namespace::at(Path::new("/proc/thread-self/ns/net")).expect("is one");
        assert_eq!(own.identity(), Namespace::current().identity());
        let process = Namespace::of_pid(std::process::id()).expect("is one");
        assert_ne!(process.identity(), own.identity(), "the test's thread is elsewhere");
        assert!(Namespace::of_pid(0x7fff_ffff).is_err());
    });
}

#[test]
fn other_mount_namespaces_see_what_comes_and_goes() {
    in_a_place(|place| {
        let early = place.join("netns/early");
        Namespace::create(&early).expect("made");
        let (to_other, from_here) = std::sync::mpsc::channel::<()>();
        let (to_here, from_other) = std::sync::mpsc::channel::<Vec<String>>();
        std::thread::scope(|scope| {
            scope.spawn(move || {
                unshare(CloneFlags::CLONE_NEWNS).expect("root may unshare");
                to_here.send(Namespace::list(&place.join("netns"))).expect("heard");
                while from_here.recv().is_ok() {
                    to_here.send(Namespace::list(&place.join("netns"))).expect("heard");
                }
            });
            assert_eq!(from_other.recv().expect("told"), ["early"]);
            Namespace::create(&place.join("netns/late")).expect("made");
            to_other.send(()).expect("heard");
            assert_eq!(from_other.recv().expect("told"), ["early", "late"]);
            Namespace::remove(&early).expect("removed");
            to_other.send(()).expect("heard");
            assert_eq!(from_other.recv().expect("told"), ["late"]);
            drop(to_other);
        });
    });
}

#[test]
fn switches_are_set_inside_only() {
    in_a_place(|place| {
        let (path, blue) = common::namespace(place, "blue");
        let (red_path, _red) = common::namespace(place, "red");
        let switches = [("net.ipv4.ip_forward", "1"), ("net.ipv4.conf.lo.rp_filter", "2")];
        blue.set_sysctls(&switches).expect("set");
        let read = |path| run(path, "cat /proc/sys/net/ipv4/ip_forward /proc/sys/net/ipv4/conf/lo/rp_filter");
        assert_eq!(read(&path), "1\n2\n");
        assert!(read(&red_path).starts_with("0\n"));
        let refused = blue.set_sysctls(&[("net.ipv4.no_such", "1")]).expect_err("refused").to_string();
        assert!(refused.contains("net.ipv4.no_such"), "{refused}");
        assert!(blue.set_sysctls(&[("kernel.sysrq", "1")]).is_err());
    });
}
