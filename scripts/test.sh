#!/bin/sh
# Builds everything as the caller and runs the tests as root: scripts/test.sh [--all] [NAME]
# NAME is a part of "package target test"; a NAME that matches nothing is an error. --all runs ignored tests too.
set -eu
cd "$(dirname "$0")/.."
. scripts/lib.sh

target=$(target_dir)
messages="$target/test-executables.json"
mkdir -p "$target"

say "building the programs and the tests"
cargo build --locked --workspace --bins
cargo build --locked -p fief-vdeplug
cargo test --locked --workspace --no-run --message-format=json-render-diagnostics >"$messages"

if [ $# -eq 0 ]; then
	say "running the examples in the documentation"
	examples="$target/test-examples.log"
	cargo test --locked --workspace --doc --quiet >"$examples" 2>&1 || { cat "$examples"; die "an example fails"; }
fi

# Without the archive the tests that need them say SKIP, or fail where nothing may be skipped.
scripts/peers.sh || say "Debian's nginx and sshd could not be had"

say "running the tests${*:+: $*}"
export FIEF_BIN_DIR="${FIEF_BIN_DIR:-$target/debug}"
runner="$target/debug/fief-test-runner"
if [ "$(id -u)" -ne 0 ] && ! command -v sudo >/dev/null; then
	say "neither root nor sudo: most tests will be skipped"
	exec "$runner" "$messages" "$@"
fi
as_root "$runner" "$messages" "$@"
