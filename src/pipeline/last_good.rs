//! Refused resources and what is served in their place, kept over a restart: an
//! Envoy that starts while a bad object is there gets the last good of it.

use crate::{
    base::{ObjectKey, Text, Version},
    server::{Handle, cache::LastGood},
    store::Cache,
    xds::{Resource, ResourceKey, ResourceKind},
};
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

/// What is on the disk, as the pipeline knows it.
pub struct Kept {
    cache: Arc<Cache>,
    written: BTreeSet<String>,
}

/// One row of the cache.
#[derive(Serialize, Deserialize)]
struct Row {
    rejected: String,
    good: Saved,
    supports: Vec<Saved>,
}

/// A resource as text. Bodies are protobuf, in hex.
#[derive(Serialize, Deserialize)]
struct Saved {
    key: (String, Text),
    version: String,
    body: String,
    needs: Vec<(String, Text)>,
    origins: Vec<String>,
}

impl Kept {
    /// Hands what was kept to the fleet, before its first publish. A row that
    /// cannot be read is forgotten: it is a cache.
    #[must_use]
    pub fn restore(cache: Cache, rows: BTreeMap<String, Vec<u8>>, fleet: &Handle) -> Self {
        let read =
            |bytes: &Vec<u8>| serde_json::from_slice::<Row>(bytes).ok().and_then(|row| row.last_good());
        fleet.restore(rows.values().filter_map(read));
        Self { cache: Arc::new(cache), written: rows.into_keys().collect() }
    }

    /// What to write now; nothing when the disk holds just that.
    pub(super) fn changes(&mut self, fleet: &Handle) -> Option<impl FnOnce() + Send + use<>> {
        let now: BTreeMap<String, Vec<u8>> = fleet
            .last_good()
            .iter()
            .filter(|known| known.good.key.kind != ResourceKind::Secret)
            .map(|known| (format!("{} {}", known.good.key, known.rejected), Row::new(known)))
            .map(|(key, row)| (key, serde_json::to_vec(&row).expect("a row is JSON")))
            .collect();
        let keys: BTreeSet<_> = now.keys().cloned().collect();
        if keys == self.written {
            return None;
        }
        let gone: Vec<_> = self.written.difference(&keys).cloned().collect();
        self.written = keys;
        let cache = Arc::clone(&self.cache);
        Some(move || {
            let set = now.iter().map(|(key, row)| (key.as_str(), Some(row.as_slice())));
            let changes: Vec<_> = set.chain(gone.iter().map(|key| (key.as_str(), None))).collect();
            if let Err(error) = cache.write(&changes) {
                tracing::warn!(%error, "Last good resources could not be kept; a restart would forget them");
            }
        })
    }
}

impl Row {
    fn new(known: &LastGood) -> Self {
        let LastGood { rejected, good, supports } = known;
        // A private key never reaches the disk.
        let supports = supports.iter().filter(|resource| resource.key.kind != ResourceKind::Secret);
        Self {
            rejected: rejected.to_string(),
            good: Saved::new(good),
            supports: supports.map(Saved::new).collect(),
        }
    }

    fn last_good(self) -> Option<LastGood> {
        Some(LastGood {
            rejected: Version::parse(&self.rejected)?,
            good: self.good.resource()?,
            supports: self.supports.into_iter().map(Saved::resource).collect::<Option<_>>()?,
        })
    }
}

impl Saved {
    fn new(resource: &Resource) -> Self {
        let Resource { key, version, body, needs, origins } = resource;
        Self {
            key: name(key),
            version: version.to_string(),
            body: body.bytes().iter().map(|byte| format!("{byte:02x}")).collect(),
            needs: needs.iter().map(name).collect(),
            origins: origins.iter().map(ToString::to_string).collect(),
        }
    }

    fn resource(self) -> Option<Resource> {
        let digits = self.body.as_bytes();
        let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
        let body: Vec<u8> = digits.chunks(2).map(byte).collect::<Option<_>>()?;
        Some(Resource {
            key: key(self.key)?,
            version: Version::parse(&self.version)?,
            body: body.into(),
            needs: self.needs.into_iter().map(key).collect::<Option<_>>()?,
            origins: self.origins.iter().map(|text| text.parse::<ObjectKey>().ok()).collect::<Option<_>>()?,
        })
    }
}

fn name(key: &ResourceKey) -> (String, Text) {
    (key.kind.type_url().to_owned(), Arc::clone(&key.name))
}

fn key((url, name): (String, Text)) -> Option<ResourceKey> {
    Some(ResourceKey { kind: ResourceKind::from_type_url(&url)?, name })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_reads_back_as_it_was() {
        let key = |kind, name: &str| ResourceKey { kind, name: name.into() };
        let good = Resource {
            key: key(ResourceKind::Route, "r/public/a.example.com"),
            version: Version(7),
            body: vec![0, 1, 255].into(),
            needs: [key(ResourceKind::Cluster, "shop/web/80")].into(),
            origins: ["Ingress/shop/web".parse().expect("a key")].into(),
        };
        let secret = Resource { key: key(ResourceKind::Secret, "a.example.com"), ..good.clone() };
        let known = LastGood { rejected: Version(8), good: good.clone(), supports: vec![secret] };
        let bytes = serde_json::to_vec(&Row::new(&known)).expect("JSON");
        let read = serde_json::from_slice::<Row>(&bytes).expect("a row").last_good().expect("whole");
        assert_eq!(read.rejected, Version(8));
        assert_eq!((read.good.key, read.good.version, read.good.body), (good.key, good.version, good.body));
        assert_eq!((read.good.needs, read.good.origins), (good.needs, good.origins));
        assert!(read.supports.is_empty(), "private keys stay off the disk");
    }
}
