#!/bin/sh
# Installs the Debian packages that building and testing need. Quick, and without root, when nothing is missing.
set -eu
cd "$(dirname "$0")/.."
. scripts/lib.sh

# clang and its headers compile the BPF programs; python3 and nodejs are for tests that need an unmodified server.
PACKAGES="clang llvm libbpf-dev linux-libc-dev gcc libc6-dev make
	iproute2 nftables iputils-ping tcpdump strace python3 nodejs jq ca-certificates"

missing=""
for package in $PACKAGES; do
	state=$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null) || state=absent
	[ "$state" = installed ] || missing="$missing $package"
done

command -v cargo >/dev/null || die "no cargo: install rustup from https://rustup.rs, it reads rust-toolchain.toml"
if [ -z "$missing" ]; then
	exit 0
fi

say "installing$missing"
# None of these brings a service; the policy is for what they may pull in.
as_root env DEBIAN_FRONTEND=noninteractive sh -eu -c '
	policy=/usr/sbin/policy-rc.d
	if [ ! -e "$policy" ]; then
		printf "#!/bin/sh\nexit 101\n" >"$policy"
		chmod 755 "$policy"
		trap "rm -f $policy" EXIT
	fi
	apt-get install -y --no-install-recommends "$@" ||
		{ apt-get update && apt-get install -y --no-install-recommends "$@"; }
' setup $missing
