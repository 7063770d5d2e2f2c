//! What a crash of the control plane leaves as it is: time, the disk, and what
//! everybody outside has seen.

use crate::{
    alphabet::{self, QUARANTINE_SECONDS_MIN},
    dice::Dice,
    disk::{Disk, Fault},
    swarm::Swarm,
};
use std::{
    cell::RefCell,
    collections::BTreeMap,
    net::IpAddr,
    time::{Duration, Instant},
};
use tidegate::{
    base::{Text, Version},
    dns::ZoneSerial,
    ipam::{self, Plan},
    store::Serial,
    xds::{Resource, ResourceKey},
};

/// True time, and the wall clock, which may be wrong.
#[derive(Debug)]
pub(crate) struct Clock {
    start: Instant,
    pub(crate) elapsed: Duration,
    wall_ms: i64,
    pub(crate) rate: i64,
}

const START_UNIX_S: i64 = 1_800_000_000;

impl Clock {
    fn new(rate: i64) -> Self {
        #[expect(clippy::disallowed_methods, reason = "a start to count from")]
        let start = Instant::now();
        Self { start, elapsed: Duration::ZERO, wall_ms: START_UNIX_S * 1_000, rate }
    }

    pub(crate) fn now(&self) -> Instant {
        self.start + self.elapsed
    }

    /// Unix seconds, as the control plane's machine has them.
    pub(crate) fn unix(&self) -> i64 {
        self.wall_ms.div_euclid(1_000)
    }

    pub(crate) fn pass(&mut self, time: Duration) {
        self.elapsed += time;
        self.wall_ms += i64::try_from(time.as_millis()).expect("days at most") * self.rate / 100;
    }

    pub(crate) fn jump(&mut self, seconds: i64) {
        self.wall_ms += seconds * 1_000;
    }

    /// Somebody sets it right.
    pub(crate) fn correct(&mut self) {
        self.rate = 100;
        let true_ms = i64::try_from(self.elapsed.as_millis()).expect("days at most");
        self.wall_ms = START_UNIX_S * 1_000 + true_ms;
    }
}

/// The process died.
#[derive(Debug)]
pub(crate) struct Crash;

/// See the module.
#[derive(Debug)]
pub(crate) struct Outside {
    pub(crate) dice: Dice,
    pub(crate) swarm: Swarm,
    pub(crate) clock: Clock,
    pub(crate) disk: Disk,
    /// Faults may happen.
    pub(crate) faults: bool,
    /// Addresses that were given back: by whom, and when.
    released: BTreeMap<IpAddr, (Text, i64)>,
    /// By zone: the last serial, and what each has stood for.
    serials: BTreeMap<String, (u32, BTreeMap<u32, Version>)>,
    bystander: BTreeMap<ResourceKey, Version>,
}

impl Outside {
    pub(crate) fn new(dice: Dice, swarm: Swarm) -> Self {
        let clock = Clock::new(swarm.rate);
        Self {
            dice,
            swarm,
            clock,
            disk: Disk::default(),
            faults: true,
            released: BTreeMap::new(),
            serials: BTreeMap::new(),
            bystander: BTreeMap::new(),
        }
    }

    /// Between two effects: the process may die here.
    pub(crate) fn effect(&mut self, next: &str) -> Result<(), Crash> {
        if self.faults && self.dice.chance(self.swarm.crash) {
            say(|| format!("  the control plane dies before: {next}"));
            return Err(Crash);
        }
        Ok(())
    }

    pub(crate) fn fault(&mut self) -> Fault {
        if self.faults && self.dice.chance(self.swarm.disk_full) {
            Fault::Full
        } else if self.faults && self.dice.chance(self.swarm.in_doubt) {
            Fault::InDoubt
        } else {
            Fault::None
        }
    }

    /// A plan is on the disk: I1, I3.
    pub(crate) fn committed(&mut self, plan: &Plan) {
        ipam::check(&self.disk.ledger).expect("I1");
        for release in &plan.release {
            self.released.insert(release.address, (release.claim.clone(), plan.at));
        }
        let min = i64::from(QUARANTINE_SECONDS_MIN);
        for address in &plan.forget {
            let Some((last, at)) = self.released.remove(address) else { continue };
            assert!(plan.at - at >= min, "I3: {address} of {last} is free after {} s", plan.at - at);
        }
        for allocation in &plan.allocate {
            let Some((last, at)) = self.released.remove(&allocation.address) else { continue };
            let (waited, to) = (plan.at - at, &allocation.claim);
            let again = last == *to;
            assert!(
                again || waited >= min,
                "I3: {} goes from {last} to {to} after {waited} s",
                allocation.address
            );
        }
    }

    /// An operator says that an address is free.
    pub(crate) fn freed(&mut self, address: IpAddr) {
        self.released.remove(&address);
    }

    /// An address is told to engines or clients: I3.
    pub(crate) fn announced(&self, address: IpAddr, to: &str) {
        let known = self.disk.ledger.entry(address);
        assert!(known.is_some(), "{address} is announced by {to}, and not in the ledger");
    }

    /// Zones are answered for with these serials.
    pub(crate) fn answered(&mut self, zones: &[ZoneSerial]) {
        for ZoneSerial { apex, content, serial } in zones {
            let (last, known) = self.serials.entry(apex.to_string()).or_insert((*serial, BTreeMap::new()));
            // RFC 1982: greater is within half of the circle. Back to a serial that
            // stood for this very content is what a crash may cost.
            let grows = serial.wrapping_sub(*last) < 1 << 31 || known.contains_key(serial);
            assert!(grows, "the serial of {apex} goes back from {last} to {serial}");
            let was = known.insert(*serial, *content);
            assert!(
                was.is_none_or(|was| was == *content),
                "serial {serial} of {apex} stands for two contents"
            );
            *last = *serial;
        }
    }

    /// The control plane died. Serials that were not written yet are forgotten:
    /// that they come again for another content is known, and open.
    pub(crate) fn crashed(&mut self) {
        let durable = &self.disk.serials;
        let known = |(zone, serial): (&String, &Serial)| {
            (zone.clone(), (serial.serial, BTreeMap::from([(serial.serial, serial.content)])))
        };
        self.serials = durable.iter().map(known).collect();
    }

    /// I7: nothing that happens to others changes the bystander's resources.
    pub(crate) fn published(&mut self, resource: &Resource) {
        if bystanders(&resource.key) {
            let first = self.bystander.entry(resource.key.clone()).or_insert(resource.version);
            assert_eq!(*first, resource.version, "I7: {} changes", resource.key);
        }
    }
}

pub(crate) fn bystanders(key: &ResourceKey) -> bool {
    key.name.contains("bystander") || key.name.contains(alphabet::BYSTANDER_ADDRESS)
}

thread_local! {
    /// What happened, where somebody wants to read it.
    static TRACE: RefCell<Option<Vec<String>>> = const { RefCell::new(None) };
}

/// A line of the trace, made only where there is one.
pub(crate) fn say(line: impl FnOnce() -> String) {
    TRACE.with_borrow_mut(|trace| {
        if let Some(trace) = trace {
            trace.push(line());
        }
    });
}

pub(crate) fn trace(on: bool) -> Vec<String> {
    TRACE.replace(on.then(Vec::new)).unwrap_or_default()
}
