//! `tidegate echo`.

use super::output::{Exit, Failure};
use crate::{
    app,
    base::chain,
    echo::{Echo, EchoTls},
    telemetry::{self, LogForm},
};
use std::{net::SocketAddr, path::PathBuf};

/// Runs a small backend that tells what it was asked, for trying things out.
///
/// Speaks HTTP/1.1 and HTTP/2 on one port, WebSocket under /ws, and gRPC messages.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  tidegate echo --name web --listen 127.0.0.1:9001\n  \
    curl http://127.0.0.1:9001/delay/500")]
pub(super) struct EchoArgs {
    /// What it calls itself in its answers.
    #[arg(long, default_value = "echo")]
    name: String,
    #[arg(long, default_value = "127.0.0.1:9001", value_name = "ADDR")]
    listen: SocketAddr,
    /// Certificate chain, PEM: serves TLS.
    #[arg(long, requires = "key", value_name = "FILE")]
    certificate: Option<PathBuf>,
    /// Its private key, PEM.
    #[arg(long, requires = "certificate", value_name = "FILE")]
    key: Option<PathBuf>,
}

pub(super) fn run(args: EchoArgs) -> Result<Exit, Failure> {
    let EchoArgs { name, listen, certificate, key } = args;
    telemetry::install(telemetry::DEFAULT_FILTER, LogForm::Human, false)
        .map_err(|why| Failure::usage(why.to_string()))?;
    let tls = certificate.zip(key).map(|(certificate, key)| EchoTls { certificate, key });
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let echo = Echo::bind(listen, &name, tls.as_ref()).await;
        let echo = echo.map_err(|why| Failure::unreachable(chain(&why)))?;
        echo.serve(app::told_to_stop()).await;
        Ok(Exit::Fine)
    })
}
