//! Mutations of the corpora, the same ones each time: a bounded share of what
//! `make fuzz` does for as long as it is let. What is found there goes into
//! `tests/fuzz/corpus`, and is run here ever after.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking, its fixtures too")]

mod support;
#[path = "fuzz/src/lib.rs"]
mod targets;

use std::{
    fs,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    process::Command,
};
use support::golden::{cases, root};
use tidegate::settings::Settings;

/// Pieces of what is read, and of what breaks readers.
const WORDS: [&str; 52] = [
    "apiVersion: ",
    "kind: ",
    "metadata: ",
    "name: ",
    "namespace: ",
    "spec: ",
    "rules:",
    "host: ",
    "http: ",
    "paths: ",
    "path: ",
    "pathType: ",
    "Prefix",
    "Exact",
    "ImplementationSpecific",
    "backend: ",
    "service: ",
    "port: ",
    "number: ",
    "tls: ",
    "hosts: ",
    "secretName: ",
    "annotations: ",
    "labels: ",
    "ports: ",
    "addresses: ",
    "endpoints: ",
    "conditions: ",
    "ready: ",
    "~",
    "true",
    "-1",
    "65536",
    "99999999999999999999",
    "1e999",
    "''",
    "\"\\0\"",
    "\"\\u202e\"",
    "'*'",
    "'*.a.test'",
    "::1",
    "0.0.0.0/0",
    "[]",
    "{}",
    "- ",
    "\n---\n",
    "&a ",
    "*a",
    "/(?i)",
    "{1000}",
    "[^]",
    "\\pL",
];

/// SplitMix64 (Steele, Lea, Flood 2014).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: usize) -> usize {
        usize::try_from(self.next() % u64::try_from(n.max(1)).unwrap()).unwrap()
    }
}

fn mutate(seed: &[u8], other: &[u8], words: bool, random: &mut Random) -> Vec<u8> {
    let mut data = seed.to_vec();
    for _ in 0..=random.below(4) {
        let at = random.below(data.len() + 1);
        let end = (at + random.below(32)).min(data.len());
        match random.below(if words { 9 } else { 7 }) {
            0 => data.extend(at.checked_sub(1).map(|at| data[at])),
            1 if at < data.len() => data[at] ^= 1 << random.below(8),
            2 if at < data.len() => data[at] = u8::try_from(random.below(256)).unwrap(),
            3 => drop(data.drain(at..end)),
            4 => {
                let copy = data[at..end].to_vec();
                let to = random.below(data.len() + 1);
                data.splice(to..to, copy);
            }
            5 => {
                let from = random.below(other.len() + 1);
                let to = (from + random.below(64)).min(other.len());
                data.splice(at..end, other[from..to].iter().copied());
            }
            6 => data.insert(at, [0, 1, 0x7f, 0x80, 0xff][random.below(5)]),
            _ => {
                let word = WORDS[random.below(WORDS.len())];
                data.splice(at..end, word.bytes());
            }
        }
    }
    data
}

fn corpus(target: &str) -> Vec<Vec<u8>> {
    let folder = root().join("tests/fuzz/corpus").join(target);
    let mut files: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort_unstable();
    files.into_iter().map(|file| fs::read(file).unwrap()).collect()
}

/// Manifests of the golden cases, whole.
fn manifests() -> Vec<Vec<u8>> {
    let cases = cases();
    let texts =
        cases.iter().flat_map(|case| case.manifests.iter().map(|(_, text)| text.clone().into_bytes()));
    texts.filter(|text| text.len() < 8_000).collect()
}

fn kept(target: &str, data: &[u8]) -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("fuzz-{target}"));
    fs::write(&path, data).unwrap();
    path
}

/// Each seed as it is, then so many mutations.
fn run(target: &str, seeds: &[Vec<u8>], rounds: usize, words: bool, one: fn(&[u8])) {
    let mut random = Random(rounds as u64);
    let mut inputs = seeds.to_vec();
    for _ in 0..rounds {
        let [a, b] = [(); 2].map(|()| &seeds[random.below(seeds.len())]);
        inputs.push(mutate(a, b, words, &mut random));
    }
    for (n, data) in inputs.iter().enumerate() {
        if catch_unwind(AssertUnwindSafe(|| one(data))).is_err() {
            let path = kept(target, data);
            panic!("input {n}; again: make fuzz TARGET={target} INPUT={}", path.display());
        }
    }
}

#[test]
fn yaml() {
    run("yaml", &[corpus("yaml"), corpus("road"), manifests()].concat(), 3_000, true, targets::yaml);
}

#[test]
fn road() {
    run("road", &[corpus("road"), manifests()].concat(), 1_200, true, targets::road);
}

#[test]
fn session() {
    run("session", &corpus("session"), 20_000, false, targets::session);
}

#[test]
fn dns() {
    run("dns", &corpus("dns"), 6_000, false, targets::dns);
}

/// What became of mutated manifests is taken by stock Envoy.
#[test]
fn envoy_takes_what_mutations_come_to() {
    const WORLDS: usize = 60;
    let settings = Settings::from_environment().unwrap();
    let envoy = settings.find_envoy().unwrap_or_else(|_| {
        let install = Command::new("bash").arg(root().join("envoy/install.sh")).output().unwrap();
        assert!(install.status.success(), "{}", String::from_utf8_lossy(&install.stderr));
        settings.find_envoy().unwrap()
    });
    let seeds = [corpus("road"), manifests()].concat();
    let folder = tempfile::tempdir().unwrap();
    let mut random = Random(7);
    let mut tried = 0;
    while tried < WORLDS {
        let [a, b] = [(); 2].map(|()| &seeds[random.below(seeds.len())]);
        let data = mutate(a, b, true, &mut random);
        let (config, hosts) = targets::world(&data);
        if hosts == 0 {
            continue;
        }
        tried += 1;
        let path = folder.path().join("envoy.json");
        fs::write(&path, config).unwrap();
        let validation = Command::new(&envoy)
            .args(["--mode", "validate", "--log-level", "error", "--base-id", "41", "-c"])
            .arg(&path)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&validation.stderr);
        assert!(validation.status.success(), "{said}\ninput: {}", kept("envoy", &data).display());
    }
}
