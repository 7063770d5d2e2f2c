//! The objects that come, change and go: few names, so that they meet in
//! conflicts, wildcards, shared VIPs and broken references. And the bystander,
//! whose objects nobody touches and to whom therefore nothing may happen.

use crate::{
    dice::Dice,
    support::facts::{backend, class, ingress, rule, service, slice},
};
use std::sync::Arc;
use tidegate::{
    api,
    base::{ObjectKey, ObjectKind, Secret},
    inputs::{Change, Fact, fact},
};

/// The bystander's host, gateway and address.
pub(crate) const BYSTANDER: &str = "w.bystander.test";
pub(crate) const BYSTANDER_GATEWAY: &str = "steady/ingress/bystander/w";
pub(crate) const BYSTANDER_ADDRESS: &str = "192.0.2.77";

const NAMESPACES: [&str; 2] = ["red", "blue"];
const SERVICES: [&str; 3] = ["a", "b", "c"];
const HOSTS: [&str; 7] =
    ["a.foo.com", "*.foo.com", "b.foo.com", "x.example.com", "", "not a host", "z.sub.example.com"];
const SETTINGS: [&str; 2] = ["wide", "own"];
const POOLS: [&str; 2] = ["small", "other"];
const ZONES: [&str; 2] = ["z1", "z2"];

/// Certificates and keys; the last one is the bystander's.
const PAIRS: [(&[u8], &[u8]); 3] = [
    (include_bytes!("pairs/a.crt"), include_bytes!("pairs/a.key")),
    (include_bytes!("pairs/b.crt"), include_bytes!("pairs/b.key")),
    (include_bytes!("pairs/w.crt"), include_bytes!("pairs/w.key")),
];

/// Names that clients ask certificates for.
pub(crate) const HELLOS: [&str; 6] =
    ["a.foo.com", "A.foo.com", "q.foo.com", "x.example.com", "nobody.test", "default/public"];

fn namespaced(kind: ObjectKind, namespace: &str, name: &str, fact: Option<Fact>) -> Change {
    Change { key: ObjectKey::new(kind, namespace, name), fact }
}

fn cluster(kind: ObjectKind, name: &str, fact: Option<Fact>) -> Change {
    Change { key: ObjectKey::cluster(kind, name), fact }
}

/// What is there before anything happens: the bystander, and a world that works.
pub(crate) fn beginning(dice: &mut Dice) -> Vec<Change> {
    let mut all = bystander();
    for key in 0..40 {
        if dice.chance(700) {
            all.push(edit(dice, Some(key)));
        }
    }
    all.push(cluster(ObjectKind::IngressClass, "public", Some(Fact::IngressClass(Arc::new(class(None))))));
    all.push(cluster(ObjectKind::VipPool, "small", Some(pool(dice))));
    all
}

fn bystander() -> Vec<Change> {
    let namespace = "bystander";
    let mut setting = api::InfraSettingSpec::default();
    setting.vip.sharing = api::VipSharing::Ingress;
    setting.vip.pool = Some("steady".to_owned());
    let names = vec![namespace.to_owned()];
    let pool = api::VipPoolSpec {
        addresses: vec![format!("{BYSTANDER_ADDRESS}/32")],
        exclude: Vec::new(),
        namespaces: Some(api::Selector { names, ..api::Selector::default() }),
        priority: 0,
        quarantine_seconds: 60,
    };
    let mut site = ingress(Some("steady"), 1);
    site.rules = [rule(BYSTANDER, "/", "w")].into();
    site.tls = [fact::Tls { hosts: [BYSTANDER.into()].into(), secret: Some("w".into()) }].into();
    let zone = serde_json::json!({ "zone": "bystander.test" });
    let zone: api::DnsZoneSpec = serde_json::from_value(zone).expect("a zone");
    vec![
        cluster(
            ObjectKind::IngressClass,
            "steady",
            Some(Fact::IngressClass(Arc::new(class(Some("steady"))))),
        ),
        cluster(ObjectKind::InfraSetting, "steady", Some(Fact::InfraSetting(Arc::new(setting)))),
        cluster(ObjectKind::VipPool, "steady", Some(Fact::VipPool(Arc::new(pool)))),
        cluster(ObjectKind::DnsZone, "steady", Some(Fact::DnsZone(Arc::new(zone)))),
        namespaced(ObjectKind::Ingress, namespace, "w", Some(Fact::Ingress(Arc::new(site)))),
        namespaced(ObjectKind::Service, namespace, "w", Some(Fact::Service(Arc::new(service(None))))),
        namespaced(
            ObjectKind::EndpointSlice,
            namespace,
            "w-1",
            Some(Fact::EndpointSlice(Arc::new(slice("w", "10.7.0.1", true)))),
        ),
        namespaced(ObjectKind::Secret, namespace, "w", Some(secret(2, 2))),
    ]
}

/// One object comes, changes or goes.
pub(crate) fn edit(dice: &mut Dice, which: Option<usize>) -> Change {
    let there = dice.chance(820);
    match which.unwrap_or_else(|| dice.below(40)) {
        0..14 => {
            let n = dice.below(7);
            let fact = there.then(|| some_ingress(dice, n));
            namespaced(ObjectKind::Ingress, NAMESPACES[n % 2], &format!("i{n}"), fact)
        }
        14..20 => {
            let protocol = dice.pick(&[None, None, Some("h2c"), Some("https"), Some("odd")]);
            let mut made = service(protocol);
            made.sticky_source = dice.chance(200);
            let fact = there.then(|| Fact::Service(Arc::new(made)));
            namespaced(ObjectKind::Service, dice.pick(&NAMESPACES), dice.pick(&SERVICES), fact)
        }
        20..27 => {
            let name = dice.pick(&SERVICES);
            let made =
                slice(name, dice.pick(&["10.0.0.1", "10.0.0.2", "10.0.0.3", "127.0.0.1"]), dice.chance(800));
            let fact = there.then(|| Fact::EndpointSlice(Arc::new(made)));
            namespaced(ObjectKind::EndpointSlice, dice.pick(&NAMESPACES), &format!("{name}-1"), fact)
        }
        27..30 => {
            let setting = dice.pick(&[None, None, Some("wide"), Some("own"), Some("missing")]);
            let mut made = class(setting);
            made.default = dice.chance(200);
            let fact = there.then(|| Fact::IngressClass(Arc::new(made)));
            cluster(ObjectKind::IngressClass, dice.pick(&["public", "inner"]), fact)
        }
        30..32 => {
            let fact = there.then(|| Fact::InfraSetting(Arc::new(setting(dice))));
            cluster(ObjectKind::InfraSetting, dice.pick(&SETTINGS), fact)
        }
        32..34 => {
            let fact = there.then(|| pool(dice));
            cluster(ObjectKind::VipPool, dice.pick(&POOLS), fact)
        }
        34 => {
            let setting = dice.pick(&[None, None, Some("wide"), Some("own")]).map(Into::into);
            let labels = [("v".to_owned(), dice.below(2).to_string())].into();
            let fact = there.then(|| Fact::Namespace(Arc::new(fact::Namespace { labels, setting })));
            cluster(ObjectKind::Namespace, dice.pick(&NAMESPACES), fact)
        }
        35..38 => {
            let (which, other) = (dice.below(2), dice.below(9));
            let fact = there.then(|| secret(which, if other < 7 { which } else { other - 6 }));
            namespaced(ObjectKind::Secret, dice.pick(&NAMESPACES), ["tls-a", "tls-b"][which], fact)
        }
        _ => {
            let zone = dice.pick(&["example.com", "foo.com", "sub.example.com", "bad zone"]);
            let spec = serde_json::json!({ "zone": zone, "ttl": 10 + dice.below(2) });
            let spec: api::DnsZoneSpec = serde_json::from_value(spec).expect("a zone");
            cluster(ObjectKind::DnsZone, dice.pick(&ZONES), there.then(|| Fact::DnsZone(Arc::new(spec))))
        }
    }
}

fn some_ingress(dice: &mut Dice, n: usize) -> Fact {
    let class = dice.pick(&[Some("public"), Some("public"), Some("inner"), None, Some("foreign")]);
    let mut made = ingress(class, [3, 1, 2, 1, 2, 5, 4][n]);
    let mut rules = Vec::new();
    for _ in 0..=dice.below(2) {
        let path = dice.pick(&["/", "/x", "/x/", "/y", "no slash"]);
        let service = dice.pick(&["a", "a", "b", "c", "missing"]);
        rules.push(rule(dice.pick(&HOSTS), path, service));
    }
    made.rules = rules.into();
    if dice.chance(200) {
        made.default_backend = Some(backend(dice.pick(&SERVICES)));
    }
    if dice.chance(450) {
        let hosts = if dice.chance(800) { [dice.pick(&HOSTS).into()].into() } else { Default::default() };
        let secret = Some(dice.pick(&["tls-a", "tls-b", "tls-b", "none"]).into());
        made.tls = [fact::Tls { hosts, secret }].into();
    }
    if dice.chance(100) {
        made.vip = Some(dice.pick(&["10.1.0.2", "10.1.0.9", "junk", "10.1.0.2,10.1.0.3"]).into());
    }
    Fact::Ingress(Arc::new(made))
}

fn setting(dice: &mut Dice) -> api::InfraSettingSpec {
    use api::VipSharing::{Host, Ingress, IngressClass};
    let mut spec = api::InfraSettingSpec::default();
    spec.vip.sharing = dice.pick(&[IngressClass, IngressClass, Ingress, Host]);
    spec.vip.shards = dice.pick(&[1, 1, 2, 3, 0]);
    spec.vip.pool = dice.pick(&[None, None, None, Some("other"), Some("nowhere")]).map(str::to_owned);
    spec.timeouts.connect_ms = dice.pick(&[5_000, 5_000, 1_000]);
    spec.limits.buffer_bytes = dice.pick(&[32_768, 32_768, 65_536]);
    if dice.chance(200) {
        spec.vip.addresses = vec!["10.1.0.3".parse().expect("an address")];
    }
    if dice.chance(200) {
        spec.listeners.https = dice.pick(&[443, 8_443, 0]);
    }
    if dice.chance(250) {
        spec.https_redirect = Some(api::RedirectSpec::default());
    }
    if dice.chance(250) {
        let namespaces = NAMESPACES.map(str::to_owned).to_vec();
        spec.host_grants = vec![api::HostGrant { host: "*.foo.com".to_owned(), namespaces }];
    }
    spec
}

fn pool(dice: &mut Dice) -> Fact {
    let addresses =
        dice.pick(&["10.1.0.1-10.1.0.3", "10.1.0.1-10.1.0.6", "10.1.0.2/31", "10.1.0.4-10.1.0.9"]);
    Fact::VipPool(Arc::new(api::VipPoolSpec {
        addresses: vec![addresses.to_owned()],
        exclude: if dice.chance(100) { vec!["10.1.0.2/32".to_owned()] } else { Vec::new() },
        namespaces: None,
        priority: dice.pick(&[0, 1]),
        quarantine_seconds: dice.pick(&[QUARANTINE_SECONDS_MIN, 60, QUARANTINE_SECONDS_MAX]),
    }))
}

/// The quarantines of this world's pools.
pub(crate) const QUARANTINE_SECONDS_MIN: u32 = 30;
pub(crate) const QUARANTINE_SECONDS_MAX: u32 = 120;

/// A certificate with a key, which may be another's.
fn secret(certificate: usize, key: usize) -> Fact {
    Fact::Secret(Arc::new(fact::TlsSecret {
        certificate: PAIRS[certificate].0.into(),
        key: Secret::new(PAIRS[key].1.into()),
        ca: None,
    }))
}
