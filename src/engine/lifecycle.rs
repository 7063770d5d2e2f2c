//! The life of one process as a state machine: events in, actions out.
//!
//! No I/O, no clock: the shell feeds what happened with the time it happened
//! at, does the [`Action`]s in their order, and ticks at [`Lifecycle::deadline`].

use serde::{Deserialize, Serialize};
use std::time::{Duration, Instant};

/// The first wait before a restart; it doubles with each failure in a row.
const BACKOFF_FIRST: Duration = Duration::from_millis(100);
/// The longest wait before a restart. We never give up: the cause may be mended from outside.
const BACKOFF_MAX: Duration = Duration::from_secs(5);
/// A process that lived so long has shown that its configuration works.
const LIFE_GOOD: Duration = Duration::from_secs(60);
/// So many failures in a row are told as a crash loop, no longer as a start.
const CRASH_LOOP_FAILURES: u32 = 3;
/// How long an Envoy that has to make room for another configuration may finish its work.
pub const REPLACE_DRAIN: Duration = Duration::from_secs(10);

/// What was found of an earlier control plane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    Nothing,
    /// Lives, answers, and runs what we would run.
    Same {
        pid: u32,
    },
    /// Lives and answers, but with another bootstrap, module or Envoy.
    Changed {
        pid: u32,
    },
    /// Lives and does not answer.
    Silent {
        pid: u32,
    },
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    Found(Found),
    Launched {
        pid: u32,
    },
    LaunchFailed {
        why: String,
    },
    /// The admin says LIVE.
    Ready,
    /// No connection is left, or nobody can tell.
    Drained,
    /// The process is gone; `words` are the last of its stderr.
    Exited {
        how: String,
        words: String,
    },
    Stop {
        drain_for: Duration,
    },
    Replace {
        drain_for: Duration,
    },
    /// Time has passed.
    Tick,
}

/// What the shell has to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Start a process; answered by `Launched` or `LaunchFailed`.
    Launch,
    /// Ask until it is LIVE; answered by `Ready`.
    AwaitReady,
    /// Let the open work end; answered by `Drained`.
    Drain { drain_for: Duration },
    /// SIGTERM; answered by `Exited`.
    Terminate,
    /// SIGKILL; answered by `Exited`.
    Kill,
    /// The record of the process is no longer true.
    Forget,
}

/// What users are told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all_fields = "camelCase")]
pub enum EngineState {
    /// Not serving yet: launched, or to be launched in a moment.
    Starting,
    Running,
    /// Running, started by an earlier control plane.
    Adopted,
    /// Dies again and again; it is still restarted, each `BACKOFF_MAX`.
    CrashLoop {
        failures: u32,
    },
    Draining,
    Stopped,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Goal {
    Run,
    Stop,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Nobody has looked yet what is there.
    New,
    Launching,
    Up {
        pid: u32,
        since: Instant,
        ready: bool,
        adopted: bool,
    },
    Waiting {
        until: Instant,
    },
    Draining {
        pid: u32,
        until: Instant,
    },
    Terminating {
        pid: u32,
        until: Instant,
    },
    Killing {
        pid: u32,
    },
    Stopped,
}

/// The life of one process.
#[derive(Debug, Clone)]
pub struct Lifecycle {
    phase: Phase,
    goal: Goal,
    restarts: u32,
    /// Failures in a row.
    failures: u32,
    last_error: Option<String>,
    kill_after: Duration,
}

impl Lifecycle {
    /// A life that has not begun; `kill_after`: from SIGTERM to SIGKILL.
    #[must_use]
    pub fn new(kill_after: Duration) -> Self {
        Self { phase: Phase::New, goal: Goal::Run, restarts: 0, failures: 0, last_error: None, kill_after }
    }

    /// Takes one event in; gives what to do, in order. An event that no longer fits (an answer
    /// to a question since withdrawn) changes nothing.
    pub fn handle(&mut self, now: Instant, event: Event) -> Vec<Action> {
        match event {
            Event::Found(found) => self.found(now, found),
            Event::Launched { pid } => self.launched(now, pid),
            Event::LaunchFailed { why } => match self.phase {
                Phase::Launching => self.failed(now, why),
                _ => vec![],
            },
            Event::Ready => {
                if let Phase::Up { ready, .. } = &mut self.phase {
                    *ready = true;
                }
                vec![]
            }
            Event::Drained => match self.phase {
                Phase::Draining { pid, .. } => self.terminate(now, pid),
                _ => vec![],
            },
            Event::Exited { how, words } => self.exited(now, &how, &words),
            Event::Stop { drain_for } => self.stop(now, drain_for),
            Event::Replace { drain_for } => self.replace(now, drain_for),
            Event::Tick => self.tick(now),
        }
    }

    /// When to tick at the latest.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        match self.phase {
            Phase::Waiting { until } | Phase::Draining { until, .. } | Phase::Terminating { until, .. } => {
                Some(until)
            }
            Phase::New | Phase::Launching | Phase::Up { .. } | Phase::Killing { .. } | Phase::Stopped => None,
        }
    }

    #[must_use]
    pub fn state(&self) -> EngineState {
        match self.phase {
            Phase::Up { ready: true, adopted: true, .. } => EngineState::Adopted,
            Phase::Up { ready: true, adopted: false, .. } => EngineState::Running,
            Phase::New | Phase::Launching | Phase::Up { ready: false, .. } | Phase::Waiting { .. } => {
                if self.failures >= CRASH_LOOP_FAILURES {
                    EngineState::CrashLoop { failures: self.failures }
                } else {
                    EngineState::Starting
                }
            }
            Phase::Draining { .. } | Phase::Terminating { .. } | Phase::Killing { .. } => {
                EngineState::Draining
            }
            Phase::Stopped => EngineState::Stopped,
        }
    }

    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        match self.phase {
            Phase::Up { pid, .. }
            | Phase::Draining { pid, .. }
            | Phase::Terminating { pid, .. }
            | Phase::Killing { pid } => Some(pid),
            Phase::New | Phase::Launching | Phase::Waiting { .. } | Phase::Stopped => None,
        }
    }

    /// Whether it is to end for good: no other is to follow.
    #[must_use]
    pub fn stopping(&self) -> bool {
        self.goal == Goal::Stop
    }

    /// How often a process was launched in place of one that died.
    #[must_use]
    pub fn restarts(&self) -> u32 {
        self.restarts
    }

    /// Why the last process died that was not told to, or could not be launched.
    #[must_use]
    pub fn last_error(&self) -> Option<&str> {
        self.last_error.as_deref()
    }

    fn found(&mut self, now: Instant, found: Found) -> Vec<Action> {
        if self.phase != Phase::New {
            return vec![];
        }
        match found {
            Found::Nothing => self.launch(),
            Found::Same { pid } => {
                self.phase = Phase::Up { pid, since: now, ready: true, adopted: true };
                match self.goal {
                    Goal::Run => vec![],
                    Goal::Stop => self.drain(now, pid, REPLACE_DRAIN),
                }
            }
            Found::Changed { pid } => self.drain(now, pid, REPLACE_DRAIN),
            Found::Silent { pid } => self.terminate(now, pid),
        }
    }

    fn launched(&mut self, now: Instant, pid: u32) -> Vec<Action> {
        match (self.phase, self.goal) {
            (Phase::Launching, Goal::Run) => {
                self.phase = Phase::Up { pid, since: now, ready: false, adopted: false };
                vec![Action::AwaitReady]
            }
            // Told to stop while it was being launched: nobody is served by it yet.
            _ => self.terminate(now, pid),
        }
    }

    fn exited(&mut self, now: Instant, how: &str, words: &str) -> Vec<Action> {
        let mut actions = vec![Action::Forget];
        match self.phase {
            Phase::Up { since, .. } => {
                if now.saturating_duration_since(since) >= LIFE_GOOD {
                    self.failures = 0;
                }
                let why = if words.is_empty() { how.to_owned() } else { format!("{how}: {words}") };
                actions.extend(self.failed(now, why));
            }
            Phase::Draining { .. } | Phase::Terminating { .. } | Phase::Killing { .. } => {
                actions.extend(self.launch());
            }
            Phase::New | Phase::Launching | Phase::Waiting { .. } | Phase::Stopped => {}
        }
        actions
    }

    fn failed(&mut self, now: Instant, why: String) -> Vec<Action> {
        self.last_error = Some(why);
        self.failures = self.failures.saturating_add(1);
        self.phase = match self.goal {
            Goal::Run => Phase::Waiting { until: now + backoff(self.failures) },
            Goal::Stop => Phase::Stopped,
        };
        vec![]
    }

    fn stop(&mut self, now: Instant, drain_for: Duration) -> Vec<Action> {
        self.goal = Goal::Stop;
        match self.phase {
            // The answer to the open question decides.
            Phase::Launching | Phase::Terminating { .. } | Phase::Killing { .. } | Phase::Stopped => vec![],
            Phase::New | Phase::Waiting { .. } => {
                self.phase = Phase::Stopped;
                vec![]
            }
            // Also one that has not said LIVE yet: it may have, since it was last asked.
            Phase::Up { pid, .. } => self.drain(now, pid, drain_for),
            Phase::Draining { pid, until } => {
                self.phase = Phase::Draining { pid, until: until.min(now + drain_for) };
                vec![]
            }
        }
    }

    fn replace(&mut self, now: Instant, drain_for: Duration) -> Vec<Action> {
        match (self.phase, self.goal) {
            (_, Goal::Stop) => vec![],
            (Phase::Up { pid, .. }, Goal::Run) => self.drain(now, pid, drain_for),
            // What failed may be mended by what is new: no reason to wait.
            (Phase::Waiting { .. }, Goal::Run) => {
                self.failures = 0;
                self.launch()
            }
            // On its way to a launch, which will read what is new.
            (_, Goal::Run) => vec![],
        }
    }

    fn tick(&mut self, now: Instant) -> Vec<Action> {
        match self.phase {
            Phase::Waiting { until } if until <= now => {
                self.restarts = self.restarts.saturating_add(1);
                self.launch()
            }
            Phase::Draining { pid, until } if until <= now => self.terminate(now, pid),
            Phase::Terminating { pid, until } if until <= now => {
                self.phase = Phase::Killing { pid };
                vec![Action::Kill]
            }
            _ => vec![],
        }
    }

    /// What comes after a process: the next, or the end.
    fn launch(&mut self) -> Vec<Action> {
        match self.goal {
            Goal::Run => {
                self.phase = Phase::Launching;
                vec![Action::Launch]
            }
            Goal::Stop => {
                self.phase = Phase::Stopped;
                vec![]
            }
        }
    }

    fn drain(&mut self, now: Instant, pid: u32, drain_for: Duration) -> Vec<Action> {
        if drain_for.is_zero() {
            return self.terminate(now, pid);
        }
        self.phase = Phase::Draining { pid, until: now + drain_for };
        vec![Action::Drain { drain_for }]
    }

    fn terminate(&mut self, now: Instant, pid: u32) -> Vec<Action> {
        self.phase = Phase::Terminating { pid, until: now + self.kill_after };
        vec![Action::Terminate]
    }
}

/// 100 ms, 200 ms, 400 ms ... 5 s. `failures` counts from 1.
fn backoff(failures: u32) -> Duration {
    let doublings = failures.saturating_sub(1).min(16);
    BACKOFF_FIRST.saturating_mul(1 << doublings).min(BACKOFF_MAX)
}

#[cfg(test)]
mod tests;
