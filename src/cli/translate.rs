//! `tidegate translate`.

use super::{
    offline::{InputArgs, Offline},
    output::{Exit, Failure, Format, line, print},
};
use crate::{
    compile::Outcome,
    pipeline::Core,
    report::Severity,
    xds::{Standalone, build_standalone, print_resource},
};
use clap::ValueEnum;
use serde_json::{Value, json};
use std::io::Write;

/// Shows what manifests become, without running anything.
///
/// VIPs are those that an empty ledger would give. Findings go to stderr.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  tidegate translate -f examples/quickstart --to static --allow-loopback-endpoints > envoy.json\n  \
    envoy --mode validate -c envoy.json\n  tidegate translate -f ingress.yaml --to ir -o yaml\n\n\
    static: one config that stock Envoy runs by itself; it holds private keys.\n\
    ads: the resources an engine is sent; private keys are left out.\nir: the model between.\n\n\
    Ends with 1 when there is an error; what is right is translated all the same."
)]
pub(super) struct TranslateArgs {
    #[command(flatten)]
    input: InputArgs,
    #[arg(long, value_enum, default_value_t)]
    to: Target,
    /// json or yaml.
    #[arg(short, long, value_enum, default_value = "json")]
    output: Format,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
enum Target {
    #[default]
    Static,
    Ads,
    Ir,
}

pub(super) fn run(args: &TranslateArgs) -> Result<Exit, Failure> {
    if args.output == Format::Table {
        return Err(Failure::usage("translate prints json or yaml"));
    }
    let mut offline = Offline::load(&args.input)?;
    let findings = offline.findings();
    let value = match args.to {
        Target::Static => standalone(&offline.core),
        Target::Ads => ads(&mut offline.core),
        Target::Ir => ir(&offline.core),
    };
    print(args.output, &value, |_| Vec::new())?;
    line("")?;
    let mut broken = false;
    for located in findings.iter().filter(|located| located.severity() > Severity::Info) {
        broken |= located.severity() == Severity::Error;
        let _ = writeln!(std::io::stderr(), "{located}");
    }
    Ok(if broken { Exit::Findings } else { Exit::Fine })
}

/// One Envoy config with everything in it.
#[must_use]
pub(super) fn standalone(core: &Core) -> Value {
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

/// The resources an engine is sent, in the order of their kinds.
#[must_use]
pub(super) fn ads(core: &mut Core) -> Value {
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

/// The model between manifests and Envoy.
#[must_use]
pub(super) fn ir(core: &Core) -> Value {
    let value = |value: Result<Value, serde_json::Error>| value.expect("the model prints");
    let mut lists: std::collections::BTreeMap<&str, Vec<Value>> = std::collections::BTreeMap::new();
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
