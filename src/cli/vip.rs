//! `tidegate vip`.

use super::{
    output::{Exit, Failure, Format, line, print, row},
    query::{AdminArg, ask},
};
use crate::{
    base::chain,
    status::VipStatus,
    store::{ExportDoc, HistoryEntry, Store},
};
use clap::Subcommand;
use hyper::Method;
use std::{
    fs,
    io::{Read, Write},
    net::IpAddr,
    path::{Path, PathBuf},
};

/// Shows and mends the ledger of VIPs.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  tidegate vip list\n  tidegate vip history -o json\n  tidegate vip release public\n  \
    tidegate vip export --state /var/lib/tidegate > ledger.json\n  tidegate vip import --state /var/lib/tidegate ledger.json"
)]
pub(super) struct VipArgs {
    #[command(subcommand)]
    command: VipCommand,
}

#[derive(Debug, Subcommand)]
enum VipCommand {
    /// Which claim holds which addresses.
    List {
        #[arg(short, long, value_enum, default_value_t)]
        output: Format,
        #[command(flatten)]
        admin: AdminArg,
    },
    /// What happened to addresses, newest first.
    History {
        #[arg(short, long, value_enum, default_value_t)]
        output: Format,
        #[command(flatten)]
        admin: AdminArg,
    },
    /// Takes the addresses of a claim that no object stands behind any more.
    Release {
        claim: String,
        #[command(flatten)]
        admin: AdminArg,
    },
    /// Prints the ledger of a state directory that no tidegate is using.
    ///
    /// Where the ledger is damaged it prints what its backup tells.
    Export {
        #[arg(long, value_name = "DIR")]
        state: PathBuf,
    },
    /// Makes the ledger of a state directory anew from an export.
    Import {
        #[arg(long, value_name = "DIR")]
        state: PathBuf,
        /// A file that `vip export` printed; `-` for standard input.
        file: PathBuf,
    },
}

pub(super) fn run(args: VipArgs) -> Result<Exit, Failure> {
    match args.command {
        VipCommand::List { output, admin } => {
            let vips: Vec<VipStatus> = ask(admin.admin, Method::GET, "/api/v1/vips")?.unwrap_or_default();
            print(output, &vips, list)?;
            Ok(if vips.iter().any(|vip| vip.addresses.is_empty()) { Exit::Findings } else { Exit::Fine })
        }
        VipCommand::History { output, admin } => {
            let events: Vec<HistoryEntry> =
                ask(admin.admin, Method::GET, "/api/v1/vips/history")?.unwrap_or_default();
            print(output, &events, history)?;
            Ok(Exit::Fine)
        }
        VipCommand::Release { claim, admin } => release(&claim, &admin),
        VipCommand::Export { state } => export(&state),
        VipCommand::Import { state, file } => import(&state, &file),
    }
}

fn list(vips: &Vec<VipStatus>) -> Vec<Vec<String>> {
    let mut rows = vec![row(["CLAIM", "ADDRESSES", "POOL"])];
    for vip in vips {
        let addresses: Vec<_> = vip.addresses.iter().map(ToString::to_string).collect();
        rows.push(vec![vip.claim.clone(), addresses.join(","), vip.pool.clone()]);
        rows.extend(
            vip.findings.iter().map(|finding| vec![format!("  {}: {}", finding.severity, finding.message)]),
        );
    }
    rows
}

fn history(events: &Vec<HistoryEntry>) -> Vec<Vec<String>> {
    let mut rows = vec![row(["UNIX TIME", "ADDRESS", "CLAIM", "EVENT"])];
    for HistoryEntry { at, address, claim, event } in events {
        rows.push(vec![at.to_string(), address.to_string(), claim.to_string(), format!("{event:?}")]);
    }
    rows
}

fn release(claim: &str, admin: &AdminArg) -> Result<Exit, Failure> {
    let encoded: String = claim.bytes().map(|byte| format!("%{byte:02x}")).collect();
    let path = format!("/api/v1/vips/release?claim={encoded}");
    match ask::<Vec<IpAddr>>(admin.admin, Method::POST, &path)? {
        Some(addresses) => {
            let addresses: Vec<_> = addresses.iter().map(ToString::to_string).collect();
            line(&format!("released {}\n", addresses.join(", ")))?;
            Ok(Exit::Fine)
        }
        None => Err(Failure { exit: Exit::Findings, message: format!("{claim} holds no address") }),
    }
}

fn export(state: &Path) -> Result<Exit, Failure> {
    if !state.is_dir() {
        return Err(Failure::usage(format!("{} is no state directory", state.display())));
    }
    let document = match Store::open(state) {
        Ok(opened) => opened.store.export(),
        Err(damaged @ crate::store::StoreError::InUse { .. }) => {
            return Err(Failure::unreachable(chain(&damaged)));
        }
        Err(damaged) => {
            let _ =
                writeln!(std::io::stderr(), "tidegate: {}; this is what its backup tells", chain(&damaged));
            Store::salvage(state)
        }
    };
    let document = document.map_err(|why| Failure::unreachable(chain(&why)))?;
    print(Format::Json, &document, |_| Vec::new())?;
    Ok(Exit::Fine)
}

fn import(state: &Path, path: &Path) -> Result<Exit, Failure> {
    let text = if path.as_os_str() == "-" {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text)?;
        text
    } else {
        fs::read_to_string(path).map_err(|why| Failure::usage(format!("{}: {why}", path.display())))?
    };
    let document: ExportDoc = serde_json::from_str(&text)
        .map_err(|why| Failure::usage(format!("{} is no export of a ledger: {why}", path.display())))?;
    Store::import(state, &document).map_err(|why| Failure::unreachable(chain(&why)))?;
    line(&format!("the ledger of {} holds {} addresses\n", state.display(), document.addresses.len()))?;
    Ok(Exit::Fine)
}
