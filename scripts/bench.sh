#!/bin/sh
# Builds as the caller and measures as root: scripts/bench.sh [PREFIX]
# PREFIX is the beginning of the ids to measure. Exit status 1 if a goal is not met; report in target/bench/report.json.
set -eu
cd "$(dirname "$0")/.."
. scripts/lib.sh

target=$(target_dir)
say "building the programs and the benchmarks, optimised"
cargo build --locked --release --workspace --bins
# A library for other programs, which --bins leaves out.
cargo build --locked --release -p fief-vdeplug

# Clients for leases; without them there are no networks to measure.
scripts/peers.sh || say "Debian's busybox and dnsmasq could not be had"

mkdir -p "$target/bench"
say "measuring${1:+ what begins with $1}"
export FIEF_BIN_DIR="${FIEF_BIN_DIR:-$target/release}"
exec_as_root() { as_root env FIEF_BIN_DIR="$FIEF_BIN_DIR" FIEF_BENCH_REPORT="$target/bench/report.json" "$@"; }
status=0
exec_as_root "$target/release/fief-bench" "$@" || status=$?
printf '\nreport in %s\n' "$target/bench/report.json"
exit "$status"
