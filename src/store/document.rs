//! The state as a document: what `tidegate vip export` prints and `import` reads.

use super::{
    HISTORY_MAX,
    ages::FirstSeen,
    error::StoreError,
    file::{Change, FORMAT, Kind},
    serials::Serial,
};
use crate::{
    base::{ObjectKey, Text},
    ipam::{Entry, Ledger, check},
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::{collections::BTreeSet, net::IpAddr};

/// Everything that must survive, as JSON. Times are Unix seconds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ExportDoc {
    /// 1.
    pub format: u64,
    /// How many writes led here. An import goes on from it.
    pub generation: u64,
    /// Every address that is held or in quarantine.
    pub addresses: Vec<AddressDoc>,
    /// When objects without a creationTimestamp were first seen.
    #[serde(default)]
    pub ages: Vec<AgeDoc>,
    /// The serial of each DNS zone.
    #[serde(default)]
    pub serials: Vec<SerialDoc>,
    /// What happened, oldest first; empty in what was made of a backup.
    #[serde(default)]
    pub history: Vec<HistoryEntry>,
}

/// `{"address": "10.0.0.1", "claim": "...", "pool": "...", "state": "held", "since": 0}`,
/// or `"state": "quarantined", "until": 0`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddressDoc {
    pub address: IpAddr,
    #[serde(flatten)]
    pub entry: Entry,
}

/// `{"object": "Ingress/shop/cart", "seconds": 0, "batch": 1}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgeDoc {
    pub object: String,
    #[serde(flatten)]
    pub seen: FirstSeen,
}

/// `{"zone": "example.com", "content": "<32 hex digits>", "serial": 7}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SerialDoc {
    pub zone: String,
    #[serde(flatten)]
    pub serial: Serial,
}

/// What happened to an address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HistoryEntry {
    /// Unix seconds.
    pub at: i64,
    pub address: IpAddr,
    /// To whom it was given, or who had it last.
    pub claim: Text,
    #[serde(flatten)]
    pub event: Event,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "camelCase")]
pub enum Event {
    Allocated {
        pool: Text,
    },
    Released {
        /// Unix seconds: the end of the quarantine.
        until: i64,
    },
    /// The quarantine is over.
    Freed,
}

impl ExportDoc {
    pub(super) fn new(generation: u64) -> Self {
        Self {
            format: FORMAT,
            generation,
            addresses: Vec::new(),
            ages: Vec::new(),
            serials: Vec::new(),
            history: Vec::new(),
        }
    }

    /// Takes one row in; the error says what is wrong with it.
    pub(super) fn take(&mut self, kind: Kind, key: &str, body: &[u8]) -> Result<(), String> {
        match kind {
            Kind::Address => {
                self.addresses.push(AddressDoc { address: address(key)?, entry: read(body)? });
            }
            Kind::Age => self.ages.push(AgeDoc { object: object(key)?.to_string(), seen: read(body)? }),
            Kind::Serial => self.serials.push(SerialDoc { zone: key.to_owned(), serial: read(body)? }),
            Kind::History => {
                number(key)?;
                self.history.push(read(body)?);
            }
        }
        Ok(())
    }

    /// The ledger it tells of.
    pub fn ledger(&self) -> Result<Ledger, StoreError> {
        let entries = self.addresses.iter().map(|doc| (doc.address, doc.entry.clone()));
        let bad = |broken: crate::ipam::Broken| StoreError::BadImport(broken.to_string());
        let ledger = Ledger::new(entries).map_err(bad)?;
        check(&ledger).map_err(bad)?;
        Ok(ledger)
    }

    /// Its rows, checked: each thing once, each name readable.
    pub(super) fn rows(&self) -> Result<Vec<Change>, StoreError> {
        let Self { format, generation: _, addresses, ages, serials, history } = self;
        if *format != FORMAT {
            return Err(StoreError::BadImport(format!(
                "its format is {format}, and this version reads {FORMAT}"
            )));
        }
        self.ledger()?;
        let mut rows = Vec::new();
        for AddressDoc { address, entry } in addresses {
            if address.to_canonical() != *address {
                return Err(StoreError::BadImport(format!(
                    "{address} is IPv4 in disguise: write it as IPv4"
                )));
            }
            rows.push(row(Kind::Address, address.to_string(), entry));
        }
        for AgeDoc { object: text, seen } in ages {
            let object = object(text).map_err(StoreError::BadImport)?;
            rows.push(row(Kind::Age, object.to_string(), seen));
        }
        for SerialDoc { zone, serial } in serials {
            rows.push(row(Kind::Serial, zone.clone(), serial));
        }
        let newest = history.len().saturating_sub(HISTORY_MAX);
        for (i, entry) in (0..).zip(&history[newest..]) {
            rows.push(row(Kind::History, history_key(i), entry));
        }
        let mut seen = BTreeSet::new();
        match rows.iter().find(|row| !seen.insert((row.kind, &row.key))) {
            Some(twice) => Err(StoreError::BadImport(format!("{} is written twice", twice.key))),
            None => Ok(rows),
        }
    }
}

pub(super) fn row<T: Serialize>(kind: Kind, key: String, body: &T) -> Change {
    let body = serde_json::to_vec(body).expect("values with text keys are JSON");
    Change { kind, key, body: Some(body) }
}

/// Sorts as the number does.
pub(super) fn history_key(number: u64) -> String {
    format!("{number:020}")
}

pub(super) fn number(key: &str) -> Result<u64, String> {
    key.parse().map_err(|_| "its key is no number".to_owned())
}

pub(super) fn address(key: &str) -> Result<IpAddr, String> {
    key.parse().map_err(|_| "its key is no address".to_owned())
}

pub(super) fn object(key: &str) -> Result<ObjectKey, String> {
    key.parse()
}

pub(super) fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, String> {
    serde_json::from_slice(body).map_err(|error| error.to_string())
}
