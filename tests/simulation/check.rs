//! What has to be true of the whole, while it runs and at its end.

use crate::{control::Control, scheduler::Sim};
use std::collections::BTreeMap;
use tidegate::{
    base::Version,
    desired::Desired,
    inputs::Change,
    inputs::Fact,
    ipam::{self, Family, Pools},
    translate::Options,
    xds::{Body, ResourceKey, ResourceKind},
};

impl Sim {
    /// I13, in so many of 1,000 steps: what counts as held by all engines was
    /// accepted by all.
    pub(crate) fn check_programmed(&mut self, per_mille: u32) {
        let Some(control) = &self.control else { return };
        if control.streams.is_empty() || !self.outside.dice.chance(per_mille) {
            return;
        }
        for (key, resource) in &control.published {
            // A certificate counts as held by an engine that did not ask for it.
            if key.kind == ResourceKind::Secret || !control.held_by_all(key) {
                continue;
            }
            for stream in control.streams.values().filter(|stream| !stream.dead) {
                let said = self.sites[stream.site].hop.envoy().said.get(key);
                assert_eq!(said, Some(&resource.version), "I13: e{} and {key}", stream.site);
            }
        }
    }

    /// Everything has come to rest.
    pub(crate) fn check_end(&mut self) {
        self.check_programmed(1_000);
        let control = self.control.as_ref().expect("nothing fails any more");
        for site in &self.sites {
            let envoy = site.hop.envoy();
            assert!(envoy.serves_bystander(), "{}: the bystander is not served", envoy.name);
            for (key, resource) in &control.published {
                let by_name =
                    matches!(key.kind, ResourceKind::Secret | ResourceKind::Endpoints | ResourceKind::Route);
                if by_name && !envoy.asks_for(key) {
                    continue;
                }
                let held = envoy.holds(key);
                if held != Some(resource.version) && resource.needs.iter().any(|need| refused(control, need))
                {
                    continue;
                }
                if refused(control, key) {
                    assert_ne!(held, Some(resource.version), "{}: {key} is refused", envoy.name);
                } else {
                    assert_eq!(held, Some(resource.version), "{}: {key}", envoy.name);
                }
            }
            // An engine that keeps what only it knows, since it refused what came after,
            // may need anything.
            let blind = ResourceKind::ALL
                .into_iter()
                .any(|kind| control.cache.entries(kind).any(|(_, entry)| entry.quarantined()));
            for key in
                envoy.held().filter(|key| !blind && key.kind != ResourceKind::Secret && envoy.admits(key))
            {
                assert!(control.cache.contains(&key), "{}: {key} is gone and still held", envoy.name);
            }
        }
        self.check_fresh();
    }

    /// I14: from scratch, in another order, the same comes out.
    fn check_fresh(&mut self) {
        let control = self.control.as_ref().expect("nothing fails any more");
        let mut all: Vec<_> = self.truth.objects.iter().collect();
        self.outside.dice.shuffle(&mut all);
        let mut fresh = Desired::new(Options::default(), self.outside.disk.ledger.clone());
        for (key, fact) in all {
            fresh.take(vec![Change { key: key.clone(), fact: Some(fact.clone()) }]);
        }
        fresh.first_sync();
        let plan = fresh.plan(self.outside.clock.unix());
        assert!(plan.is_empty(), "I14: a fresh start would change the ledger: {plan:?}");
        fresh.written(&plan);
        let publication = fresh.publication();
        let resources = publication.resources.set.iter();
        let fresh_set: BTreeMap<&ResourceKey, (Version, &Body)> =
            resources.map(|resource| (&resource.key, (resource.version, &resource.body))).collect();
        let now: BTreeMap<&ResourceKey, (Version, &Body)> = control
            .published
            .values()
            .map(|resource| (&resource.key, (resource.version, &resource.body)))
            .collect();
        for key in fresh_set.keys().chain(now.keys()) {
            assert!(fresh_set.get(key) == now.get(key), "I14: {key} differs from a fresh start's");
        }
        let mut records = BTreeMap::new();
        for (host, set) in publication.records {
            match set {
                Some(set) => records.insert(host, set.as_ref().clone()),
                None => records.remove(&host),
            };
        }
        assert_eq!(records, control.records, "I14: records");
        let findings = |desired: &Desired| {
            desired.compiled().all_findings().map(|finding| finding.to_string()).collect::<Vec<_>>()
        };
        assert_eq!(findings(&fresh), findings(control.course.desired()), "I14: findings");
    }

    /// I2, I10: all objects are gone.
    pub(crate) fn check_nothing_left(&self) {
        let control = self.control.as_ref().expect("nothing fails any more");
        assert!(control.published.is_empty(), "still published: {:?}", control.published.keys());
        assert!(control.records.is_empty(), "still answered: {:?}", control.records.keys());
        let ledger = &self.outside.disk.ledger;
        let entries: Vec<_> = ledger.entries().collect();
        assert!(entries.is_empty(), "I2: {entries:?} at {}", self.outside.clock.unix());
        let pools = self.truth.objects.iter().filter_map(|(key, fact)| match fact {
            Fact::VipPool(spec) => Some((&*key.name, &**spec)),
            _ => None,
        });
        let (pools, _) = Pools::read(pools);
        assert_eq!(ipam::free(&pools, ledger, Family::V4), pools.count(Family::V4), "I2");
        for kind in ResourceKind::ALL {
            let left: Vec<_> = control.cache.entries(kind).map(|(name, _)| name).collect();
            assert!(left.is_empty(), "I10: {kind:?} {left:?} stay in the cache");
        }
        for site in &self.sites {
            let envoy = site.hop.envoy();
            let held: Vec<_> = envoy.held().filter(|key| envoy.admits(key)).collect();
            assert!(held.is_empty(), "{} still holds {held:?}", envoy.name);
        }
    }
}

fn refused(control: &Control, key: &ResourceKey) -> bool {
    control.cache.refused_by(key).is_some()
}
