//! `src/xds/print/descriptors.binpb` is what the `.proto` files of envoy-types
//! say, less what printing does not need. `UPDATE=1` writes it anew.
#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "a test program: its environment, its panics"
)]

use prost::Message;
use prost_types::{
    DescriptorProto, EnumDescriptorProto, FieldOptions, FileDescriptorProto, FileDescriptorSet,
    MessageOptions,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    process::Command,
};

/// Messages that are sent as resources or within an `Any`; what they hold comes along.
const ROOTS: [(&str, &str); 26] = [
    ("envoy/config/bootstrap/v3/bootstrap.proto", "Bootstrap"),
    ("envoy/config/route/v3/scoped_route.proto", "ScopedRouteConfiguration"),
    ("envoy/config/route/v3/route.proto", "RouteConfiguration"),
    ("envoy/config/cluster/v3/cluster.proto", "Cluster"),
    ("envoy/config/listener/v3/listener.proto", "Listener"),
    ("envoy/config/endpoint/v3/endpoint.proto", "ClusterLoadAssignment"),
    ("envoy/config/overload/v3/overload.proto", "ScaleTimersOverloadActionConfig"),
    ("envoy/extensions/access_loggers/stream/v3/stream.proto", "StdoutAccessLog"),
    ("envoy/extensions/clusters/dns/v3/dns_cluster.proto", "DnsCluster"),
    ("envoy/extensions/filters/http/dynamic_modules/v3/dynamic_modules.proto", "DynamicModuleFilter"),
    ("envoy/extensions/filters/http/router/v3/router.proto", "Router"),
    ("envoy/extensions/filters/listener/proxy_protocol/v3/proxy_protocol.proto", "ProxyProtocol"),
    ("envoy/extensions/filters/listener/tls_inspector/v3/tls_inspector.proto", "TlsInspector"),
    ("envoy/extensions/filters/network/connection_limit/v3/connection_limit.proto", "ConnectionLimit"),
    (
        "envoy/extensions/filters/network/http_connection_manager/v3/http_connection_manager.proto",
        "HttpConnectionManager",
    ),
    (
        "envoy/extensions/http/early_header_mutation/dynamic_modules/v3/dynamic_modules.proto",
        "DynamicModuleEarlyHeaderMutation",
    ),
    (
        "envoy/extensions/http/early_header_mutation/header_mutation/v3/header_mutation.proto",
        "HeaderMutation",
    ),
    (
        "envoy/extensions/resource_monitors/downstream_connections/v3/downstream_connections.proto",
        "DownstreamConnectionsConfig",
    ),
    ("envoy/extensions/resource_monitors/fixed_heap/v3/fixed_heap.proto", "FixedHeapConfig"),
    ("envoy/extensions/transport_sockets/tls/cert_mappers/sni/v3/config.proto", "SNI"),
    ("envoy/extensions/transport_sockets/tls/cert_selectors/on_demand_secret/v3/config.proto", "Config"),
    ("envoy/extensions/transport_sockets/tls/v3/secret.proto", "Secret"),
    ("envoy/extensions/transport_sockets/tls/v3/tls.proto", "DownstreamTlsContext"),
    ("envoy/extensions/transport_sockets/tls/v3/tls.proto", "UpstreamTlsContext"),
    ("envoy/extensions/upstreams/http/v3/http_protocol_options.proto", "HttpProtocolOptions"),
    ("google/protobuf/wrappers.proto", "StringValue"),
];

#[test]
fn descriptors_are_those_of_envoy_types() {
    let files: BTreeSet<&str> = ROOTS.iter().map(|(file, _)| *file).collect();
    let proto = envoy_types().join("proto");
    let includes = ["data-plane-api", "xds", "protoc-gen-validate", "googleapis", "cel-spec/proto"]
        .map(|folder| proto.join(folder));
    let mut set = protox::compile(files, includes).unwrap();
    prune(&mut set);
    let fresh = set.encode_to_vec();
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/xds/print/descriptors.binpb");
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&path, &fresh).unwrap();
    }
    assert!(std::fs::read(&path).unwrap() == fresh, "{} is stale: run this with UPDATE=1", path.display());
}

/// Where cargo keeps the source of the crate.
fn envoy_types() -> PathBuf {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--locked", "--offline"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    let package = packages.iter().find(|package| package["name"] == "envoy-types").unwrap();
    Path::new(package["manifest_path"].as_str().unwrap()).parent().unwrap().to_owned()
}

/// Leaves the roots, what they reach, and nothing that is said about them.
fn prune(set: &mut FileDescriptorSet) {
    let mut fields = BTreeMap::new();
    for file in &set.file {
        collect(&format!(".{}", file.package()), &file.message_type, &mut fields);
    }
    let package = |path: &str| {
        let file = set.file.iter().find(|file| file.name() == path).unwrap();
        file.package().to_owned()
    };
    let mut todo: Vec<String> =
        ROOTS.iter().map(|(file, name)| format!(".{}.{name}", package(file))).collect();
    let mut keep = BTreeSet::new();
    while let Some(name) = todo.pop() {
        if keep.insert(name.clone()) {
            todo.extend(fields.get(&name).into_iter().flatten().cloned());
        }
    }
    set.file.iter_mut().for_each(|file| prune_file(file, &keep));
    set.file.retain(|file| !file.message_type.is_empty() || !file.enum_type.is_empty());
    let left: BTreeSet<String> = set.file.iter().map(|file| file.name().to_owned()).collect();
    for file in &mut set.file {
        file.dependency.retain(|name| left.contains(name));
    }
}

/// The types that each message's fields have.
fn collect(prefix: &str, messages: &[DescriptorProto], fields: &mut BTreeMap<String, Vec<String>>) {
    for message in messages {
        let name = format!("{prefix}.{}", message.name());
        collect(&name, &message.nested_type, fields);
        fields.insert(name, message.field.iter().filter_map(|field| field.type_name.clone()).collect());
    }
}

fn prune_file(file: &mut FileDescriptorProto, keep: &BTreeSet<String>) {
    let prefix = format!(".{}", file.package());
    prune_messages(&prefix, &mut file.message_type, keep);
    prune_enums(&prefix, &mut file.enum_type, keep);
    *file = FileDescriptorProto {
        name: file.name.take(),
        package: file.package.take(),
        dependency: std::mem::take(&mut file.dependency),
        message_type: std::mem::take(&mut file.message_type),
        enum_type: std::mem::take(&mut file.enum_type),
        syntax: file.syntax.take(),
        ..FileDescriptorProto::default()
    };
}

fn prune_messages(prefix: &str, messages: &mut Vec<DescriptorProto>, keep: &BTreeSet<String>) {
    for message in messages.iter_mut() {
        let name = format!("{prefix}.{}", message.name());
        prune_messages(&name, &mut message.nested_type, keep);
        prune_enums(&name, &mut message.enum_type, keep);
        if !keep.contains(&name) {
            message.field.clear();
            message.oneof_decl.clear();
        }
        for field in &mut message.field {
            field.json_name = None;
            let packed = field.options.as_ref().and_then(|options| options.packed);
            field.options = packed.map(|packed| FieldOptions { packed: Some(packed), ..Default::default() });
        }
        for oneof in &mut message.oneof_decl {
            oneof.options = None;
        }
        let map_entry = message.options.as_ref().and_then(|options| options.map_entry);
        *message = DescriptorProto {
            name: message.name.take(),
            field: std::mem::take(&mut message.field),
            nested_type: std::mem::take(&mut message.nested_type),
            enum_type: std::mem::take(&mut message.enum_type),
            oneof_decl: std::mem::take(&mut message.oneof_decl),
            options: map_entry.map(|entry| MessageOptions { map_entry: Some(entry), ..Default::default() }),
            ..DescriptorProto::default()
        };
    }
    messages.retain(|message| {
        let wanted = keep.contains(&format!("{prefix}.{}", message.name()));
        wanted || !message.nested_type.is_empty() || !message.enum_type.is_empty()
    });
}

fn prune_enums(prefix: &str, enums: &mut Vec<EnumDescriptorProto>, keep: &BTreeSet<String>) {
    enums.retain(|choice| keep.contains(&format!("{prefix}.{}", choice.name())));
    for choice in enums {
        choice.value.iter_mut().for_each(|value| value.options = None);
        choice.options = None;
        choice.reserved_range.clear();
        choice.reserved_name.clear();
    }
}
