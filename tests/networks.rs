//! Networks and endpoints: tenants whose addresses may be anybody's, each with names, leases and uplinks of its own.

mod odd;
mod room;

#[path = "networks/alive.rs"]
mod alive;
#[path = "networks/app.rs"]
mod app;
#[path = "networks/askers.rs"]
mod askers;
#[path = "networks/by_hand.rs"]
mod by_hand;
#[path = "networks/conntrack.rs"]
mod conntrack;
#[path = "networks/crowd.rs"]
mod crowd;
#[path = "networks/deleted.rs"]
mod deleted;
#[path = "networks/doors.rs"]
mod doors;
#[path = "networks/evenet.rs"]
mod evenet;
#[path = "networks/flow.rs"]
mod flow;
#[path = "networks/handed.rs"]
mod handed;
#[path = "networks/host_programs.rs"]
mod host_programs;
#[path = "networks/host_way.rs"]
mod host_way;
#[path = "networks/machine.rs"]
mod machine;
#[path = "networks/many.rs"]
mod many;
#[path = "networks/node.rs"]
mod node;
#[path = "networks/policies.rs"]
mod policies;
#[path = "networks/probes.rs"]
mod probes;
#[path = "networks/refused.rs"]
mod refused;
#[path = "networks/short.rs"]
mod short;
#[path = "networks/six.rs"]
mod six;
#[path = "networks/sizes.rs"]
mod sizes;
#[path = "networks/switch.rs"]
mod switch;
#[path = "networks/switch_tree.rs"]
mod switch_tree;
#[path = "networks/switch_walls.rs"]
mod switch_walls;
#[path = "networks/tools.rs"]
mod tools;
#[path = "networks/topology.rs"]
mod topology;
#[path = "networks/town.rs"]
mod town;
#[path = "networks/uplinks.rs"]
mod uplinks;
#[path = "networks/walls.rs"]
mod walls;
#[path = "networks/yard.rs"]
mod yard;
