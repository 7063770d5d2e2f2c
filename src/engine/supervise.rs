//! The shell around `lifecycle`: processes, files, the admin, and the clock.

use super::{
    EngineError, EngineProcess, check, directory,
    lifecycle::{Action, Event, Found, Lifecycle, REPLACE_DRAIN},
    logs,
    process::{Process, runs, start_time},
    program::Program,
    record::{Lock, Record, folder_error, make_directory},
};
use crate::{clock, failpoint};
use rustix::process::Signal;
use std::{
    collections::BTreeMap,
    future::{Future, pending},
    io,
    path::{Path, PathBuf},
    pin::Pin,
    sync::Arc,
    time::Duration,
};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch},
    task::JoinSet,
    time::{MissedTickBehavior, interval, sleep, sleep_until, timeout},
};

/// Orders that wait for one engine; whoever sends more waits.
const ORDERS_MAX: usize = 8;
/// How long an Envoy left behind by an earlier control plane may take to answer.
const ADOPT_TIMEOUT: Duration = Duration::from_secs(10);
/// Between two questions whether a launched Envoy is LIVE: its start takes about a second.
const READY_POLL: Duration = Duration::from_millis(50);
/// Between two looks at the size of the logs.
const ROTATE_PERIOD: Duration = Duration::from_secs(1);

/// Keeps Envoys alive. Dropped or killed, it leaves them running for the next one to adopt.
#[derive(Debug)]
pub struct Supervisor {
    orders: BTreeMap<String, mpsc::Sender<Order>>,
    processes: watch::Receiver<BTreeMap<String, EngineProcess>>,
    /// Whose holder may be replaced: engines serve the same addresses, and one of them at a
    /// time may be away.
    turn: Arc<Semaphore>,
    tasks: JoinSet<()>,
}

#[derive(Debug, Clone, Copy)]
enum Order {
    Stop { drain_for: Duration },
    Replace { drain_for: Duration },
}

impl Supervisor {
    /// Begins to keep one process a spec in a home: one that an earlier supervisor left is
    /// adopted if it runs the same content, else replaced. Those that were left there and are no
    /// longer wanted are drained and stopped.
    ///
    /// # Errors
    /// The home or the specs cannot be used.
    pub async fn start<P: Program>(lock: Lock, specs: Vec<P>) -> Result<Self, EngineError> {
        check(&specs)?;
        let (home, lock) = (&lock.home.clone(), Arc::new(lock));
        let unwanted = Record::unwanted(home, &specs).map_err(folder_error(home))?;
        let (publish, processes) = watch::channel(BTreeMap::new());
        let turn = Arc::new(Semaphore::new(1));
        let mut supervisor = Self { orders: BTreeMap::new(), processes, turn, tasks: JoinSet::new() };
        for spec in specs {
            make_directory(&directory(home, spec.name()))?;
            supervisor.supervise(home, spec, &publish, &lock);
        }
        for Record { spec, .. } in unwanted {
            let name = spec.name().to_owned();
            tracing::info!(engine = name, "Engine is no longer wanted");
            supervisor.supervise(home, spec, &publish, &lock);
            supervisor.order(&name, Order::Stop { drain_for: REPLACE_DRAIN }).await;
        }
        Ok(supervisor)
    }

    /// How the engines are now, by name.
    #[must_use]
    pub fn status(&self) -> Vec<EngineProcess> {
        self.processes.borrow().values().cloned().collect()
    }

    /// As [`Supervisor::status`], for whoever waits for a change.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<BTreeMap<String, EngineProcess>> {
        self.processes.clone()
    }

    /// Drains an engine and starts it anew, with what its bootstrap and module are by then.
    pub async fn restart(&self, name: &str, drain_for: Duration) {
        self.order(name, Order::Replace { drain_for }).await;
    }

    /// Drains all engines at once and waits until each is gone. Takes up to `drain_for`, and
    /// 5 s more for one that does not obey.
    pub async fn shutdown(mut self, drain_for: Duration) {
        for name in self.orders.keys() {
            self.order(name, Order::Stop { drain_for }).await;
        }
        while self.tasks.join_next().await.is_some() {}
    }

    /// Lets go of the engines, which run on, for the next supervisor to adopt.
    pub async fn detach(mut self) {
        self.tasks.shutdown().await;
    }

    fn supervise<P: Program>(
        &mut self,
        home: &Path,
        spec: P,
        publish: &watch::Sender<BTreeMap<String, EngineProcess>>,
        lock: &Arc<Lock>,
    ) {
        let (sender, orders) = mpsc::channel(ORDERS_MAX);
        self.orders.insert(spec.name().to_owned(), sender);
        let engine = Engine {
            directory: directory(home, spec.name()),
            lifecycle: Lifecycle::new(P::KILL_AFTER),
            process: None,
            present: spec.clone(),
            spec,
            probe: Box::pin(pending()),
            log_start: 0,
            turn: Arc::clone(&self.turn),
            waiting: Box::pin(pending()),
            replacing: None,
            publish: publish.clone(),
        };
        engine.publish();
        let lock = Arc::clone(lock);
        self.tasks.spawn(async move {
            engine.run(orders).await;
            // Not before the last engine is let go of may another supervisor begin.
            drop(lock);
        });
    }

    async fn order(&self, name: &str, order: Order) {
        if let Some(orders) = self.orders.get(name) {
            // Refused by one that has stopped already, which is what the order is about.
            let _ = orders.send(order).await;
        }
    }
}

/// One engine's task.
struct Engine<P> {
    spec: P,
    directory: PathBuf,
    lifecycle: Lifecycle,
    process: Option<Process>,
    /// What the present process was launched as: one of an earlier supervisor may be asked
    /// elsewhere.
    present: P,
    /// The question open at the process.
    probe: Pin<Box<dyn Future<Output = Event> + Send>>,
    /// Where in stderr the words of the present process begin.
    log_start: u64,
    turn: Arc<Semaphore>,
    /// For its turn to be replaced, which it then has until the next process is ready.
    waiting: Pin<Box<dyn Future<Output = (OwnedSemaphorePermit, Event)> + Send>>,
    replacing: Option<OwnedSemaphorePermit>,
    publish: watch::Sender<BTreeMap<String, EngineProcess>>,
}

impl<P: Program> Engine<P> {
    async fn run(mut self, mut orders: mpsc::Receiver<Order>) {
        match self.look().await {
            found @ Found::Changed { pid } => match Arc::clone(&self.turn).try_acquire_owned() {
                Ok(turn) => {
                    self.replacing = Some(turn);
                    self.apply(Event::Found(found));
                }
                Err(_) => {
                    // It serves until it is its turn.
                    self.apply(Event::Found(Found::Same { pid }));
                    self.replace(REPLACE_DRAIN);
                }
            },
            found => self.apply(Event::Found(found)),
        }
        let mut rotation = interval(ROTATE_PERIOD);
        rotation.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while self.lifecycle.state() != super::EngineState::Stopped {
            let deadline = self.lifecycle.deadline();
            let event = tokio::select! {
                how = exit(self.process.as_ref()) => self.exited(how),
                Some(order) = orders.recv() => match order {
                    Order::Stop { drain_for } => Event::Stop { drain_for },
                    Order::Replace { drain_for } => {
                        self.replace(drain_for);
                        continue;
                    }
                },
                (turn, event) = &mut self.waiting => {
                    self.waiting = Box::pin(pending());
                    self.replacing = Some(turn);
                    event
                }
                event = &mut self.probe => {
                    self.probe = Box::pin(pending());
                    event
                }
                () = tick(deadline) => Event::Tick,
                _ = rotation.tick() => {
                    logs::rotate(&self.directory, P::LOGS).await;
                    continue;
                }
            };
            self.apply(event);
            if self.lifecycle.state() == super::EngineState::Running {
                self.replacing = None;
            }
        }
    }

    /// Has the process replaced when it is its turn.
    fn replace(&mut self, drain_for: Duration) {
        let turn = Arc::clone(&self.turn);
        self.waiting = Box::pin(async move {
            let turn = turn.acquire_owned().await.expect("turns are never closed");
            (turn, Event::Replace { drain_for })
        });
    }

    /// Feeds the life one event, does what it asks for, and tells how it is now.
    fn apply(&mut self, event: Event) {
        let mut event = Some(event);
        while let Some(happened) = event.take() {
            tracing::debug!(engine = self.spec.name(), event = ?happened, "Engine event");
            for action in self.lifecycle.handle(clock::instant(), happened) {
                // Only a launch answers at once, and it is the last of its actions.
                event = self.perform(action);
            }
        }
        self.publish();
    }

    fn perform(&mut self, action: Action) -> Option<Event> {
        self.probe = Box::pin(pending());
        let present = self.present.clone();
        match action {
            Action::Launch => return Some(self.launch()),
            Action::AwaitReady => self.probe = Box::pin(await_ready(present)),
            Action::Drain { drain_for } => match present.quit(!self.lifecycle.stopping()) {
                Some(signal) => self.signal(signal),
                None => {
                    self.probe = Box::pin(async move {
                        present.drain(drain_for).await;
                        Event::Drained
                    });
                }
            },
            Action::Terminate => self.signal(Signal::TERM),
            Action::Kill => self.signal(Signal::KILL),
            Action::Forget => {
                self.process = None;
                Record::<P>::remove(&self.directory);
                self.present.gone();
            }
        }
        None
    }

    fn launch(&mut self) -> Event {
        self.log_start = logs::end(&self.directory.join(P::LOGS.1));
        match self.try_launch() {
            Ok(pid) => {
                tracing::info!(engine = self.spec.name(), pid, "Launched");
                Event::Launched { pid }
            }
            Err(error) => {
                let [_, with] = self.spec.mark();
                let why = format!(
                    "cannot launch {} with {} ({error}); check that both exist",
                    self.spec.path().display(),
                    with.display()
                );
                tracing::error!(engine = self.spec.name(), why, "Not launched");
                Event::LaunchFailed { why }
            }
        }
    }

    fn try_launch(&mut self) -> io::Result<u32> {
        // Before the launch: what changes in between is then a change to replace it for.
        let content = self.spec.content()?;
        failpoint::pass("engine.launch");
        let process = Process::launch(&self.spec, &self.directory)?;
        failpoint::pass("engine.unrecorded");
        let pid = process.pid;
        self.process = Some(process);
        self.present = self.spec.clone();
        // None if it has died already, which is told by its pidfd.
        if let Some(start_time) = start_time(pid) {
            let record = Record { pid, start_time, content, spec: self.spec.clone() };
            if let Err(error) = record.write(&self.directory) {
                tracing::warn!(engine = self.spec.name(), %error, "It runs but could not be recorded");
            }
            failpoint::pass("engine.recorded");
        }
        Ok(pid)
    }

    /// Looks for the process of an earlier control plane, and holds it.
    async fn look(&mut self) -> Found {
        let record = Record::read(&self.directory);
        let Some((process, recorded)) = find(&self.spec, record.as_ref()).await else {
            Record::<P>::remove(&self.directory);
            return Found::Nothing;
        };
        let pid = process.pid;
        self.process = Some(process);
        self.log_start = logs::end(&self.directory.join(P::LOGS.1));
        let same = recorded.is_some() && recorded == self.spec.content().ok();
        if let (Some(_), Some(record)) = (recorded, record) {
            self.present = record.spec;
        }
        let found = match timeout(ADOPT_TIMEOUT, answer(&self.present, pid)).await {
            Ok(()) if same => Found::Same { pid },
            Ok(()) => Found::Changed { pid },
            Err(_) => Found::Silent { pid },
        };
        tracing::info!(engine = self.spec.name(), ?found, "Found what an earlier supervisor left");
        found
    }

    fn exited(&self, how: String) -> Event {
        let words = logs::last_words(&self.directory.join(P::LOGS.1), self.log_start);
        match self.lifecycle.state() {
            super::EngineState::Draining => tracing::info!(engine = self.spec.name(), how, "It has ended"),
            _ => tracing::warn!(engine = self.spec.name(), how, words, "It has died and is restarted"),
        }
        Event::Exited { how, words }
    }

    fn signal(&self, signal: Signal) {
        if let Some(process) = &self.process {
            process.signal(signal);
        }
    }

    fn publish(&self) {
        let process = EngineProcess {
            name: self.spec.name().to_owned(),
            pid: self.lifecycle.pid(),
            state: self.lifecycle.state(),
            restarts: self.lifecycle.restarts(),
            last_error: self.lifecycle.last_error().map(str::to_owned),
        };
        self.publish.send_if_modified(|processes| {
            let changed = processes.get(&process.name) != Some(&process);
            if changed {
                processes.insert(process.name.clone(), process);
            }
            changed
        });
    }
}

/// The recorded process, if that very one lives, with the content it runs; else whoever answers
/// where ours would: we may have been killed before its record was written.
async fn find<P: Program>(spec: &P, record: Option<&Record<P>>) -> Option<(Process, Option<String>)> {
    if let Some(Record { pid, start_time: recorded, content, spec: _ }) = record {
        // Held first, compared then: after that the pid cannot become another's.
        let process = Process::hold(*pid).ok();
        if let Some(process) = process.filter(|_| start_time(*pid) == Some(*recorded)) {
            return Some((process, Some(content.clone())));
        }
    }
    let pid = spec.ready().await?.pid?;
    let process = Process::hold(pid).ok()?;
    // Only one that we have launched may be touched, whoever else listens there.
    runs(pid, spec.mark()).then_some((process, None))
}

async fn exit(process: Option<&Process>) -> String {
    match process {
        Some(process) => process.exited().await,
        None => pending().await,
    }
}

async fn tick(deadline: Option<std::time::Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline.into()).await,
        None => pending().await,
    }
}

/// Ends when it answers, LIVE or not, and it is this process that does.
async fn answer<P: Program>(program: &P, pid: u32) {
    while program.ready().await.is_none_or(|ready| ready.pid.is_some_and(|peer| peer != pid)) {
        sleep(READY_POLL).await;
    }
}

/// For as long as it takes: an Envoy whose control plane is away is alive, and not LIVE.
async fn await_ready<P: Program>(program: P) -> Event {
    while !program.ready().await.is_some_and(|ready| ready.live) {
        sleep(READY_POLL).await;
    }
    Event::Ready
}
