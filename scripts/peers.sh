#!/bin/sh
# Unpacks unmodified servers from Debian's archive under target/peers, for tests that speak to them.
# Nothing is installed: no service starts, no user is made, and the host's package lists stay as they are.
# The programs are then target/peers/bin/{nginx,sshd,conntrack,dnsmasq,socat}.
set -eu
cd "$(dirname "$0")/.."
. scripts/lib.sh

PACKAGES="nginx-light openssh-server conntrack dnsmasq-base socat"
PROGRAMS="usr/sbin/nginx usr/sbin/sshd usr/sbin/conntrack usr/sbin/dnsmasq usr/bin/socat"

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
	[ -x "$peers/root/$program" ] || die "no $program in $PACKAGES"
	wrapper="$peers/bin/${program##*/}"
	# -a of bash(1) would be shorter; sshd starts itself again by its argv[0], which must be absolute.
	cat >"$wrapper" <<-END
		#!/bin/sh
		root='$peers/root'
		export LD_LIBRARY_PATH="\$root/usr/lib/$multiarch:\$root/lib/$multiarch\${LD_LIBRARY_PATH:+:\$LD_LIBRARY_PATH}"
		exec "\$root/$program" "\$@"
	END
	chmod 755 "$wrapper"
done
printf '%s' "$PACKAGES" >"$stamp"
