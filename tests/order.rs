//! The same manifests, spread over files in any order, translated by processes of
//! their own: the same bytes, versions too.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking, its fixtures too")]

mod support;

use std::{fs, path::Path, process::Command};
use support::golden::cases;

/// Cases in which the order could matter: who is older, who was first, who waits.
const TOGETHER: [&str; 6] = [
    "host-owned-by-oldest",
    "path-conflict",
    "wildcard-shadow",
    "same-sni-two-gateways",
    "default-backend",
    "zone",
];
const ORDERS: u64 = 5;
const FILES: usize = 7;

/// Each case's documents with its namespaces, hosts and other names made its own,
/// so that their union is one world.
fn documents() -> Vec<String> {
    let cases = cases();
    let mut documents = Vec::new();
    for (n, name) in TOGETHER.iter().enumerate() {
        let case = cases.iter().find(|case| case.name == *name).expect("the case is there");
        for (_, text) in &case.manifests {
            let text = text
                .replace("demo.test", &format!("demo{n}.test"))
                .replace("192.0.2.0/24", &format!("10.99.{n}.0/24"))
                .replace("name: public", &format!("name: public{n}"))
                .replace("name: demo}", &format!("name: demo{n}}}"))
                .replace("namespace: ", &format!("namespace: n{n}-"));
            documents.extend(text.split("\n---\n").map(str::to_owned));
        }
    }
    documents.sort_unstable();
    documents.dedup();
    documents
}

/// Fisher-Yates over a generator of Marsaglia's: the same order for the same seed.
fn shuffled(mut items: Vec<String>, seed: u64) -> Vec<String> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    for n in (1..items.len()).rev() {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        items.swap(n, usize::try_from(state % (n as u64 + 1)).unwrap());
    }
    items
}

fn write(folder: &Path, documents: &[String], seed: u64) {
    for (n, chunk) in documents.chunks(documents.len().div_ceil(FILES)).enumerate() {
        // File names sort otherwise in each order, too.
        let name = format!("{:x}-{n}.yaml", (seed + 3) * (n as u64 + 7) % 11);
        fs::write(folder.join(name), chunk.join("\n---\n")).unwrap();
    }
}

#[test]
fn trap_47_order_files_and_processes_do_not_matter() {
    let mut outputs = Vec::new();
    for seed in 0..ORDERS {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), &shuffled(documents(), seed), seed);
        let run = Command::new(env!("CARGO_BIN_EXE_tidegate"))
            .args(["translate", "--to", "ads", "-f"])
            .arg(folder.path())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&run.stderr);
        assert_eq!(run.status.code(), Some(1), "the cases hold errors, and no other: {said}");
        outputs.push(String::from_utf8(run.stdout).unwrap());
    }
    let resources: Vec<serde_json::Value> = serde_json::from_str(&outputs[0]).unwrap();
    assert!(resources.len() > 40, "{} resources", resources.len());
    for (seed, output) in outputs.iter().enumerate().skip(1) {
        assert_eq!(*output, outputs[0], "order {seed} comes to something else");
    }
}
