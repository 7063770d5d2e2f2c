//! Real folders, a real watcher: every wait is for an event, with a deadline.

use super::{tree::GONE_GRACE, *};
use crate::{
    base::ObjectKind,
    inputs::{Fact, Inputs},
};
use std::{fs, sync::mpsc::RecvTimeoutError};
use tokio::sync::{mpsc, oneshot};

const DEADLINE: Duration = Duration::from_secs(30);

fn service(name: &str, port: u16) -> String {
    format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\nspec: {{ports: [{{port: {port}}}]}}\n"
    )
}

fn ingress(name: &str) -> String {
    format!(
        "apiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata: {{name: {name}}}\nspec: {{defaultBackend: \
         {{service: {{name: web, port: {{number: 80}}}}}}}}\n"
    )
}

/// Without the periodic scan: it would find what events should have told.
fn options() -> Options {
    Options { rescan: Duration::from_secs(3_600), ..Options::default() }
}

/// A watched folder, and what its batches add up to.
struct Watched {
    root: PathBuf,
    batches: mpsc::Receiver<Batch>,
    inputs: Inputs,
    findings: BTreeMap<Arc<Path>, Vec<Located>>,
    seen: Ages,
    whole: bool,
    first: u32,
}

impl Watched {
    fn new(root: &Path, options: Options) -> Self {
        Self::knowing(root, options, Ages::new())
    }

    fn knowing(root: &Path, options: Options, seen: Ages) -> Self {
        let roots = vec![root.to_owned()];
        let (sender, known) = oneshot::channel();
        sender.send(seen.clone()).expect("it is waited for");
        let (batches, run) = watch(roots, options, known, || 1_000).expect("watches");
        #[expect(clippy::disallowed_methods, reason = "the test stands for app, which spawns")]
        tokio::spawn(run);
        Self {
            root: root.to_owned(),
            batches,
            inputs: Inputs::new(),
            findings: BTreeMap::new(),
            seen,
            whole: true,
            first: 0,
        }
    }

    /// Takes batches in until this holds.
    async fn until(&mut self, what: &'static str, holds: impl Fn(&Self) -> bool) {
        let deadline = tokio::time::Instant::now() + DEADLINE;
        while !holds(self) {
            let batch = tokio::time::timeout_at(deadline, self.batches.recv()).await;
            let Ok(Some(batch)) = batch else {
                panic!("never came: {what}; there are {:?}, {:?}", self.ports(), self.findings)
            };
            let Batch { noticed, changes, first, whole, findings, places: _, seen } = batch;
            assert!(noticed.is_some(), "it is known since when this is under way");
            for change in changes {
                assert!(self.inputs.apply(change), "every change changes something");
            }
            self.first += u32::from(first);
            self.whole = whole;
            self.findings.extend(findings);
            for (key, age) in seen {
                match age {
                    Some(age) => self.seen.insert(key, age),
                    None => self.seen.remove(&key),
                };
            }
        }
    }

    async fn until_ports(&mut self, expected: &[(&str, u16)]) {
        let expected: Vec<_> = expected.iter().map(|(name, port)| ((*name).to_owned(), *port)).collect();
        self.until("ports", |this| this.ports() == expected).await;
    }

    /// Services by name, with their first port.
    fn ports(&self) -> Vec<(String, u16)> {
        let services = self.inputs.of_kind(ObjectKind::Service);
        services
            .filter_map(|(key, fact)| match fact {
                Fact::Service(service) => Some((key.name.to_string(), service.ports[0].port)),
                _ => None,
            })
            .collect()
    }

    fn write(&self, path: &str, text: &str) {
        fs::write(self.root.join(path), text).expect("writes");
    }

    fn told(&self, text: &str) -> bool {
        self.findings.values().flatten().any(|found| found.to_string().contains(text))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn writes_renames_and_removals_are_seen() {
    let folder = tempfile::tempdir().expect("a folder");
    fs::write(folder.path().join("a.yaml"), service("a", 80)).expect("writes");
    let mut watched = Watched::new(folder.path(), options());
    watched.until("the first batch", |this| this.first == 1).await;
    assert_eq!(watched.ports(), [("a".to_owned(), 80)]);

    watched.write("a.yaml", &service("a", 81));
    watched.until_ports(&[("a", 81)]).await;

    watched.write("a.yaml.tmp", &service("a", 82));
    fs::rename(watched.root.join("a.yaml.tmp"), watched.root.join("a.yaml")).expect("renames");
    watched.until_ports(&[("a", 82)]).await;

    watched.write("b.yml", &service("b", 80));
    watched.until_ports(&[("a", 82), ("b", 80)]).await;
    fs::remove_file(watched.root.join("b.yml")).expect("removes");
    watched.until_ports(&[("a", 82)]).await;
    watched.write("b.yml", &service("b", 83));
    watched.until_ports(&[("a", 82), ("b", 83)]).await;

    watched.write("a.yaml", "kind: [");
    watched.until("the finding", |this| this.told("unclosed bracket")).await;
    assert_eq!((watched.ports().len(), watched.whole), (2, false));
    watched.write("a.yaml", &service("a", 84));
    watched.until_ports(&[("a", 84), ("b", 83)]).await;
    assert!(watched.whole && !watched.told("unclosed bracket"));
    assert_eq!(watched.first, 1, "there is one first batch");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_gone_goes_though_other_files_change_all_the_time() {
    let folder = tempfile::tempdir().expect("a folder");
    let (gone, busy) = (folder.path().join("a.yaml"), folder.path().join("busy.yaml"));
    fs::write(&gone, service("a", 80)).expect("writes");
    let mut watched = Watched::new(folder.path(), options());
    watched.until_ports(&[("a", 80)]).await;
    let (stop, stopped) = std::sync::mpsc::channel::<()>();
    let writer = std::thread::spawn(move || {
        for port in 1.. {
            fs::write(&busy, service("busy", port)).expect("writes");
            if stopped.recv_timeout(GONE_GRACE / 4) != Err(RecvTimeoutError::Timeout) {
                return;
            }
        }
    });
    watched.until("a change", |this| this.ports().len() == 2).await;
    fs::remove_file(gone).expect("removes");
    watched.until("the end", |this| this.ports().len() == 1).await;
    drop(stop);
    writer.join().expect("ends");
}

#[tokio::test(flavor = "multi_thread")]
async fn folders_come_move_and_go() {
    let folder = tempfile::tempdir().expect("a folder");
    let elsewhere = tempfile::tempdir().expect("another folder");
    let outside = elsewhere.path().join("team");
    fs::create_dir_all(outside.join("deep")).expect("folders");
    fs::write(outside.join("a.yaml"), service("a", 80)).expect("writes");
    fs::write(outside.join("deep/b.yaml"), service("b", 80)).expect("writes");
    let mut watched = Watched::new(folder.path(), options());
    watched.until("the first batch, with nothing in it", |this| this.first == 1).await;

    fs::rename(&outside, watched.root.join("team")).expect("moves in");
    watched.until_ports(&[("a", 80), ("b", 80)]).await;
    watched.write("team/deep/b.yaml", &service("b", 81));
    watched.until_ports(&[("a", 80), ("b", 81)]).await;
    fs::rename(watched.root.join("team"), watched.root.join("crew")).expect("moves");
    watched.write("crew/deep/b.yaml", &service("b", 82));
    watched.until_ports(&[("a", 80), ("b", 82)]).await;
    fs::remove_dir_all(watched.root.join("crew")).expect("removes");
    watched.until_ports(&[]).await;
    fs::create_dir_all(watched.root.join("x/y")).expect("folders");
    watched.write("x/y/c.json", r#"{"apiVersion": "v1", "kind": "Service", "metadata": {"name": "c"}, "spec": {"ports": [{"port": 1}]}}"#);
    watched.until_ports(&[("c", 1)]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_to_a_folder_is_followed_whatever_it_is_called() {
    let folder = tempfile::tempdir().expect("a folder");
    let elsewhere = tempfile::tempdir().expect("another folder");
    fs::write(elsewhere.path().join("a.yaml"), service("a", 80)).expect("writes");
    let mut watched = Watched::new(folder.path(), options());
    watched.until("the first batch", |this| this.first == 1).await;
    watched.write("notes.txt", "nothing of ours");
    std::os::unix::fs::symlink(elsewhere.path(), watched.root.join("team")).expect("links");
    watched.until_ports(&[("a", 80)]).await;
    fs::write(elsewhere.path().join("a.yaml"), service("a", 81)).expect("writes");
    watched.until_ports(&[("a", 81)]).await;
    fs::remove_file(watched.root.join("team")).expect("unlinks");
    watched.until_ports(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_first_load_is_complete_when_it_says_so() {
    const FILES: usize = 2_500;
    let folder = tempfile::tempdir().expect("a folder");
    for index in 0..FILES {
        let text = [service(&format!("s{index}"), 80), ingress(&format!("i{index}"))].join("---\n");
        fs::write(folder.path().join(format!("{index}.yaml")), text).expect("writes");
    }
    let mut watched = Watched::new(folder.path(), options());
    watched.until("the first batch", |this| this.first == 1).await;
    assert_eq!((watched.inputs.len(), watched.seen.len()), (2 * FILES, FILES));
    let ages: std::collections::BTreeSet<_> = watched.seen.values().collect();
    assert_eq!(ages.len(), 1, "what comes in one pass is equally old");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_config_map_mount_is_followed() {
    let folder = tempfile::tempdir().expect("a folder");
    let root = folder.path();
    let version = |name: &str, port| {
        fs::create_dir(root.join(name)).expect("a folder");
        fs::write(root.join(name).join("a.yaml"), service("a", port)).expect("writes");
        std::os::unix::fs::symlink(name, root.join("..data_tmp")).expect("links");
        fs::rename(root.join("..data_tmp"), root.join("..data")).expect("swaps");
    };
    version("..2024_1", 80);
    std::os::unix::fs::symlink("..data/a.yaml", root.join("a.yaml")).expect("links");
    let mut watched = Watched::new(root, options());
    watched.until_ports(&[("a", 80)]).await;
    version("..2024_2", 81);
    watched.until_ports(&[("a", 81)]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_root_that_vanishes_deletes_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let root = folder.path().join("mount");
    fs::create_dir(&root).expect("a folder");
    fs::write(root.join("a.yaml"), service("a", 80)).expect("writes");
    let mut watched = Watched::new(&root, options());
    watched.until_ports(&[("a", 80)]).await;
    fs::rename(&root, folder.path().join("unmounted")).expect("moves");
    watched.until("the finding", |this| this.told("cannot be read")).await;
    assert_eq!((watched.ports().len(), watched.whole), (1, false));
    fs::create_dir(&root).expect("a folder");
    fs::write(root.join("a.yaml"), service("a", 81)).expect("writes");
    watched.until_ports(&[("a", 81)]).await;
    watched.until("all is well", |this| this.whole && !this.told("cannot be read")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_root_delays_the_first_batch() {
    let folder = tempfile::tempdir().expect("a folder");
    let root = folder.path().join("later");
    let mut watched = Watched::new(&root, Options { rescan: Duration::from_millis(50), ..options() });
    watched.until("the finding", |this| this.told("No such file")).await;
    assert_eq!((watched.first, watched.whole), (0, false));
    fs::create_dir(&root).expect("a folder");
    watched.until("the first batch", |this| this.first == 1 && this.whole).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn first_seen_ages_are_told_and_forgotten() {
    let folder = tempfile::tempdir().expect("a folder");
    fs::write(folder.path().join("a.yaml"), ingress("old")).expect("writes");
    let key = |name: &str| ObjectKey::new(ObjectKind::Ingress, "default", name);
    let age = Age { seconds: 5, batch: 2 };
    let known = BTreeMap::from([(key("old"), age), (key("gone"), age)]);
    let mut watched = Watched::knowing(folder.path(), options(), known);
    watched.until("the first batch", |this| this.first == 1).await;
    assert_eq!(watched.seen, BTreeMap::from([(key("old"), age)]), "what is not there is forgotten");
    let Some(Fact::Ingress(read)) = watched.inputs.get(&key("old")) else { panic!("an Ingress") };
    assert_eq!(read.age, age);
    watched.write("b.yaml", &ingress("new"));
    watched.until("the new one", |this| this.seen.contains_key(&key("new"))).await;
    assert_eq!(watched.seen[&key("new")], Age { seconds: 1_000, batch: 3 });
    fs::remove_file(watched.root.join("b.yaml")).expect("removes");
    watched.until("its end", |this| !this.seen.contains_key(&key("new"))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_single_file_is_watched_without_its_neighbours() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("objects.conf");
    fs::write(&path, service("a", 80)).expect("writes");
    let mut watched = Watched::new(&path, options());
    watched.root = folder.path().to_owned();
    watched.until_ports(&[("a", 80)]).await;
    watched.write("other.yaml", &service("other", 80));
    watched.write("objects.conf", &service("a", 81));
    watched.until_ports(&[("a", 81)]).await;
}

#[test]
fn loads_once_with_places() {
    let folder = tempfile::tempdir().expect("a folder");
    let root = folder.path();
    fs::write(root.join("a.yaml"), format!("# one\n{}---\n{}", service("a", 80), service("b", 0)))
        .expect("writes");
    fs::write(root.join("kustomization.yaml"), "resources: [a.yaml]").expect("writes");
    let limits = yaml::Limits::default();
    let loaded = load_once(&[root.to_owned()], 7, &limits).expect("loads");
    assert_eq!(loaded.changes.len(), 1);
    let told: Vec<String> = loaded.findings.iter().map(Located::to_string).collect();
    let file = root.join("a.yaml").display().to_string();
    assert_eq!(
        told,
        [format!(
            "{file}:7: Service/default/b spec.ports[0].port: Error Invalid: 0 is no port: must be 1 to 65535"
        )]
    );
    let finding = crate::report::Finding {
        object: loaded.changes[0].key.clone(),
        severity: crate::report::Severity::Info,
        reason: crate::report::Reason::NoZone,
        field: "spec".to_owned(),
        message: "said elsewhere".to_owned(),
    };
    let located = loaded.places.locate(finding).to_string();
    assert_eq!(located, format!("{file}:2: Service/default/a spec: Info NoZone: said elsewhere"));
    let missing = load_once(&[root.join("missing")], 7, &limits).expect_err("is not there");
    assert!(missing.to_string().contains("check the path"), "{missing}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_storm_that_nobody_takes_in_loses_nothing() {
    // Each file is three events, and the kernel keeps 16,384.
    const FILES: usize = 6_000;
    let folder = tempfile::tempdir().expect("a folder");
    let mut watched = Watched::new(folder.path(), options());
    watched.until("the first batch", |this| this.first == 1).await;
    // Meanwhile no batch is taken in: batches and events wait, then events are lost.
    for index in 0..FILES {
        watched.write(&format!("s{index}.yaml"), &service(&format!("s{index}"), 80));
    }
    watched.until("all of them", |this| this.inputs.len() == FILES).await;
}

#[test]
fn file_contents_do_not_print() {
    let seen = Seen::Bytes(b"canary".to_vec());
    assert_eq!(format!("{seen:?}"), "Bytes(6 bytes)");
}
