//! Documents through the real daemon: what is wrong is refused before anything changes; what is right comes back as it
//! was written; what the host lacks just now waits.

#[path = "documents/files.rs"]
mod files;
#[path = "documents/pending.rs"]
mod pending;
#[path = "documents/refused.rs"]
mod refused;
#[path = "documents/sets.rs"]
mod sets;
