#!/bin/sh
# Makes the initramfs of a guest on a TAP device: scripts/vm/guest.sh OUTPUT. Busybox, a network card, scripts/vm/guest.
set -eu
cd "$(dirname "$0")/../.."
. scripts/lib.sh

output="$1"
vm="$(target_dir)/vm"
kernel="$vm/linux-6.12"
release=$(ls "$kernel/lib/modules")
root="$vm/guest"
rm -rf "$root"
install -d -m 755 "$root" "$root/bin" "$root/etc" "$root/lib/modules"
install -d "$root/dev" "$root/proc" "$root/sys" "$root/root" "$root/tmp"
install -m 755 "$vm/root/bin/busybox" "$root/bin/busybox"
for applet in echo insmod ip mount nc nslookup printf sed sh sleep tr udhcpc; do
	ln -s busybox "$root/bin/$applet"
done
install -m 755 scripts/vm/guest "$root/init"
cat >"$root/etc/udhcpc" <<'END'
#!/bin/busybox sh
[ "$1" = bound ] || exit 0
ip addr replace "$ip/$mask" dev "$interface"
for router in $router; do ip route replace default via "$router" dev "$interface"; done
for server in $dns; do echo "nameserver $server"; done >/etc/resolv.conf
echo "guest address $ip/$mask router $router" >/dev/console
END
chmod 755 "$root/etc/udhcpc"

# In the order of their loading, which their names here keep.
count=10
"$vm/run" modprobe -d "$kernel" -S "$release" --show-depends virtio_net | sed -n 's/^insmod \([^ ]*\).*/\1/p' |
	while read -r file; do
		there="$root/lib/modules/$count-$(basename "$file" .xz)"
		case "$file" in
		*.xz) xz -dc "$file" >"$there" ;;
		*) cp "$file" "$there" ;;
		esac
		count=$((count + 1))
	done
(cd "$root" && find . -print0 | "$vm/run" cpio --quiet --null --create --format=newc --owner=0:0) >"$output"
rm -rf "$root"
