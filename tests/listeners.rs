//! One listener for every tenant: unmodified servers, and every kind of answer that the kernel gives in their name.

#[path = "listeners/crowd.rs"]
mod crowd;
#[path = "listeners/kernel.rs"]
mod kernel;
mod odd;
#[path = "listeners/own.rs"]
mod own;
mod room;
#[path = "listeners/servers.rs"]
mod servers;
#[path = "listeners/special.rs"]
mod special;
