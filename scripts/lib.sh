# Read by the other scripts: `. scripts/lib.sh`. Expects `set -eu`.

say() { printf '\n==> %s\n' "$*"; }

die() {
	printf '%s: %s\n' "${0##*/}" "$*" >&2
	exit 1
}

# Runs a command as root, with the variables that tests look at.
as_root() {
	if [ "$(id -u)" -eq 0 ]; then
		"$@"
	elif command -v sudo >/dev/null; then
		sudo --preserve-env=PATH,FIEF_TEST_REQUIRE_ROOT,FIEF_TEST_TIMEOUT,FIEF_TEST_JOBS,FIEF_BIN_DIR,FIEF_DATA,FIEF_SOAK,RUST_BACKTRACE "$@"
	else
		die "neither root nor sudo: cannot run $1"
	fi
}

# Where cargo puts what it builds.
target_dir() { printf '%s\n' "${CARGO_TARGET_DIR:-$PWD/target}"; }
