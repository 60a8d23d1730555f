#!/bin/sh
# Unpacks unmodified servers from Debian's archive under target/peers, for tests that speak to them.
# Nothing is installed: no service starts, no user is made, and the host's package lists stay as they are.
# The programs are then target/peers/bin/{nginx,sshd,conntrack}.
set -eu
cd "$(dirname "$0")/.."
. scripts/lib.sh

PACKAGES="nginx-light openssh-server conntrack"
PROGRAMS="usr/sbin/nginx usr/sbin/sshd usr/sbin/conntrack"

peers="$(target_dir)/peers"
stamp="$peers/stamp"
if [ -e "$stamp" ] && [ "$(cat "$stamp")" = "$PACKAGES" ]; then
	exit 0
fi

say "unpacking $PACKAGES under $peers"
rm -rf "$peers"
mkdir -p "$peers/apt/lists/partial" "$peers/apt/archives/partial" "$peers/root" "$peers/bin"

# apt with lists and archives of our own, but the host's sources and its list of what is installed.
# Dependencies that the host has are not fetched again; the peers themselves always are.
private_apt() {
	apt-get -q -o Dir::State="$peers/apt" -o Dir::State::lists="$peers/apt/lists" \
		-o Dir::State::status=/var/lib/dpkg/status -o Dir::Cache="$peers/apt" \
		-o Dir::Cache::archives="$peers/apt/archives" -o Debug::NoLocking=1 -o APT::Sandbox::User= "$@"
}
# A third-party source that does not answer is no reason to stop; a package that is missing is, below.
private_apt update || say "some package lists could not be fetched; going on with the others"
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
