//! Resources as people read them, and as Envoy reads its bootstrap: JSON.
//!
//! prost keeps no field names, so they come from `print/descriptors.binpb`: the
//! `FileDescriptorSet` of every message we emit and of what those hold, made
//! from the `.proto` files that envoy-types ships, options and comments left
//! out. `tests/xds_descriptors.rs` holds it against them and lists the messages.

use super::{Resource, ResourceKind};
use prost::{Message, Name};
use prost_reflect::{DescriptorPool, DynamicMessage, SerializeOptions};
use serde_json::{Map, Value};
use std::sync::LazyLock;

static DESCRIPTORS: LazyLock<DescriptorPool> = LazyLock::new(|| {
    let bytes: &[u8] = include_bytes!("print/descriptors.binpb");
    DescriptorPool::decode(bytes).expect("the descriptors in this binary are whole")
});

/// What stands for a private key.
const PLACEHOLDER: &str = "[secret]";

/// A resource as JSON, keys of maps sorted, field names as in the `.proto`
/// files. Private keys do not print.
#[must_use]
pub fn print_resource(resource: &Resource) -> Value {
    let Resource { key, version: _, body, needs: _, origins: _ } = resource;
    let url = key.kind.type_url();
    let mut value = json(url.rsplit('/').next().unwrap_or(url), &body.bytes());
    if key.kind == ResourceKind::Secret {
        redact(&mut value);
        if let Value::Object(fields) = &mut value {
            fields.insert("name".to_owned(), Value::from(key.name.as_ref()));
        }
    }
    value
}

/// A message as JSON, private keys included: for files that Envoy reads.
pub(super) fn print_message<M: Message + Name>(message: &M) -> Value {
    json(&M::full_name(), &message.encode_to_vec())
}

fn json(name: &str, bytes: &[u8]) -> Value {
    let descriptor = DESCRIPTORS.get_message_by_name(name).expect("we emit only what is described");
    let message = DynamicMessage::decode(descriptor, bytes).expect("we decode what we encoded");
    let options = SerializeOptions::new().use_proto_field_name(true).stringify_64_bit_integers(false);
    message
        .serialize_with_options(serde_json::value::Serializer, &options)
        .expect("every `Any` we emit is described")
}

fn redact(value: &mut Value) {
    let Value::Object(fields) = value else { return };
    for (name, value) in fields.iter_mut() {
        if name == "private_key" {
            *value = Value::Object(Map::from_iter([("inline_string".to_owned(), PLACEHOLDER.into())]));
        } else {
            redact(value);
        }
    }
}
