//! Whatever is changed behind fief's back is put back within a second, by events and without polling.

#[path = "reconcile/daemon.rs"]
mod daemon;
#[path = "reconcile/fight.rs"]
mod fight;
#[path = "reconcile/flap.rs"]
mod flap;
#[path = "reconcile/vandal.rs"]
mod vandal;
