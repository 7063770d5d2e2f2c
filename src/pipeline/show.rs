//! What a [`Core`] comes to, as JSON that people and tests read: the output of
//! `tidegate translate`, and of golden cases.

use super::Core;
use crate::{
    compile::Outcome,
    xds::{Standalone, build_standalone, print_resource},
};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// One Envoy config with everything in it, private keys too.
#[must_use]
pub fn standalone(core: &Core) -> Value {
    let outcomes = core.compiled().outcomes();
    let mut all = Standalone::default();
    for outcome in &outcomes {
        match outcome {
            Outcome::Upstream(_, value) => all.upstreams.extend(value.as_deref()),
            Outcome::Endpoints(_, value) => all.endpoints.extend(value.as_deref()),
            Outcome::Sni(_, value) => all.certificates.extend(value.as_ref()),
            Outcome::Dedicated(name, value) => {
                all.dedicated.extend(value.clone().map(|certificate| (name.clone(), certificate)));
            }
            Outcome::Gateway(_, value) => {
                all.listeners.extend(value.iter().flat_map(|gateway| &gateway.listeners));
            }
            Outcome::Host(_, value) => all.hosts.extend(value.as_deref().map(|outcome| &outcome.host)),
            Outcome::Records(..) | Outcome::Zone(..) => {}
        }
    }
    build_standalone(&all)
}

/// The resources an engine is sent since this or [`Core::publication`] was last
/// called, in the order of their kinds. Private keys do not print.
#[must_use]
pub fn ads(core: &mut Core) -> Value {
    let resources = core.publication().resources.set;
    let shown = resources.iter().map(|resource| {
        json!({
            "kind": format!("{:?}", resource.key.kind),
            "name": resource.key.name,
            "version": resource.version,
            "needs": resource.needs.iter().map(ToString::to_string).collect::<Vec<_>>(),
            "resource": print_resource(resource),
        })
    });
    Value::Array(shown.collect())
}

/// The model between manifests and Envoy, lists by kind. Private keys do not print.
#[must_use]
pub fn ir(core: &Core) -> Value {
    let value = |value: Result<Value, serde_json::Error>| value.expect("the model prints");
    let mut lists: BTreeMap<&str, Vec<Value>> = BTreeMap::new();
    for outcome in core.compiled().outcomes() {
        let (list, value) = match &outcome {
            Outcome::Upstream(_, upstream) => ("upstreams", value(serde_json::to_value(upstream))),
            Outcome::Endpoints(_, endpoints) => ("endpoints", value(serde_json::to_value(endpoints))),
            Outcome::Sni(_, sni) => ("certificates", value(serde_json::to_value(sni))),
            Outcome::Dedicated(_, certificate) => ("dedicated", value(serde_json::to_value(certificate))),
            Outcome::Gateway(_, gateway) => (
                "gateways",
                gateway.as_ref().map_or(
                    Value::Null,
                    |gateway| json!({ "claim": gateway.claim, "listeners": gateway.listeners }),
                ),
            ),
            Outcome::Host(_, host) => {
                ("hosts", value(serde_json::to_value(host.as_deref().map(|outcome| &outcome.host))))
            }
            Outcome::Records(_, records) => ("records", value(serde_json::to_value(records))),
            Outcome::Zone(_, zone) => ("zones", value(serde_json::to_value(zone))),
        };
        lists.entry(list).or_default().push(value);
    }
    json!(lists)
}
