//! `tidegate completion`.

use super::{
    Arguments,
    output::{Exit, Failure, line},
};
use clap::CommandFactory;

/// Prints a completion script for a shell.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  source <(tidegate completion bash)")]
pub(super) struct CompletionArgs {
    shell: clap_complete::Shell,
}

pub(super) fn run(args: &CompletionArgs) -> Result<Exit, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Arguments::command(), "tidegate", &mut script);
    line(&String::from_utf8_lossy(&script))?;
    Ok(Exit::Fine)
}
