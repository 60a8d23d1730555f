#!/bin/sh
# Do the tests bite? Every protection is switched off alone, and its test must then fail: scripts/test-teeth.sh [NAME]
# NAME is a part of the name of a protection. The programs are built once more, with the feature `teeth`, in which
# FIEF_TEETH=PROTECTION takes that one away; without FIEF_TEETH the same programs must pass the same test.
set -eu
cd "$(dirname "$0")/.."
. scripts/lib.sh

# Protection, then a part of "package target test" that names exactly one test.
PROTECTIONS="
tree-ends                           a_slot_that_nobody_has_goes_nowhere
table-end                           a_tenant_without_a_route_never_leaves_by_main
lo                                  a_process_outside_the_cgroup_is_dropped_on_lo_and_counted
connect                             connecting_to_another_tenant_the_host_or_loopback_is_eacces
sendmsg                             sending_to_another_tenant_the_host_or_loopback_is_eacces
device-out                          a_packet_socket_with_a_tenants_mark_sends_on_that_tenants_devices_only
guard-out                           a_socket_that_names_a_foreign_device_does_not_leave_by_it
device-in                           an_address_called_on_a_device_that_is_not_its_tenants_is_dropped
guard-source                        an_answer_without_a_mark_does_not_carry_a_tenants_address_away_by_the_hosts_routes
guard-in                            an_address_called_on_a_device_that_is_not_its_tenants_is_dropped
neighbours                          with_neighbours_only_they_bring_packets_and_ask_for_addresses
spoof-in                            a_packet_from_the_wire_whose_source_is_an_address_of_this_host_is_not_delivered
spoof-out                           a_socket_bound_to_another_tenants_address_sends_nothing
listener                            a_tenants_own_udp_socket_gets_its_tenants_datagrams_only
redirect                            a_redirect_moves_the_hosts_own_flow_and_not_a_tenants
reduce                              foreign_bits_of_a_packets_mark_survive_and_the_accepted_socket_has_our_field_only
looped                              multicast_of_a_tenant_is_not_looped_back_to_the_host
members                             the_option_asks_who_the_caller_is
members                             root_of_a_user_namespace_is_who_he_was
members                             who_one_was_does_not_count
members                             a_passed_descriptor_stays_whose_it_is
mark                                a_mark_by_option_is_the_same_question
message                             a_mark_by_control_message_does_not_change_sides
alias                               truth::every_cell
steer                               own::each_tenant_has_its_own_listener_on_one_port
select                              select::a_control_group_and_all_below_it
listed                              own::a_udp_server_for_a_list_of_tenants
bind                                a_socket_bound_to_a_tenants_address_is_that_tenants_whoever_made_it
reduce                              a_hundred_thousand_packets_keep_their_foreign_bits_and_give_none_away
take-over                           the_field_moves_under_iperf_and_a_thousand_connections
taken-over                          foreign_bits_in_the_old_field_select_nobody
half-open                           connections_that_are_no_sockets_yet_or_no_longer_are_not_lost
net-source                          a_source_that_is_another_tenants_does_not_leave_a_namespace
net-wire                            a_source_of_a_link_does_not_come_from_a_wire
net-host                            nothing_leads_from_an_endpoint_to_the_host
net-through                         one_tenants_packets_do_not_reach_anothers_link
net-gateway                         a_server_in_a_namespace_is_not_there_for_the_host
net-inwards                         an_endpoint_is_reached_by_port_maps_only
net-closed                          a_device_that_forwarded_nothing_forwards_tenants_packets_only
net-exit                            a_network_without_a_way_out_is_told_so_beside_one_that_has_one
net-zone                            inside::evenet_e02
net-collision                       ports::evenet_e10
net-apart                           ports::evenet_e10
net-locked                          an_endpoint_with_another_ethernet_address_loses_its_own_traffic_only
net-handed                          handed::nobody_gets_a_socket
net-chaddr                          who_names_another_in_dhcp_gets_nothing_and_takes_nothing
net-asker                           a_networks_names_are_for_those_who_are_on_it
net-caller                          who_has_no_address_of_this_network_is_told_nothing
port-lies                           nobody_on_a_network_is_somebody_else
port-verdict                        who_is_not_allowed_is_not_heard
port-share                          whoever_fills_the_room_leaves_others_their_share
port-share                          whoever_fills_the_room_of_the_answered_leaves_others_their_share
port-stamp                          what_goes_on_goes_on_through_first_policies_and_restarts
port-ways                           a_change_counts_at_once_on_the_short_way_too
port-ways                           a_change_counts_at_once_on_the_short_way_to_the_outside_too
host-fronts                         a_place_that_is_given_to_another_tenant_is_his_at_once
host-fronts                         a_place_that_is_given_to_the_host_is_the_hosts_at_once
net-metadata                        each_caller_hears_of_its_own_network
policy-numbers                      durable::numbers_are_the_same_after_the_daemon_was_killed
policy-room                         what_the_tables_cannot_hold_is_refused_before_it_is_kept
policy-labels                       policies_that_say_what_nobody_can_do_are_refused
switch-host                         switch_frames_reach_no_other_switch_and_not_the_host
switch-gateway                      switch_frames_reach_no_other_switch_and_not_the_host
switch-tag                          switch_endpoints_send_no_tags
switch-guard                        switch_endpoint_that_speaks_the_trees_language
switch-sticky                       switch_endpoint_that_speaks_as_somebody_else
guard-01                            guarded_socket_hole_01
guard-02                            guarded_socket_hole_02
guard-03                            guarded_socket_hole_03
guard-04                            guarded_socket_hole_04
guard-05                            guarded_socket_hole_05
guard-06                            guarded_socket_hole_06
guard-07                            guarded_socket_hole_07
guard-08                            guarded_socket_hole_08
guard-09                            guarded_socket_hole_09
guard-10                            holes::guarded_socket_hole_10
guard-10                            guarded_socket_hole_10_in_many
guard-12                            guarded_socket_hole_12
guard-01                            guarded_socket_hole_11
guard-03                            guarded_socket_hole_15
guard-01                            guarded_socket_random_attacker
guard-02                            guarded_socket_random_attacker
guard-03                            guarded_socket_random_attacker
guard-04                            guarded_socket_random_attacker
guard-05                            guarded_socket_random_attacker
guard-06                            guarded_socket_random_attacker
guard-07                            guarded_socket_random_attacker
guard-08                            guarded_socket_random_attacker
guard-09                            guarded_socket_random_attacker
guard-10                            guarded_socket_random_attacker
guard-12                            guarded_socket_random_attacker
guard-01                            guarded_socket_of_one_network_is_not_on_another
guard-08                            overlay_limits_max_ttl_is_what_leaves
overlay-owner                       join_is_for_ones_own_namespace
overlay-segment                     join_three_hosts_and_two_groups
overlay-segment                     join_two_users_attack_each_other_on_one_host_and_on_two
overlay-macs                        join_bounds_a_hundred_thousand_addresses
overlay-rate                        join_bounds_a_hundred_thousand_addresses
overlay-rate                        overlay_limits_rate_for_interfaces
overlay-port                        join_with_a_kernels_tunnel
overlay-goodbye                     vxvde_fast_path_honours_a_goodbye
overlay-port                        vxvde_fast_path_with_open_vswitch
overlay-goodbyes                    vxvde_goodbyes_that_others_say_cost_next_to_nothing
overlay-expiry                      vxvde_fast_path_forgets_who_was_silent_or_has_gone
overlay-header                      vxvde_a_storm_of_garbage_on_the_port
overlay-unheard                     vxvde_garbage_ends_at_the_card_unless_somebody_hears_it
overlay-local                       vxvde_fast_path_beside_plugs_of_all_kinds
overlay-filter                      join_past_the_ip_stack_obeys_its_filters
net.ipv4.fwmark_reflect             a_closed_port_answers_with_rst_and_unreachable_through_the_callers_router
net.ipv6.fwmark_reflect             a_closed_port_answers_with_rst_and_unreachable_through_the_callers_router
net.ipv4.tcp_fwmark_accept          syn_cookies_keep_the_tenant
net.ipv4.conf.all.src_valid_mark    strict_reverse_path_filtering_of_the_host_lets_tenants_clients_in
"

target=$(target_dir)
teeth="$target/teeth"
messages="$teeth/test-executables.json"
mkdir -p "$teeth"

say "building the programs with teeth that can be drawn"
CARGO_TARGET_DIR="$teeth" cargo build --locked --bins -p fief-daemon -p fief -p fief-testkit --features fief-daemon/teeth
CARGO_TARGET_DIR="$teeth" cargo build --locked -p fief-vdeplug
cargo build --locked -p fief-testkit --bins
cargo test --locked -p fief-tests --no-run --message-format=json-render-diagnostics >"$messages"
# Its programs are loaded by the test itself.
CARGO_TARGET_DIR="$teeth" cargo test --locked -p fief-datapath --features teeth --test policy --no-run \
	--message-format=json-render-diagnostics >>"$messages"
[ -x "$target/peers/bin/nginx" ] || scripts/peers.sh

runner="$target/debug/fief-test-runner"
log="$teeth/last.log"
# Switches one protection off (none, if the name is empty) and runs one test.
bite() { as_root env FIEF_BIN_DIR="$teeth/debug" FIEF_TEETH="$1" FIEF_TEST_REQUIRE_ROOT=1 "$runner" "$messages" "$2" </dev/null >"$log" 2>&1; }

say "drawing them one by one${*:+: $*}"
right=0
all=0
while read -r protection test; do
	[ -n "$protection" ] || continue
	case "$protection" in *"${1:-}"*) ;; *) continue ;; esac
	all=$((all + 1))
	if ! bite "" "$test"; then
		printf 'FAIL  %-34s %s fails with it, too\n' "$protection" "$test"
		tail -n 30 "$log"
	elif bite "$protection" "$test"; then
		printf 'FAIL  %-34s %s does not miss it\n' "$protection" "$test"
	elif ! grep -q panicked "$log"; then
		printf 'FAIL  %-34s %s did not run\n' "$protection" "$test"
		tail -n 30 "$log"
	else
		right=$((right + 1))
		printf 'ok    %-34s %s\n' "$protection" "$test"
		# What it missed, so that a reader sees that it failed for the right reason.
		sed -n '/panicked at/{n;N;N;s/\n */ /g;s/^ */        /p;q}' "$log" | cut -c 1-150
	fi
done <<END
$PROTECTIONS
END

[ "$all" -gt 0 ] || die "no protection has \"$1\" in its name"
say "$right of $all"
[ "$right" -eq "$all" ]
