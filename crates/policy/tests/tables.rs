//! The tables give the answers that the reference gives, and that the outside matrix wants, however they were reached.

#[path = "tables/changes.rs"]
mod changes;
#[path = "tables/matrix.rs"]
mod matrix;
#[path = "tables/precedence.rs"]
mod precedence;
#[path = "tables/properties.rs"]
mod properties;
