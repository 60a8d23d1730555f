//! Packet to tenant: what a frame on the wire must have for which tenant to get it.

#[path = "wire/addressed.rs"]
mod addressed;
#[path = "wire/frames.rs"]
mod frames;
#[path = "wire/neighbours.rs"]
mod neighbours;
mod odd;
mod room;
