//! A thousand edits of what is served, of every kind, one upon the other.

use super::{Random, rounds};
use crate::support::live::{
    Backend, Ingress, Live, Request, Service, State,
    load::{Load, Tally},
    manifest::{class, issued_secret},
    tenant::{http, https},
    tls::Authority,
};
use serde_json::{Value, json};
use std::net::IpAddr;

const EDITS: usize = 1_000;

/// What is edited, and how it is now.
struct Site {
    live: Live,
    random: Random,
    left_or_right: [&'static str; 2],
    /// One Service with four backends, some of them listed.
    scaled: Service,
    /// One whose only endpoint is the first or the second of its backends.
    moving: Service,
    /// `one.wild.test` has a table of its own.
    exact: bool,
    vip: IpAddr,
}

fn ingress(name: &str) -> Ingress {
    Ingress::new("shop", name, "live")
}

impl Site {
    fn start() -> Self {
        let services = ["left", "right", "base", "wild", "exact"].map(|name| Service::new("shop", name));
        let backends = |name: &str, count| (0..count).map(|_| Backend::start(name)).collect();
        let scaled = Service::with_backends("shop", "scaled", backends("scaled", 4));
        let moving = Service::with_backends("shop", "moving", backends("moving", 2));
        let mut objects = class("live", &json!({})).to_vec();
        objects.extend(class("lone", &json!({})));
        objects.extend(services.iter().flat_map(Service::manifests));
        objects.push(ingress("wild").prefix("*.wild.test", "/", "wild").into());
        objects.push(ingress("scaled").prefix("scaled.test", "/", "scaled").into());
        objects.push(ingress("moving").prefix("moving.test", "/", "moving").into());
        objects.push(
            ingress("secure").prefix("secure.test", "/", "base").tls(&["secure.test"], "secure").into(),
        );
        let random = Random(2);
        let mut site = Self {
            live: Live::start(&objects),
            random,
            left_or_right: ["left", "right"],
            scaled,
            moving,
            exact: false,
            vip: IpAddr::from([127, 0, 0, 1]),
        };
        site.certificate();
        site.live.apply(
            "toggled-secret",
            &[issued_secret("shop", "toggled", &Authority::shared().issue(&["toggled.test"]))],
        );
        site.reorder();
        site.swap();
        site.toggle_tls();
        site.toggle_lone_tls();
        site.scale();
        site.repoint();
        // Leaks the backends on purpose: they serve until the end of the test.
        std::mem::forget(services);
        site.vip = site.live.programmed("Ingress/shop/swap");
        for name in ["paths", "wild", "scaled", "moving", "secure", "toggled"] {
            site.live.programmed(&format!("Ingress/shop/{name}"));
        }
        site
    }

    fn toss(&mut self) -> bool {
        self.random.below(2) == 0
    }

    /// The same paths in another order: nothing changes for anybody.
    fn reorder(&mut self) {
        let mut paths = vec![("/a", "left"), ("/a/b", "right"), ("/c", "right"), ("/", "base")];
        let mut all = ingress("paths");
        while !paths.is_empty() {
            let at = self.random.below(paths.len() as u64);
            let (path, service) = paths.swap_remove(usize::try_from(at).expect("small"));
            all = all.prefix("paths.test", path, service);
        }
        self.live.apply("paths", &[all.into()]);
    }

    /// Two paths change their backends with each other.
    fn swap(&mut self) {
        self.left_or_right.swap(0, 1);
        let [one, two] = self.left_or_right;
        let swapped = ingress("swap").prefix("swap.test", "/one", one).prefix("swap.test", "/two", two);
        self.live.apply("swap", &[swapped.into()]);
    }

    /// A host gets a table of its own, or goes back to the wildcard's.
    fn between(&mut self) {
        if self.exact {
            self.live.delete("exact");
        } else {
            self.live.apply("exact", &[ingress("exact").prefix("one.wild.test", "/", "exact").into()]);
        }
        self.exact = !self.exact;
    }

    /// A certificate is renewed.
    fn certificate(&mut self) {
        let issued = Authority::shared().issue(&["secure.test"]);
        self.live.apply("secret", &[issued_secret("shop", "secure", &issued)]);
    }

    /// TLS comes to a host, or goes.
    fn toggle_tls(&mut self) {
        let plain = ingress("toggled").prefix("toggled.test", "/", "base");
        let now = if self.toss() { plain.tls(&["toggled.test"], "toggled") } else { plain };
        self.live.apply("toggled", &[now.into()]);
    }

    /// The same, where it is the only TLS of its VIP: a listener comes or goes.
    fn toggle_lone_tls(&mut self) {
        let plain = Ingress::new("shop", "lone", "lone").prefix("lone.test", "/", "base");
        let now = if self.toss() { plain.tls(&["lone.test"], "toggled") } else { plain };
        self.live.apply("lone", &[now.into()]);
    }

    fn scale(&mut self) {
        let ready = 1 + self.random.below(4);
        for (n, (_, state)) in (0..).zip(&mut self.scaled.backends) {
            *state = if n < ready { State::Ready } else { State::Gone };
        }
        self.live.apply("scaled", &self.scaled.manifests());
    }

    fn repoint(&mut self) {
        let now = usize::from(self.toss());
        self.moving.backends[now].1 = State::Ready;
        self.moving.backends[1 - now].1 = State::Gone;
        self.live.apply("moving", &self.moving.manifests());
    }

    /// Waits until the last swap, and the last move between tables, is served.
    fn seen(&self) {
        let served = |host: &str, path: &str, service: &str| {
            let request = Request::get(host, path);
            self.live
                .answered(http(self.vip), &request, |answer| answer.service().as_deref() == Some(service));
        };
        served("swap.test", "/one", self.left_or_right[0]);
        served("one.wild.test", "/", if self.exact { "exact" } else { "wild" });
    }

    fn edit(&mut self) {
        match self.random.below(8) {
            0 => self.reorder(),
            1 => self.swap(),
            2 => self.between(),
            3 => self.certificate(),
            4 => self.toggle_tls(),
            5 => self.toggle_lone_tls(),
            6 => self.scale(),
            _ => self.repoint(),
        }
    }
}

/// Whose answers a load may have had.
#[track_caller]
fn only(tally: &Tally, services: &[&str]) {
    tally.all_good();
    let strange = tally.services.keys().find(|service| !services.contains(&service.as_str()));
    assert!(strange.is_none(), "{tally:?}");
}

#[test]
fn a_thousand_edits_lose_nothing() {
    let mut site = Site::start();
    let lone: Value = site.live.programmed("Ingress/shop/lone").to_string().into();
    let lone = lone.as_str().and_then(|text| text.parse().ok()).expect("an address");
    let plain = |vip, host: &str, path: &str| Load::plain(http(vip), Request::get(host, path));
    let vip = site.vip;
    let secure = site.live.eventually("TLS is served", || {
        let answer = crate::support::live::tls::send(https(vip), &Request::get("secure.test", "/"));
        answer.map(|answer| answer.status).map_err(|why| why.to_string())
    });
    assert_eq!(secure, 200);
    let loads: [(Load, &[&str]); 11] = [
        (plain(vip, "paths.test", "/a"), &["left"]),
        (plain(vip, "paths.test", "/a/b/c"), &["right"]),
        (plain(vip, "paths.test", "/d"), &["base"]),
        (plain(vip, "swap.test", "/one"), &["left", "right"]),
        (plain(vip, "one.wild.test", "/"), &["wild", "exact"]),
        (plain(vip, "two.wild.test", "/"), &["wild"]),
        (plain(vip, "toggled.test", "/"), &["base"]),
        (plain(lone, "lone.test", "/"), &["base"]),
        (plain(vip, "scaled.test", "/"), &["scaled"]),
        (plain(vip, "moving.test", "/"), &["moving"]),
        (Load::tls(https(vip), Request::get("secure.test", "/")), &["base"]),
    ];
    for n in 0..rounds(EDITS) {
        site.edit();
        // Some come upon the one before, some when it is served.
        if n % 4 == 0 {
            site.seen();
        } else {
            loads[n % loads.len()].0.more(1);
        }
    }
    let mut requests = 0;
    for (load, services) in loads {
        let tally = load.end();
        requests += tally.services.values().sum::<usize>();
        only(&tally, services);
    }
    println!("{requests} requests, all answered by the backends");
    for (backend, state) in &site.scaled.backends {
        assert!(backend.requests() > 0 || *state != State::Ready, "each endpoint was used");
    }
}
