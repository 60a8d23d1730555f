#!/bin/sh
# Copies what `make build` has made to DESTDIR and PREFIX (default /usr), with the systemd unit and the group's file.
# Starts nothing: `systemctl enable --now fiefd` does.
set -eu
cd "$(dirname "$0")/.."
. scripts/lib.sh

prefix="${DESTDIR:-}${PREFIX:-/usr}"
release="$(target_dir)/release"

install -D -m 755 "$release/fief" "$prefix/bin/fief"
install -D -m 755 "$release/fiefd" "$prefix/sbin/fiefd"
install -D -m 644 "$release/libvdeplug_vxvdex.so" "$prefix/lib/$(gcc -print-multiarch)/vdeplug/libvdeplug_vxvdex.so"
install -d "$prefix/share/man/man1" "$prefix/share/bash-completion/completions" "$prefix/share/zsh/site-functions"
"$release/fief" man >"$prefix/share/man/man1/fief.1"
"$release/fief" completion bash >"$prefix/share/bash-completion/completions/fief"
"$release/fief" completion zsh >"$prefix/share/zsh/site-functions/_fief"
install -d "$prefix/lib/systemd/system"
sed "s|@PREFIX@|${PREFIX:-/usr}|" scripts/fiefd.service.in >"$prefix/lib/systemd/system/fiefd.service"
install -d "$prefix/lib/sysusers.d"
echo 'g fief -' >"$prefix/lib/sysusers.d/fief.conf"
for licence in LICENSE-APACHE LICENSE-MIT; do
	install -D -m 644 "$licence" "$prefix/share/doc/fief/$licence"
done
