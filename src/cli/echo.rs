//! `tidegate echo`.

use super::output::{Exit, Failure};
use std::net::SocketAddr;

/// Runs a small backend that tells what it was asked, for trying things out.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  tidegate echo --name web --listen 127.0.0.1:9001")]
pub(super) struct EchoArgs {
    /// What it calls itself in its answers.
    #[arg(long, default_value = "echo")]
    name: String,
    #[arg(long, default_value = "127.0.0.1:9001", value_name = "ADDR")]
    listen: SocketAddr,
}

pub(super) fn run(args: EchoArgs) -> Result<Exit, Failure> {
    let EchoArgs { name, listen } = args;
    let _ = (name, listen);
    Err(Failure::unreachable("not yet"))
}
