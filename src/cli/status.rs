//! `tidegate status`.

use super::{
    output::{Exit, Failure, Format, print, row},
    query::{AdminArg, ask},
};
use crate::{
    base::ObjectKey,
    status::{ObjectStatus, Status},
};
use hyper::Method;

/// Shows what is served, what is not, and why.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  tidegate status\n  tidegate status Ingress/shop/cart -o yaml\n\n\
    Ends with 1 when an object has an error.")]
pub(super) struct StatusArgs {
    /// One object: KIND/NAMESPACE/NAME, or KIND/NAME where it has no namespace.
    object: Option<ObjectKey>,
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
    #[command(flatten)]
    admin: AdminArg,
}

pub(super) fn run(args: &StatusArgs) -> Result<Exit, Failure> {
    let StatusArgs { object, output, admin } = args;
    let Some(object) = object else {
        let status: Status = ask(admin.admin, Method::GET, "/api/v1/status")?.unwrap_or_default();
        print(*output, &status, table)?;
        return Ok(exit(&status.objects));
    };
    let path = format!("/api/v1/status/{object}");
    let Some(status) = ask::<ObjectStatus>(admin.admin, Method::GET, &path)? else {
        return Err(Failure { exit: Exit::Findings, message: format!("{object} is not there") });
    };
    print(*output, &status, |status| objects(std::slice::from_ref(status)))?;
    Ok(exit(&[status]))
}

fn exit(objects: &[ObjectStatus]) -> Exit {
    let broken =
        objects.iter().any(|object| object.findings.iter().any(|finding| finding.severity == "Error"));
    if broken { Exit::Findings } else { Exit::Fine }
}

fn table(status: &Status) -> Vec<Vec<String>> {
    let Status { objects: all, engines, vips, files } = status;
    let mut rows = objects(all);
    rows.push(Vec::new());
    rows.push(row(["VIP CLAIM", "ADDRESSES", "POOL"]));
    for vip in vips {
        rows.push(vec![vip.claim.clone(), list(&vip.addresses), vip.pool.clone()]);
    }
    rows.push(Vec::new());
    rows.push(row(["ENGINE", "STATE", "XDS"]));
    for engine in engines {
        rows.push(vec![engine.name.clone(), engine.state.clone(), engine.sync.clone()]);
        rows.extend(engine.nacks.iter().map(|nack| vec![String::new(), nack.clone()]));
    }
    for file in files {
        rows.push(vec![file.file.clone(), file.message.clone()]);
    }
    rows
}

fn objects(objects: &[ObjectStatus]) -> Vec<Vec<String>> {
    let mut rows = vec![row(["OBJECT", "SERVED", "PROGRAMMED", "HOSTS", "ADDRESSES"])];
    for object in objects {
        let yes = |is| if is { "yes" } else { "no" }.to_owned();
        rows.push(vec![
            object.object.clone(),
            yes(object.served),
            yes(object.programmed),
            shortened(&object.hosts),
            list(&object.addresses),
        ]);
    }
    for object in objects.iter().filter(|object| !object.findings.is_empty()) {
        rows.push(Vec::new());
        rows.push(vec![format!(
            "{}{}",
            object.object,
            object.source.as_ref().map_or(String::new(), |at| format!(" ({at})"))
        )]);
        for finding in &object.findings {
            // A row of its own: a long sentence must not widen a column.
            let at = if finding.field.is_empty() { String::new() } else { format!(" {}", finding.field) };
            rows.push(vec![format!("  {} {}{at}: {}", finding.severity, finding.reason, finding.message)]);
        }
    }
    rows
}

const HOSTS_SHOWN: usize = 3;

fn shortened(hosts: &[String]) -> String {
    match hosts.len() {
        n if n > HOSTS_SHOWN => format!("{} and {} more", hosts[..HOSTS_SHOWN].join(","), n - HOSTS_SHOWN),
        _ => hosts.join(","),
    }
}

fn list(addresses: &[std::net::IpAddr]) -> String {
    addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}
