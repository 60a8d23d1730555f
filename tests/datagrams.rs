//! UDP servers with one socket for everybody: whoever asks, is answered, and nobody hears another's answer.

#[path = "datagrams/edges.rs"]
mod edges;
mod room;
#[path = "datagrams/servers.rs"]
mod servers;
#[path = "datagrams/truth.rs"]
mod truth;
