//! EndpointSlices of a Service's port -> [`Endpoints`].

use super::{Options, World, upstream::find_port};
use crate::{
    base::{ObjectKey, ObjectKind},
    inputs::fact::{Service, SliceEndpoint},
    ir::{Endpoint, Endpoints, UpstreamKey},
    report::{Reason, Report},
};
use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

/// How much of an endpoint is left: of duplicates the best counts.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Fitness {
    /// Going away, but still serving.
    Draining,
    Ready,
}

/// The endpoints of an upstream: ready ones, and beside them those that are going
/// away and still serve, which get no new streams while there are ready ones.
/// Slices without their Service count for nothing.
pub fn translate_endpoints(
    world: &mut dyn World,
    options: &Options,
    key: &UpstreamKey,
    report: &mut Report,
) -> Endpoints {
    let mut found: BTreeMap<SocketAddr, Fitness> = BTreeMap::new();
    if let Some(service) = world.service(&key.namespace, &key.service)
        && let Ok(port) = find_port(&service, &key.port)
    {
        for slice_key in world.slices(&key.namespace, &key.service) {
            let Some(slice) = world.endpoint_slice(&slice_key) else { continue };
            let ports = slice.ports.iter().filter(|(name, _)| *name == port.name).map(|(_, number)| *number);
            for number in ports {
                for endpoint in &slice.endpoints {
                    let address = SocketAddr::new(endpoint.address, number);
                    let Some(fitness) = fitness(&service, endpoint) else { continue };
                    if let Some(why) = refused(world, options, address) {
                        let message = format!("{address} {why}; no traffic is sent there");
                        report.error(&slice_key, "endpoints", Reason::EndpointRefused, message);
                        continue;
                    }
                    let best = found.entry(address).or_insert(fitness);
                    *best = (*best).max(fitness);
                }
            }
        }
    }
    let endpoints: Vec<_> = found
        .into_iter()
        .map(|(address, fitness)| Endpoint { address, draining: fitness == Fitness::Draining })
        .collect();
    if endpoints.is_empty() {
        let at = ObjectKey::new(ObjectKind::Service, &key.namespace, &key.service);
        let message = format!("port {} has no ready endpoint; requests are answered 503", key.port);
        report.info(&at, "", Reason::NotFound, message);
    }
    Endpoints { key: key.clone(), endpoints }
}

fn fitness(service: &Service, endpoint: &SliceEndpoint) -> Option<Fitness> {
    if service.publish_not_ready || endpoint.ready {
        return Some(Fitness::Ready);
    }
    (endpoint.terminating && endpoint.serving).then_some(Fitness::Draining)
}

/// Why an address may not be sent traffic: a hand-made slice must not lead to
/// what only this machine may reach (CVE-2021-25740).
fn refused(world: &mut dyn World, options: &Options, address: SocketAddr) -> Option<&'static str> {
    let ip = address.ip().to_canonical();
    let forbidden = |ip: IpAddr| options.forbidden_endpoints.contains(&SocketAddr::new(ip, address.port()));
    let every = [Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()];
    if forbidden(ip) || ip.is_loopback() && every.into_iter().any(forbidden) {
        return Some("is an address of Tidegate itself");
    }
    if address.port() == 0 || ip.is_unspecified() || ip.is_multicast() {
        return Some("is no address of an endpoint");
    }
    if world.is_vip(ip) {
        return Some("is one of our own VIPs");
    }
    let link_local = match ip {
        IpAddr::V4(ip) => ip.is_link_local() || ip.is_broadcast(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    };
    if link_local {
        return Some("is link-local (metadata services live there)");
    }
    (ip.is_loopback() && !options.loopback_endpoints).then_some("is a loopback address")
}
