#!/bin/sh
# Unpacks QEMU, what an initramfs is made with, and two Debian kernels under target/vm. Nothing is installed.
# Then target/vm/run PROGRAM ARGS... runs one of those programs, and target/vm/linux-X.Y holds a kernel with its modules.
set -eu
cd "$(dirname "$0")/../.."
. scripts/lib.sh

# 6.12 is fief's floor; 6.1 is Debian 12's own, which must be refused.
KERNELS="6.12 6.1"
PACKAGES="qemu-system-x86 busybox-static kmod cpio wireguard-tools openvswitch-switch"

[ "$(dpkg --print-architecture)" = amd64 ] || die "the virtual machine is for amd64 only"
vm="$(target_dir)/vm"
stamp="$vm/stamp"
wanted="$PACKAGES linux $KERNELS"
if [ -e "$stamp" ] && [ "$(cat "$stamp")" = "$wanted" ]; then
	exit 0
fi

say "unpacking $PACKAGES and Linux ${KERNELS% *} and ${KERNELS#* } under $vm"
rm -rf "$vm"
mkdir -p "$vm/root"
private_apt_begin "$vm/apt"
# shellcheck disable=SC2086
private_apt install -y --download-only --reinstall --no-install-recommends $PACKAGES
for package in "$vm"/apt/archives/*.deb; do
	dpkg-deb -x "$package" "$vm/root"
done

# The newest of a series. Not by install: a kernel's dependencies are for booting a real machine with it.
newest_kernel() {
	private_apt_cache search --names-only "^linux-image-$1\\.[0-9].*cloud-amd64-unsigned\$" |
		cut -d ' ' -f 1 | sort -V | tail -n 1
}
for series in $KERNELS; do
	package=$(newest_kernel "$(printf '%s' "$series" | sed 's/\./\\./g')")
	[ -n "$package" ] || die "no Linux $series in this machine's Debian sources; add bookworm-security or -backports"
	mkdir -p "$vm/apt/linux-$series"
	(cd "$vm/apt/linux-$series" && private_apt download "$package")
	dpkg-deb -x "$vm/apt/linux-$series"/*.deb "$vm/linux-$series"
done
rm -rf "$vm/apt"

# The programs with the libraries they came with; the host's are those they were not fetched for.
# kmod(8) is one program under many names, which the package links to where it is not.
mkdir -p "$vm/bin"
for name in depmod modprobe; do
	ln -sf ../root/bin/kmod "$vm/bin/$name"
done
cat >"$vm/run" <<END
#!/bin/sh
root='$vm/root'
export LD_LIBRARY_PATH="\$root/usr/lib/x86_64-linux-gnu:\$root/lib/x86_64-linux-gnu"
export PATH="$vm/bin:\$root/usr/sbin:\$root/usr/bin:\$root/sbin:\$root/bin:\$PATH"
exec "\$@"
END
chmod 755 "$vm/run"
for series in $KERNELS; do
	release=$(ls "$vm/linux-$series/lib/modules")
	"$vm/run" depmod -b "$vm/linux-$series" "$release"
done
printf '%s' "$wanted" >"$stamp"
