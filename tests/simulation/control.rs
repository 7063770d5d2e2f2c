//! One life of the control plane: the loop and the streams as they are, the
//! shells around them (tokio, sockets, the store's thread) left out.

use crate::{
    disk::{Job, Refused},
    envoy,
    outside::{Crash, Outside, bystanders, say},
    truth::{Batch, Feed, Truth},
};
use envoy_types::pb::envoy::service::discovery::v3::DeltaDiscoveryRequest;
use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
};
use tidegate::{
    base::{HostPattern, Hostname, Version},
    desired::{Desired, Publication, ZoneChange},
    dns::{ZoneSerial, Zones},
    ipam::Plan,
    pipeline::{Course, Next},
    server::{
        cache::Cache,
        frame::Response,
        session::{Event, ROUTE_FLIGHTS_MAX, Refused as Refusal, Session, Step},
    },
    store::{Serial, Serials},
    translate::Options,
    xds::{Resource, ResourceKey, ResourceKind, Update},
};

/// One engine's stream, as this side knows it.
#[derive(Debug)]
pub(crate) struct Stream {
    pub(crate) site: usize,
    pub(crate) session: Session,
    /// The cache changed, and the stream has not heard of it.
    pub(crate) stale: bool,
    /// The other side has gone, and nobody noticed.
    pub(crate) dead: bool,
    open: [usize; ResourceKind::ALL.len()],
}

/// See the module.
pub(crate) struct Control {
    pub(crate) course: Course,
    pub(crate) cache: Cache,
    pub(crate) feed: Feed,
    pub(crate) streams: BTreeMap<u64, Stream>,
    pub(crate) published: BTreeMap<ResourceKey, Resource>,
    pub(crate) records: BTreeMap<HostPattern, tidegate::ir::RecordSet>,
    zones: Zones,
    serials: Serials,
    unwritten: Vec<(String, Serial)>,
    kept: BTreeSet<String>,
    /// Versions that an engine proved bad, until another is published.
    refused: BTreeSet<(ResourceKey, Version)>,
    salt: (u64, u64),
}

impl Control {
    /// Starts over what is on the disk.
    pub(crate) fn start(truth: &Truth, outside: &mut Outside, salt: (u64, u64)) -> Self {
        let mut cache = Cache::new();
        cache.restore(outside.disk.last_good.iter().cloned());
        Self {
            course: Course::new(Desired::new(Options::default(), outside.disk.ledger.clone())),
            cache,
            feed: Feed::new(truth, &mut outside.dice),
            streams: BTreeMap::new(),
            published: BTreeMap::new(),
            records: BTreeMap::new(),
            zones: Zones::default(),
            serials: outside.disk.serials.clone(),
            unwritten: Vec::new(),
            kept: outside.disk.last_good.iter().map(row).collect(),
            refused: BTreeSet::new(),
            salt,
        }
    }

    /// Something of the world arrives.
    pub(crate) fn collect(&mut self, truth: &Truth, outside: &mut Outside) -> Result<(), Crash> {
        let batch = self.feed.deliver(truth, &outside.swarm, &mut outside.dice);
        let Batch { changes, first, whole } = batch;
        say(|| {
            let names: Vec<_> = changes
                .iter()
                .map(|change| format!("{}{}", if change.fact.is_some() { "" } else { "no " }, change.key))
                .collect();
            format!("  read{}: {}", if first { " (first list ends)" } else { "" }, names.join(", "))
        });
        if changes.is_empty() && !first {
            return Ok(());
        }
        self.course.take(changes, first, whole);
        self.settle(outside)
    }

    /// Plans, writes and publishes until nothing is left to do.
    pub(crate) fn settle(&mut self, outside: &mut Outside) -> Result<(), Crash> {
        let mut next = self.course.next(outside.clock.unix());
        loop {
            next = match next {
                Next::Write(plan) => self.write(&plan, outside)?,
                Next::Publish { publication, first } => {
                    self.publish(publication, first, outside)?;
                    break;
                }
                Next::Rest => break,
            };
        }
        outside.effect("remember serials")?;
        let serials = std::mem::take(&mut self.unwritten);
        if !serials.is_empty() {
            outside.disk.behind(Job::Serials(serials));
        }
        Ok(())
    }

    fn write(&mut self, plan: &Plan, outside: &mut Outside) -> Result<Next, Crash> {
        outside.effect("commit")?;
        let fault = outside.fault();
        let written = outside.disk.commit(plan, fault);
        say(|| {
            let given = plan.allocate.iter().map(|a| format!("{} to {}", a.address, a.claim));
            let back = plan.release.iter().map(|r| format!("{} from {}", r.address, r.claim));
            let over = plan.forget.iter().map(|address| format!("{address} over"));
            let all: Vec<_> = given.chain(back).chain(over).collect();
            format!("  ledger: {} -> {written:?}", all.join(", "))
        });
        match written {
            Ok(()) => {
                outside.committed(plan);
                outside.effect("take up the plan")?;
                self.course.written(plan);
                Ok(self.course.next(outside.clock.unix()))
            }
            Err(Refused::Fence(broken)) => panic!("the fence holds back {plan:?}: {broken}"),
            Err(Refused::Fault { written }) => {
                if written {
                    outside.committed(plan);
                }
                outside.effect("open the ledger again")?;
                let fault = outside.fault();
                let reread = outside.disk.reopen(fault);
                Ok(self.course.unwritten(reread, outside.clock.unix()))
            }
        }
    }

    fn publish(&mut self, publication: Publication, first: bool, outside: &mut Outside) -> Result<(), Crash> {
        assert!(self.feed.listed(), "I6: half of a first list is published");
        outside.effect("publish")?;
        let Publication { resources, records, zones, reported: _ } = publication;
        say(|| {
            let set = resources
                .set
                .iter()
                .map(|resource| format!("+{}@{}", resource.key, resource.version.short()));
            let gone = resources.removed.iter().map(|key| format!("-{key}"));
            format!("  publish: {}", set.chain(gone).collect::<Vec<_>>().join(", "))
        });
        self.take_up(&resources, outside);
        self.cache.apply(resources);
        for stream in self.streams.values_mut() {
            stream.stale = true;
        }
        outside.effect("keep last good")?;
        self.keep(outside);
        outside.effect("publish records")?;
        for (host, set) in &records {
            match set {
                Some(set) => self.records.insert(host.clone(), set.as_ref().clone()),
                None => self.records.remove(host),
            };
        }
        for set in self.records.values() {
            set.addresses.iter().for_each(|address| outside.announced(*address, &set.name.to_string()));
        }
        self.answer_for(zones, records, first);
        outside.answered(&self.zones.serials());
        Ok(())
    }

    /// As the pipeline does with zones.
    fn answer_for(
        &mut self,
        changes: Vec<ZoneChange>,
        records: Vec<(HostPattern, Option<std::sync::Arc<tidegate::ir::RecordSet>>)>,
        first: bool,
    ) {
        for change in changes {
            match change {
                ZoneChange::Set(zone) => self.zones.set_zone(zone.as_ref().clone()),
                ZoneChange::Removed(apex) => self.zones.remove_zone(&apex),
            }
        }
        for (host, set) in records {
            match set {
                Some(set) => self.zones.set_records(set.as_ref().clone()),
                None => self.zones.remove_records(&host),
            }
        }
        if first {
            for (zone, serial) in &self.serials {
                let Ok(apex) = Hostname::parse(zone) else { continue };
                let known = ZoneSerial { apex, content: serial.content, serial: serial.serial };
                self.zones.restore_serial(&known);
            }
        }
        for known in self.zones.serials() {
            let serial = Serial { content: known.content, serial: known.serial };
            let zone = known.apex.to_string();
            if self.serials.insert(zone.clone(), serial) != Some(serial) {
                self.unwritten.push((zone, serial));
            }
        }
    }

    /// What is published from now on, and what has to be true of it.
    fn take_up(&mut self, update: &Update, outside: &mut Outside) {
        for resource in &update.set {
            outside.published(resource);
            self.published.insert(resource.key.clone(), resource.clone());
            let (key, version) = (&resource.key, resource.version);
            self.refused.retain(|(refused, was)| refused != key || *was == version);
        }
        for key in &update.removed {
            assert!(update.set.iter().all(|resource| resource.key != *key), "{key} is set and removed");
            let was = self.published.remove(key).is_some();
            assert!(!was || !bystanders(key) || !outside.faults, "I7: {key} of the bystander is removed");
            self.refused.retain(|(refused, _)| refused != key);
        }
        self.check_closed(outside);
    }

    /// I8: every name that is referred to is there. I11: no key that nothing
    /// refers to. I3: no address that is not in the ledger.
    fn check_closed(&self, outside: &Outside) {
        let there = |key: &ResourceKey| self.published.contains_key(key);
        let mut needed = BTreeSet::new();
        for resource in self.published.values() {
            let key = &resource.key;
            for need in resource.needs.iter() {
                assert!(there(need), "I8: {key} needs {need}, which is not published");
                needed.insert(need);
            }
            if key.kind == ResourceKind::Listener {
                let at: SocketAddr = key.name.trim_start_matches("l/").parse().expect("l/ADDRESS:PORT");
                outside.announced(at.ip(), &key.name);
            }
        }
        for key in self.published.keys().filter(|key| key.kind == ResourceKind::Secret) {
            let fixed = key.name.starts_with("chain/") || key.name.starts_with("upstream/");
            assert!(!fixed || needed.contains(key), "I11: nothing refers to {key}");
        }
    }

    /// As `Kept`: rows are written where they differ from those on the disk.
    fn keep(&mut self, outside: &mut Outside) {
        let all: Vec<_> = self.cache.last_good().collect();
        let rows: BTreeSet<String> = all.iter().map(row).collect();
        if rows != self.kept {
            self.kept = rows;
            outside.disk.behind(Job::LastGood(all));
        }
    }

    pub(crate) fn join(&mut self, id: u64, site: usize, engine: &str) {
        let session = Session::new(engine.into());
        self.streams.insert(id, Stream { site, session, stale: true, dead: false, open: [0; 6] });
    }

    /// A request is read.
    pub(crate) fn request(
        &mut self,
        id: u64,
        request: DeltaDiscoveryRequest,
        outside: &mut Outside,
    ) -> Vec<Response> {
        let Some(stream) = self.streams.get_mut(&id) else { return Vec::new() };
        if !request.response_nonce.is_empty()
            && let Some(kind) = ResourceKind::from_type_url(&request.type_url)
        {
            stream.open[kind as usize] -= 1;
        }
        let step = stream.session.on_request(&self.cache, request, outside.clock.now());
        self.after(id, step.expect("the stream lives"), outside)
    }

    /// The stream looks at what changed, and at the time.
    pub(crate) fn wake(&mut self, id: u64, outside: &mut Outside) -> Vec<Response> {
        let Some(stream) = self.streams.get_mut(&id) else { return Vec::new() };
        stream.stale = false;
        let step = stream.session.on_change(&self.cache, outside.clock.now());
        self.after(id, step.expect("the stream lives"), outside)
    }

    fn after(&mut self, id: u64, step: Step, outside: &mut Outside) -> Vec<Response> {
        let Step { responses, events } = step;
        for response in &responses {
            self.check_response(id, response);
        }
        let stream = self.streams.get_mut(&id).expect("it was there a moment ago");
        for response in &responses {
            // To a relay more is said.
            let Some(kind) = ResourceKind::from_type_url(&response.type_url) else { continue };
            stream.open[kind as usize] += 1;
            let max = if kind == ResourceKind::Route { ROUTE_FLIGHTS_MAX } else { 1 };
            assert!(stream.open[kind as usize] <= max, "I10: {kind:?} piles up: {response:?}");
        }
        let engine = format!("e{}", stream.site);
        for event in events {
            match event {
                Event::Accepted(accepted) => {
                    accepted.iter().for_each(|(key, version)| self.cache.acked(key, *version));
                }
                Event::Refused(refusal) => self.judged(refusal, &engine, outside),
                Event::Synced => {}
            }
        }
        responses
    }

    fn judged(&mut self, refusal: Refusal, engine: &str, outside: &mut Outside) {
        let Refusal { key, version, message, origins: _, own } = refusal;
        say(|| format!("  {engine} refused {key}@{}: {message}", version.short()));
        let of_engine = message.contains("cannot bind") || message.starts_with("waits for a refused");
        assert_eq!(own, of_engine, "whose failure is it? {message}");
        if own {
            return;
        }
        let (salt, one_of) = self.salt;
        assert!(envoy::bad(key.kind, &key.name, version, salt, one_of), "{key} is condemned, and is fine");
        if self.cache.quarantine(&key, version, engine.into()) {
            self.refused.insert((key, version));
        }
        for stream in self.streams.values_mut() {
            stream.stale = true;
        }
        self.keep(outside);
    }

    /// I6: what is published is not taken away; what was refused is not sent again.
    fn check_response(&self, id: u64, response: &Response) {
        let Some(kind) = ResourceKind::from_type_url(&response.type_url) else { return };
        let key = |name: &tidegate::xds::Name| ResourceKey { kind, name: name.clone() };
        for name in response.removed.iter().filter(|_| kind != ResourceKind::Secret) {
            let key = key(name);
            let refused = self.cache.refused_by(&key).is_some();
            assert!(refused || !self.published.contains_key(&key), "I6: {key} is published, and removed");
        }
        for item in &response.resources {
            let refused = self.refused.contains(&(key(&item.name), item.version));
            assert!(!refused, "{} was refused, and is sent again on stream {id}", item.name);
        }
    }

    /// As [`tidegate::server::Handle::held`]: streams that hold what is published.
    pub(crate) fn held_by_all(&self, key: &ResourceKey) -> bool {
        !self.cache.withdrawn(key)
            && self
                .streams
                .values()
                .all(|stream| stream.session.up_to_date(&self.cache) && stream.session.in_order(key))
    }

    /// Once a second.
    pub(crate) fn tick(&mut self) {
        let head = self.cache.head();
        let streams = &self.streams;
        let all = |key: &ResourceKey| {
            streams.values().all(|stream| stream.session.seen_all(head) && stream.session.in_order(key))
        };
        self.cache.tick(all);
        if self.cache.head() != head {
            self.streams.values_mut().for_each(|stream| stream.stale = true);
        }
    }
}

fn row(known: &tidegate::server::cache::LastGood) -> String {
    format!("{} {}", known.good.key, known.rejected)
}
