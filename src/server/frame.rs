//! A response on the wire, written from encoded bodies without building messages.
//!
//! Field numbers are of `envoy.service.discovery.v3.DeltaDiscoveryResponse`:
//! resources 2 (name 3, version 1, resource 2 as `Any` {type_url 1, value 2}, metadata 9),
//! type_url 4, nonce 5, removed_resources 6.

use crate::{
    base::Version,
    xds::{Name, ResourceKind},
};
use bytes::{BufMut, Bytes};
use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint, key_len};

/// One delta response: bodies are shared with the cache and copied once, into
/// the stream's send buffer.
#[derive(Clone, PartialEq, Eq)]
pub struct Response {
    pub type_url: Name,
    pub nonce: u64,
    pub resources: Vec<Item>,
    pub removed: Vec<Name>,
}

/// One resource in a response, under the name it was asked for.
#[derive(Clone, PartialEq, Eq)]
pub struct Item {
    pub name: Name,
    pub version: Version,
    /// A Secret's body lacks its name: it is written in front.
    pub named_body: bool,
    pub body: Bytes,
    /// An encoded `envoy.config.core.v3.Metadata`; empty: none.
    pub metadata: Bytes,
}

/// Bodies may hold keys: they do not print.
impl std::fmt::Debug for Response {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let kind = ResourceKind::from_type_url(&self.type_url);
        let names: Vec<_> = self.resources.iter().map(|item| &*item.name).collect();
        write!(f, "{kind:?} #{} set {names:?} removed {:?}", self.nonce, self.removed)
    }
}

const VERSION_DIGITS: usize = 32;

impl Item {
    fn name_field(&self) -> usize {
        if self.named_body { field_len(1, self.name.len()) } else { 0 }
    }

    fn value_len(&self) -> usize {
        self.name_field() + self.body.len()
    }

    fn any_len(&self, type_url: &str) -> usize {
        field_len(1, type_url.len()) + field_len(2, self.value_len())
    }

    /// Bytes of this resource in a response.
    #[must_use]
    pub fn encoded_len(&self, type_url: &str) -> usize {
        let metadata = if self.metadata.is_empty() { 0 } else { field_len(9, self.metadata.len()) };
        field_len(1, VERSION_DIGITS)
            + field_len(2, self.any_len(type_url))
            + field_len(3, self.name.len())
            + metadata
    }

    fn encode(&self, type_url: &str, to: &mut impl BufMut) {
        put(1, self.version.to_string().as_bytes(), to);
        open(2, self.any_len(type_url), to);
        put(1, type_url.as_bytes(), to);
        open(2, self.value_len(), to);
        if self.named_body {
            put(1, self.name.as_bytes(), to);
        }
        to.put_slice(&self.body);
        put(3, self.name.as_bytes(), to);
        if !self.metadata.is_empty() {
            put(9, &self.metadata, to);
        }
    }
}

impl Response {
    #[must_use]
    pub fn encoded_len(&self) -> usize {
        let Self { type_url, nonce, resources, removed } = self;
        let resources = resources.iter().map(|item| field_len(2, item.encoded_len(type_url)));
        let removed = removed.iter().map(|name| field_len(6, name.len()));
        let ends = field_len(4, type_url.len()) + field_len(5, nonce_text(*nonce).len());
        resources.chain(removed).sum::<usize>() + ends
    }

    pub fn encode(&self, to: &mut impl BufMut) {
        let Self { type_url, nonce, resources, removed } = self;
        for item in resources {
            open(2, item.encoded_len(type_url), to);
            item.encode(type_url, to);
        }
        put(4, type_url.as_bytes(), to);
        put(5, nonce_text(*nonce).as_bytes(), to);
        for name in removed {
            put(6, name.as_bytes(), to);
        }
    }
}

/// A nonce as it travels.
pub(super) fn nonce_text(nonce: u64) -> String {
    format!("{nonce:x}")
}

/// Reads what [`nonce_text`] prints.
pub(super) fn parse_nonce(text: &str) -> Option<u64> {
    u64::from_str_radix(text, 16).ok()
}

fn field_len(tag: u32, length: usize) -> usize {
    key_len(tag) + encoded_len_varint(length as u64) + length
}

fn open(tag: u32, length: usize, to: &mut impl BufMut) {
    encode_key(tag, WireType::LengthDelimited, to);
    encode_varint(length as u64, to);
}

fn put(tag: u32, bytes: &[u8], to: &mut impl BufMut) {
    open(tag, bytes.len(), to);
    to.put_slice(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;
    use envoy_types::pb::{
        envoy::{
            extensions::transport_sockets::tls::v3::Secret, service::discovery::v3::DeltaDiscoveryResponse,
        },
        google::protobuf::Any,
    };
    use prost::Message;

    #[test]
    fn reads_back_as_the_real_message() {
        let url: Name = ResourceKind::Secret.type_url().into();
        let item = |name: &str, named_body| Item {
            name: name.into(),
            version: Version(7),
            named_body,
            body: Bytes::from_static(b""),
            metadata: Bytes::new(),
        };
        let response = Response {
            type_url: url.clone(),
            nonce: 255,
            resources: vec![item("H1.example.com", true), item("", false)],
            removed: vec!["gone".into()],
        };
        let mut wire = Vec::new();
        response.encode(&mut wire);
        assert_eq!(wire.len(), response.encoded_len());
        let read = DeltaDiscoveryResponse::decode(wire.as_slice()).expect("a response");
        assert_eq!((read.nonce.as_str(), read.type_url.as_str()), ("ff", &*url));
        assert_eq!(read.removed_resources, ["gone"]);
        assert_eq!(read.resources[0].name, "H1.example.com");
        assert_eq!(read.resources[0].version, Version(7).to_string());
        let any: &Any = read.resources[0].resource.as_ref().expect("a resource");
        assert_eq!(any.type_url, *url);
        assert_eq!(Secret::decode(any.value.as_slice()).expect("a secret").name, "H1.example.com");
        assert!(read.resources[1].resource.as_ref().expect("a resource").value.is_empty());
    }
}
