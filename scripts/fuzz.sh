#!/bin/sh
# Searches by coverage for bytes that break a reader of crates/scan: scripts/fuzz.sh [SECONDS], 60 if not given.
# What it finds on its way stays in target/fuzz/corpus, and is where the next run begins. An input that breaks something
# is left in target/fuzz, and its path is printed.
set -eu
cd "$(dirname "$0")/.."
. scripts/lib.sh

seconds="${1:-60}"
target=$(target_dir)
corpus="$target/fuzz/corpus"
mkdir -p "$corpus"

# The messages that the tests begin with, one a file.
for seeds in crates/scan/tests/seeds/*.hex; do
	number=0
	while read -r line; do
		number=$((number + 1))
		python3 -c 'import sys; sys.stdout.buffer.write(bytes.fromhex(sys.argv[1]))' "$line" \
			>"$corpus/$(basename "$seeds" .hex)-$number"
	done <"$seeds"
done

say "building the fuzzer"
flags="--cfg fuzzing -Cpasses=sancov-module -Ccodegen-units=1"
for option in level=4 inline-8bit-counters pc-table trace-compares; do
	flags="$flags -Cllvm-args=-sanitizer-coverage-$option"
done
host=$(rustc -vV | sed -n 's/^host: //p')
RUSTFLAGS="$flags" CARGO_TARGET_DIR="$target/fuzz/build" \
	cargo build --release --target "$host" --manifest-path crates/scan/fuzz/Cargo.toml

say "fuzzing for $seconds s"
"$target/fuzz/build/$host/release/readers" "$corpus" -artifact_prefix="$target/fuzz/" -max_total_time="$seconds" \
	-max_len=8192 -timeout=5 -print_final_stats=1
