//! What the kernel lets this process have.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Raises the soft limit of open files to the hard one: 1,024 in most shells, for the
/// sake of programs that use select(2), which we do not. Envoys inherit it.
pub(super) fn raise_open_files() {
    let Rlimit { current: before, maximum } = getrlimit(Resource::Nofile);
    match setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
        Ok(()) => tracing::debug!(before, now = maximum, "The limit of open files was raised"),
        Err(error) => tracing::warn!(%error, before, maximum, "The limit of open files stays as it is"),
    }
}
