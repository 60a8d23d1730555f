#!/bin/sh
# Runs tests under other kernels than this machine's, in QEMU, without KVM and without root: scripts/test-vm.sh [NAME]
# And one the other way round, which does want root: a guest of QEMU on a TAP device, under this machine's kernel.
# Linux 6.12 is fief's floor: the programs must load there, and it has devices that many build machines lack. Debian's
# own 6.1 must be refused. The networks' acceptance scenarios run in 6.12 once more, with VRFs, as do some tests of the
# overlay, and policies over SCTP. NAME is a part of "package target test"; a NAME that matches nothing is an error.
set -eu
cd "$(dirname "$0")/.."
. scripts/lib.sh

SUITES="smoke vm"
# With FIEF_TEST_ISOLATION=vrf, in a machine of their own, which has FIEF_VM_SECONDS: the suites, and parts of the names
# of their tests.
NETWORKS="networks overlay policy"
SCENARIOS="evenet::|policies::who_is|policies::one_address|matrix_live_sctp"
# The overlay's programs in 6.12: attacks on sockets, and interfaces with the kernel's own tunnel, by each family, in
# fragments.
SCENARIOS="$SCENARIOS|guarded_socket_hole_01|guarded_socket_hole_03|guarded_socket_hole_12|join_with_a_kernels_tunnel"
SCENARIOS="$SCENARIOS|join_where_there_is_only_ipv6|join_carries_frames"
GUEST="tests networks evenet::guest::evenet_e09_and_e10_with_a_guest_of_qemu"
REFUSAL="vm floor linux_6_1_is_refused_in_one_line"

name="${1:-}"
target=$(target_dir)
vm="$target/vm"
scripts/vm/fetch.sh
scripts/peers.sh

say "building the programs and the tests"
messages="$target/vm-executables.json"
cargo build --locked --workspace --bins
# shellcheck disable=SC2046
cargo test --locked --package fief-tests $(printf -- '--test %s ' $SUITES $NETWORKS) --no-run \
	--message-format=json-render-diagnostics >"$messages"

# The tests under their plain names, and what fief-test-runner reads about them in there.
stage="$vm/stage"
put_on_stage() {
	rm -rf "$stage"
	mkdir -p "$stage"
	for suite in "$@"; do
		executable=$(jq -r --arg suite "$suite" \
			'select(.reason == "compiler-artifact" and .target.name == $suite) | .executable // empty' "$messages")
		cp "$executable" "$stage/$suite"
		jq -nc --arg suite "$suite" '{executable: "/opt/fief/\($suite)", manifest_path: "/opt/fief/Cargo.toml",
			profile: {test: true}, target: {name: $suite}}' >>"$stage/executables.json"
	done
	cp "$target/debug/fief" "$target/debug/fiefd" "$target/debug/fief-peer" "$target/debug/fief-test-runner" "$stage"
}

passed=0 failed=0 skipped=0 matched=no

# Boots Linux 6.12 with what is on the stage, for so many seconds, and runs a command that ends with the runner's count.
run_on_stage() {
	scripts/vm/initramfs.sh 6.12 "$vm/6.12.cpio" "$stage"/*
	status=0
	scripts/vm/boot.sh 6.12 "$vm/6.12.cpio" "$1" "$2" || status=$?
	counts=$(sed -n 's/^\([0-9]*\) passed, \([0-9]*\) failed, \([0-9]*\) skipped$/\1 \2 \3/p' "$vm/console-6.12.log")
	if [ -n "$counts" ]; then
		matched=yes
		read -r more_passed more_failed more_skipped <<-END
			$counts
		END
		# Died after the last test: that is a failure too.
		[ "$status" -eq 0 ] || [ "$more_failed" -gt 0 ] || more_failed=1
		passed=$((passed + more_passed)) failed=$((failed + more_failed)) skipped=$((skipped + more_skipped))
	elif ! grep -q 'no test has' "$vm/console-6.12.log"; then
		matched=yes
		failed=$((failed + 1))
	fi
}

# Has a suite on the stage a test with this part, and what was asked for, in its name? A boot would take longer to say so.
has_test() {
	part="$1"
	shift
	for suite in "$@"; do
		"$stage/$suite" --list --format terse | sed "s/^/fief $suite /"
	done | grep -F -- "$(echo "$part" | tr '|' '\n')" | grep -F -- "$name" >/dev/null
}

# shellcheck disable=SC2086
put_on_stage $SUITES
# shellcheck disable=SC2086
if has_test "" $SUITES; then
	say "Linux 6.12"
	run_on_stage 600 "fief-test-runner,/opt/fief/executables.json${name:+,$name}"
fi

# shellcheck disable=SC2086
put_on_stage $NETWORKS
matrix="${FIEF_DATA:-../shared/data}/networkpolicy-matrix.json.xz"
[ ! -e "$matrix" ] || cp "$matrix" "$stage"
# shellcheck disable=SC2086
if has_test "$SCENARIOS" $NETWORKS; then
	say "Linux 6.12: networks in VRFs, the overlay, policies over SCTP"
	export FIEF_VM_PEERS=yes
	run_on_stage "${FIEF_VM_SECONDS:-1500}" \
		"env,FIEF_TEST_ISOLATION=vrf,FIEF_TEST_JOBS=2,fief-test-runner,/opt/fief/executables.json,$SCENARIOS${name:+,$name}"
	unset FIEF_VM_PEERS
fi

case "$REFUSAL" in
*"$name"*)
	matched=yes
	say "Linux 6.1"
	scripts/vm/initramfs.sh 6.1 "$vm/6.1.cpio" "$stage/fiefd"
	status=0
	scripts/vm/boot.sh 6.1 "$vm/6.1.cpio" 60 fiefd || status=$?
	# 1 is fiefd's own exit status; a machine that died has another. And one line, which names the floor.
	if [ "$status" -eq 1 ] && [ "$(grep -c 'ERROR' "$vm/console-6.1.log")" -eq 1 ] &&
		grep -q 'this kernel is Linux 6.1; fief needs 6.12 or later' "$vm/console-6.1.log"; then
		echo "pass  $REFUSAL"
		passed=$((passed + 1))
	else
		echo "FAIL  $REFUSAL"
		failed=$((failed + 1))
	fi
	;;
esac

case "$GUEST" in
*"$name"*)
	matched=yes
	if [ "$(id -u)" -ne 0 ] && ! command -v sudo >/dev/null; then
		echo "SKIP  $GUEST: neither root nor sudo"
		skipped=$((skipped + 1))
	else
		say "a guest on a TAP device"
		scripts/peers.sh
		scripts/vm/guest.sh "$vm/guest.cpio"
		networks="$vm/guest-executables.json"
		cargo test --locked --package fief-tests --test networks --no-run \
			--message-format=json-render-diagnostics >"$networks"
		export FIEF_BIN_DIR="${FIEF_BIN_DIR:-$target/debug}"
		# It says SKIP where something is missing, which is a failure here.
		if as_root "$target/debug/fief-test-runner" "$networks" "${GUEST##* }" | tee "$vm/guest.log" &&
			grep -q '^1 passed' "$vm/guest.log"; then
			passed=$((passed + 1))
		else
			failed=$((failed + 1))
		fi
	fi
	;;
esac

rm -rf "$stage" "$vm/6.12.cpio" "$vm/6.1.cpio"
[ "$matched" = yes ] || die "no test has \"$name\" in its name"
echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" -eq 0 ]
