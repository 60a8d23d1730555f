#!/bin/bash
# The demonstration: a host made of namespaces, two tenants on one wire, one unmodified server.
# Everything happens in network and mount namespaces of its own; nothing of it is left, however it ends.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/lib.sh

if [ "${1:-}" != --inside ]; then
	colour=no
	[ -t 1 ] && [ -z "${NO_COLOR:-}" ] && [ "${TERM:-dumb}" != dumb ] && colour=yes
	for program in fief fiefd; do
		[ -x "$(target_dir)/release/$program" ] || die "no $program: run make demo, which builds it"
	done
	as_root unshare --mount --propagation private scripts/demo.sh --inside "$(target_dir)/release" "$colour"
	exit
fi

bin="$2"
. scripts/demo/stage.sh
. scripts/demo/show.sh "$3"
trap close_stage EXIT
trap 'exit 130' INT TERM
SECONDS=0
open_stage

step "A host and two routers on ONE wire; behind each router a client, and both clients are 10.0.0.1."
cat <<'END'
      client 10.0.0.1 ── router 192.0.2.101 ──┐
                                              ├── eth0 of the host
      client 10.0.0.1 ── router 192.0.2.102 ──┘
END
before=$(inventory)

step "A document says whose address is whose, and which way each tenant goes."
sed '/^#/d; /^---/,$d' examples/two-tenants.yaml | paragraph
note "Red is the same with 192.0.2.12 and the other router: examples/two-tenants.yaml."
start_daemon
shown fief apply -f examples/two-tenants.yaml
# Else the comparison at the end would prove nothing.
[ "$(pins)" -gt 0 ] && [ "$before" != "$(inventory)" ] || fail "the host shows nothing of the tenants"

step "One server that knows nothing of tenants, on 0.0.0.0 and [::]."
start_server
command_line "python3 -m http.server 8000 --bind ::"

step "Both clients call it from the same address AND port; each is answered by way of its own router."
row client calls answer "carried by"
for tenant in blue red; do
	for family in 4 6; do
		carried=$(replies blue)/$(replies red)
		answer=$(call "$tenant" "$family") || fail "$tenant's client was not answered: $answer"
		[ "$answer" = "200 OK  hello" ] || fail "$tenant's client was told: $answer"
		by=$(carrier "$carried" "$(replies blue)/$(replies red)")
		[ "$by" = "$tenant" ] || fail "the answer to $tenant's client went by: $by"
		row "$tenant" "$(url "$tenant" "$family")" "$answer" "$by's router"
	done
done
note "The server saw only this, $(grep -c 'GET /' "$dir/server.log") times: $(sed -n 's/^\(.*\) - - .*/\1/p' "$dir/server.log" | sort -u | paste -sd ' ')"

step "Two connections with the same client, 10.0.0.1:40000, stay open: the kernel knows each socket's tenant."
hold blue
hold red
shown fief sockets | keep "TENANT|:40000"
for tenant in blue red; do
	fief sockets "$tenant" | grep -q "$(address "$tenant" 4).*10\.0\.0\.1.*:40000" || fail "no connection of $tenant"
done

step "Blue's own sockets reach blue's address, and not red's."
row "a socket of" calls outcome ""
for target in blue red; do
	outcome=$(call_as blue "$target") && answered=yes || answered=no
	row blue "$(url "$target" 4)" "$outcome" ""
	case "$target/$answered/$outcome" in
	blue/yes/* | red/no/EACCES*) ;;
	*) fail "blue called $target's address: $outcome" ;;
	esac
done

step "What each tenant received and sent, and what was stopped."
shown fief get tenants
counters | while read -r tenant received sent drops; do
	[ "$received" -gt 0 ] && [ "$sent" -gt 0 ] || fail "$tenant's counters stand still: $received in, $sent out"
	note "$tenant: $received packets in, $sent out, $drops dropped"
done

step "Two more tenants have the SAME subnet, each in a namespace with DHCP, names and metadata of its own."
networks >"$dir/networks.yaml"
shown fief apply -f "$dir/networks.yaml"
shown fief get networks
row "workload at" calls "is told it is" ""
for place in front/shop test/lab; do
	until_true metadata "${place%/*}" || fail "${place%/*} hears nothing of itself"
	said=$(metadata "${place%/*}")
	case "$said" in
	"${place#*/}"*10.10.1.20*) row 10.10.1.20 http://169.254.169.254/ "$said" "" ;;
	*) fail "${place%/*} was told it is: $said" ;;
	esac
done

step "Shop's port 8080 of the host leads to its workload; blue's router, which is outside, calls it."
start_front
answer=$(in_ns blue python3 scripts/demo/client.py get 192.0.2.2 8080) || fail "no answer by the port map: $answer"
[ "$answer" = "200 OK  front of shop" ] || fail "the port map led to: $answer"
row "outside" http://192.0.2.2:8080/ "$answer" ""

step "A policy about shop's labels, in Kubernetes' words: its front is called by HTTP, and calls nobody outside."
shown fief apply -f examples/policy.yaml
shown fief policy test --from 192.0.2.101 --to shop/front --port 80/tcp
answer=$(in_ns blue python3 scripts/demo/client.py get 192.0.2.2 8080) || fail "no answer by the port map: $answer"
row "outside" http://192.0.2.2:8080/ "$answer" ""
outcome=$(in_ns front python3 scripts/demo/client.py get 192.0.2.101 80) && fail "the front called out: $outcome"
row "front" http://192.0.2.101/ "$outcome" ""
shown fief flows --verdict dropped
fief -o json flows | jq -e '.[] | select(.endpoint == "shop/front" and .port == 80 and (.rule.file | endswith("policy.yaml")))' >/dev/null ||
	fail "nothing is known of the packets that did not pass"

step "The tenants are deleted. What is left of them on the host: nothing."
shown fief delete tenant blue red shop lab
after=$(inventory)
[ "$before" = "$after" ] || fail "before and after differ:" "$(diff <(echo "$before") <(echo "$after") || true)"
note "The same as before, byte for byte: $(summary "$after")."

close_stage
printf '\n%sDone in %s s. Nothing of it is left on this machine.%s\n' "$bold" "$SECONDS" "$plain"
