//! `tidegate bootstrap`.

use super::output::{Exit, Failure, Format, line, print};
use crate::{
    app::{self, EngineFiles},
    base::chain,
    xds::{Admin, Bootstrap, ControlPlane, Share, build_bootstrap},
};
use std::{io::Write, net::SocketAddr, path::PathBuf};

/// Issues the certificate of an Envoy that runs elsewhere and prints its bootstrap.
///
/// Envoy needs ENVOY_DYNAMIC_MODULES_SEARCH_PATH to name the folder that holds
/// libtidegate_module.so. Such an Envoy lacks what one of `tidegate up` has: while
/// the control plane is away, hosts nobody has visited yet fail over TLS.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  tidegate bootstrap --state /var/lib/tidegate --engine edge-1 \\\n    \
    --server control.example.com:18000 --files /etc/envoy > /etc/envoy/bootstrap.json")]
pub(super) struct BootstrapArgs {
    /// State directory of the control plane: its authority signs.
    #[arg(long, value_name = "DIR")]
    state: PathBuf,
    /// The engine's name: letters, digits, '-'.
    #[arg(long, value_name = "NAME")]
    engine: String,
    /// HOST:PORT of the xDS server, as the engine reaches it.
    #[arg(long, value_name = "HOST:PORT")]
    server: String,
    /// Folder for engine.crt, engine.key and ca.crt, as the engine will see it.
    #[arg(long, value_name = "DIR")]
    files: PathBuf,
    /// Where Envoy's admin listens; loopback.
    #[arg(long, default_value = "127.0.0.1:9901", value_name = "ADDR")]
    envoy_admin: SocketAddr,
    #[arg(short, long, value_enum, default_value = "json")]
    output: Format,
}

/// Client connections at once on the engine.
const CONNECTIONS_MAX: u32 = 100_000;

pub(super) fn run(args: &BootstrapArgs) -> Result<Exit, Failure> {
    let BootstrapArgs { state, engine, server, files, envoy_admin, output } = args;
    if !envoy_admin.ip().is_loopback() {
        return Err(Failure::usage("Envoy's admin can stop it and has no password: keep it on loopback"));
    }
    let (host, port) = server
        .rsplit_once(':')
        .and_then(|(host, port)| Some((host.trim_matches(['[', ']']), port.parse::<u16>().ok()?)))
        .ok_or_else(|| Failure::usage("--server is HOST:PORT"))?;
    if !state.is_dir() {
        return Err(Failure::usage(format!("{} is no state directory", state.display())));
    }
    let issued = app::issue_engine(state, files, engine).map_err(|why| Failure::unreachable(chain(&why)))?;
    let EngineFiles { certificate, key, authorities } = issued;
    let bootstrap = build_bootstrap(&Bootstrap {
        node: engine.clone(),
        fleet: app::FLEET.to_owned(),
        control_plane: ControlPlane::Remote {
            addresses: vec![(host.to_owned(), port)],
            server_name: host.to_owned(),
            certificate_file: certificate.display().to_string(),
            key_file: key.display().to_string(),
            authorities_file: authorities.display().to_string(),
        },
        admin: Admin::Address(*envoy_admin),
        share: Share { heap_bytes: None, connections: CONNECTIONS_MAX },
    });
    let format = if *output == Format::Table { Format::Json } else { *output };
    print(format, &bootstrap, |_| Vec::new())?;
    line("")?;
    let _ = writeln!(
        std::io::stderr(),
        "tidegate: {} was signed for a year; the control plane's certificate must name '{host}' (--name)",
        certificate.display()
    );
    Ok(Exit::Fine)
}
