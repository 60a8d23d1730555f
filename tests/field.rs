//! Where the tenant's number stands in marks: chosen, watched, and moved while everything runs.

#[path = "field/choice.rs"]
mod choice;
#[path = "field/crowd.rs"]
mod crowd;
#[path = "field/killed.rs"]
mod killed;
#[path = "field/moved.rs"]
mod moved;
#[path = "field/passage.rs"]
mod passage;
mod room;
