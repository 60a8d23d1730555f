//! What a test needs and the machine may not have.

/// Set to 1 where everything that can be installed is installed: a lack is then a failure.
const REQUIRE: &str = "FIEF_TEST_REQUIRE_ROOT";

/// Says that the test (or a part of it) is skipped because this machine's kernel cannot do it. Never fails.
pub fn skip(reason: &str) {
    println!("SKIP {reason}");
}

/// Says that the test is skipped for want of something that a person can provide: root, a package, outside data.
///
/// # Panics
/// With `FIEF_TEST_REQUIRE_ROOT=1`.
#[track_caller]
pub fn missing(reason: &str) {
    let required = std::env::var(REQUIRE).is_ok_and(|value| value == "1");
    assert!(!required, "{REQUIRE}=1, yet {reason}");
    skip(reason);
}

/// Are we root? Says so when not, see [`missing`].
#[track_caller]
pub(crate) fn root() -> bool {
    let root = nix::unistd::geteuid().is_root();
    if !root {
        missing("namespaces need root");
    }
    root
}
