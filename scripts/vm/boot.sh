#!/bin/sh
# Boots a kernel with an initramfs, runs one program in it and ends with its exit status:
# scripts/vm/boot.sh SERIES INITRAMFS SECONDS PROGRAM,ARGUMENT,...
# A panic, a machine that hangs, and one that says nothing of a status are failures (exit status 125).
set -eu
cd "$(dirname "$0")/../.."
. scripts/lib.sh

series="$1"
initramfs="$2"
seconds="$3"
command="$4"
vm="$(target_dir)/vm"
console="$vm/console-$series.log"

# Boots once; `ended` is how.
boot() {
	# No KVM: many machines that build have none. cx16=off: with it, an emulated 6.12 double-faults at random.
	timeout "$seconds" "$vm/run" qemu-system-x86_64 -L "$vm/root/usr/share/qemu" -L "$vm/root/usr/share/seabios" \
		-accel tcg,thread=multi -cpu max,cx16=off -smp 2 -m 1024 \
		-nographic -no-reboot -nodefaults -serial stdio \
		-kernel "$vm/linux-$series"/boot/vmlinuz-* -initrd "$initramfs" \
		-append "console=ttyS0 quiet panic=-1 mitigations=off fief.run=$command" \
		</dev/null >"$console.raw" 2>&1 &
	machine=$!
	trap 'kill "$machine" 2>/dev/null || true' EXIT INT TERM
	ended=0
	wait "$machine" || ended=$?
	# What the firmware says would clear a person's screen, and goes before the first line of ours.
	tr -d '\r' <"$console.raw" | sed 's/\x1b\[[0-9;?]*[A-Za-z]\|\x1bc//g; /^SeaBIOS/d; s/^Booting from ROM\.*//; /^$/d' >"$console"
	rm "$console.raw"
}

boot
# The kernel changes its own code while it runs (static keys), by way of int3. An emulator with several threads can still have
# that byte when it is gone again, which no processor has. So it is booted once more, and only for that.
if ! grep -q '^fief-vm-status ' "$console" && grep -q 'Oops: int3' "$console"; then
	cat "$console"
	say "Linux $series died of the emulator (int3 in code that had just changed); once more"
	boot
fi

status=$(sed -n 's/^fief-vm-status \([0-9]*\)$/\1/p' "$console")
sed '/^fief-vm-status /d' "$console"
if [ -z "$status" ]; then
	[ "$ended" -ne 124 ] || die "Linux $series was not done after $seconds s"
	echo "Linux $series ended without a status: see above" >&2
	exit 125
fi
exit "$status"
