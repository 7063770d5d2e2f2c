//! `tidegate crds`.

use super::output::{Exit, Failure, line};
use crate::api::{DnsZone, InfraSetting, VipPool};
use kube::CustomResourceExt;

/// Prints the CustomResourceDefinitions of our kinds, with their documentation.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  tidegate crds > crds.yaml")]
pub(super) struct CrdsArgs {}

pub(super) fn run(_: &CrdsArgs) -> Result<Exit, Failure> {
    for crd in [VipPool::crd(), InfraSetting::crd(), DnsZone::crd()] {
        let text = crate::yaml::to_string(&crd).map_err(|why| Failure::unreachable(why.to_string()))?;
        line(&format!("---\n{text}"))?;
    }
    Ok(Exit::Fine)
}
