//! Where we can be reached ourselves, which no backend may be.

use super::AppError;
use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
};

/// The addresses of this machine's interfaces, as of now.
pub(super) fn addresses() -> Result<BTreeSet<IpAddr>, AppError> {
    let interfaces = if_addrs::get_if_addrs().map_err(AppError::Interfaces)?;
    Ok(interfaces.into_iter().map(|interface| interface.ip()).collect())
}

/// What no traffic is sent to where we listen on these: each of them as an endpoint has
/// it, and of one that takes every address every one of `own`. It stays in the set: the
/// loopback addresses are too many to be listed.
pub(super) fn reached_at(listeners: &[SocketAddr], own: &BTreeSet<IpAddr>) -> BTreeSet<SocketAddr> {
    let mut reached = BTreeSet::new();
    for listener in listeners {
        let (ip, port) = (listener.ip().to_canonical(), listener.port());
        reached.insert(SocketAddr::new(ip, port));
        if ip.is_unspecified() {
            reached.extend(own.iter().map(|ip| SocketAddr::new(ip.to_canonical(), port)));
        }
    }
    reached
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reached(listener: &str, own: &[&str]) -> Vec<String> {
        let own = own.iter().map(|ip| ip.parse().expect("an address")).collect();
        let reached = reached_at(&[listener.parse().expect("an address")], &own);
        reached.into_iter().map(|address| address.to_string()).collect()
    }

    #[test]
    fn a_listener_on_every_address_is_reached_at_each() {
        let own = ["127.0.0.1", "192.0.2.7", "2001:db8::7"];
        assert_eq!(reached("192.0.2.7:9180", &own), ["192.0.2.7:9180"]);
        assert_eq!(reached("[::ffff:192.0.2.7]:9180", &own), ["192.0.2.7:9180"], "as endpoints have it");
        let each = ["127.0.0.1:9180", "192.0.2.7:9180", "[2001:db8::7]:9180"];
        assert_eq!(reached("0.0.0.0:9180", &own), [["0.0.0.0:9180"].as_slice(), &each].concat());
        // IPv4 comes to it as well (ipv6(7), IPV6_V6ONLY).
        let both = [&each[..2], &["[::]:9180"], &each[2..]].concat();
        assert_eq!(reached("[::]:9180", &own), both);
    }

    #[test]
    fn this_machine_has_addresses() {
        let own = addresses().expect("they can be listed");
        assert!(own.iter().any(IpAddr::is_loopback), "{own:?}");
    }
}
