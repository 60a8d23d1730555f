#!/bin/sh
# Makes an initramfs for one kernel: scripts/vm/initramfs.sh SERIES OUTPUT FILE...
# In /opt/fief are the files, which are programs or end in .json or .xz. Beside them: libraries, a shell, ip, tc, nft, wg and
# ovs-dpctl; and the kernel modules that they need. With FIEF_VM_PEERS=yes the programs of the networks' tests as well.
set -eu
cd "$(dirname "$0")/../.."
. scripts/lib.sh

# What the kernel would load by itself if it found a modprobe; cloud kernels have all of it as modules.
MODULES="af_packet veth bridge 8021q vrf tun br_netfilter
	nf_tables nft_ct nft_counter nft_log nft_reject_inet nft_masq nft_nat nft_fib_inet nft_chain_nat nft_meta_bridge
	nf_conntrack_netlink
	inet_diag tcp_diag udp_diag netlink_diag
	cls_bpf cls_fw cls_u32 cls_matchall cls_flower cls_basic cls_flow em_meta
	act_skbedit act_connmark act_ct act_ctinfo act_ife act_meta_mark act_gact sch_htb sch_ingress sch_cake
	wireguard xfrm_user esp4 echainiv seqiv gcm ghash-generic openvswitch
	sctp vxlan ip_gre ipip sit ip_vti ip6_gre ip6_tunnel ip6_vti l2tp_netlink"

series="$1"
output="$2"
shift 2
vm="$(target_dir)/vm"
kernel="$vm/linux-$series"
release=$(ls "$kernel/lib/modules")
root="$vm/initramfs-$series"
rm -rf "$root"
# Of mode 755, or nobody but root finds anything in it.
install -d -m 755 "$root" "$root/bin" "$root/etc" "$root/lib/modules" "$root/usr/bin" "$root/opt/fief"
install -d "$root/dev" "$root/proc" "$root/sys" "$root/run" "$root/tmp" "$root/var/lib" "$root/root"

# A program's libraries go where it looks for them: each where it lies here, or would lie with its package
# installed.
put_libraries() {
	for library in $("$vm/run" ldd "$1" 2>/dev/null | sed -n 's/^.*[[:space:]]\(\/[^ ]*\) (0x.*/\1/p'); do
		there="$root${library#"$vm/root"}"
		[ -e "$there" ] || install -D -m 755 "$library" "$there"
	done
}

put() {
	put_libraries "$1"
	install -D -m 755 "$1" "$2"
}

# One of scripts/peers.sh, with the libraries that came with it.
put_peer() {
	peers="$(target_dir)/peers"
	program="$peers/root/$(sed -n 's/^exec "$root\/\([^"]*\)".*/\1/p' "$peers/bin/$1")"
	for library in $(LD_LIBRARY_PATH="$peers/root/usr/lib/x86_64-linux-gnu:$peers/root/lib/x86_64-linux-gnu" \
		ldd "$program" 2>/dev/null | sed -n 's/^.*[[:space:]]\(\/[^ ]*\) (0x.*/\1/p'); do
		there="$root${library#"$peers/root"}"
		[ -e "$there" ] || install -D -m 755 "$library" "$there"
	done
	install -D -m 755 "$program" "$root/opt/fief/peers/bin/$1"
}

# What the overlay's users are written in, with what they import.
put_python() {
	put /usr/bin/python3 "$root/usr/bin/python3"
	/usr/bin/python3 -c 'import array, ctypes, errno, fcntl, mmap, os, random, select, socket, struct, sys, time
for module in list(sys.modules.values()):
    if getattr(module, "__file__", None): print(module.__file__)' | while read -r file; do
		case "$file" in
		*.so) put "$file" "$root$file" ;;
		*) install -D -m 644 "$file" "$root$file" ;;
		esac
	done
}

for file in "$@"; do
	program="$root/opt/fief/${file##*/}"
	put "$file" "$program"
	# Most of a debug build is for debuggers.
	case "$file" in
	*.json | *.xz) ;;
	*) strip --strip-debug "$program" ;;
	esac
done
# Not busybox's shell: that one prefers its own applets to programs of the same name, ip among them.
put /bin/dash "$root/bin/sh"
put "$(command -v ip)" "$root/bin/ip"
put "$(command -v tc)" "$root/bin/tc"
put "$(command -v nft)" "$root/bin/nft"
put "$vm/root/usr/bin/wg" "$root/bin/wg"
put "$vm/root/usr/bin/ovs-dpctl" "$root/bin/ovs-dpctl"
if [ "${FIEF_VM_PEERS:-no}" = yes ]; then
	for name in nginx curl dig conntrack dhclient dnsmasq busybox; do
		put_peer "$name"
	done
	for name in unshare nsenter mount umount ping; do
		put "$(command -v "$name")" "$root/bin/$name"
	done
	put_python
	# Mounted over by tests that have a resolver of their own.
	echo >"$root/etc/resolv.conf"
	# DHCP's and dnsmasq's own users, and what a server says when it has no other word.
	install -d "$root/var/log/nginx" "$root/var/lib/misc" "$root/var/lib/dhcp"
fi
# tc knows its ematches from this file alone.
install -D -m 644 /etc/iproute2/ematch_map "$root/etc/iproute2/ematch_map"
install -m 755 "$vm/root/bin/busybox" "$root/bin/busybox"
for applet in cat chmod cp cut dmesg echo env grep head hostname insmod ln ls mkdir mount mv readlink rm sed sleep sort tail true; do
	[ -e "$root/bin/$applet" ] || ln -s busybox "$root/bin/$applet"
done
echo 'root:x:0:0:root:/root:/bin/sh' >"$root/etc/passwd"
printf 'root:x:0:\nfief:x:990:\n' >"$root/etc/group"
install -m 755 scripts/vm/init "$root/init"

# The modules in the order of their loading, those that others need first; uncompressed, so that insmod can be small.
for module in $MODULES; do
	"$vm/run" modprobe -d "$kernel" -S "$release" --show-depends "$module" 2>/dev/null || true
done | sed -n 's/^insmod \([^ ]*\).*/\1/p' | awk '!seen[$0]++' |
	while read -r file; do
		name=$(basename "$file" .xz)
		case "$file" in
		*.xz) xz -dc "$file" >"$root/lib/modules/$name" ;;
		*) cp "$file" "$root/lib/modules/$name" ;;
		esac
		echo "/lib/modules/$name"
	done >"$root/etc/modules"

# Compressing would cost more here, and in an emulated processor, than it saves.
(cd "$root" && find . -print0 | "$vm/run" cpio --quiet --null --create --format=newc --owner=0:0) >"$output"
rm -rf "$root"
