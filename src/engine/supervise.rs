//! The shell around `lifecycle`: processes, files, the admin, and the clock.

use super::{
    AdminAddress, EngineError, EngineProcess, EngineSpec, check, directory,
    lifecycle::{Action, Event, Found, Lifecycle, REPLACE_DRAIN},
    logs,
    process::{Process, runs, start_time},
    record::{Lock, Record, content},
};
use crate::clock;
use rustix::process::Signal;
use std::{
    collections::BTreeMap,
    future::{Future, pending},
    io,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    pin::Pin,
    sync::Arc,
    time::Duration,
};
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
    time::{MissedTickBehavior, interval, sleep, sleep_until, timeout},
};

/// Orders that wait for one engine; whoever sends more waits.
const ORDERS_MAX: usize = 8;
/// How long an Envoy left behind by an earlier control plane may take to answer.
const ADOPT_TIMEOUT: Duration = Duration::from_secs(10);
/// Between two questions whether a launched Envoy is LIVE: its start takes about a second.
const READY_POLL: Duration = Duration::from_millis(50);
/// Between two counts of its connections; each walks the gauges on Envoy's main thread.
const DRAIN_POLL: Duration = Duration::from_millis(200);
/// Between two looks at the size of the logs.
const ROTATE_PERIOD: Duration = Duration::from_secs(1);
/// Kept by us alone: logs hold client addresses, the admin socket is power over Envoy.
const DIRECTORY_MODE: u32 = 0o700;

/// Keeps Envoys alive. Dropped or killed, it leaves them running for the next one to adopt.
#[derive(Debug)]
pub struct Supervisor {
    orders: BTreeMap<String, mpsc::Sender<Order>>,
    processes: watch::Receiver<BTreeMap<String, EngineProcess>>,
    tasks: JoinSet<()>,
}

#[derive(Debug, Clone, Copy)]
enum Order {
    Stop { drain_for: Duration },
    Replace { drain_for: Duration },
}

impl Supervisor {
    /// Takes `home` (made if need be) and begins to keep one Envoy a spec: one that an earlier
    /// control plane left is adopted if it runs the same content, else replaced. Engines that
    /// were left there and are no longer wanted are drained and stopped.
    ///
    /// # Errors
    /// Another supervisor has this home, or the home or the specs cannot be used.
    pub async fn start(home: &Path, specs: Vec<EngineSpec>) -> Result<Self, EngineError> {
        check(&specs)?;
        // Envoy is started in its own folder, where relative paths would be others.
        let home = &std::path::absolute(home).map_err(folder_error(home))?;
        make_directory(home)?;
        let lock = Arc::new(Lock::take(home)?);
        let unwanted = Record::unwanted(home, &specs).map_err(folder_error(home))?;
        let (publish, processes) = watch::channel(BTreeMap::new());
        let mut supervisor = Self { orders: BTreeMap::new(), processes, tasks: JoinSet::new() };
        for spec in specs {
            make_directory(&directory(home, &spec.name))?;
            supervisor.supervise(home, spec, &publish, &lock);
        }
        for Record { spec, .. } in unwanted {
            let name = spec.name.clone();
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

    fn supervise(
        &mut self,
        home: &Path,
        spec: EngineSpec,
        publish: &watch::Sender<BTreeMap<String, EngineProcess>>,
        lock: &Arc<Lock>,
    ) {
        let (sender, orders) = mpsc::channel(ORDERS_MAX);
        self.orders.insert(spec.name.clone(), sender);
        let engine = Engine {
            directory: directory(home, &spec.name),
            lifecycle: Lifecycle::default(),
            process: None,
            admin: spec.admin.clone(),
            spec,
            probe: Box::pin(pending()),
            log_start: 0,
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
struct Engine {
    spec: EngineSpec,
    directory: PathBuf,
    lifecycle: Lifecycle,
    process: Option<Process>,
    /// Where the present process listens; one of an earlier control plane may do so elsewhere.
    admin: AdminAddress,
    /// The question open at the admin.
    probe: Pin<Box<dyn Future<Output = Event> + Send>>,
    /// Where in stderr the words of the present process begin.
    log_start: u64,
    publish: watch::Sender<BTreeMap<String, EngineProcess>>,
}

impl Engine {
    async fn run(mut self, mut orders: mpsc::Receiver<Order>) {
        let found = self.look().await;
        self.apply(Event::Found(found));
        let mut rotation = interval(ROTATE_PERIOD);
        rotation.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while self.lifecycle.state() != super::EngineState::Stopped {
            let deadline = self.lifecycle.deadline();
            let event = tokio::select! {
                how = exit(self.process.as_ref()) => self.exited(how),
                Some(order) = orders.recv() => match order {
                    Order::Stop { drain_for } => Event::Stop { drain_for },
                    Order::Replace { drain_for } => Event::Replace { drain_for },
                },
                event = &mut self.probe => {
                    self.probe = Box::pin(pending());
                    event
                }
                () = tick(deadline) => Event::Tick,
                _ = rotation.tick() => {
                    logs::rotate(&self.directory).await;
                    continue;
                }
            };
            self.apply(event);
        }
    }

    /// Feeds the life one event, does what it asks for, and tells how it is now.
    fn apply(&mut self, event: Event) {
        let mut event = Some(event);
        while let Some(happened) = event.take() {
            tracing::debug!(engine = self.spec.name, event = ?happened, "Engine event");
            for action in self.lifecycle.handle(clock::instant(), happened) {
                // Only a launch answers at once, and it is the last of its actions.
                event = self.perform(action);
            }
        }
        self.publish();
    }

    fn perform(&mut self, action: Action) -> Option<Event> {
        self.probe = Box::pin(pending());
        let admin = self.admin.clone();
        match action {
            Action::Launch => return Some(self.launch()),
            Action::AwaitReady => self.probe = Box::pin(await_ready(admin)),
            Action::Drain { drain_for } => self.probe = Box::pin(drain(admin, drain_for)),
            Action::Terminate => self.signal(Signal::TERM),
            Action::Kill => self.signal(Signal::KILL),
            Action::Forget => {
                self.process = None;
                Record::remove(&self.directory);
                if let AdminAddress::Unix(socket) = &self.admin {
                    // Gone already, if Envoy has ended in good order.
                    let _ = std::fs::remove_file(socket);
                }
            }
        }
        None
    }

    fn launch(&mut self) -> Event {
        self.log_start = logs::end(&self.directory.join(logs::ENVOY_LOG));
        match self.try_launch() {
            Ok(pid) => {
                tracing::info!(engine = self.spec.name, pid, "Envoy launched");
                Event::Launched { pid }
            }
            Err(error) => {
                let EngineSpec { name, envoy, bootstrap, .. } = &self.spec;
                let why = format!(
                    "cannot launch {} with {} ({error}); check that both exist",
                    envoy.display(),
                    bootstrap.display()
                );
                tracing::error!(engine = name, why, "Envoy not launched");
                Event::LaunchFailed { why }
            }
        }
    }

    fn try_launch(&mut self) -> io::Result<u32> {
        // Before the launch: what changes in between is then a change to replace it for.
        let content = content(&self.spec)?;
        let process = Process::launch(&self.spec, &self.directory)?;
        let pid = process.pid;
        self.process = Some(process);
        self.admin = self.spec.admin.clone();
        // None if it has died already, which is told by its pidfd.
        if let Some(start_time) = start_time(pid) {
            let record = Record { pid, start_time, content, spec: self.spec.clone() };
            if let Err(error) = record.write(&self.directory) {
                tracing::warn!(engine = self.spec.name, %error, "Envoy runs but could not be recorded");
            }
        }
        Ok(pid)
    }

    /// Looks for the process of an earlier control plane, and holds it.
    async fn look(&mut self) -> Found {
        let record = Record::read(&self.directory);
        let Some((process, recorded)) = find(&self.spec, record.as_ref()).await else {
            Record::remove(&self.directory);
            return Found::Nothing;
        };
        let pid = process.pid;
        self.process = Some(process);
        self.log_start = logs::end(&self.directory.join(logs::ENVOY_LOG));
        let same = recorded.is_some() && recorded == content(&self.spec).ok();
        if let (Some(_), Some(record)) = (recorded, record) {
            self.admin = record.spec.admin;
        }
        let found = match timeout(ADOPT_TIMEOUT, answer(self.admin.clone(), pid)).await {
            Ok(()) if same => Found::Same { pid },
            Ok(()) => Found::Changed { pid },
            Err(_) => Found::Silent { pid },
        };
        tracing::info!(engine = self.spec.name, ?found, "Found the Envoy of an earlier control plane");
        found
    }

    fn exited(&self, how: String) -> Event {
        let words = logs::last_words(&self.directory.join(logs::ENVOY_LOG), self.log_start);
        match self.lifecycle.state() {
            super::EngineState::Draining => tracing::info!(engine = self.spec.name, how, "Envoy has ended"),
            _ => tracing::warn!(engine = self.spec.name, how, words, "Envoy has died; it is restarted"),
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
            name: self.spec.name.clone(),
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

/// The recorded process, if that very one lives, with the content it runs; else whoever listens
/// on our admin socket: we may have been killed before its record was written.
async fn find(spec: &EngineSpec, record: Option<&Record>) -> Option<(Process, Option<String>)> {
    if let Some(Record { pid, start_time: recorded, content, spec: _ }) = record {
        // Held first, compared then: after that the pid cannot become another's.
        let process = Process::hold(*pid).ok();
        if let Some(process) = process.filter(|_| start_time(*pid) == Some(*recorded)) {
            return Some((process, Some(content.clone())));
        }
    }
    let pid = spec.admin.ready().await.ok()?.pid?;
    let process = Process::hold(pid).ok()?;
    // Only one that we have launched may be touched, whoever else listens there.
    runs(pid, &spec.bootstrap).then_some((process, None))
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

/// Ends when the admin answers, LIVE or not, and it is this process that does.
async fn answer(admin: AdminAddress, pid: u32) {
    loop {
        match admin.ready().await {
            Ok(ready) if ready.pid.is_none_or(|peer| peer == pid) => return,
            Ok(_) | Err(_) => sleep(READY_POLL).await,
        }
    }
}

/// For as long as it takes: an Envoy whose control plane is away is alive, and not LIVE.
async fn await_ready(admin: AdminAddress) -> Event {
    loop {
        match admin.ready().await {
            Ok(ready) if ready.live => return Event::Ready,
            Ok(_) | Err(_) => sleep(READY_POLL).await,
        }
    }
}

/// First all answers say `close` while new connections are still taken, so that whoever sends
/// them here can turn away; then, when none is left or half of the time is over, new ones are
/// refused; then it waits for the last. The life has the time and ends this when it is over.
async fn drain(admin: AdminAddress, drain_for: Duration) -> Event {
    let work = async {
        admin.begin_drain().await?;
        if let Ok(outcome) = timeout(drain_for / 2, quiet(&admin)).await {
            outcome?;
        }
        admin.stop_listening().await?;
        quiet(&admin).await
    };
    if let Err(error) = work.await {
        tracing::warn!(%admin, %error, "Envoy cannot be drained; it is stopped as it is");
    }
    Event::Drained
}

async fn quiet(admin: &AdminAddress) -> Result<(), super::admin::AdminError> {
    while admin.connections().await? > 0 {
        sleep(DRAIN_POLL).await;
    }
    Ok(())
}

fn make_directory(path: &Path) -> Result<(), EngineError> {
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true).mode(DIRECTORY_MODE).create(path).map_err(folder_error(path))
}

fn folder_error(path: &Path) -> impl FnOnce(io::Error) -> EngineError {
    let path = path.to_owned();
    move |source| EngineError::Folder { path, source }
}
