//! A gateway -> its claim for addresses, and a listener for each port of each
//! address it holds.

use super::{Contender, OwnerScope, Setting, World};
use crate::{
    base::{HostPattern, ObjectKey, Text},
    ir::{Claim, DedicatedChain, GatewayKey, GatewayScope, HostKey, Listener, ListenerKey, Protocol},
    report::{Reason, Report},
};
use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

/// What came of a gateway.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gateway {
    pub claim: Claim,
    /// One for each address the ledger says it holds, and each port.
    pub listeners: Vec<Listener>,
}

/// Beyond this each further host with a chain of its own slows all changes of them.
const DEDICATED_WARN: usize = 100;

/// A gateway; it lives while a host stands on it.
pub fn translate_gateway(world: &mut dyn World, key: &GatewayKey, report: &mut Report) -> Gateway {
    let setting = setting(world, key);
    let claim = claim(world, key, &setting, report);
    let addresses = world.allocation(key);
    let tls = setting.https.filter(|_| world.has_tls(key));
    // Without an address nobody serves them: their keys stay here.
    let served = tls.is_some() && !addresses.is_empty();
    let dedicated = if served { dedicated(world, key, report) } else { Vec::new() };
    let mut listeners = Vec::new();
    for address in addresses.iter() {
        let listener = |port, protocol, dedicated| Listener {
            key: ListenerKey { address: *address, port },
            gateway: key.clone(),
            protocol,
            edge: Arc::clone(&setting.edge),
            dedicated,
        };
        listeners.extend(setting.http.map(|port| listener(port, Protocol::Http, Vec::new())));
        listeners.extend(tls.map(|port| listener(port, Protocol::Https, dedicated.clone())));
    }
    Gateway { claim, listeners }
}

/// All Ingresses of a gateway have the same setting: it is part of the key.
fn setting(world: &mut dyn World, key: &GatewayKey) -> Arc<Setting> {
    let name = match &key.setting {
        Some(name) => Some(Arc::clone(name)),
        None => world.ingress_class(&key.class).and_then(|class| class.setting.clone()),
    };
    world.setting(name.as_ref())
}

fn claim(world: &mut dyn World, key: &GatewayKey, setting: &Setting, report: &mut Report) -> Claim {
    let user = sole_user(world, key);
    let namespace = user.as_ref().map(|user| Arc::clone(&user.ingress.namespace));
    let labels = match &namespace {
        Some(namespace) => world.namespace(namespace).map(|namespace| namespace.labels.clone()),
        None => None,
    };
    let asked = user.and_then(|user| asked(world, &user.ingress, report));
    Claim {
        name: key.to_string().into(),
        namespace,
        namespace_labels: labels.unwrap_or_else(BTreeMap::new),
        pool: setting.pool.clone(),
        families: setting.families,
        requested: asked.unwrap_or_else(|| setting.addresses.clone()),
    }
}

/// The Ingress that a VIP of one Ingress or one host belongs to.
fn sole_user(world: &mut dyn World, key: &GatewayKey) -> Option<Contender> {
    match &key.scope {
        GatewayScope::Shared { .. } => None,
        GatewayScope::Ingress { namespace, name } => {
            let ingress = ObjectKey::new(crate::base::ObjectKind::Ingress, namespace, name);
            let age = world.attachment(&ingress)?.age;
            Some(Contender { age, ingress })
        }
        GatewayScope::Host { host } => {
            let key = HostKey { gateway: key.clone(), host: host.clone() };
            let owner = world.owner(&OwnerScope::of(&key))?;
            world.contenders(&key).into_iter().find(|contender| owner.admits(&contender.ingress.namespace))
        }
    }
}

/// The addresses an Ingress asks for by its annotation.
fn asked(world: &mut dyn World, at: &ObjectKey, report: &mut Report) -> Option<Vec<IpAddr>> {
    let text = world.ingress(at)?.vip.clone()?;
    let mut addresses: Vec<IpAddr> = Vec::new();
    for part in text.split(',') {
        match part.trim().parse::<IpAddr>() {
            Ok(address) if addresses.iter().all(|known| known.is_ipv4() != address.is_ipv4()) => {
                addresses.push(address)
            }
            Ok(_) | Err(_) => {
                let message = format!(
                    "'{}' is no address, or a second one of its family; it is not asked for",
                    part.escape_debug()
                );
                report.error(at, "metadata.annotations[tidegate.dev/vip]", Reason::Invalid, message);
            }
        }
    }
    Some(addresses)
}

fn dedicated(world: &mut dyn World, key: &GatewayKey, report: &mut Report) -> Vec<DedicatedChain> {
    let mut chains = Vec::new();
    for (host, secret) in world.dedicated(key) {
        // A chain without its certificate would keep the listener from warming.
        if world.certificate(&secret).is_err() {
            continue;
        }
        let shadowed = match &host {
            HostPattern::OneLabel(_) => world.tls_hosts_below(key, &host),
            HostPattern::Default | HostPattern::Exact(_) | HostPattern::AnyLabels(_) => Vec::new(),
        };
        let shadowed = shadowed.iter().filter_map(|host| host.hostname().cloned()).collect();
        let certificate: Text = format!("chain/{key}/{}", host.scope()).into();
        world.demand_dedicated(&certificate, &secret);
        chains.push(DedicatedChain { host, shadowed, certificate });
    }
    if chains.len() > DEDICATED_WARN {
        let class = ObjectKey::cluster(crate::base::ObjectKind::IngressClass, &key.class);
        let message = format!(
            "{} hosts of gateway {key} have filter chains of their own; beyond {DEDICATED_WARN} changes of them are slow",
            chains.len()
        );
        report.warning(&class, "", Reason::PartlyHonoured, message);
    }
    chains
}
