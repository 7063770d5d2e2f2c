//! The same work on many things, on all cores.

use std::{num::NonZeroUsize, panic, thread};

/// Fewer things are done where they are: a thread costs more.
const FEW: usize = 64;
/// More threads read no faster, and each keeps memory of its own.
const THREADS_MAX: usize = 4;

/// Does the work for each item; the results are in the order of the items.
pub(super) fn map<T: Send, R: Send>(mut items: Vec<T>, work: impl Fn(T) -> R + Sync) -> Vec<R> {
    // To ask for the cores takes files of the cgroup to be read.
    let cores = || thread::available_parallelism().map_or(1, NonZeroUsize::get);
    let threads = if items.len() < FEW { 1 } else { cores().min(THREADS_MAX) };
    if threads == 1 {
        return items.into_iter().map(work).collect();
    }
    let share = items.len().div_ceil(threads);
    let mut shares = Vec::new();
    while items.len() > share {
        shares.push(items.split_off(items.len() - share));
    }
    let work = &work;
    thread::scope(|scope| {
        let others: Vec<_> = shares
            .into_iter()
            .rev()
            .map(|share| scope.spawn(move || share.into_iter().map(work).collect::<Vec<_>>()))
            .collect();
        let mut results: Vec<R> = items.into_iter().map(work).collect();
        for other in others {
            results.extend(other.join().unwrap_or_else(|broken| panic::resume_unwind(broken)));
        }
        results
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_in_order() {
        for count in [0, 1, FEW - 1, FEW, 1_001] {
            let twice: Vec<usize> = map((0..count).collect(), |item| item * 2);
            assert_eq!(twice, (0..count).map(|item| item * 2).collect::<Vec<_>>());
        }
    }
}
