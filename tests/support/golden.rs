//! Golden cases: folders of `tests/golden` that hold `in.yaml`, and the folders of
//! `examples`. In an `in.yaml`, `$NAME.crt` and `$NAME.key` stand for files of
//! `tests/golden/certificates`.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};
use tidegate::{
    base::{HostPattern, ObjectKey},
    compile::Outcome,
    ir::{RecordSet, Zone},
    pipeline::{Core, show},
    report::Finding,
    source::files::{self, Loaded, Located, What},
    status::{self, Reality},
    translate::Options,
    xds::ResourceKey,
    yaml,
};

/// The time in all cases, 2025-06-15: what has no creationTimestamp came then.
pub const NOW: i64 = 1_750_000_000;

/// The files a case comes to.
pub const OUTPUTS: [&str; 4] = ["ir.yaml", "xds.yaml", "status.yaml", "dns.yaml"];

/// One case.
pub struct Case {
    pub name: String,
    /// Where its outputs are.
    pub folder: PathBuf,
    /// File name and text.
    pub manifests: Vec<(String, String)>,
    /// Examples run on one machine.
    loopback: bool,
}

pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|why| panic!("{}: {why}", path.display()))
}

/// Names in a folder, sorted.
pub fn names_in(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap_or_else(|why| panic!("{}: {why}", folder.display()));
    let mut names: Vec<_> = entries
        .map(|entry| entry.unwrap().file_name().into_string().expect("names here are UTF-8"))
        .collect();
    names.sort_unstable();
    names
}

/// All cases, by name.
pub fn cases() -> Vec<Case> {
    let golden = root().join("tests/golden");
    let mut cases = Vec::new();
    for name in names_in(&golden) {
        let folder = golden.join(&name);
        if folder.join("in.yaml").exists() {
            let manifests = vec![("in.yaml".to_owned(), with_certificates(&read(&folder.join("in.yaml"))))];
            cases.push(Case { name, folder, manifests, loopback: false });
        }
    }
    let examples = root().join("examples");
    for example in names_in(&examples) {
        let folder = examples.join(&example);
        let manifests: Vec<_> = names_in(&folder)
            .into_iter()
            .filter(|name| name.ends_with(".yaml"))
            .map(|name| (name.clone(), read(&folder.join(&name))))
            .collect();
        if !manifests.is_empty() {
            let name = format!("example-{example}");
            cases.push(Case { folder: golden.join(&name), name, manifests, loopback: true });
        }
    }
    cases
}

fn with_certificates(text: &str) -> String {
    let folder = root().join("tests/golden/certificates");
    let mut text = text.to_owned();
    for name in names_in(&folder).iter().filter(|name| text_file(name)) {
        let placeholder = format!("${name}");
        if text.contains(&placeholder) {
            let quoted = serde_json::to_string(&read(&folder.join(name))).unwrap();
            text = text.replace(&placeholder, &quoted);
        }
    }
    text
}

fn text_file(name: &str) -> bool {
    name.ends_with(".crt") || name.ends_with(".key")
}

/// Base64 of every private key that cases use.
pub fn private_keys() -> Vec<String> {
    let folder = root().join("tests/golden/certificates");
    let keys = names_in(&folder).into_iter().filter(|name| name.ends_with(".key"));
    keys.flat_map(|name| {
        let lines = read(&folder.join(name));
        lines
            .lines()
            .filter(|line| line.len() > 20 && !line.starts_with('-'))
            .map(str::to_owned)
            .collect::<Vec<_>>()
    })
    .collect()
}

/// A case, compiled.
pub struct Translated {
    pub core: Core,
    said: Vec<Located>,
}

impl Case {
    pub fn translate(&self) -> Translated {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in &self.manifests {
            fs::write(folder.path().join(name), text).unwrap();
        }
        let loaded = files::load_once(&[folder.path().to_owned()], NOW, &yaml::Limits::default());
        let Loaded { changes, findings, places: _ } = loaded.unwrap();
        let options = Options { loopback_endpoints: self.loopback, ..Options::default() };
        Translated { core: Core::in_memory(options, changes, NOW), said: findings }
    }
}

/// Knows what was read, and nothing of engines.
struct Unseen<'a>(&'a [Located]);

impl Reality for Unseen<'_> {
    fn now(&self) -> i64 {
        NOW
    }

    fn programmed(&self, _: &[ResourceKey]) -> bool {
        false
    }

    fn findings(&self, object: &ObjectKey) -> Vec<Finding> {
        let of = |located: &Located| match &located.what {
            What::Object(finding) if finding.object == *object => Some(finding.clone()),
            What::Object(_) | What::Text { .. } => None,
        };
        self.0.iter().filter_map(of).collect()
    }

    fn source(&self, _: &ObjectKey) -> Option<String> {
        None
    }
}

impl Translated {
    /// The text of each of [`OUTPUTS`], in their order.
    pub fn outputs(mut self) -> [String; 4] {
        let ir = show::ir(&self.core);
        let status = self.status();
        let dns = dns(&self.core);
        let mut xds = show::ads(&mut self.core);
        shorten(&mut xds);
        [ir, xds, status, serde_json::json!(dns)].map(|value| yaml::to_string(&value).unwrap() + "\n")
    }

    fn status(&self) -> serde_json::Value {
        let told = self.said.iter().filter_map(|located| match &located.what {
            What::Object(finding) => Some(finding.object.clone()),
            What::Text { .. } => None,
        });
        let mut objects = serde_json::json!(status::objects(&self.core, &Unseen(&self.said), told));
        for object in objects.as_array_mut().unwrap() {
            // There is no engine that it could be programmed on.
            object.as_object_mut().unwrap().remove("programmed");
        }
        let texts = self.said.iter().filter_map(|located| match &located.what {
            What::Text { severity, message } => {
                let line = located.place.as_ref().map_or(0, |place| place.line);
                Some(format!("line {line}: {severity:?}: {message}"))
            }
            What::Object(_) => None,
        });
        serde_json::json!({
            "objects": objects,
            "vips": status::vips(&self.core),
            "files": texts.collect::<Vec<_>>(),
        })
    }
}

/// Long inline data (certificates) as a hash: a changed one still shows.
fn shorten(value: &mut serde_json::Value) {
    match value {
        serde_json::Value::Object(fields) => {
            for (name, value) in fields {
                match value.as_str() {
                    Some(text) if name.starts_with("inline_") && text.len() > 100 => {
                        *value =
                            format!("({} bytes, {})", text.len(), tidegate::base::Version::of(text).short())
                                .into();
                    }
                    _ => shorten(value),
                }
            }
        }
        serde_json::Value::Array(items) => items.iter_mut().for_each(shorten),
        _ => {}
    }
}

/// Records as a zone file has them, by apex; those in no zone under `(no zone)`.
fn dns(core: &Core) -> BTreeMap<String, Vec<String>> {
    let outcomes = core.compiled().outcomes();
    let mut zones: BTreeMap<String, (u32, Vec<String>)> = BTreeMap::new();
    for outcome in &outcomes {
        if let Outcome::Zone(_, Some(zone)) = outcome {
            zones.insert(zone.apex.to_string(), (zone.ttl, zone_lines(zone)));
        }
    }
    let mut homeless = Vec::new();
    for outcome in &outcomes {
        let Outcome::Records(_, Some(records)) = outcome else { continue };
        let RecordSet { name, addresses, ttl } = records.as_ref();
        let host = name.hostname().expect("the default host has no records").as_str();
        let under =
            |apex: &str| host.strip_suffix(apex).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'));
        let zone = zones.iter_mut().filter(|(apex, _)| under(apex)).max_by_key(|(apex, _)| apex.len());
        let (zone_ttl, lines) = match zone {
            Some((_, (ttl, lines))) => (*ttl, lines),
            None => (0, &mut homeless),
        };
        lines.extend(addresses.iter().map(|ip| address_line(name, ttl.unwrap_or(zone_ttl), *ip)));
    }
    let mut all: BTreeMap<_, _> = zones.into_iter().map(|(apex, (_, lines))| (apex, lines)).collect();
    if !homeless.is_empty() {
        all.insert("(no zone)".to_owned(), homeless);
    }
    all
}

fn address_line(name: &HostPattern, ttl: u32, address: std::net::IpAddr) -> String {
    let kind = if address.is_ipv4() { "A" } else { "AAAA" };
    format!("{name}. {ttl} {kind} {address}")
}

fn zone_lines(zone: &Zone) -> Vec<String> {
    let Zone { apex, name_servers, glue, contact, ttl, negative_ttl, refresh, retry, expire } = zone;
    let primary = &name_servers[0];
    let mut lines = vec![format!(
        "{apex}. {ttl} SOA {primary}. {contact}. (serial) {refresh} {retry} {expire} {negative_ttl}"
    )];
    lines.extend(name_servers.iter().map(|server| format!("{apex}. {ttl} NS {server}.")));
    lines.extend(glue.iter().map(|(name, ip)| address_line(&HostPattern::Exact(name.clone()), *ttl, *ip)));
    lines
}
