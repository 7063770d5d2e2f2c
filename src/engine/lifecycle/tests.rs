use super::*;

const KILL_AFTER: Duration = Duration::from_secs(5);

const SECOND: Duration = Duration::from_secs(1);

/// A life with a clock of its own.
struct Life {
    lifecycle: Lifecycle,
    now: Instant,
}

fn life() -> Life {
    Life { lifecycle: Lifecycle::new(KILL_AFTER), now: crate::clock::instant() }
}

fn running() -> Life {
    life()
        .see(Event::Found(Found::Nothing), &[Action::Launch])
        .see(Event::Launched { pid: 7 }, &[Action::AwaitReady])
        .see(Event::Ready, &[])
        .is(EngineState::Running)
}

fn exited() -> Event {
    Event::Exited { how: "exit status 1".into(), words: "bad".into() }
}

impl Life {
    #[track_caller]
    fn see(mut self, event: Event, actions: &[Action]) -> Self {
        let said = format!("{event:?} in {:?}", self.lifecycle.phase);
        assert_eq!(self.lifecycle.handle(self.now, event), actions, "{said}");
        self
    }

    #[track_caller]
    fn is(self, state: EngineState) -> Self {
        assert_eq!(self.lifecycle.state(), state);
        self
    }

    fn after(mut self, time: Duration) -> Self {
        self.now += time;
        self
    }

    /// Ticks just before the deadline, where nothing may happen, and at it.
    #[track_caller]
    fn wait(mut self, time: Duration, actions: &[Action]) -> Self {
        let until = self.now + time;
        assert_eq!(self.lifecycle.deadline(), Some(until), "after {time:?}");
        self.now = until - Duration::from_millis(1);
        self = self.see(Event::Tick, &[]);
        self.now = until;
        self.see(Event::Tick, actions)
    }

    #[track_caller]
    fn crash(self, wait: Duration) -> Self {
        self.see(exited(), &[Action::Forget])
            .wait(wait, &[Action::Launch])
            .see(Event::Launched { pid: 8 }, &[Action::AwaitReady])
    }
}

#[test]
fn crash_is_restarted_with_growing_waits_and_never_given_up() {
    let ms = Duration::from_millis;
    let mut life = running();
    for wait in [100, 200, 400, 800, 1_600, 3_200, 5_000, 5_000] {
        life = life.crash(ms(wait));
    }
    let life = life.is(EngineState::CrashLoop { failures: 8 });
    assert_eq!(life.lifecycle.restarts(), 8);
    assert_eq!(life.lifecycle.last_error(), Some("exit status 1: bad"));
    life.see(Event::Ready, &[]).is(EngineState::Running).after(59 * SECOND).crash(ms(5_000));
}

#[test]
fn a_minute_of_life_forgives() {
    let ms = Duration::from_millis;
    let life =
        running().crash(ms(100)).crash(ms(200)).crash(ms(400)).is(EngineState::CrashLoop { failures: 3 });
    life.after(60 * SECOND).crash(ms(100)).is(EngineState::Starting);
}

#[test]
fn slow_start_is_no_failure() {
    // The control plane may be away for long; Envoy then says PRE_INITIALIZING and is not ready.
    let life = life()
        .see(Event::Found(Found::Nothing), &[Action::Launch])
        .see(Event::Launched { pid: 7 }, &[Action::AwaitReady])
        .after(3_600 * SECOND)
        .see(Event::Tick, &[])
        .is(EngineState::Starting);
    assert_eq!(life.lifecycle.deadline(), None);
}

#[test]
fn stop_drains_then_terminates_then_kills() {
    let drain_for = 30 * SECOND;
    let life = running()
        .see(Event::Stop { drain_for }, &[Action::Drain { drain_for }])
        .is(EngineState::Draining)
        .wait(drain_for, &[Action::Terminate])
        .wait(5 * SECOND, &[Action::Kill]);
    assert_eq!(life.lifecycle.pid(), Some(7));
    let life = life.see(exited(), &[Action::Forget]).is(EngineState::Stopped);
    assert_eq!((life.lifecycle.pid(), life.lifecycle.deadline()), (None, None));
    assert_eq!(life.lifecycle.last_error(), None, "what we ordered is no error");
}

#[test]
fn an_early_end_of_the_drain_is_taken() {
    running()
        .see(Event::Stop { drain_for: SECOND }, &[Action::Drain { drain_for: SECOND }])
        .see(Event::Drained, &[Action::Terminate])
        .see(Event::Drained, &[])
        .see(exited(), &[Action::Forget])
        .is(EngineState::Stopped);
}

#[test]
fn nothing_to_drain_is_terminated_at_once() {
    running().see(Event::Stop { drain_for: Duration::ZERO }, &[Action::Terminate]);
    life()
        .see(Event::Found(Found::Nothing), &[Action::Launch])
        .see(Event::Stop { drain_for: SECOND }, &[])
        .see(Event::Launched { pid: 7 }, &[Action::Terminate])
        .see(exited(), &[Action::Forget])
        .is(EngineState::Stopped);
    running()
        .see(exited(), &[Action::Forget])
        .see(Event::Stop { drain_for: SECOND }, &[])
        .is(EngineState::Stopped);
    life().see(Event::Stop { drain_for: SECOND }, &[]).is(EngineState::Stopped);
}

/// Seen live: stopped 60 ms after its first answer, a request under way was cut,
/// because nobody had asked it again whether it was LIVE.
#[test]
fn one_that_may_serve_already_is_drained() {
    let drain_for = SECOND;
    life()
        .see(Event::Found(Found::Nothing), &[Action::Launch])
        .see(Event::Launched { pid: 7 }, &[Action::AwaitReady])
        .see(Event::Stop { drain_for }, &[Action::Drain { drain_for }]);
}

#[test]
fn a_second_stop_only_shortens() {
    running()
        .see(Event::Stop { drain_for: 30 * SECOND }, &[Action::Drain { drain_for: 30 * SECOND }])
        .see(Event::Stop { drain_for: 60 * SECOND }, &[])
        .see(Event::Stop { drain_for: SECOND }, &[])
        .wait(SECOND, &[Action::Terminate]);
}

#[test]
fn adoption() {
    life().see(Event::Found(Found::Same { pid: 9 }), &[]).is(EngineState::Adopted).crash(BACKOFF_FIRST);
    life()
        .see(Event::Found(Found::Changed { pid: 9 }), &[Action::Drain { drain_for: REPLACE_DRAIN }])
        .see(Event::Drained, &[Action::Terminate])
        .see(exited(), &[Action::Forget, Action::Launch])
        .see(Event::Launched { pid: 10 }, &[Action::AwaitReady]);
    life()
        .see(Event::Found(Found::Silent { pid: 9 }), &[Action::Terminate])
        .wait(KILL_AFTER, &[Action::Kill])
        .see(exited(), &[Action::Forget, Action::Launch]);
}

#[test]
fn replace_is_no_failure() {
    let life = running()
        .see(Event::Replace { drain_for: SECOND }, &[Action::Drain { drain_for: SECOND }])
        .see(Event::Drained, &[Action::Terminate])
        .see(exited(), &[Action::Forget, Action::Launch])
        .see(Event::Launched { pid: 10 }, &[Action::AwaitReady]);
    assert_eq!((life.lifecycle.restarts(), life.lifecycle.last_error()), (0, None));
    life.see(exited(), &[Action::Forget]).see(Event::Replace { drain_for: SECOND }, &[Action::Launch]);
}

#[test]
fn a_failed_launch_waits_too() {
    let why = || Event::LaunchFailed { why: "no such file".into() };
    life()
        .see(Event::Found(Found::Nothing), &[Action::Launch])
        .see(why(), &[])
        .wait(BACKOFF_FIRST, &[Action::Launch])
        .see(why(), &[])
        .wait(2 * BACKOFF_FIRST, &[Action::Launch]);
}
