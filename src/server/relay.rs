//! What a server and the relay beside an Envoy say to each other beyond plain
//! delta ADS (`proto/tidegate/engine/v1/engine.proto`). To an Envoy nothing of
//! this is sent.

use crate::{
    base::{Text, Version},
    server::frame::Response,
    xds::{Name, Resource, ResourceKey, ResourceKind},
};
use bytes::Bytes;
use envoy_types::pb::{
    envoy::{config::core::v3::Metadata, service::discovery::v3::Resource as Wire},
    google::{protobuf::Any, rpc::Status},
};
use prost::Message;
use std::{collections::HashMap, sync::Arc};

/// A client that says so in `node.client_features` is a relay.
pub const FEATURE: &str = "tidegate.relay.v1";
/// The type of an empty response that says: you have everything now.
pub const COMPLETE: &str = "type.googleapis.com/tidegate.engine.v1.Complete";
/// Where a resource's metadata holds what it needs.
const NEEDS: &str = "tidegate.needs";
const NEEDS_URL: &str = "type.googleapis.com/tidegate.engine.v1.Needs";
const REFUSALS_URL: &str = "type.googleapis.com/tidegate.engine.v1.Refusals";
/// `google.rpc.Code.INVALID_ARGUMENT`: what Envoy itself says of a bad resource.
const INVALID_ARGUMENT: i32 = 3;
/// Words of a refusal that is nobody's fault.
pub(super) const WAITS: &str = "waits for a refused";

/// `tidegate.engine.v1.Needs`
#[derive(Clone, PartialEq, Eq, prost::Message)]
struct Needs {
    #[prost(message, repeated, tag = "1")]
    needs: Vec<Key>,
}

/// `tidegate.engine.v1.Key`
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Key {
    /// 1 and up, in the order of [`ResourceKind::ALL`].
    #[prost(uint32, tag = "1")]
    kind: u32,
    #[prost(string, tag = "2")]
    name: String,
}

/// `tidegate.engine.v1.Refusals`
#[derive(Clone, PartialEq, Eq, prost::Message)]
struct Refusals {
    #[prost(message, repeated, tag = "1")]
    refusals: Vec<Refusal>,
}

/// `tidegate.engine.v1.Refusal`
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Refusal {
    #[prost(string, tag = "1")]
    pub name: String,
    /// Envoy's own words, or those of [`waits`].
    #[prost(string, tag = "2")]
    pub message: String,
}

/// `tidegate.engine.v1.RenewRequest`
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(super) struct RenewRequest {
    #[prost(bytes = "vec", tag = "1")]
    pub(super) request: Vec<u8>,
}

/// `tidegate.engine.v1.RenewResponse`
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(super) struct RenewResponse {
    #[prost(string, tag = "1")]
    pub(super) certificate: String,
    #[prost(string, tag = "2")]
    pub(super) authorities: String,
}

/// The path of `tidegate.engine.v1.Trust.Renew`.
pub(super) const RENEW: &str = "/tidegate.engine.v1.Trust/Renew";

impl From<&ResourceKey> for Key {
    fn from(key: &ResourceKey) -> Self {
        Self { kind: key.kind as u32 + 1, name: key.name.to_string() }
    }
}

impl Key {
    /// `None` for a kind that only a newer program knows.
    #[must_use]
    pub fn read(self) -> Option<ResourceKey> {
        let at = usize::try_from(self.kind).ok()?.checked_sub(1)?;
        Some(ResourceKey { kind: *ResourceKind::ALL.get(at)?, name: Text::from(self.name) })
    }
}

/// The metadata that tells a relay what a resource needs; empty: nothing.
pub(super) fn metadata(needs: &[ResourceKey]) -> Bytes {
    if needs.is_empty() {
        return Bytes::new();
    }
    let needs = Needs { needs: needs.iter().map(Key::from).collect() };
    let any = Any { type_url: NEEDS_URL.to_owned(), value: needs.encode_to_vec() };
    let typed_filter_metadata = HashMap::from([(NEEDS.to_owned(), any)]);
    Metadata { typed_filter_metadata, ..Metadata::default() }.encode_to_vec().into()
}

pub(super) fn complete(nonce: u64) -> Response {
    Response { type_url: COMPLETE.into(), nonce, resources: Vec::new(), removed: Vec::new() }
}

/// What a relay says of a response some of whose resources its Envoy refused.
#[must_use]
pub fn refusal(refusals: Vec<Refusal>) -> Status {
    let message = refusals.iter().map(|refusal| format!("{}: {}", refusal.name, refusal.message));
    let message = message.collect::<Vec<_>>().join("\n");
    let value = Refusals { refusals }.encode_to_vec();
    let details = vec![Any { type_url: REFUSALS_URL.to_owned(), value }];
    Status { code: INVALID_ARGUMENT, message, details }
}

/// The message of a resource that Envoy is not sent: it needs one that was
/// refused, and may go on waiting for ever.
#[must_use]
pub fn waits(need: &ResourceKey) -> String {
    format!("{WAITS} {need}")
}

/// Reads what [`refusal`] wrote: all that was refused of the response.
pub(super) fn refused(status: &Status) -> Option<Vec<Refusal>> {
    let detail = status.details.iter().find(|detail| detail.type_url == REFUSALS_URL)?;
    Some(Refusals::decode(detail.value.as_slice()).ok()?.refusals)
}

/// A resource as a relay receives it, ready to be served on; `None` where it is
/// not what we send.
#[must_use]
pub fn read(kind: ResourceKind, wire: Wire) -> Option<Resource> {
    let Wire { name, version, resource, metadata, .. } = wire;
    let version = Version::parse(&version)?;
    let mut body = Bytes::from(resource?.value);
    if kind == ResourceKind::Secret {
        body = without_name(&body, &name)?;
    }
    let needs = match metadata.and_then(|mut known| known.typed_filter_metadata.remove(NEEDS)) {
        Some(any) => Needs::decode(any.value.as_slice()).ok()?.needs,
        None => Vec::new(),
    };
    let needs = needs.into_iter().map(Key::read).collect::<Option<Arc<[_]>>>()?;
    let key = ResourceKey { kind, name: Name::from(name) };
    Some(Resource { key, version, body: body.into(), needs, origins: [].into() })
}

/// A Secret is sent with its name (field 1) in front: see [`Resource`].
fn without_name(body: &Bytes, name: &str) -> Option<Bytes> {
    let mut rest = body.clone();
    let (tag, wire) = prost::encoding::decode_key(&mut rest).ok()?;
    let length = prost::encoding::decode_varint(&mut rest).ok()?;
    let length = usize::try_from(length).ok().filter(|length| *length <= rest.len())?;
    let own = rest.split_to(length);
    (tag == 1 && wire == prost::encoding::WireType::LengthDelimited && own == name.as_bytes()).then_some(rest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::frame::Item;
    use envoy_types::pb::envoy::service::discovery::v3::DeltaDiscoveryResponse;

    #[track_caller]
    fn check(kind: ResourceKind, name: &str, body: &'static [u8], needs: &[ResourceKey]) {
        let item = Item {
            name: name.into(),
            version: Version(7),
            named_body: kind == ResourceKind::Secret,
            body: Bytes::from_static(body),
            metadata: metadata(needs),
        };
        let response =
            Response { type_url: kind.type_url().into(), nonce: 1, resources: vec![item], removed: vec![] };
        let mut wire = Vec::new();
        response.encode(&mut wire);
        assert_eq!(wire.len(), response.encoded_len());
        let mut sent = DeltaDiscoveryResponse::decode(wire.as_slice()).expect("a response");
        let read = read(kind, sent.resources.remove(0)).expect("a resource");
        assert_eq!((&*read.key.name, read.key.kind, read.version), (name, kind, Version(7)));
        assert_eq!((&read.body.bytes()[..], &*read.needs), (body, needs));
    }

    #[test]
    fn a_resource_arrives_as_it_was() {
        let needs = [
            ResourceKey { kind: ResourceKind::Cluster, name: "shop/web/80".into() },
            ResourceKey { kind: ResourceKind::Route, name: "r".into() },
        ];
        check(ResourceKind::Route, "r/public/a.example.com", b"body", &needs);
        check(ResourceKind::Secret, "a.example.com", b"key", &[]);
        check(ResourceKind::Endpoints, "", b"", &[]);
    }

    #[test]
    fn a_refusal_names_what_was_refused() {
        let refusals: Vec<_> = [
            ("r/a b", "bad\nregex"),
            ("c", &waits(&ResourceKey { kind: ResourceKind::Cluster, name: "shop/web/80".into() })),
        ]
        .map(|(name, message)| Refusal { name: name.to_owned(), message: message.to_owned() })
        .into();
        let status = refusal(refusals.clone());
        assert_eq!(refused(&status), Some(refusals));
        assert_eq!(status.message, "r/a b: bad\nregex\nc: waits for a refused Cluster shop/web/80");
        assert_eq!(refused(&Status { details: Vec::new(), ..status }), None);
    }
}
