//! What must survive: documents with their slots, and what the host's switches were before fief set them.
//!
//! One redb file, versioned. A write returns after the data is on the disk (redb commits durably), and only then is
//! anything acknowledged.

pub mod leases;
mod rows;

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};

use fief_policy::Identity;
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition, TableHandle};
use serde::{Deserialize, Serialize};

pub use rows::{
    Field, MemberIds, Moving, Phase, Stored, StoredEndpoint, StoredIdentity, StoredNetwork, StoredPolicy,
    Switch, Uplink,
};

/// The file's layout; a file with another number is refused, never guessed at.
const VERSION: u64 = 1;
type Table = TableDefinition<'static, &'static str, &'static [u8]>;
const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");
const TENANTS: Table = TableDefinition::new("tenants");
const NETWORKS: Table = TableDefinition::new("networks");
const ENDPOINTS: Table = TableDefinition::new("endpoints");
const POLICIES: Table = TableDefinition::new("policies");
const IDENTITIES: Table = TableDefinition::new("identities");
const UPLINKS: Table = TableDefinition::new("uplinks");
const SWITCHES: Table = TableDefinition::new("switches");
const FIELDS: Table = TableDefinition::new("fields");
/// A row of META.
const VRF_RULE: &str = "vrf-rule-is-ours";
/// The one row of its table.
const FIELD: &str = "slot";

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

/// Rows to put and delete together.
#[derive(Default)]
pub struct Changes {
    rows: Vec<(Table, String, Option<Vec<u8>>)>,
    unwritable: Option<String>,
}

impl Changes {
    /// Puts a tenant.
    pub fn put_tenant(&mut self, stored: &Stored) {
        self.put(TENANTS, &stored.tenant.metadata.name, stored);
    }

    /// Puts a network.
    pub fn put_network(&mut self, stored: &StoredNetwork) {
        self.put(NETWORKS, &stored.network.metadata.key(), stored);
    }

    /// Puts an endpoint.
    pub fn put_endpoint(&mut self, stored: &StoredEndpoint) {
        self.put(ENDPOINTS, &stored.endpoint.metadata.key(), stored);
    }

    /// Puts a policy.
    pub fn put_policy(&mut self, stored: &StoredPolicy) {
        self.put(POLICIES, &stored.policy.key(), stored);
    }

    /// Puts a number of a tenant.
    pub fn put_identity(&mut self, tenant: &str, identity: Identity, stored: &StoredIdentity) {
        self.put(IDENTITIES, &format!("{tenant}/{identity}"), stored);
    }

    /// Puts an uplink.
    pub fn put_uplink(&mut self, device: &str, uplink: &Uplink) {
        self.put(UPLINKS, device, uplink);
    }

    /// Deletes a tenant.
    pub fn delete_tenant(&mut self, name: &str) {
        self.delete(TENANTS, name);
    }

    /// Deletes a network, by `TENANT/NAME`.
    pub fn delete_network(&mut self, key: &str) {
        self.delete(NETWORKS, key);
    }

    /// Deletes an endpoint, by `TENANT/NAME`.
    pub fn delete_endpoint(&mut self, key: &str) {
        self.delete(ENDPOINTS, key);
    }

    /// Deletes a policy, by `TENANT/NAMESPACE/NAME`.
    pub fn delete_policy(&mut self, key: &str) {
        self.delete(POLICIES, key);
    }

    /// Deletes a number of a tenant.
    pub fn delete_identity(&mut self, tenant: &str, identity: Identity) {
        self.delete(IDENTITIES, &format!("{tenant}/{identity}"));
    }

    /// Deletes an uplink.
    pub fn delete_uplink(&mut self, device: &str) {
        self.delete(UPLINKS, device);
    }

    fn put(&mut self, table: Table, key: &str, value: &impl Serialize) {
        match serde_json::to_vec(value) {
            Ok(value) => self.rows.push((table, key.to_owned(), Some(value))),
            Err(error) => self.unwritable = Some(error.to_string()),
        }
    }

    fn delete(&mut self, table: Table, key: &str) {
        self.rows.push((table, key.to_owned(), None));
    }
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

    /// Every network by `TENANT/NAME`.
    pub fn networks(&self) -> Result<BTreeMap<String, StoredNetwork>, StoreError> {
        self.read(NETWORKS)
    }

    /// Every endpoint by `TENANT/NAME`.
    pub fn endpoints(&self) -> Result<BTreeMap<String, StoredEndpoint>, StoreError> {
        self.read(ENDPOINTS)
    }

    /// Every policy by `TENANT/NAMESPACE/NAME`.
    pub fn policies(&self) -> Result<BTreeMap<String, StoredPolicy>, StoreError> {
        self.read(POLICIES)
    }

    /// Every number by `TENANT/NUMBER`.
    pub fn identities(&self) -> Result<BTreeMap<String, StoredIdentity>, StoreError> {
        self.read(IDENTITIES)
    }

    /// Every uplink by its device's name.
    pub fn uplinks(&self) -> Result<BTreeMap<String, Uplink>, StoreError> {
        self.read(UPLINKS)
    }

    /// Makes changes in one transaction: all of it is on the disk on return, or none of it.
    pub fn change(&mut self, changes: Changes) -> Result<(), StoreError> {
        let Changes { rows, unwritable } = changes;
        match unwritable {
            Some(error) => Err(StoreError::Refused(error)),
            None => self.commit(rows),
        }
    }

    /// Remembers what switches were; to be called BEFORE they are set.
    pub fn remember_switches(&mut self, switches: &[(&str, &Switch)]) -> Result<(), StoreError> {
        let mut changes = Changes::default();
        switches.iter().for_each(|(name, switch)| changes.put(SWITCHES, name, switch));
        self.change(changes)
    }

    /// Forgets switches that were put back.
    pub fn forget_switches(&mut self, names: &[&str]) -> Result<(), StoreError> {
        let mut changes = Changes::default();
        names.iter().for_each(|name| changes.delete(SWITCHES, name));
        self.change(changes)
    }

    /// Where the slot stands in marks; `None` before that was ever chosen.
    pub fn field(&self) -> Result<Option<Field>, StoreError> {
        Ok(self.read(FIELDS)?.remove(FIELD))
    }

    /// Remembers where the slot stands; to be called BEFORE anything is moved there.
    pub fn keep_field(&mut self, field: &Field) -> Result<(), StoreError> {
        let mut changes = Changes::default();
        changes.put(FIELDS, FIELD, field);
        self.change(changes)
    }

    /// Forgets where the slot stands: nowhere any more.
    pub fn forget_field(&mut self) -> Result<(), StoreError> {
        let mut changes = Changes::default();
        changes.delete(FIELDS, FIELD);
        self.change(changes)
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

    /// Did the kernel make its rule for VRFs because of a VRF of ours?
    pub fn vrf_rule_is_ours(&self) -> Result<bool, StoreError> {
        let work = || -> Result<bool, Box<dyn std::error::Error>> {
            let database = self.database.as_ref().ok_or("it is not open")?;
            let meta = database.begin_read()?.open_table(META)?;
            Ok(meta.get(VRF_RULE)?.is_some_and(|row| row.value() == 1))
        };
        work().map_err(|e| StoreError::Refused(e.to_string()))
    }

    /// Remembers whether it did; to be called BEFORE there is a VRF.
    pub fn keep_vrf_rule_is_ours(&mut self, is_ours: bool) -> Result<(), StoreError> {
        let work = |database: &Database| -> Result<(), Box<dyn std::error::Error>> {
            let transaction = database.begin_write()?;
            transaction.open_table(META)?.insert(VRF_RULE, u64::from(is_ours))?;
            Ok(transaction.commit()?)
        };
        let database = self.database.as_ref().ok_or_else(|| StoreError::Refused("it is not open".into()))?;
        work(database).map_err(|e| StoreError::Refused(e.to_string()))
    }

    fn read<T: for<'de> Deserialize<'de>>(&self, table: Table) -> Result<BTreeMap<String, T>, StoreError> {
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

    fn commit(&mut self, rows: Vec<(Table, String, Option<Vec<u8>>)>) -> Result<(), StoreError> {
        if rows.is_empty() {
            return Ok(());
        }
        let database = match self.database.take() {
            Some(database) => database,
            None => open(&self.path)?,
        };
        let work = || -> Result<(), Box<dyn std::error::Error>> {
            let transaction = database.begin_write()?;
            let mut rest = &rows[..];
            while let [(table, ..), ..] = rest {
                // One opening for a run of rows of the same table.
                let run = rest.iter().take_while(|(other, ..)| other.name() == table.name()).count();
                let (rows, later) = rest.split_at(run);
                rest = later;
                let mut table = transaction.open_table(*table)?;
                for (_, key, value) in rows {
                    match value {
                        Some(value) => drop(table.insert(key.as_str(), value.as_slice())?),
                        None => drop(table.remove(key.as_str())?),
                    }
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
        // Tables that came later, in a file that may be older.
        for table in [FIELDS, NETWORKS, ENDPOINTS, UPLINKS, POLICIES, IDENTITIES] {
            transaction.open_table(table)?;
        }
        found.unwrap_or(VERSION)
    };
    transaction.commit()?;
    Ok(found)
}

#[cfg(test)]
mod tests {
    use fief_model::Slot;

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
            let mut changes = Changes::default();
            changes.put_tenant(&blue);
            changes.put_tenant(&red);
            changes.put_uplink("eth0", &Uplink { slot: Slot::new(3).unwrap(), index: 0 });
            store.change(changes).unwrap();
            let mut changes = Changes::default();
            changes.delete_tenant("red");
            store.change(changes).unwrap();
            store.remember_switches(&[("net.ipv4.fwmark_reflect", &switch)]).unwrap();
        }
        let mut store = Store::open(directory.path()).unwrap();
        let network = store.alias_network().unwrap();
        assert_eq!(network >> 56, 0xfd);
        assert_eq!(store.alias_network().unwrap(), network, "drawn once");
        assert_eq!(store.tenants().unwrap(), BTreeMap::from([("blue".into(), blue)]));
        assert_eq!(store.uplinks().unwrap()["eth0"].slot.number(), 3);
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
