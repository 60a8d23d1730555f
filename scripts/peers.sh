#!/bin/sh
# Unpacks unmodified servers and clients from Debian's archive under target/peers, for tests that speak to them.
# Nothing is installed: no service starts, no user is made, and the host's package lists stay as they are.
# The programs are then target/peers/bin/{nginx,sshd,conntrack,dnsmasq,socat,curl,iperf3,iptables-nft,iptables-legacy,...,
# busybox,dhclient,dig,vde_plug,vdens,ovs-vswitchd,ovsdb-server,ovsdb-tool,ovs-vsctl,ovs-ofctl,ovs-appctl,node,musl-cc}, and the PAM modules of
# libpam-net in target/peers/root.
set -eu
cd "$(dirname "$0")/.."
. scripts/lib.sh

PACKAGES="nginx-light openssh-server conntrack dnsmasq-base socat musl-dev curl iptables iperf3 busybox isc-dhcp-client
	bind9-dnsutils vdeplug vdens libvdeplug-dev openvswitch-switch libpam-net"
PROGRAMS="usr/sbin/nginx usr/sbin/sshd usr/sbin/conntrack usr/sbin/dnsmasq usr/bin/socat usr/bin/curl
	usr/bin/iperf3 usr/sbin/xtables-nft-multi usr/sbin/xtables-legacy-multi bin/busybox sbin/dhclient usr/bin/dig
	usr/bin/vde_plug usr/bin/vdens usr/lib/openvswitch-switch/ovs-vswitchd usr/sbin/ovsdb-server
	usr/bin/ovsdb-tool usr/bin/ovs-vsctl usr/bin/ovs-ofctl usr/bin/ovs-appctl"

peers="$(target_dir)/peers"
stamp="$peers/stamp"
if [ -e "$stamp" ] && [ "$(cat "$stamp")" = "$PACKAGES" ]; then
	exit 0
fi

say "unpacking $PACKAGES under $peers"
rm -rf "$peers"
mkdir -p "$peers/root" "$peers/bin"
private_apt_begin "$peers/apt"
# shellcheck disable=SC2086
private_apt install -y --download-only --reinstall --no-install-recommends $PACKAGES

for package in "$peers"/apt/archives/*.deb; do
	dpkg-deb -x "$package" "$peers/root"
done
rm -rf "$peers/apt"

multiarch="$(gcc -print-multiarch)"
for program in $PROGRAMS; do
	# Newer packages have below usr what older ones have beside it.
	[ -x "$peers/root/$program" ] || program="usr/$program"
	[ -x "$peers/root/$program" ] || die "no $program in $PACKAGES"
	wrapper="$peers/bin/${program##*/}"
	# -a of bash(1) would be shorter; sshd starts itself again by its argv[0], which must be absolute.
	cat >"$wrapper" <<-END
		#!/bin/sh
		root='$peers/root'
		export LD_LIBRARY_PATH="\$root/usr/lib/$multiarch:\$root/lib/$multiarch\${LD_LIBRARY_PATH:+:\$LD_LIBRARY_PATH}"
		export XTABLES_LIBDIR="\$root/usr/lib/$multiarch/xtables"
		exec "\$root/$program" "\$@"
	END
	chmod 755 "$wrapper"
done
# One program for all of them: its first argument says which.
for kind in nft legacy; do
	for tool in iptables ip6tables iptables-save ip6tables-save iptables-restore ip6tables-restore; do
		name="${tool%%-*}-$kind${tool#ip*tables}"
		printf '#!/bin/sh\nexec %s %s "$@"\n' "$peers/bin/xtables-$kind-multi" "$tool" >"$peers/bin/$name"
		chmod 755 "$peers/bin/$name"
	done
done
# Debian's node looks for parts of itself by absolute paths, so that scripts/setup.sh installs it; it has no service.
ln -s "$(command -v node)" "$peers/bin/node"
# musl's own musl-gcc knows absolute paths only.
cat >"$peers/bin/musl-cc" <<-END
	#!/bin/sh
	# musl-cc SOURCE PROGRAM: a static program with musl.
	at='$peers/root/usr'
	lib="\$at/lib/$multiarch-musl"
	[ -e "\$lib/crt1.o" ] || lib="\$at/lib/${multiarch%-gnu}-musl"
	exec gcc -O1 -static -nostdinc -isystem "\$at/include/${multiarch%-gnu}-musl" -nostdlib -o "\$2" \
		"\$lib/crt1.o" "\$lib/crti.o" "\$1" "\$lib/libc.a" "\$(gcc -print-libgcc-file-name)" "\$lib/crtn.o"
END
chmod 755 "$peers/bin/musl-cc"
printf '%s' "$PACKAGES" >"$stamp"
