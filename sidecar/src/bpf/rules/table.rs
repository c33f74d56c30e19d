use std::collections::BTreeSet;

use aya::{
    Pod,
    maps::{HashMap, LpmTrie, Map, MapData, MapError, lpm_trie::Key},
};

use crate::bpf::Error;

/// A table of which only the keys matter.
pub(super) struct Set {
    map: HashMap<MapData, u32, u32>,
    name: &'static str,
}

/// A table matched by longest prefix.
pub(super) struct Trie<K: Pod, V: Pod> {
    map: LpmTrie<MapData, K, V>,
    name: &'static str,
}

/// The value where only keys matter.
pub(super) const PRESENT: u32 = 1;

impl Set {
    pub(super) fn open(map: Map, name: &'static str) -> Result<Self, Error> {
        let map = HashMap::try_from(map).map_err(|source| Error::Map { map: name, source })?;
        Ok(Self { map, name })
    }

    pub(super) fn keys(&self) -> Result<BTreeSet<u32>, Error> {
        let keys: Result<_, MapError> = self.map.keys().collect();
        keys.map_err(|source| self.error(source))
    }

    pub(super) fn insert(&mut self, key: u32) -> Result<(), Error> {
        let inserted = self.map.insert(key, PRESENT, 0);
        inserted.map_err(|source| self.error(source))
    }

    pub(super) fn remove(&mut self, key: u32) -> Result<(), Error> {
        let removed = self.map.remove(&key);
        removed.map_err(|source| self.error(source))
    }

    fn error(&self, source: MapError) -> Error {
        Error::Map {
            map: self.name,
            source,
        }
    }
}

impl<K: Pod, V: Pod> Trie<K, V> {
    pub(super) fn open(map: Map, name: &'static str) -> Result<Self, Error> {
        let map = LpmTrie::try_from(map).map_err(|source| Error::Map { map: name, source })?;
        Ok(Self { map, name })
    }

    /// Every key, its length in bits, and its value.
    pub(super) fn entries(&self) -> Result<Vec<(K, u32, V)>, Error> {
        let entry = |(key, value): (Key<K>, V)| (key.data(), key.prefix_len(), value);
        let entries: Result<_, MapError> = self.map.iter().map(|found| found.map(entry)).collect();
        entries.map_err(|source| self.error(source))
    }

    pub(super) fn insert(&mut self, key: K, bits: u32, value: V) -> Result<(), Error> {
        let inserted = self.map.insert(&Key::new(bits, key), value, 0);
        inserted.map_err(|source| self.error(source))
    }

    pub(super) fn remove(&mut self, key: K, bits: u32) -> Result<(), Error> {
        let removed = self.map.remove(&Key::new(bits, key));
        removed.map_err(|source| self.error(source))
    }

    fn error(&self, source: MapError) -> Error {
        Error::Map {
            map: self.name,
            source,
        }
    }
}
