//! The store on a thread of its own: disks block.

use crate::store::Store;
use tokio::sync::{mpsc, oneshot};

type Job = Box<dyn FnOnce(&mut Store) + Send>;

/// The way to the store. Jobs are done in the order in which they were asked for.
#[derive(Clone)]
pub struct LedgerThread(mpsc::UnboundedSender<Job>);

impl LedgerThread {
    /// Moves the store to its thread, where it stays until all ways to it are gone.
    #[must_use]
    pub fn start(mut store: Store) -> (Self, std::thread::JoinHandle<()>) {
        // Bounded by its callers: each waits for its answer, or asks once a batch.
        let (sender, mut jobs) = mpsc::unbounded_channel::<Job>();
        let thread = std::thread::Builder::new().name("ledger".to_owned()).spawn(move || {
            while let Some(job) = jobs.blocking_recv() {
                job(&mut store);
            }
        });
        (Self(sender), thread.expect("a thread can be started"))
    }

    /// Does something with the store, and waits for what comes of it.
    pub async fn ask<T: Send + 'static>(&self, work: impl FnOnce(&mut Store) -> T + Send + 'static) -> T {
        let (sender, receiver) = oneshot::channel();
        self.tell(|store| {
            let _ = sender.send(work(store));
        });
        receiver.await.expect("the ledger's thread does every job it was given")
    }

    /// Does something with the store, some time soon.
    pub fn tell(&self, work: impl FnOnce(&mut Store) + Send + 'static) {
        let _ = self.0.send(Box::new(work));
    }
}
