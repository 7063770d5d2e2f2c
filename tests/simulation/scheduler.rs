//! One seed: what happens, in which order, and what has to be true meanwhile.

use crate::{
    alphabet,
    beside::Relayed,
    control::Control,
    dice::Dice,
    disk::Fault,
    envoy::{Envoy, Refused},
    hop::{Direct, Hop},
    outside::{Crash, Outside, say},
    swarm::Swarm,
    truth::Truth,
};
use envoy_types::pb::envoy::service::discovery::v3::DeltaDiscoveryRequest;
use std::{collections::VecDeque, time::Duration};
use tidegate::{
    base::ObjectKind, inputs::Change, ipam::end_quarantine, server::frame::Response, xds::ResourceKind,
};

/// Rounds in which everything must have come to rest once faults stop.
const ROUNDS_MAX: usize = 400;
/// An engine's own failure is tried again after 60 s.
const REST: Duration = Duration::from_secs(70);
/// Nothing has been said for this long.
const SETTLED: Duration = Duration::from_secs(15);
/// Ticks that are made up for when much time passes at once.
const TICKS_MAX: u64 = 70;
/// A peer that has gone is noticed after this.
const KEEPALIVE: u64 = 35;

/// What is under way between an engine and the control plane.
#[derive(Default)]
pub(crate) struct Line {
    pub(crate) id: u64,
    pub(crate) up: VecDeque<DeltaDiscoveryRequest>,
    pub(crate) down: VecDeque<Response>,
}

pub(crate) struct Site {
    pub(crate) hop: Box<dyn Hop>,
    pub(crate) line: Option<Line>,
    silent: bool,
}

pub(crate) struct Sim {
    pub(crate) outside: Outside,
    pub(crate) truth: Truth,
    pub(crate) control: Option<Control>,
    pub(crate) sites: Vec<Site>,
    streams: u64,
    pub(crate) salt: (u64, u64),
}

impl Sim {
    pub(crate) fn new(seed: u64) -> Self {
        let mut dice = Dice::new(seed);
        let swarm = Swarm::new(&mut dice, crate::relays(seed));
        say(|| format!("{swarm:?}"));
        let salt = (dice.roll(), swarm.bad);
        let truth = Truth::new(&mut dice);
        let refused = Refused::default();
        let (relays, engines) = (swarm.relays, swarm.engines);
        let mut outside = Outside::new(dice, swarm);
        let now = outside.clock.now();
        let mut site = |n| {
            let envoy = Envoy::new(format!("e{n}"), salt, Refused::clone(&refused));
            let relayed = outside.dice.chance(relays);
            let hop: Box<dyn Hop> =
                if relayed { Box::new(Relayed::new(envoy, now)) } else { Box::new(Direct(envoy)) };
            Site { hop, line: None, silent: false }
        };
        let sites = (0..engines).map(&mut site).collect();
        Self { outside, truth, control: None, sites, streams: 0, salt }
    }

    /// The whole of it.
    pub(crate) fn run(&mut self) {
        for _ in 0..self.outside.swarm.steps {
            self.step();
        }
        say(|| "faults stop".to_owned());
        self.calm();
        self.rest();
        self.check_end();
        self.tear_down();
    }

    fn step(&mut self) {
        let swarm = &self.outside.swarm;
        let start = if self.control.is_none() { 25 } else { 0 };
        let weights = [
            swarm.edits,
            20,
            60,
            15,
            swarm.kill,
            start,
            swarm.cut,
            swarm.restart,
            swarm.silence,
            swarm.hello,
            swarm.own_failure,
            swarm.jump,
            6,
        ];
        let site = self.outside.dice.below(self.sites.len());
        match self.outside.dice.weighed(&weights) {
            0 => self.edit(),
            1 => self.deliver(),
            2 => self.exchange(site),
            3 => self.time_passes(),
            4 => self.kill(),
            5 => self.start(),
            6 => self.cut(site),
            7 => self.restart(site),
            8 => {
                self.sites[site].silent ^= true;
                say(|| format!("e{site} silent: {}", self.sites[site].silent));
            }
            9 => {
                let name = self.outside.dice.pick(&alphabet::HELLOS);
                say(|| format!("e{site}: a client comes as {name}"));
                self.sites[site].hop.envoy_mut().hello(name);
            }
            10 => {
                let envoy = self.sites[site].hop.envoy_mut();
                envoy.port_taken ^= true;
                say(|| format!("e{site} port taken: {}", envoy.port_taken));
            }
            11 => {
                let seconds = self.outside.dice.pick(&[3_600, -3_600, 315_360_000, -315_360_000]);
                say(|| format!("the wall clock jumps by {seconds} s"));
                self.outside.clock.jump(seconds);
            }
            _ => {
                let fault = if self.outside.fault() == Fault::Full { Fault::Full } else { Fault::None };
                self.outside.disk.work(fault);
            }
        }
        self.check_programmed(80);
    }

    fn edit(&mut self) {
        for _ in 0..=self.outside.dice.below(3) {
            let change = alphabet::edit(&mut self.outside.dice, None);
            self.change(change);
        }
    }

    fn change(&mut self, change: Change) {
        if !self.truth.apply(&change) {
            return;
        }
        say(|| match &change.fact {
            Some(tidegate::inputs::Fact::Secret(_)) => format!("set {}", change.key),
            Some(fact) => format!("set {}: {fact:?}", change.key),
            None => format!("delete {}", change.key),
        });
        if let Some(control) = &mut self.control
            && control.feed.listed()
        {
            control.feed.event(&change, &self.outside.swarm, &mut self.outside.dice);
        } else if let Some(control) = &mut self.control {
            control.feed.missed();
        }
    }

    fn deliver(&mut self) {
        let Some(control) = &mut self.control else { return };
        if control.feed.pending() {
            let done = control.collect(&self.truth, &mut self.outside);
            self.survive(done);
        }
    }

    fn survive(&mut self, done: Result<(), Crash>) {
        if done.is_err() {
            self.die();
        }
    }

    fn kill(&mut self) {
        if self.control.is_some() {
            say(|| "the control plane is killed".to_owned());
            self.die();
        }
    }

    fn die(&mut self) {
        let power = self.outside.dice.chance(self.outside.swarm.power_loss);
        self.outside.disk.crash(power);
        self.outside.crashed();
        for site in 0..self.sites.len() {
            self.hang_up(site);
        }
        self.control = None;
    }

    fn start(&mut self) {
        if self.control.is_none() {
            say(|| "the control plane starts".to_owned());
            self.control = Some(Control::start(&self.truth, &mut self.outside, self.salt));
        }
    }

    /// The engine's end of its stream closes; some of what was on the wire arrives.
    fn hang_up(&mut self, site: usize) {
        let Site { hop, line, .. } = &mut self.sites[site];
        let Some(mut line) = line.take() else { return };
        for _ in 0..self.outside.dice.below(line.down.len() + 1) {
            let response = line.down.pop_front().expect("so many are there");
            say(|| format!("  e{site} still takes {response:?}"));
            hop.take(response, self.outside.clock.now());
        }
        hop.disconnected();
    }

    fn cut(&mut self, site: usize) {
        let Some(line) = &mut self.sites[site].line else { return };
        say(|| format!("e{site} is cut off"));
        let (id, mut up) = (line.id, std::mem::take(&mut line.up));
        self.hang_up(site);
        let Some(control) = &mut self.control else { return };
        for _ in 0..self.outside.dice.below(up.len() + 1) {
            let request = up.pop_front().expect("so many are there");
            control.request(id, request, &mut self.outside);
        }
        if self.outside.faults
            && self.outside.dice.chance(300)
            && let Some(stream) = control.streams.get_mut(&id)
        {
            stream.dead = true;
        } else {
            control.streams.remove(&id);
        }
    }

    fn restart(&mut self, site: usize) {
        self.cut(site);
        let now = self.outside.clock.now();
        if self.outside.dice.chance(300) {
            say(|| format!("e{site}: what is before it restarts"));
            self.sites[site].hop.crash(now);
        } else {
            say(|| format!("e{site} restarts"));
            self.sites[site].hop.restart(now);
        }
    }

    fn connect(&mut self, site: usize) {
        let Some(control) = &mut self.control else { return };
        let Site { hop, line, .. } = &mut self.sites[site];
        if line.is_none() {
            self.streams += 1;
            let id = self.streams;
            say(|| format!("e{site} connects: stream {id}"));
            *line = Some(Line { id, ..Line::default() });
            control.join(id, site, &hop.envoy().name);
            hop.connected(self.outside.clock.now());
        }
    }

    /// Some messages go either way.
    fn exchange(&mut self, site: usize) {
        if !self.sites[site].silent {
            self.connect(site);
        }
        for _ in 0..=self.outside.dice.below(6) {
            if !self.listen(site) && !self.sites[site].silent {
                self.take(site);
            }
        }
        self.wake_streams(false);
    }

    /// The control plane reads one request; false where there is none.
    fn listen(&mut self, site: usize) -> bool {
        let Site { hop, line: Some(line), .. } = &mut self.sites[site] else { return false };
        line.up.extend(hop.requests());
        let (Some(control), Some(request)) = (&mut self.control, line.up.pop_front()) else { return false };
        say(|| format!("  e{site} -> {}", short(&request)));
        let responses = control.request(line.id, request, &mut self.outside);
        line.down.extend(responses);
        true
    }

    /// The engine takes one response; false where there is none.
    fn take(&mut self, site: usize) -> bool {
        let Site { hop, line: Some(line), .. } = &mut self.sites[site] else { return false };
        let Some(response) = line.down.pop_front() else { return false };
        say(|| format!("  e{site} <- {response:?}"));
        hop.take(response, self.outside.clock.now());
        line.up.extend(hop.requests());
        if hop.hangs_up() {
            self.cut(site);
        }
        true
    }

    /// Streams hear of what changed, at once or (unless all must) some time.
    fn wake_streams(&mut self, all: bool) -> bool {
        let Some(control) = &mut self.control else { return false };
        let now = self.outside.clock.now();
        let due = |stream: &crate::control::Stream| {
            stream.stale || stream.session.next_wake().is_some_and(|at| at <= now)
        };
        let ids: Vec<_> =
            control.streams.iter().filter(|(_, stream)| due(stream)).map(|(id, _)| *id).collect();
        let mut any = false;
        for id in ids {
            if !all && self.outside.dice.chance(300) {
                continue;
            }
            any = true;
            let responses = control.wake(id, &mut self.outside);
            let line = self.sites.iter_mut().filter_map(|site| site.line.as_mut()).find(|line| line.id == id);
            if let Some(line) = line {
                line.down.extend(responses);
            }
        }
        any
    }

    fn time_passes(&mut self) {
        let dice = &mut self.outside.dice;
        let ms = if dice.chance(150) { 15_000 + dice.below(75_000) } else { 10 + dice.below(3_000) };
        self.pass(Duration::from_millis(ms as u64));
    }

    fn pass(&mut self, time: Duration) {
        let before = self.outside.clock.elapsed.as_secs();
        self.outside.clock.pass(time);
        let seconds = self.outside.clock.elapsed.as_secs() - before;
        say(|| format!("{time:?} pass: {} s, unix {}", before + seconds, self.outside.clock.unix()));
        let now = self.outside.clock.now();
        for (n, site) in self.sites.iter_mut().enumerate() {
            let late = site.hop.on_time(now);
            let idle = site.line.as_ref().is_some_and(|line| line.up.is_empty() && line.down.is_empty());
            let awake = self.control.as_ref().is_some_and(|control| {
                control.streams.values().all(|stream| stream.site != n || !stream.stale)
            });
            assert!(late.is_empty() || !idle || !awake, "e{n}: no endpoints came for {late:?}");
            if let Some(line) = &mut site.line {
                line.up.extend(site.hop.requests());
            }
        }
        let Some(control) = &mut self.control else { return };
        for _ in 0..seconds.min(TICKS_MAX) {
            control.tick();
        }
        if seconds >= KEEPALIVE {
            control.streams.retain(|_, stream| !stream.dead);
        }
        self.wake_streams(true);
        self.plan_due();
    }

    fn plan_due(&mut self) -> bool {
        let Some(control) = &mut self.control else { return false };
        let due = control.course.wake_at().is_some_and(|at| at <= self.outside.clock.unix());
        if due {
            let done = control.settle(&mut self.outside);
            self.survive(done);
        }
        due
    }

    /// Nothing goes wrong any more.
    fn calm(&mut self) {
        self.outside.faults = false;
        self.outside.clock.correct();
        self.outside.swarm.late = 0;
        self.outside.swarm.lost = 0;
        for site in &mut self.sites {
            site.silent = false;
            site.hop.envoy_mut().port_taken = false;
        }
        self.end_quarantines();
        self.start();
        let control = self.control.as_mut().expect("it was started");
        control.streams.retain(|_, stream| !stream.dead);
        let done = control.settle(&mut self.outside);
        self.survive(done);
    }

    /// What was released while the clock was years ahead is free when an operator
    /// says so.
    fn end_quarantines(&mut self) {
        let now = self.outside.clock.unix();
        let limit = now + i64::from(alphabet::QUARANTINE_SECONDS_MAX);
        let far: Vec<_> = self.outside.disk.ledger.ends().filter(|(until, _)| *until > limit).collect();
        if far.is_empty() {
            return;
        }
        self.kill();
        for (_, address) in far {
            let ledger = &mut self.outside.disk.ledger;
            let plan = end_quarantine(ledger, address, now).expect("it is in quarantine");
            ledger.apply(&plan).expect("made for this ledger");
            self.outside.freed(address);
        }
    }

    /// Everything that is under way arrives, and time passes, until nothing is left to do.
    fn rest(&mut self) {
        let mut end = self.outside.clock.elapsed + REST;
        for _ in 0..ROUNDS_MAX {
            if self.round() {
                // Removals follow a grace after what needed them.
                end = end.max(self.outside.clock.elapsed + SETTLED);
                continue;
            }
            if self.outside.clock.elapsed >= end && self.at_rest() {
                return;
            }
            self.pass(Duration::from_secs(5));
        }
        panic!("liveness: no rest after {ROUNDS_MAX} rounds: {}", self.restless());
    }

    fn round(&mut self) -> bool {
        let mut busy = self.control.as_ref().is_some_and(|control| control.feed.pending());
        self.deliver();
        while self.outside.disk.work(Fault::None) {}
        for site in 0..self.sites.len() {
            self.connect(site);
            while self.listen(site) || self.take(site) {
                busy = true;
            }
        }
        busy | self.wake_streams(true)
    }

    fn at_rest(&self) -> bool {
        let control = self.control.as_ref().expect("nothing fails any more");
        // A route that needs a refused cluster waits for another version of either.
        let waits = control.cache.entries(ResourceKind::Cluster).any(|(_, entry)| entry.quarantined());
        control.streams.values().all(|stream| {
            let others: usize = stream.session.pending()[..ResourceKind::Route as usize].iter().sum();
            stream.session.synced() || waits && others == 0
        })
    }

    fn restless(&self) -> String {
        let control = self.control.as_ref().expect("nothing fails any more");
        let stream = |(id, stream): (&u64, &crate::control::Stream)| {
            let below = self.sites[stream.site].hop.below();
            format!("stream {id} of e{}: pending {:?}{below}", stream.site, stream.session.pending())
        };
        control.streams.iter().map(stream).collect::<Vec<_>>().join("; ")
    }

    /// All objects go but the pools; then nothing is left anywhere.
    fn tear_down(&mut self) {
        say(|| "everything is deleted".to_owned());
        for site in &mut self.sites {
            site.hop.envoy_mut().forget_bystander();
        }
        let keys: Vec<_> =
            self.truth.objects.keys().filter(|key| key.kind != ObjectKind::VipPool).cloned().collect();
        for key in keys {
            self.change(Change { key, fact: None });
        }
        self.rest();
        self.pass(Duration::from_secs(2 * u64::from(alphabet::QUARANTINE_SECONDS_MAX)));
        self.rest();
        self.check_nothing_left();
    }
}

pub(crate) fn short(request: &DeltaDiscoveryRequest) -> String {
    let kind = ResourceKind::from_type_url(&request.type_url);
    let what = match &request.error_detail {
        Some(error) => format!("NACK #{} {}", request.response_nonce, error.message),
        None if request.response_nonce.is_empty() => "asks".to_owned(),
        None => format!("ACK #{}", request.response_nonce),
    };
    format!(
        "{kind:?} {what} +{:?} -{:?} has {}",
        request.resource_names_subscribe,
        request.resource_names_unsubscribe,
        request.initial_resource_versions.len()
    )
}
