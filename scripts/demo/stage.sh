# The scene of the demonstration. Read by scripts/demo.sh, in a mount namespace of its own.

name="fief-demo-$$"
dir=/run/$name
cgroup=""
daemon=$$
pids=()

ns() { printf '%s-%s' "$name" "$1"; }
# By the file, because `ip netns exec` mounts a /sys without cgroup2. A process ends with this script, its parent:
# what goes on in the background is started with instead=exec, or a shell would stand between.
in_ns() {
	local where="/run/netns/$(ns "$1")"
	shift
	${instead:-} nsenter --net="$where" setpriv --pdeathsig KILL "$@"
}
# On the host, in the control group whose sockets fief serves.
on_host() { in_ns host sh -c 'echo 0 >"$1/cgroup.procs" && shift && exec "$@"' sh "$cgroup" "$@"; }
fief() { on_host "$bin/fief" --root "$dir/root" "$@"; }
address() {
	local last=11
	[ "$1" = blue ] || last=12
	if [ "$2" = 4 ]; then echo "192.0.2.$last"; else echo "2001:db8:0:1::$last"; fi
}
url() {
	local host
	host=$(address "$1" "$2")
	if [ "$2" = 4 ]; then echo "http://$host:8000/"; else echo "http://[$host]:8000/"; fi
}

open_stage() {
	local mount
	mount=$(sed -nE 's/^([^ ]+ ){4}([^ ]+) .* - cgroup2 .*/\2/p' /proc/self/mountinfo | head -n 1)
	[ -n "$mount" ] || die "no cgroup2 file system is mounted; mount one: mount -t cgroup2 none /sys/fs/cgroup"
	mkdir -p /run/netns "$dir"
	mount -t tmpfs -o mode=755 tmpfs /run/netns
	mount -t tmpfs -o mode=755 tmpfs "$dir"
	cgroup="$mount/$name"
	mkdir "$cgroup"
	mkdir "$dir/root" "$dir/site"
	echo hello >"$dir/site/index.html"

	local place
	for place in wire host blue red blue-client red-client front test; do
		ip netns add "$(ns "$place")"
		# Nobody else is here: no waiting for duplicate addresses to show up.
		in_ns "$place" sh -c 'echo 0 >/proc/sys/net/ipv6/conf/all/accept_dad
			echo 0 >/proc/sys/net/ipv6/conf/default/accept_dad; ip link set lo up'
	done
	in_ns wire sh -c 'echo 1 >/proc/sys/net/ipv6/conf/default/disable_ipv6
		ip link add wire type bridge && ip link set wire up
		for family in iptables ip6tables arptables; do
			{ echo 0 >/proc/sys/net/bridge/bridge-nf-call-$family; } 2>/dev/null || true
		done'
	plug host 2
	in_ns host ip route add default via 192.0.2.101
	plug blue 101
	plug red 102
	house blue
	house red
}

plug() {
	in_ns wire ip link add "$1" type veth peer name eth0 netns "$(ns "$1")"
	in_ns wire ip link set "$1" master wire up
	in_ns "$1" ip -batch - <<-END
		link set eth0 up
		addr add 192.0.2.$2/24 dev eth0
		addr add 2001:db8:0:1::$2/64 dev eth0 nodad
	END
}

# A router and the client behind it. The router counts the server's replies that it carries.
house() {
	in_ns "$1" sh -c 'echo 1 >/proc/sys/net/ipv4/ip_forward; echo 1 >/proc/sys/net/ipv6/conf/all/forwarding'
	in_ns "$1" ip -batch - <<-END
		link add inner type veth peer name eth0 netns $(ns "$1-client")
		link set inner up
		addr add 10.0.0.254/24 dev inner
		addr add fd00:a::254/64 dev inner nodad
	END
	in_ns "$1-client" ip -batch - <<-END
		link set eth0 up
		addr add 10.0.0.1/24 dev eth0
		addr add fd00:a::1/64 dev eth0 nodad
		route add default via 10.0.0.254
		route add default via fd00:a::254
	END
	in_ns "$1" nft -f - <<-END
		table inet demo {
			counter replies {}
			chain forward { type filter hook forward priority 0; tcp sport 8000 counter name replies; }
		}
	END
}

replies() { in_ns "$1" nft list counter inet demo replies | sed -n 's/.*packets \([0-9]*\).*/\1/p'; }

# Which router's count went up between two readings.
carrier() {
	local by=""
	[ "${1%/*}" = "${2%/*}" ] || by="blue"
	[ "${1#*/}" = "${2#*/}" ] || by="${by:+$by and }red"
	echo "${by:-nobody}"
}

start_daemon() {
	instead=exec in_ns host "$bin/fiefd" --root "$dir/root" --cgroup "$cgroup" 2>"$dir/fiefd.log" &
	daemon=$!
	pids+=("$daemon")
	until_true fief status || fail "fiefd does not answer"
}

start_server() {
	instead=exec on_host python3 -u -m http.server 8000 --bind :: --directory "$dir/site" >"$dir/server.log" 2>&1 &
	pids+=($!)
	until_true grep -q Serving "$dir/server.log" || fail "the server does not start" "$(cat "$dir/server.log")"
}

call() {
	local from=10.0.0.1
	[ "$2" = 4 ] || from=fd00:a::1
	in_ns "$1-client" python3 scripts/demo/client.py get "$(address "$1" "$2")" 8000 --source "$from" 50000
}

hold() {
	instead=exec in_ns "$1-client" python3 scripts/demo/client.py hold "$(address "$1" 4)" 8000 --source 10.0.0.1 40000 \
		>"$dir/held-$1" &
	pids+=($!)
	until_true grep -q connected "$dir/held-$1" || fail "$1's client cannot connect" "$(cat "$dir/held-$1")"
}

# The example, for the namespaces of this stage.
networks() { sed "s/netns: front/netns: $(ns front)/; s/netns: test/netns: $(ns test)/" examples/networks.yaml; }

# What a namespace hears from its metadata service: its tenant, network and address.
metadata() {
	in_ns "$1" python3 -c 'import json, urllib.request as u
it = json.load(u.urlopen("http://169.254.169.254/fief/v1/endpoint", timeout=5))
print(it["tenant"], it["network"], it["endpoint"], it["address"])'
}

start_front() {
	mkdir "$dir/front"
	echo "front of shop" >"$dir/front/index.html"
	instead=exec in_ns front python3 -u -m http.server 80 --directory "$dir/front" >"$dir/front.log" 2>&1 &
	pids+=($!)
	until_true grep -q Serving "$dir/front.log" || fail "the server does not start" "$(cat "$dir/front.log")"
}

# A process of the host that acts as a tenant: its socket bears the tenant's mark.
call_as() {
	local mark
	mark=$(fief -o json get tenants "$1" | jq -r '.status.mark | split("/")[0]')
	on_host python3 scripts/demo/client.py get "$(address "$2" 4)" 8000 --mark "$mark"
}

counters() {
	fief -o json get tenants | jq -r '.[] | .status.counters as $c | [(.metadata.name // .tenant.metadata.name),
		$c.rxPackets, $c.txPackets, ([$c | to_entries[] | select(.key | startswith("drop")) | .value] | add)] | @tsv'
}

# All that configures the host's network, as text.
inventory() {
	in_ns host sh -c '
		for family in -4 -6; do ip $family rule show; done
		for family in -4 -6; do ip $family route show table all; done
		ip addr show
		nft list ruleset
		grep -rs . /proc/sys/net | grep -v -e nf_conntrack_count -e netdev_rss_key | sort'
	echo "bpf pins: $(pins)"
}

# The daemon's bpf file system is in its mount namespace. What ends in .debug is the kernel's own.
pins() { { find "/proc/$daemon/root$dir/root/sys/fs/bpf" -mindepth 1 -type f ! -name '*.debug' 2>/dev/null || true; } | wc -l; }

summary() {
	local rules routes sysctls
	rules=$(grep -Ec '^[0-9]+:.*from .*lookup' <<<"$1")
	routes=$(grep -Ec ' dev .* (proto|metric|scope) ' <<<"$1")
	sysctls=$(grep -c ^/proc/sys/net <<<"$1")
	echo "$rules rules, $routes routes, $sysctls sysctls, no nft table, no bpf pin"
}

until_true() {
	local tries=0
	while ! "$@" >/dev/null 2>&1; do
		tries=$((tries + 1))
		[ $tries -lt 100 ] || return 1
		sleep 0.05
	done
}

# Also when the script is interrupted or fails; mounts and namespaces go with the mount namespace.
close_stage() {
	trap - EXIT INT TERM
	[ ${#pids[@]} -eq 0 ] || { kill "${pids[@]}" 2>/dev/null || true; wait "${pids[@]}" 2>/dev/null || true; }
	pids=()
	local tries=0
	while [ -n "$cgroup" ] && [ -d "$cgroup" ] && [ $tries -lt 40 ] && ! rmdir "$cgroup" 2>/dev/null; do
		tries=$((tries + 1))
		sleep 0.05
	done
	umount -l "$dir" /run/netns 2>/dev/null || true
	rmdir "$dir" 2>/dev/null || true
}
