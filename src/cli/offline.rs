//! What manifests come to, without anything running: behind `translate` and `validate`.

use super::output::Failure;
use crate::{
    base::chain,
    clock,
    desired::Desired,
    report::Finding,
    source::files::{self, Loaded, Located, Places},
    translate::Options,
    yaml,
};
use std::path::PathBuf;

/// Which manifests.
#[derive(Debug, clap::Args)]
pub(super) struct InputArgs {
    /// Folders or files of manifests; `-` for standard input.
    #[arg(short, long = "file", required = true, value_name = "PATH")]
    files: Vec<PathBuf>,
    /// Takes endpoints on loopback addresses for good.
    #[arg(long)]
    allow_loopback_endpoints: bool,
}

/// Manifests, compiled; VIPs as an empty ledger would give them.
pub(super) struct Offline {
    pub(super) core: Desired,
    located: Vec<Located>,
    places: Places,
    now: i64,
}

impl Offline {
    pub(super) fn load(args: &InputArgs) -> Result<Self, Failure> {
        let now = clock::now_unix();
        let loaded = files::load_once(&args.files, now, &yaml::Limits::default());
        let Loaded { changes, findings, places } = loaded.map_err(|why| Failure::unreachable(chain(&why)))?;
        let options = Options { loopback_endpoints: args.allow_loopback_endpoints, ..Options::default() };
        Ok(Self { core: Desired::in_memory(options, changes, now), located: findings, places, now })
    }

    /// Everything there is to say, with file and line, the worst first.
    pub(super) fn findings(&self) -> Vec<Located> {
        let mut all = self.located.clone();
        all.extend(findings(&self.core, self.now).into_iter().map(|finding| self.places.locate(finding)));
        all.sort_by(|a, b| b.severity().cmp(&a.severity()).then_with(|| a.cmp(b)));
        all.dedup();
        all
    }
}

fn findings(core: &Desired, now: i64) -> Vec<Finding> {
    let mut all: Vec<_> = core.compiled().all_findings().collect();
    all.extend(core.pool_findings().iter().cloned());
    all.extend(crate::status::claim_findings(core));
    all.extend(crate::status::expiry_findings(core, now));
    all
}
