//! Leases of addresses, in a file of their own: the services write it from their own thread, and often.

use std::net::Ipv4Addr;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fief_services::Lease;
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};
use serde::{Deserialize, Serialize};

const LEASES: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("leases");

/// The open file.
pub struct Leases {
    database: Database,
}

/// A lease as written.
#[derive(Serialize, Deserialize)]
struct Row {
    network: String,
    mac: [u8; 6],
    client_id: Option<Vec<u8>>,
    address: Ipv4Addr,
    hostname: Option<String>,
    /// Seconds since 1970.
    expires: u64,
}

impl Leases {
    /// Opens or makes the file in this directory.
    pub fn open(directory: &Path) -> Result<Leases, String> {
        let path = directory.join("leases.redb");
        let open = || -> Result<Database, Box<dyn std::error::Error>> {
            let database = Database::builder().set_cache_size(1024 * 1024).create(&path)?;
            let transaction = database.begin_write()?;
            transaction.open_table(LEASES)?;
            transaction.commit()?;
            Ok(database)
        };
        let database = open().map_err(|error| format!("open the leases {}: {error}", path.display()))?;
        Ok(Leases { database })
    }

    /// Every lease.
    pub fn load(&self) -> Result<Vec<Lease>, String> {
        let read = || -> Result<Vec<Lease>, Box<dyn std::error::Error>> {
            let transaction = self.database.begin_read()?;
            let table = transaction.open_table(LEASES)?;
            let mut leases = Vec::new();
            for row in table.iter()? {
                leases.push(serde_json::from_slice::<Row>(row?.1.value())?.into());
            }
            Ok(leases)
        };
        read().map_err(|error| format!("read the leases: {error}"))
    }

    /// Puts and removes; on the disk when this returns.
    pub fn save(&self, put: &[Lease], remove: &[(String, Ipv4Addr)]) -> Result<(), String> {
        let write = || -> Result<(), Box<dyn std::error::Error>> {
            let transaction = self.database.begin_write()?;
            {
                let mut table = transaction.open_table(LEASES)?;
                for (network, address) in remove {
                    table.remove(key(network, *address).as_str())?;
                }
                for lease in put {
                    let row = serde_json::to_vec(&Row::from(lease))?;
                    table.insert(key(&lease.network, lease.address).as_str(), row.as_slice())?;
                }
            }
            Ok(transaction.commit()?)
        };
        write().map_err(|error| format!("write the leases: {error}"))
    }
}

fn key(network: &str, address: Ipv4Addr) -> String {
    format!("{network} {address}")
}

impl From<Row> for Lease {
    fn from(row: Row) -> Lease {
        let Row { network, mac, client_id, address, hostname, expires } = row;
        let expires = UNIX_EPOCH + Duration::from_secs(expires);
        Lease { network, mac, client_id, address, hostname, expires }
    }
}

impl From<&Lease> for Row {
    fn from(lease: &Lease) -> Row {
        let expires = lease.expires.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |time| time.as_secs());
        Row {
            network: lease.network.clone(),
            mac: lease.mac,
            client_id: lease.client_id.clone(),
            address: lease.address,
            hostname: lease.hostname.clone(),
            expires,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leases_are_there_after_opening_again() {
        let directory = tempfile::tempdir().unwrap();
        let lease = |last: u8| Lease {
            network: "blue/web".into(),
            mac: [2, 0, 0, 0, 0, last],
            client_id: Some(vec![1, 2]),
            address: Ipv4Addr::new(10, 10, 1, last),
            hostname: Some("app".into()),
            expires: UNIX_EPOCH + Duration::from_secs(4_000_000_000),
        };
        {
            let leases = Leases::open(directory.path()).unwrap();
            leases.save(&[lease(7), lease(8)], &[]).unwrap();
            leases.save(&[], &[("blue/web".into(), Ipv4Addr::new(10, 10, 1, 7))]).unwrap();
        }
        assert_eq!(Leases::open(directory.path()).unwrap().load().unwrap(), [lease(8)]);
    }
}
