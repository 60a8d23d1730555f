#!/bin/sh
# Searches by coverage for bytes that break a reader: scripts/fuzz.sh [SECONDS [ROOM...]], so many seconds for each room, 60
# if not given. Rooms: scan (what the kernel says), services (what clients and name servers say),
# overlay (what other hosts send); all if not given.
# What it finds on its way stays in target/fuzz/corpus-ROOM, and is where the next run begins. An input that breaks
# something is left in target/fuzz, and its path is printed.
set -eu
cd "$(dirname "$0")/.."
. scripts/lib.sh

seconds="${1:-60}"
[ $# -eq 0 ] || shift
[ $# -gt 0 ] || set -- scan services overlay
target=$(target_dir)
host=$(rustc -vV | sed -n 's/^host: //p')
flags="--cfg fuzzing -Cpasses=sancov-module -Ccodegen-units=1"
for option in level=4 inline-8bit-counters pc-table trace-compares; do
	flags="$flags -Cllvm-args=-sanitizer-coverage-$option"
done

# The messages that the tests begin with, one a file.
plant() {
	for seeds in "crates/$1"/tests/seeds/*.hex; do
		number=0
		while read -r line; do
			number=$((number + 1))
			python3 -c 'import sys; sys.stdout.buffer.write(bytes.fromhex(sys.argv[1]))' "$line" \
				>"$2/$(basename "$seeds" .hex)-$number"
		done <"$seeds"
	done
}

# What libFuzzer says of itself, in one line.
summary() {
	executed=$(sed -n 's/^stat::number_of_executed_units: *//p' "$2")
	covered=$(sed -n 's/.* cov: \([0-9]*\) .*/\1/p' "$2" | tail -n 1)
	crashes=$(grep -c '^SUMMARY: ' "$2" || :)
	printf '%s: %s inputs, coverage %s, crashes %s\n' "$1" "${executed:-?}" "${covered:-?}" "$crashes"
}

failed=""
summaries=""
for room in "$@"; do
	corpus="$target/fuzz/corpus-$room"
	log="$target/fuzz/$room.log"
	mkdir -p "$corpus"
	plant "$room" "$corpus"

	say "building the fuzzer of $room"
	RUSTFLAGS="$flags" CARGO_TARGET_DIR="$target/fuzz/build-$room" \
		cargo build --release --target "$host" --manifest-path "crates/$room/fuzz/Cargo.toml"

	say "fuzzing $room for $seconds s"
	"$target/fuzz/build-$room/$host/release/readers" "$corpus" -artifact_prefix="$target/fuzz/$room-" \
		-max_total_time="$seconds" -max_len=8192 -timeout=5 -print_final_stats=1 >"$log" 2>&1 || failed="$failed $room"
	tail -n 25 "$log"
	summaries="$summaries$(summary "$room" "$log")
"
done
printf '\n%s' "$summaries"
[ -z "$failed" ] || die "broken:$failed"
