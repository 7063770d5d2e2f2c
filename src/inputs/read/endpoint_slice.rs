//! EndpointSlice: addresses of one Service's endpoints, and their ports.

use super::{
    object::{Object, Refused},
    service::number,
};
use crate::{
    base::Text,
    inputs::{
        Fact,
        fact::{Age, EndpointSlice, SliceEndpoint},
    },
    report::{Reason, Report, printable},
};
use k8s_openapi::api::discovery::v1 as k8s;
use std::{net::IpAddr, sync::Arc};

/// The label that names a slice's Service.
const SERVICE: &str = "kubernetes.io/service-name";

/// Endpoints and ports of one slice (EndpointSlice API).
const ENDPOINTS_MAX: usize = 1_000;
const PORTS_MAX: usize = 100;

pub(super) fn read(
    object: &Object<'_>,
    _age: &mut dyn FnMut() -> Age,
    report: &mut Report,
) -> Result<Option<Fact>, Refused> {
    let labels = object.metadata.labels.as_ref();
    let Some(service) = labels.and_then(|labels| labels.get(SERVICE)).filter(|name| !name.is_empty()) else {
        let message = format!("has no label {SERVICE}: it belongs to no Service, and is ignored");
        report.info(object.key, "metadata.labels", Reason::NotFound, message);
        return Ok(None);
    };
    let k8s::EndpointSlice { address_type, endpoints, metadata: _, ports } = object.typed(report)?;
    let family = match address_type.as_str() {
        "IPv4" => Some(IpAddr::is_ipv4 as fn(&IpAddr) -> bool),
        "IPv6" => Some(IpAddr::is_ipv6 as fn(&IpAddr) -> bool),
        "FQDN" => {
            let message = "FQDN endpoints are not used; list IPv4 or IPv6 addresses";
            report.warning(object.key, "addressType", Reason::Unsupported, message);
            None
        }
        other => {
            let message = format!("'{}' is none of IPv4, IPv6, FQDN", printable(other));
            report.error(object.key, "addressType", Reason::Invalid, message);
            None
        }
    };
    let endpoints = endpoints.unwrap_or_default();
    let ports = ports.unwrap_or_default();
    for (field, count, max) in
        [("endpoints", endpoints.len(), ENDPOINTS_MAX), ("ports", ports.len(), PORTS_MAX)]
    {
        if count > max {
            let message = format!("has {count}; Kubernetes takes at most {max}: make several slices");
            report.error(object.key, field, Reason::TooLarge, message);
        }
    }
    object.checked(report)?;
    let ports = tcp_ports(object, ports, report);
    object.checked(report)?;
    let endpoints = endpoints
        .into_iter()
        .enumerate()
        .filter_map(|(index, endpoint)| read_endpoint(object, index, endpoint, family?, report))
        .collect();
    let service = service.as_str().into();
    Ok(Some(Fact::EndpointSlice(Arc::new(EndpointSlice { service, ports, endpoints }))))
}

fn tcp_ports(object: &Object<'_>, ports: Vec<k8s::EndpointPort>, report: &mut Report) -> Vec<(Text, u16)> {
    let mut read = Vec::new();
    for (index, port) in ports.into_iter().enumerate() {
        let k8s::EndpointPort { app_protocol: _, name, port, protocol } = port;
        match (protocol.as_deref().unwrap_or("TCP"), port) {
            ("TCP", Some(port)) => match number(port) {
                Some(port) => read.push((name.unwrap_or_default().into(), port)),
                None => {
                    let message = format!("{port} is no port: must be 1 to 65535");
                    report.error(object.key, format!("ports[{index}].port"), Reason::Invalid, message);
                }
            },
            ("TCP", None) => {
                let message =
                    "is missing (it then means every port); traffic needs a number, so it is not used";
                report.warning(object.key, format!("ports[{index}].port"), Reason::Unsupported, message);
            }
            ("UDP" | "SCTP", _) => {}
            (other, _) => {
                let message = format!("'{}' is none of TCP, UDP, SCTP", printable(other));
                report.error(object.key, format!("ports[{index}].protocol"), Reason::Invalid, message);
            }
        }
    }
    read
}

/// One endpoint: its first address, as the API tells consumers.
fn read_endpoint(
    object: &Object<'_>,
    index: usize,
    endpoint: k8s::Endpoint,
    family: fn(&IpAddr) -> bool,
    report: &mut Report,
) -> Option<SliceEndpoint> {
    let at = format!("endpoints[{index}].addresses[0]");
    let mut refuse = |message: String| {
        report.warning(object.key, at.as_str(), Reason::EndpointRefused, format!("{message}; not used"));
        None
    };
    let Some(written) = endpoint.addresses.first() else {
        return refuse("the endpoint has no address".to_owned());
    };
    let address = match written.parse::<IpAddr>() {
        Ok(address) if !family(&address) => {
            return refuse(format!("{address} is not of the slice's addressType"));
        }
        // Such an address is an IPv4 one in disguise: rules for IPv4 would not see it.
        Ok(IpAddr::V6(address)) if address.to_ipv4_mapped().is_some() => {
            return refuse(format!("{address} is an IPv4-mapped address: write it as IPv4"));
        }
        Ok(address) => address,
        Err(_) => return refuse(format!("'{}' is no IP address", printable(written))),
    };
    let conditions = endpoint.conditions.unwrap_or_default();
    let ready = conditions.ready.unwrap_or(true);
    Some(SliceEndpoint {
        address,
        ready,
        serving: conditions.serving.unwrap_or(ready),
        terminating: conditions.terminating.unwrap_or(false),
    })
}
