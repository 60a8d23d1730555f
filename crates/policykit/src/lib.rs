//! Policy as a test language, for whoever holds something against the tables: [`scene`] is what a test writes down,
//! [`draw`] draws such scenes, [`matrix`] reads the outside truth table, [`host`] keeps a compiler and tables as a
//! scene wants them, [`histogram`] counts which kinds of rule were met,
//! [`written`] makes documents of a scene, for the shipped daemon, and [`shapes`] are large tenants, to measure with.
#![allow(missing_docs, reason = "tests, in a crate of their own because two rooms share them")]
#![forbid(unsafe_code)]

pub mod draw;
pub mod histogram;
pub mod host;
pub mod matrix;
pub mod scene;
pub mod shapes;
pub mod written;
