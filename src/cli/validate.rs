//! `tidegate validate`.

use super::{
    offline::{InputArgs, Offline},
    output::{Exit, Failure, Format, print},
};
use crate::report::Severity;

/// Says what is wrong with manifests, without running anything.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  tidegate validate -f manifests/\n  kubectl get ing,svc,endpointslices -A -o yaml | tidegate validate -f -\n\n\
    Ends with 1 when there is an error."
)]
pub(super) struct ValidateArgs {
    #[command(flatten)]
    input: InputArgs,
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
    /// Shows what is worth knowing, too.
    #[arg(long)]
    all: bool,
}

pub(super) fn run(args: &ValidateArgs) -> Result<Exit, Failure> {
    let mut findings = Offline::load(&args.input)?.findings();
    findings.retain(|located| args.all || located.severity() > Severity::Info);
    print(args.output, &findings, |findings| {
        findings.iter().map(|located| vec![located.to_string()]).collect()
    })?;
    let broken = findings.iter().any(|located| located.severity() == Severity::Error);
    Ok(if broken { Exit::Findings } else { Exit::Fine })
}
