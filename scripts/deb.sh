#!/bin/sh
# Packs what `make build` has made into target/fief_VERSION_ARCH.deb. Needs no root.
set -eu
cd "$(dirname "$0")/.."
. scripts/lib.sh

target=$(target_dir)
stage="$target/deb"
version=$(sed -n '/^\[workspace.package\]/,/^\[[^w]/s/^version = "\(.*\)"/\1/p' Cargo.toml)
arch=$(dpkg --print-architecture)
package="$target/fief_${version}_$arch.deb"

rm -rf "$stage"
DESTDIR="$stage" PREFIX=/usr scripts/install.sh
# The programs need nothing but libc, of the release they were built on or later.
libc=$(dpkg-query -W -f '${Version}' libc6 | sed 's/-.*//')
install -d "$stage/DEBIAN"
cat >"$stage/DEBIAN/control" <<END
Package: fief
Version: $version
Architecture: $arch
Maintainer: The fief authors <fief@localhost>
Depends: libc6 (>= $libc)
Section: net
Priority: optional
Description: many tenants, overlapping addresses, one Linux host
 fiefd keeps the networks of many tenants apart in one network stack; fief is its command line.
END
cat >"$stage/DEBIAN/postinst" <<'END'
#!/bin/sh
set -e
if [ "$1" = configure ]; then
	getent group fief >/dev/null || groupadd --system fief
	if [ -d /run/systemd/system ]; then
		systemctl daemon-reload
	fi
fi
END
chmod 755 "$stage/DEBIAN/postinst"
dpkg-deb --root-owner-group --build "$stage" "$package"
