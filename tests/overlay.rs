//! The overlay: segments of groups of users on a LAN, against whoever holds their sockets and with whoever speaks vxvde.

mod peers;
mod room;

#[path = "overlay/broker.rs"]
mod broker;
#[path = "overlay/guest.rs"]
mod guest;
#[path = "overlay/holes.rs"]
mod holes;
#[path = "overlay/holes_in.rs"]
mod holes_in;
#[path = "overlay/holes_many.rs"]
mod holes_many;
#[path = "overlay/join.rs"]
mod join;
#[path = "overlay/lan.rs"]
mod lan;
#[path = "overlay/limits.rs"]
mod limits;
#[path = "overlay/many.rs"]
mod many;
#[path = "overlay/neighbours.rs"]
mod neighbours;
#[path = "overlay/networks.rs"]
mod networks;
#[path = "overlay/ovs.rs"]
mod ovs;
#[path = "overlay/pam.rs"]
mod pam;
#[path = "overlay/random.rs"]
mod random;
#[path = "overlay/speakers.rs"]
mod speakers;
#[path = "overlay/storm.rs"]
mod storm;
#[path = "overlay/traffic.rs"]
mod traffic;
#[path = "overlay/vde.rs"]
mod vde;
#[path = "overlay/vxvde.rs"]
mod vxvde;
