//! Apart by default: every cell of the truth table in docs/isolation.md, each beside one that works.

#[path = "isolation/arriving.rs"]
mod arriving;
#[path = "isolation/cells.rs"]
mod cells;
#[path = "isolation/leaving.rs"]
mod leaving;
mod odd;
#[path = "isolation/receiving.rs"]
mod receiving;
mod room;
#[path = "isolation/table/mod.rs"]
mod table;
