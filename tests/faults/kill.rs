//! kill -9 of the control plane, or of an engine, while everything changes: at any moment,
//! and at each place where it has just done, or is about to do, something that lasts.

use super::{Random, rounds};
use crate::support::live::{
    ByHand, How, Ingress, Live, Request, Service,
    load::Load,
    manifest::{class, issued_secret},
    tenant::{self, http, https},
    tls::Authority,
};
use serde_json::{Value, json};
use std::{net::IpAddr, time::Duration};
use tidegate::{
    app,
    failpoint::{ENGINE_PLACES, PLACES},
};

/// Places of a first start: each has a state directory of its own.
const BIRTH: [&str; 12] = [
    "store.create",
    "store.renamed",
    "store.marked",
    "authority.key",
    "authority.certificate",
    "ledger.opened",
    "xds.listening",
    "engine.launch",
    "engine.unrecorded",
    "engine.recorded",
    "up.unsaid",
    "up.said",
];

/// Places of an engine's own server, and of the Envoy that it starts.
const SERVER: [&str; 4] = ["request.taken", "response.sent", "answer.accepted", "answer.refused"];
const LAUNCH: [&str; 3] = ["engine.launch", "engine.unrecorded", "engine.recorded"];

/// The pass of a place at which the process dies: a start passes most of them once
/// or twice, so that this is amid a change.
const PASS: u64 = 3;
/// Changes until a place must have been passed.
const CHANGES_MAX: usize = 200;
const KILLS: usize = 15;
/// Claims that come and go: fewer than there are addresses.
const CLAIMS: usize = 40;

/// Of more instructions than the Envoy of this test takes.
const TOO_LARGE: &str = "/o[a-z]{200}";

fn takes_less() -> Value {
    let limit = json!({"name": "less", "static_layer": {"re2.max_program_size.error_level": 100}});
    json!({"layered_runtime": {"layers": [limit]}})
}

fn by_regex(path: &str) -> Value {
    let backend = json!({"service": {"name": "left", "port": {"name": "http"}}});
    let path = json!({"path": path, "pathType": "ImplementationSpecific", "backend": backend});
    json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "Ingress",
        "metadata": {"name": "regex", "namespace": "shop"},
        "spec": {"ingressClassName": "live", "rules": [{"host": "regex.test", "http": {"paths": [path]}}]},
    })
}

/// Who has a VIP after so many changes; the one before still has its own.
fn claim(change: usize) -> String {
    format!("claim{}", change % CLAIMS)
}

/// A site whose every part changes: a route, who has a VIP, what Envoy refuses.
struct Site {
    live: Live,
    services: [Service; 2],
    change: usize,
    vip: IpAddr,
}

impl Site {
    fn start() -> Self {
        Self::with_engines(1, |_| ()).0
    }

    /// `run`: starts what is not started by `tidegate up`.
    fn with_engines<T>(engines: usize, run: impl FnOnce(&Live) -> T) -> (Self, T) {
        let services = ["left", "right"].map(|name| Service::new("shop", name));
        let mut objects = class("live", &json!({"paths": {"implementationSpecific": "Regex"}})).to_vec();
        objects.extend(services.iter().flat_map(Service::manifests));
        let steady = Ingress::new("shop", "steady", "live").prefix("steady.test", "/", "left");
        objects.push(steady.prefix("secure.test", "/", "left").tls(&["secure.test"], "secure").into());
        objects.push(issued_secret("shop", "secure", &Authority::shared().issue(&["secure.test"])));
        let live = Live::with_bootstrap(engines, &takes_less(), &objects);
        let running = run(&live);
        live.apply("regex", &[by_regex("/o.*")]);
        live.programmed("Ingress/shop/regex");
        let vip = live.programmed("Ingress/shop/steady");
        live.eventually("TLS is served", || {
            let sent = crate::support::live::tls::send(https(vip), &Request::get("secure.test", "/"));
            sent.map(drop).map_err(|why| why.to_string())
        });
        let mut site = Self { live, services, change: 0, vip };
        site.change();
        site.check();
        (site, running)
    }

    fn loads(&self) -> [Load; 2] {
        [
            Load::plain(http(self.vip), Request::get("steady.test", "/")),
            Load::tls(https(self.vip), Request::get("secure.test", "/")),
        ]
    }

    /// One change of each kind, none of them waited for.
    fn change(&mut self) {
        self.change += 1;
        let n = self.change;
        let service = &self.services[n % 2].name;
        self.live.apply(
            "route",
            &[Ingress::new("shop", "route", "live").prefix("route.test", "/", service).into()],
        );
        let name = claim(n);
        let mut objects = class(&name, &json!({})).to_vec();
        objects.push(Ingress::new("shop", &name, &name).prefix(&format!("{name}.test"), "/", service).into());
        self.live.apply(&name, &objects);
        if n > 2 {
            self.live.delete(&claim(n - 2));
        }
        self.live.apply("regex", &[by_regex(if n.is_multiple_of(2) { TOO_LARGE } else { "/o.*" })]);
    }

    /// Everything is as it was last told to be, and nobody has an address of another.
    fn check(&self) {
        let n = self.change;
        let service = &self.services[n % 2].name;
        let is = |answer: &crate::support::live::Answer| answer.service().as_ref() == Some(service);
        assert_eq!(self.live.programmed("Ingress/shop/steady"), self.vip);
        self.live.answered(http(self.vip), &Request::get("route.test", "/"), is);
        let name = claim(n);
        let claimed = self.live.programmed(&format!("Ingress/shop/{name}"));
        assert_ne!(claimed, self.vip);
        self.live.answered(http(claimed), &Request::get(&format!("{name}.test"), "/"), is);
        // What was good, or is: never nothing.
        tenant::get(self.vip, "regex.test", "/okay").served_by("left");
    }

    /// Changes until the control plane dies of itself; then another goes on.
    fn die_at(&mut self, place: &str, pass: u64) {
        let envoys = self.live.envoys();
        self.live.kill_control_plane();
        let up = self.live.start_doomed(("TIDEGATE_FAILPOINT", &format!("{place}:{pass}")));
        let mut changes = 0;
        while !self.live.is_dead() {
            assert!(up && changes < CHANGES_MAX, "{place} is not passed {pass} times");
            self.change();
            changes += 1;
            std::thread::sleep(Duration::from_millis(30));
        }
        self.live.start_again();
        self.check();
        assert_eq!(self.live.envoys(), envoys, "{place}: the same Envoys");
    }
}

/// An engine that dies of itself under changes, and another one in its place.
fn engine_dies_at(site: &mut Site, engine: &mut ByHand, place: &str, pass: u64) {
    engine.kill();
    *engine = site.live.run_engine_as(Some(("TIDEGATE_FAILPOINT", &format!("{place}:{pass}"))));
    let mut changes = 0;
    while !engine.is_dead() {
        assert!(changes < CHANGES_MAX, "{place} is not passed {pass} times");
        site.change();
        changes += 1;
        std::thread::sleep(Duration::from_millis(30));
    }
    *engine = site.live.run_engine_by_hand();
    site.check();
}

#[test]
fn death_at_every_place_of_an_engine() {
    let (mut site, mut engine) = Site::with_engines(0, |live| {
        let files = live.state().join("trust/engines/engine-0");
        app::issue_engine(&live.state(), &files, "engine-0").expect("there is an authority");
        live.run_engine_by_hand()
    });
    let (loads, envoys) = (site.loads(), site.live.envoys());
    for round in 0..u64::try_from(rounds(1)).expect("small") {
        for place in ENGINE_PLACES.into_iter().chain(SERVER) {
            // It is told once a stream.
            let pass = if place == "complete.kept" { 1 } else { PASS + round };
            engine_dies_at(&mut site, &mut engine, place, pass);
            assert_eq!(site.live.envoys(), envoys, "{place}: the same Envoy");
        }
    }
    for load in loads {
        load.end().all_good();
    }
    for place in LAUNCH {
        // There is no Envoy to be taken over.
        engine.kill();
        site.live.kill(site.live.envoys()[0]);
        engine_dies_at(&mut site, &mut engine, place, 1);
        assert_eq!(site.live.envoys().len(), 1, "{place}: one Envoy");
    }
    engine.end();
}

#[test]
fn death_at_every_place_of_a_change() {
    let mut site = Site::start();
    let loads = site.loads();
    for round in 0..u64::try_from(rounds(1)).expect("small") {
        for place in PLACES.iter().filter(|place| !BIRTH.contains(place)) {
            site.die_at(place, PASS + round);
        }
    }
    for load in loads {
        load.end().all_good();
    }
}

#[test]
fn death_at_any_moment() {
    let mut site = Site::start();
    let loads = site.loads();
    let mut random = Random(3);
    for _ in 0..rounds(KILLS) {
        let envoys = site.live.envoys();
        for _ in 0..random.below(4) {
            site.change();
            std::thread::sleep(Duration::from_millis(random.below(20)));
        }
        site.live.kill_control_plane();
        if random.below(3) == 0 {
            // One that hardly lived.
            site.live.start_doomed(("TIDEGATE_FAILPOINT", ""));
            std::thread::sleep(Duration::from_millis(random.below(100)));
            site.live.kill_control_plane();
        }
        site.live.start_again();
        site.change();
        site.check();
        assert_eq!(site.live.envoys(), envoys, "the same Envoys");
    }
    for load in loads {
        load.end().all_good();
    }
}

/// The next start makes a whole site of what one that died in its first start left.
#[test]
fn death_at_every_place_of_a_first_start() {
    let service = Service::new("shop", "any");
    let mut objects = class("live", &json!({})).to_vec();
    objects.extend(service.manifests());
    objects.push(Ingress::new("shop", "one", "live").prefix("one.test", "/", "any").into());
    for place in BIRTH {
        assert!(PLACES.contains(&place), "{place}");
        let mut how = How::engines(1);
        how.environment.push(("TIDEGATE_FAILPOINT".to_owned(), place.to_owned()));
        let mut live = Live::stillborn(how, &objects);
        live.start_again_as(How::engines(1));
        let vip = live.programmed("Ingress/shop/one");
        live.answered(http(vip), &Request::get("one.test", "/"), |answer| answer.status == 200);
        assert_eq!(live.envoys().len(), 1, "{place}");
        // Its end is not what this is about.
        live.kill_control_plane();
    }
}
