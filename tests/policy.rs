//! Policies through the real daemon, from the document to the verdict: what is applied, kept, refused, and said.

#[path = "policy/asked.rs"]
mod asked;
#[path = "policy/durable.rs"]
mod durable;
#[path = "policy/kind.rs"]
mod kind;
#[path = "policy/live.rs"]
mod live;
#[path = "policy/refused.rs"]
mod refused;
#[path = "policy/shop.rs"]
mod shop;
