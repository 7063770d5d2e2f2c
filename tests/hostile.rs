//! Every field of every kind that we read, given what nobody should write there:
//! it costs little, its author is told by object and field, and nothing else is lost.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking, its fixtures too")]

use peak_alloc::PeakAlloc;
use rustix::time::{ClockId, clock_gettime};
use serde_json::{Value, json};
use std::{collections::BTreeSet, time::Duration};
use tidegate::{
    desired::Desired,
    inputs::{
        Change,
        fact::Age,
        read::{self, Reading},
    },
    translate::Options,
    yaml,
};

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

/// What one object may cost to read, and again to compile in a world of others:
/// CPU time of a release build, and memory at the worst moment.
const CPU_MAX: Duration = Duration::from_millis(100);
const BYTES_MAX: usize = 64 << 20;
/// Hosts that are served are no waste: each may have this.
const HOST_BYTES_MAX: usize = 8 << 10;
/// Without optimisation, and with checks of every sum.
const DEBUG_FACTOR: u32 = 30;

const ALL: &str = include_str!("hostile.yaml");

fn cpu() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.try_into().unwrap(), time.tv_nsec.try_into().unwrap())
}

fn read_one(value: &Value) -> Reading {
    read::read(value, &|_| Age { seconds: 1_000, batch: 0 })
}

/// What was read of a text, and the fields told of.
#[derive(Default)]
struct Read {
    changes: Vec<Change>,
    told: Vec<String>,
}

/// Reads a text as a user's file. `key`: which object it was made from.
fn read_text(text: &str, key: &str) -> Read {
    let mut read = Read::default();
    let documents = match yaml::documents(text, &yaml::Limits::default()) {
        Ok(documents) => documents,
        Err(error) => {
            read.told.push(format!("line {}: {error}", error.line));
            return read;
        }
    };
    for document in documents {
        match read_one(&document.value) {
            Reading::Fact { key, fact, findings } => {
                read.told.extend(findings.into_iter().map(|finding| finding.field));
                read.changes.push(Change { key, fact: Some(fact) });
            }
            Reading::Refused { key: named, findings } => {
                assert_eq!(named.to_string(), key, "another object is blamed");
                for finding in findings {
                    assert_eq!(finding.object.to_string(), key);
                    assert!(finding.to_string().len() < 4_000, "{} bytes", finding.to_string().len());
                    read.told.push(finding.field);
                }
            }
            Reading::Ignored(said) => read.told.extend(said),
            Reading::Nameless { field, message } => {
                assert!(message.len() < 4_000, "{} bytes", message.len());
                read.told.push(field);
            }
        }
    }
    read
}

/// Compiles it in the place of `key` in the world of all others; the fields told of.
fn compile(mut changes: Vec<Change>, key: &str, world: &[(String, Change)]) -> Vec<String> {
    let others = world.iter().filter(|(name, _)| name != key);
    changes.extend(others.map(|(_, change)| change.clone()));
    let mut desired = Desired::in_memory(Options::default(), changes, 1_750_000_000);
    let mut told = Vec::new();
    for finding in desired.compiled().all_findings().chain(desired.pool_findings().to_vec()) {
        let line = finding.to_string();
        assert!(line.len() < 4_000 && !line.chars().any(char::is_control), "{line}");
        if finding.object.to_string() == key {
            told.push(finding.field);
        }
    }
    drop(desired.publication());
    told
}

/// Every place in a value, from its root.
fn places(value: &Value, at: &str, to: &mut Vec<(String, String)>, pointer: &str) {
    let mut each = |key: &str, path: String, value: &Value| {
        let pointer = format!("{pointer}/{}", key.replace('~', "~0").replace('/', "~1"));
        to.push((path.clone(), pointer.clone()));
        places(value, &path, to, &pointer);
    };
    match value {
        Value::Object(fields) => {
            for (key, value) in fields {
                let path = if at.is_empty() { key.clone() } else { format!("{at}.{key}") };
                each(key, path, value);
            }
        }
        Value::Array(items) => {
            for (n, value) in items.iter().enumerate() {
                each(&n.to_string(), format!("{at}[{n}]"), value);
            }
        }
        _ => {}
    }
}

/// Of one place, or of one that holds it or lies in it.
fn concerns(field: &str, path: &str) -> bool {
    let within = |whole: &str, part: &str| {
        whole.strip_prefix(part).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
    };
    // Where one entry stands for all, it has no number.
    let path = if field.contains("[]") { without_numbers(path) } else { path.to_owned() };
    field.is_empty() || within(field, &path) || within(&path, field)
}

fn without_numbers(path: &str) -> String {
    path.chars().filter(|c| !c.is_ascii_digit()).collect()
}

/// What no field takes: of another type than all we read, or beyond all sizes.
fn wrong_types(right: &Value) -> Vec<(&'static str, Value)> {
    let mut all = vec![("a list of lists", json!([[[1]]])), ("a mapping", json!({"x": {"y": [1]}}))];
    match right {
        Value::Object(_) => {
            all.remove(1);
        }
        Value::Array(_) => {
            all[0].1 = json!([{"x": [1]}, [2]]);
        }
        _ => {}
    }
    if !right.is_number() {
        all.push(("a number", json!(-7.5)));
    }
    if !right.is_boolean() {
        all.push(("a truth value", json!(true)));
    }
    if !right.is_string() {
        all.push(("a text", json!("text")));
    }
    all
}

/// What has the right type and is nothing anybody means.
fn nonsense(right: &Value) -> Vec<(&'static str, Value)> {
    match right {
        Value::String(_) => vec![
            ("64 KiB", json!("a".repeat(64 << 10))),
            ("NUL", json!("a\0b")),
            ("bidi", json!("a\u{202e}b")),
            ("a nest of groups", json!("(".repeat(900))),
            ("a repetition of repetitions", json!("/((a{900}){900}){900}")),
        ],
        Value::Number(_) => vec![
            ("a huge number", json!(u64::MAX)),
            ("a negative number", json!(i64::MIN)),
            ("beyond all", json!(1e300)),
        ],
        Value::Array(items) => vec![("10,000 of it", Value::Array(vec![items[0].clone(); 10_000]))],
        Value::Object(_) => vec![(
            "1,000 strange keys",
            Value::Object((0..1_000).map(|n| (format!("k{n}"), json!("v"))).collect()),
        )],
        Value::Null | Value::Bool(_) => Vec::new(),
    }
}

/// Texts that grow, or that are large to begin with, and how many hosts each has.
fn large() -> Vec<(&'static str, usize, String)> {
    let ingress = |metadata: &str, rules: &str| {
        format!(
            "apiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata: {{name: large, namespace: shop{metadata}}}\n\
             spec:\n  ingressClassName: tidegate\n  rules:\n{rules}"
        )
    };
    let rule = |host: &str| {
        format!(
            "  - host: {host}\n    http: {{paths: [{{path: /, pathType: Prefix, backend: \
             {{service: {{name: web, port: {{number: 80}}}}}}}}]}}\n"
        )
    };
    let hosts: String = (0..10_000).map(|n| rule(&format!("h{n}.large.test"))).collect();
    let mut bomb = "a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n".to_owned();
    for level in 1..12 {
        let alias = format!("*a{}", level - 1);
        bomb.push_str(&format!("a{level}: &a{level} [{}]\n", [alias.as_str(); 10].join(",")));
    }
    let note = "x".repeat(1 << 20);
    vec![
        ("10,000 hosts", 10_000, ingress("", &hosts)),
        ("an annotation of 1 MB", 1, ingress(&format!(", annotations: {{note: {note}}}"), &rule("a.test"))),
        ("a name of 1 MB", 1, ingress("", &rule(&note))),
        ("aliases", 0, format!("{bomb}kind: Ingress\n")),
        ("depth", 0, format!("a: {}", "[".repeat(100_000))),
        ("wide", 0, format!("a: [{}]", "1,".repeat(500_000))),
    ]
}

struct Costs {
    cpu: (Duration, String),
    bytes: (usize, String),
}

impl Costs {
    /// Runs it, and holds it to what an object may cost.
    fn of<T>(&mut self, what: &str, hosts: usize, run: impl FnOnce() -> T) -> T {
        MEMORY.reset_peak_usage();
        let (before, begin) = (MEMORY.current_usage(), cpu());
        let made = run();
        let (spent, bytes) = (cpu() - begin, MEMORY.peak_usage().saturating_sub(before));
        let most = if cfg!(debug_assertions) { CPU_MAX * DEBUG_FACTOR } else { CPU_MAX };
        assert!(spent <= most, "{what}: {spent:?} of CPU");
        let bytes_max = BYTES_MAX.max(hosts * HOST_BYTES_MAX);
        assert!(bytes <= bytes_max, "{what}: {} MB", bytes >> 20);
        if spent > self.cpu.0 {
            self.cpu = (spent, what.to_owned());
        }
        if bytes > self.bytes.0 {
            self.bytes = (bytes, what.to_owned());
        }
        made
    }
}

/// Where any text may stand: it is only compared with names elsewhere, and is the
/// name of nothing; or it is a number with a ceiling of its own; or not read.
const HARMLESS: [&str; 18] = [
    "Namespace/shop metadata.annotations",
    "Namespace/shop metadata.labels",
    "IngressClass/tidegate metadata.annotations",
    "IngressClass/tidegate spec.controller",
    "IngressClass/tidegate spec.parameters.name",
    "InfraSetting/everything spec.backends.tls",
    "InfraSetting/everything spec.hostGrants[0].namespaces",
    "InfraSetting/everything spec.timeouts",
    "InfraSetting/everything spec.vip.pool",
    "VipPool/public spec.namespaces",
    "Ingress/shop/shop metadata.annotations",
    "Ingress/shop/shop spec.rules[0].http.paths[0].path",
    "Ingress/shop/shop spec.rules[2].http.paths[0].path",
    "EndpointSlice/shop/web-1 metadata.labels",
    "EndpointSlice/shop/web-1 ports[0].name",
    "Secret/shop/shop-tls type",
    "Secret/shop/shop-tls data",
    "Secret/shop/shop-tls stringData",
];

#[test]
fn every_field_is_named_and_costs_little() {
    let documents = yaml::documents(ALL, &yaml::Limits::default()).unwrap();
    let values: Vec<Value> = documents.into_iter().map(|document| document.value).collect();
    let world: Vec<_> = values
        .iter()
        .map(|value| match read_one(value) {
            Reading::Fact { key, fact, findings } => {
                assert!(findings.is_empty(), "{findings:?}");
                (key.to_string(), Change { key, fact: Some(fact) })
            }
            other => panic!("{other:?}"),
        })
        .collect();
    let kinds: BTreeSet<_> = world.iter().map(|(_, change)| change.key.kind).collect();
    assert_eq!(kinds.len(), 9, "every kind we read");
    let mut costs = Costs { cpu: Default::default(), bytes: Default::default() };
    let mut silent = Vec::new();
    let mut tried = 0;
    for (what, hosts, text) in large() {
        let read = costs.of(&format!("{what}, read"), 0, || read_text(&text, "Ingress/shop/large"));
        costs.of(&format!("{what}, compiled"), hosts, || compile(read.changes, "", &world));
        tried += 1;
    }
    for (n, value) in values.iter().enumerate() {
        let key = &world[n].0;
        let mut all = Vec::new();
        places(value, "", &mut all, "");
        for (path, pointer) in all {
            let right = value.pointer(&pointer).unwrap().clone();
            let wrong = wrong_types(&right).into_iter().map(|row| (true, row));
            let odd = nonsense(&right).into_iter().map(|row| (false, row));
            for (type_, (what, instead)) in wrong.chain(odd) {
                let mut changed = value.clone();
                *changed.pointer_mut(&pointer).unwrap() = instead;
                let text = yaml::to_string(&changed).unwrap();
                let name = format!("{key} {path}: {what}");
                let Read { changes, mut told } =
                    costs.of(&format!("{name}, read"), 0, || read_text(&text, key));
                let taken = !changes.is_empty();
                if taken {
                    told.extend(costs.of(&format!("{name}, compiled"), 0, || compile(changes, key, &world)));
                }
                tried += 1;
                let place = format!("{key} {path}");
                let much = right.is_array() || right.is_object();
                let free = much || HARMLESS.iter().any(|place_| place.starts_with(place_));
                let named = told.iter().any(|field| concerns(field, &path));
                let identity = matches!(
                    path.as_str(),
                    "kind" | "apiVersion" | "metadata" | "metadata.name" | "metadata.namespace"
                );
                if !(named || identity && !taken || free && !type_) {
                    silent.push(format!("{name}: taken {taken}, told {told:?}"));
                }
            }
        }
    }
    println!(
        "{tried} objects; most CPU: {:?}; most memory: {} KB, {}",
        costs.cpu,
        costs.bytes.0 >> 10,
        costs.bytes.1
    );
    assert!(silent.is_empty(), "{} of {tried} not told:\n{}", silent.len(), silent.join("\n"));
}
