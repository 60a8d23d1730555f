//! A map with a known size, and how full it is.

use aya::Ebpf;
use aya::Pod;
use aya::maps::lpm_trie::{Key, LpmTrie};
use aya::maps::{HashMap, Map, MapData, MapError};

use crate::DatapathError;
use crate::maps::{map_error, patiently, take};

/// linux/bpf.h: replaces an entry or makes one.
const ANY: u64 = 0;
/// linux/bpf.h: only makes one.
const NO_EXIST: u64 = 1;

/// What a map of either kind can do.
pub(crate) trait Entries: TryFrom<Map, Error = MapError> {
    type Key: Copy;
    type Value: Copy;

    fn insert(&mut self, key: &Self::Key, value: Self::Value, flags: u64) -> Result<(), MapError>;
    fn remove(&mut self, key: &Self::Key) -> Result<(), MapError>;
    /// May be wrong in one way: what is there need not be seen.
    fn has(&self, key: &Self::Key) -> bool;
}

impl<K: Pod, V: Pod> Entries for HashMap<MapData, K, V> {
    type Key = K;
    type Value = V;

    fn insert(&mut self, key: &K, value: V, flags: u64) -> Result<(), MapError> {
        HashMap::insert(self, key, value, flags)
    }

    fn remove(&mut self, key: &K) -> Result<(), MapError> {
        HashMap::remove(self, key)
    }

    fn has(&self, key: &K) -> bool {
        self.get(key, 0).is_ok()
    }
}

impl<K: Pod, V: Pod> Entries for LpmTrie<MapData, K, V> {
    type Key = Key<K>;
    type Value = V;

    fn insert(&mut self, key: &Key<K>, value: V, flags: u64) -> Result<(), MapError> {
        LpmTrie::insert(self, key, value, flags)
    }

    fn remove(&mut self, key: &Key<K>) -> Result<(), MapError> {
        LpmTrie::remove(self, key)
    }

    fn has(&self, _: &Key<K>) -> bool {
        // A trie answers with a shorter prefix too.
        false
    }
}

/// A map and how many entries it has.
pub(crate) struct Table<M> {
    name: &'static str,
    map: M,
    held: usize,
    most: usize,
}

impl<M: Entries> Table<M> {
    pub(crate) fn open(
        programs: &mut Ebpf,
        name: &'static str,
        most: usize,
    ) -> Result<Table<M>, DatapathError> {
        let map = M::try_from(take(programs, name)?).map_err(|e| map_error(name, &e))?;
        Ok(Table { name, map, held: 0, most })
    }

    pub(crate) fn held(&self) -> usize {
        self.held
    }

    /// Refuses what would not fit beside what is there.
    pub(crate) fn has_room(
        &self,
        coming: impl ExactSizeIterator<Item = M::Key>,
    ) -> Result<(), DatapathError> {
        if self.held + coming.len() <= self.most {
            return Ok(());
        }
        // Only what is not there yet takes room.
        let needed = self.held + coming.filter(|key| !self.map.has(key)).count();
        match needed <= self.most {
            true => Ok(()),
            false => Err(DatapathError::Full { map: self.name, needed, most: self.most }),
        }
    }

    pub(crate) fn put(&mut self, key: M::Key, value: M::Value) -> Result<(), DatapathError> {
        match patiently(|| self.map.insert(&key, value, NO_EXIST)) {
            Ok(()) => {
                self.held += 1;
                Ok(())
            }
            Err(MapError::SyscallError(error)) if error.io_error.raw_os_error() == Some(libc::EEXIST) => {
                patiently(|| self.map.insert(&key, value, ANY)).map_err(|e| map_error(self.name, &e))
            }
            Err(error) => Err(map_error(self.name, &error)),
        }
    }

    pub(crate) fn remove(&mut self, key: M::Key) -> Result<(), DatapathError> {
        match self.map.remove(&key) {
            Ok(()) => {
                self.held -= 1;
                Ok(())
            }
            Err(MapError::KeyNotFound) => Ok(()),
            Err(MapError::SyscallError(error)) if error.io_error.raw_os_error() == Some(libc::ENOENT) => {
                Ok(())
            }
            Err(error) => Err(map_error(self.name, &error)),
        }
    }
}
