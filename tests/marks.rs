//! Who reads and writes which bits of the marks, held against real objects of the kernel.

#[path = "marks/checks.rs"]
mod checks;
#[path = "marks/fixtures.rs"]
mod fixtures;
#[path = "marks/generated.rs"]
mod generated;
#[path = "marks/programs.rs"]
mod programs;
#[path = "marks/rooms.rs"]
mod rooms;
#[path = "marks/scanned.rs"]
mod scanned;
