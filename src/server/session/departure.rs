//! Removals: the old goes after the new is accepted, and a grace.

use super::{
    Session,
    ledger::{Exception, Leaving},
};
use crate::xds::{Name, ResourceKey, ResourceKind};
use std::time::{Duration, Instant};

/// From when nothing an engine holds needs a resource until its removal is
/// sent: worker threads take up new routes a little after the ACK.
pub const REMOVAL_GRACE: Duration = Duration::from_secs(1);

/// After an engine came with versions of its own, no removal before this: its
/// requests come kind by kind, and only the last tells what it still needs. A
/// relay asks for every kind, and is waited for.
pub const CONNECT_GRACE: Duration = Duration::from_secs(5);

/// A refusal that is the engine's own affair is tried again after this.
pub const OWN_FAILURE_RETRY: Duration = Duration::from_secs(60);

/// How often needed removals are looked at again.
const SWEEP: Duration = Duration::from_millis(250);

impl Session {
    /// Moves an owed removal to where it waits.
    pub(super) fn leave(&mut self, kind: ResourceKind, name: &Name, now: Instant) {
        let ledger = self.ledger_mut(kind);
        if let Some(owed) = ledger.owed.remove(name) {
            ledger.leaving.insert(name.clone(), Leaving { held: owed.held, free_since: None });
            self.sweep_at = Some(now);
        }
    }

    /// Frees removals whose grace is over, and what is to be tried again.
    pub(super) fn sweep(&mut self, now: Instant) {
        while let Some((_, key)) = self.retries.pop_first_if(now) {
            self.retry(&key);
        }
        if self.sweep_at.is_none_or(|at| at > now) {
            return;
        }
        self.sweep_at = None;
        for kind in ResourceKind::ALL {
            let due = self.due(kind, now);
            for name in due {
                let ledger = self.ledger_mut(kind);
                let Some(leaving) = ledger.leaving.remove(&name) else { continue };
                self.owe_counted(kind, &name, leaving.held, false);
                if let Some(owed) = self.ledger_mut(kind).owed.get_mut(&name) {
                    owed.released = true;
                }
            }
        }
    }

    /// Names of a kind that nothing has needed for the grace; sets the next look.
    fn due(&mut self, kind: ResourceKind, now: Instant) -> Vec<Name> {
        let waits = self.grace_until.is_some_and(|until| now < until) || self.relay && !self.all_asked();
        let ledger = &mut self.ledgers[kind as usize];
        let mut due = Vec::new();
        for (name, leaving) in &mut ledger.leaving {
            let next = if waits || !self.pins.free(&ResourceKey { kind, name: name.clone() }) {
                leaving.free_since = None;
                now + SWEEP
            } else {
                let end = *leaving.free_since.get_or_insert(now) + REMOVAL_GRACE;
                if end <= now {
                    due.push(name.clone());
                    continue;
                }
                end
            };
            self.sweep_at = Some(self.sweep_at.map_or(next, |at| at.min(next)));
        }
        due
    }

    fn retry(&mut self, key: &ResourceKey) {
        let ledger = self.ledger_mut(key.kind);
        match ledger.exceptions.remove(&key.name) {
            Some(Exception::Stays { held, retry: Some(_) }) => {
                self.owe_counted(key.kind, &key.name, held, false);
            }
            Some(other) => {
                ledger.exceptions.insert(key.name.clone(), other);
            }
            None => {}
        }
    }
}

/// Takes the first element if its time has come.
trait PopFirstIf {
    fn pop_first_if(&mut self, now: Instant) -> Option<(Instant, ResourceKey)>;
}

impl PopFirstIf for std::collections::BTreeSet<(Instant, ResourceKey)> {
    fn pop_first_if(&mut self, now: Instant) -> Option<(Instant, ResourceKey)> {
        self.first().is_some_and(|(at, _)| *at <= now).then(|| self.pop_first()).flatten()
    }
}
