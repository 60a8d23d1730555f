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

# Prepares apt with lists and archives of our own under a directory, and fetches the lists. The sources are the host's,
# and so is what counts as installed: dependencies that the host has are not fetched again. The host stays as it is.
private_apt_begin() {
	PRIVATE_APT="$1"
	mkdir -p "$1/lists/partial" "$1/archives/partial"
	# A third-party source that does not answer is no reason to stop; a package that is missing is, later.
	private_apt update || say "some package lists could not be fetched; going on with the others"
}

private_apt() { apt_with apt-get -q -o Debug::NoLocking=1 -o APT::Sandbox::User= "$@"; }

private_apt_cache() { apt_with apt-cache "$@"; }

apt_with() {
	program="$1"
	shift
	"$program" -o Dir::State="$PRIVATE_APT" -o Dir::State::lists="$PRIVATE_APT/lists" \
		-o Dir::State::status=/var/lib/dpkg/status -o Dir::Cache="$PRIVATE_APT" \
		-o Dir::Cache::archives="$PRIVATE_APT/archives" "$@"
}
