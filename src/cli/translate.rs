//! `tidegate translate`.

use super::{
    offline::{InputArgs, Offline},
    output::{Exit, Failure, Format, line, print},
};
use crate::{pipeline::show, report::Severity};
use clap::ValueEnum;
use std::io::Write;

/// Shows what manifests become, without running anything.
///
/// VIPs are those that an empty ledger would give. Findings go to stderr.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  tidegate translate -f examples/quickstart --to static --allow-loopback-endpoints > envoy.json\n  \
    envoy --mode validate -c envoy.json\n  tidegate translate -f ingress.yaml --to ir -o yaml\n\n\
    static: one config that stock Envoy runs by itself; it holds private keys.\n\
    ads: the resources an engine is sent; private keys are left out.\nir: the model between.\n\n\
    Ends with 1 when there is an error; what is right is translated all the same."
)]
pub(super) struct TranslateArgs {
    #[command(flatten)]
    input: InputArgs,
    #[arg(long, value_enum, default_value_t)]
    to: Target,
    /// json or yaml.
    #[arg(short, long, value_enum, default_value = "json")]
    output: Format,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
enum Target {
    #[default]
    Static,
    Ads,
    Ir,
}

pub(super) fn run(args: &TranslateArgs) -> Result<Exit, Failure> {
    if args.output == Format::Table {
        return Err(Failure::usage("translate prints json or yaml"));
    }
    let mut offline = Offline::load(&args.input)?;
    let findings = offline.findings();
    let value = match args.to {
        Target::Static => show::standalone(&offline.core),
        Target::Ads => show::ads(&mut offline.core),
        Target::Ir => show::ir(&offline.core),
    };
    print(args.output, &value, |_| Vec::new())?;
    line("")?;
    let mut broken = false;
    for located in findings.iter().filter(|located| located.severity() > Severity::Info) {
        broken |= located.severity() == Severity::Error;
        let _ = writeln!(std::io::stderr(), "{located}");
    }
    Ok(if broken { Exit::Findings } else { Exit::Fine })
}
