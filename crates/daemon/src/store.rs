//! What must survive: documents with their slots, and what the host's switches were before fief set them.
//!
//! One redb file, versioned. A write returns after the data is on the disk (redb commits durably), and only then is
//! anything acknowledged.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};

use fief_marks::MarkLayout;
use fief_model::{Slot, Tenant};
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};
use serde::{Deserialize, Serialize};

/// The file's layout; a file with another number is refused, never guessed at.
const VERSION: u64 = 1;
const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");
const TENANTS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("tenants");
const SWITCHES: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("switches");
const FIELDS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("fields");
/// The one row of its table.
const FIELD: &str = "slot";

/// A tenant as stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stored {
    /// The document.
    pub tenant: Tenant,
    /// The set that made it.
    pub set: String,
    /// Its number, kept as long as it lives.
    pub slot: Slot,
    /// Members as numbers, resolved when it was applied.
    #[serde(default)]
    pub members: MemberIds,
    /// Users and groups that it selects, resolved like members.
    #[serde(default)]
    pub selected: MemberIds,
}

/// Members as the kernel knows them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberIds {
    /// User ids.
    pub users: Vec<u32>,
    /// Group ids.
    pub groups: Vec<u32>,
}

/// What a switch was before fief set it, and what fief set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Switch {
    /// The value found.
    pub before: String,
    /// The value set.
    pub set: String,
    /// The index of the device whose switch it is.
    #[serde(default)]
    pub device: Option<u32>,
}

/// Where the slot stands in marks, and why there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Field {
    /// The field that counts.
    pub mask: MarkLayout,
    /// Which of the two places for a rule tree its tree has.
    pub lane: u8,
    /// Why it stands there, in a line.
    pub reason: String,
    /// On its way to another place.
    #[serde(default)]
    pub moving: Option<Moving>,
}

/// A field on its way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Moving {
    /// The next place.
    pub to: MarkLayout,
    /// The last place: another one than the next where those two would share bits.
    pub goal: MarkLayout,
    /// Why it moves, in a line.
    pub reason: String,
    /// How far it has come.
    pub phase: Phase,
}

/// How far a field has come. Every step leaves what is written true for the one before and the one behind it, so that
/// programs may be replaced one by one, and a daemon may be killed anywhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// The slot is written to both places, and the old one counts.
    Both,
    /// The slot is written to both places, and the new one counts.
    Read,
    /// The new place is the only one; the old bits are taken off sockets and connections.
    Clean,
}

/// The open store.
pub struct Store {
    path: PathBuf,
    /// `None` after a failed write, until it could be opened again: redb refuses everything after an I/O error.
    database: Option<Database>,
}

/// A store that cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// It cannot be opened.
    #[error("open the store {path}: {error}; if another fiefd runs on it, stop that one first")]
    Open {
        /// The file.
        path: String,
        /// Why.
        error: String,
    },
    /// It was written by another version of fief.
    #[error(
        "the store {path} has version {found}, this fiefd reads version {VERSION}; start the fiefd that wrote it"
    )]
    Version {
        /// The file.
        path: String,
        /// Its version.
        found: u64,
    },
    /// A read or write failed; nothing was changed.
    #[error("the store refused: {0}; nothing was changed")]
    Refused(String),
}

impl Store {
    /// Opens or makes the store in this directory.
    pub fn open(directory: &Path) -> Result<Store, StoreError> {
        let path = directory.join("store.redb");
        std::fs::create_dir_all(directory)
            .map_err(|e| StoreError::Open { path: path.display().to_string(), error: e.to_string() })?;
        let database = Some(open(&path)?);
        Ok(Store { path, database })
    }

    /// Every tenant by name.
    pub fn tenants(&self) -> Result<BTreeMap<String, Stored>, StoreError> {
        self.read(TENANTS)
    }

    /// Every switch that fief has set, by name.
    pub fn switches(&self) -> Result<BTreeMap<String, Switch>, StoreError> {
        self.read(SWITCHES)
    }

    /// Puts and deletes tenants in one transaction: all of it is on the disk on return, or none of it.
    pub fn change_tenants(&mut self, put: &[&Stored], delete: &[&str]) -> Result<(), StoreError> {
        let put: Vec<(&str, &Stored)> = put.iter().map(|s| (s.tenant.metadata.name.as_str(), *s)).collect();
        self.write(TENANTS, &put, delete)
    }

    /// Remembers what switches were; to be called BEFORE they are set.
    pub fn remember_switches(&mut self, switches: &[(&str, &Switch)]) -> Result<(), StoreError> {
        self.write(SWITCHES, switches, &[])
    }

    /// Forgets switches that were put back.
    pub fn forget_switches(&mut self, names: &[&str]) -> Result<(), StoreError> {
        self.write(SWITCHES, &[] as &[(&str, &Switch)], names)
    }

    /// Where the slot stands in marks; `None` before that was ever chosen.
    pub fn field(&self) -> Result<Option<Field>, StoreError> {
        Ok(self.read(FIELDS)?.remove(FIELD))
    }

    /// Remembers where the slot stands; to be called BEFORE anything is moved there.
    pub fn keep_field(&mut self, field: &Field) -> Result<(), StoreError> {
        self.write(FIELDS, &[(FIELD, field)], &[])
    }

    /// The upper half of the IPv6 network that aliases are taken from, drawn once (RFC 4193): fd, 40 random bits, 16 more.
    pub fn alias_network(&mut self) -> Result<u64, StoreError> {
        let work = |database: &Database| -> Result<u64, Box<dyn std::error::Error>> {
            let transaction = database.begin_write()?;
            let network = {
                let mut meta = transaction.open_table(META)?;
                let known = meta.get("alias-network")?.map(|v| v.value());
                match known {
                    Some(network) => network,
                    None => {
                        let mut random = [0; 8];
                        std::fs::File::open("/dev/urandom")?.read_exact(&mut random)?;
                        random[0] = 0xfd;
                        let drawn = u64::from_be_bytes(random);
                        meta.insert("alias-network", drawn)?;
                        drawn
                    }
                }
            };
            transaction.commit()?;
            Ok(network)
        };
        let database = self.database.as_ref().ok_or_else(|| StoreError::Refused("it is not open".into()))?;
        work(database).map_err(|e| StoreError::Refused(e.to_string()))
    }

    fn read<T: for<'de> Deserialize<'de>>(
        &self,
        table: TableDefinition<'_, &str, &[u8]>,
    ) -> Result<BTreeMap<String, T>, StoreError> {
        let work = || -> Result<_, Box<dyn std::error::Error>> {
            let database =
                self.database.as_ref().ok_or("it could not be opened again after a failed write")?;
            let transaction = database.begin_read()?;
            let mut all = BTreeMap::new();
            for row in transaction.open_table(table)?.iter()? {
                let (key, value) = row?;
                all.insert(key.value().to_owned(), serde_json::from_slice(value.value())?);
            }
            Ok(all)
        };
        work().map_err(|e| StoreError::Refused(e.to_string()))
    }

    fn write<T: Serialize>(
        &mut self,
        table: TableDefinition<'_, &str, &[u8]>,
        put: &[(&str, &T)],
        delete: &[&str],
    ) -> Result<(), StoreError> {
        if put.is_empty() && delete.is_empty() {
            return Ok(());
        }
        let database = match self.database.take() {
            Some(database) => database,
            None => open(&self.path)?,
        };
        let work = || -> Result<(), Box<dyn std::error::Error>> {
            let transaction = database.begin_write()?;
            {
                let mut table = transaction.open_table(table)?;
                for (key, value) in put {
                    table.insert(*key, serde_json::to_vec(value)?.as_slice())?;
                }
                for key in delete {
                    table.remove(*key)?;
                }
            }
            Ok(transaction.commit()?)
        };
        let done = work().map_err(|e| StoreError::Refused(e.to_string()));
        self.database = if done.is_ok() {
            Some(database)
        } else {
            // Closed first: the file is locked while it is open.
            drop(database);
            open(&self.path).ok()
        };
        done
    }
}

fn open(path: &Path) -> Result<Database, StoreError> {
    let failed = |error: String| StoreError::Open { path: path.display().to_string(), error };
    let database = Database::builder()
        .set_cache_size(4 * 1024 * 1024)
        .create(path)
        .map_err(|e| failed(e.to_string()))?;
    let found = version(&database).map_err(|e| failed(e.to_string()))?;
    if found != VERSION {
        return Err(StoreError::Version { path: path.display().to_string(), found });
    }
    Ok(database)
}

/// The file's version; a new file gets ours together with its tables.
fn version(database: &Database) -> Result<u64, Box<dyn std::error::Error>> {
    let transaction = database.begin_write()?;
    let found = {
        let mut meta = transaction.open_table(META)?;
        let found = meta.get("version")?.map(|v| v.value());
        if found.is_none() {
            meta.insert("version", VERSION)?;
            transaction.open_table(TENANTS)?;
            transaction.open_table(SWITCHES)?;
        }
        transaction.open_table(FIELDS)?;
        found.unwrap_or(VERSION)
    };
    transaction.commit()?;
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stored(name: &str, slot: u16) -> Stored {
        let tenant = serde_json::from_value(serde_json::json!({ "metadata": { "name": name } })).unwrap();
        let slot = Slot::new(slot).unwrap();
        Stored {
            tenant,
            set: "default".into(),
            slot,
            members: MemberIds::default(),
            selected: MemberIds::default(),
        }
    }

    #[test]
    fn what_was_written_is_there_after_opening_again() {
        let directory = tempfile::tempdir().unwrap();
        let (blue, red) = (stored("blue", 1), stored("red", 2));
        let switch = Switch { before: "0".into(), set: "1".into(), device: None };
        {
            let mut store = Store::open(directory.path()).unwrap();
            store.change_tenants(&[&blue, &red], &[]).unwrap();
            store.change_tenants(&[], &["red"]).unwrap();
            store.remember_switches(&[("net.ipv4.fwmark_reflect", &switch)]).unwrap();
        }
        let mut store = Store::open(directory.path()).unwrap();
        let network = store.alias_network().unwrap();
        assert_eq!(network >> 56, 0xfd);
        assert_eq!(store.alias_network().unwrap(), network, "drawn once");
        assert_eq!(store.tenants().unwrap(), BTreeMap::from([("blue".into(), blue)]));
        assert_eq!(store.switches().unwrap()["net.ipv4.fwmark_reflect"], switch);
    }

    #[test]
    fn a_store_of_another_version_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        drop(Store::open(directory.path()).unwrap());
        {
            let database = Database::open(directory.path().join("store.redb")).unwrap();
            let transaction = database.begin_write().unwrap();
            transaction.open_table(META).unwrap().insert("version", 2).unwrap();
            transaction.commit().unwrap();
        }
        let error = Store::open(directory.path()).err().unwrap().to_string();
        assert!(error.contains("version 2"), "{error}");
    }
}
