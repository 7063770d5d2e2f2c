//! What golden cases come to is taken by the pinned stock Envoy, each as one
//! static config.

mod support;

use std::{
    path::PathBuf,
    process::Command,
    sync::atomic::{AtomicUsize, Ordering},
    thread,
};
use support::golden::{cases, root};
use tidegate::{pipeline::show, settings::Settings};

/// Envoys validating at once.
const AT_ONCE: usize = 4;

/// TIDEGATE_ENVOY, or what is installed; else it is installed now.
fn envoy() -> PathBuf {
    let settings = Settings::from_environment().unwrap();
    if let Ok(envoy) = settings.find_envoy() {
        return envoy;
    }
    let install = Command::new("bash").arg(root().join("envoy/install.sh")).output().unwrap();
    assert!(install.status.success(), "{}", String::from_utf8_lossy(&install.stderr));
    settings.find_envoy().unwrap()
}

#[test]
fn envoy_takes_every_case() {
    let (envoy, cases, next) = (envoy(), cases(), AtomicUsize::new(0));
    let configs: Vec<_> =
        cases.iter().map(|case| (&case.name, show::standalone(&case.translate().core))).collect();
    let folder = tempfile::tempdir().unwrap();
    let validate = |n: usize| {
        let (name, config) = configs.get(n)?;
        let path = folder.path().join(format!("{name}.json"));
        std::fs::write(&path, serde_json::to_vec(config).unwrap()).unwrap();
        let id = n.to_string();
        let run = Command::new(&envoy)
            .args(["--mode", "validate", "--log-level", "error", "--base-id", &id, "-c"])
            .arg(&path)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&run.stderr).into_owned();
        Some((!run.status.success()).then(|| format!("--- {name}\n{said}")))
    };
    let work = || {
        let mut failures = Vec::new();
        while let Some(outcome) = validate(next.fetch_add(1, Ordering::Relaxed)) {
            failures.extend(outcome);
        }
        failures
    };
    let failures: Vec<String> = thread::scope(|scope| {
        let workers: Vec<_> = (0..AT_ONCE).map(|_| scope.spawn(work)).collect();
        workers.into_iter().flat_map(|worker| worker.join().unwrap()).collect()
    });
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}
