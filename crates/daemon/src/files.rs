//! Documents in the configuration directory: the set `files`, read at boot and on reload.

use std::path::Path;

use fief_api::{ApplyRequest, ApplyResponse, SourceText};

use crate::engine::{Applied, Engine, Refusal};

/// Their set.
const SET: &str = "files";
/// The daemon's own file in the same directory.
const OURS: &str = "fiefd.yaml";

/// Makes the directory's documents true and deletes what earlier ones made. An empty directory changes nothing: a
/// file system that is not mounted yet must not delete every tenant.
pub fn apply(engine: &mut Engine) -> Applied {
    let directory = engine.config_directory();
    let sources = read(&directory).map_err(|error| Refusal::Conflict(error, None))?;
    if sources.is_empty() {
        return Ok(ApplyResponse::default());
    }
    engine.apply(&ApplyRequest { sources, set: Some(SET.into()), prune: true, ..ApplyRequest::default() })
}

fn read(directory: &Path) -> Result<Vec<SourceText>, String> {
    let entries = match std::fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(format!("read {}: {error}", directory.display())),
    };
    let mut paths: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
    paths.retain(|p| p.extension().is_some_and(|e| e == "yaml" || e == "yml") && !p.ends_with(OURS));
    paths.sort();
    let text = |path: &Path| {
        std::fs::read_to_string(path)
            .map(|text| SourceText { name: path.display().to_string(), text })
            .map_err(|error| format!("read {}: {error}", path.display()))
    };
    paths.iter().map(|path| text(path)).collect()
}
