//! What every command has: where the daemon is, how to print, and what to print on.

use std::path::{Path, PathBuf};

use fief_api::{Client, ClientError, Paths};
use serde::Serialize;

use crate::args::Format;
use crate::screen::Screen;

/// What every command has.
pub struct Context {
    paths: Paths,
    /// How to print.
    pub format: Format,
    /// Standard output.
    pub out: Screen,
}

impl Context {
    /// For a daemon below `root`, printing in `format`.
    pub fn new(root: Option<&Path>, format: Format) -> Context {
        Context { paths: Paths::new(root), format, out: Screen::stdout() }
    }

    /// Where the daemon's configuration is.
    pub fn config(&self) -> PathBuf {
        self.paths.config()
    }

    /// Where a tenant's network namespace is, if it has one.
    pub fn namespace_of(&self, tenant: &str) -> PathBuf {
        self.paths.namespace_of(tenant)
    }

    /// The daemon's client.
    pub fn client(&self) -> Result<Client, ClientError> {
        Client::new(&self.paths)
    }

    /// Prints `value` as JSON or YAML if that was asked for; says whether it did.
    pub fn print_data(&mut self, value: &impl Serialize) -> anyhow::Result<bool> {
        match self.format {
            Format::Table => return Ok(false),
            Format::Json => self.out.line(&serde_json::to_string_pretty(value)?)?,
            Format::Yaml => self.out.print(&serde_saphyr::to_string(value)?)?,
        }
        Ok(true)
    }
}
