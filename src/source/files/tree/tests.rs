//! Looks at files in, changes out: what each mishap may and may not do.

use super::*;
use crate::inputs::Inputs;
use proptest::prelude::*;

fn service(name: &str, port: u16) -> String {
    format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\nspec: {{ports: [{{port: {port}}}]}}\n"
    )
}

fn stream(documents: &[String]) -> String {
    documents.join("---\n")
}

/// A tree with a clock, and what its changes and findings add up to.
struct World {
    tree: Tree,
    now: Duration,
    inputs: Inputs,
    findings: BTreeMap<Arc<Path>, Vec<Located>>,
    places: super::super::Places,
}

impl World {
    fn new() -> Self {
        Self {
            tree: Tree::new(yaml::Limits::default()),
            now: Duration::from_secs(100),
            inputs: Inputs::new(),
            findings: BTreeMap::new(),
            places: super::super::Places::default(),
        }
    }

    /// One pass; the keys that changed, `-` before those that went.
    fn pass(&mut self, looks: &[(&str, Seen)]) -> Vec<String> {
        let looks = looks.iter().map(|(path, seen)| (Arc::from(Path::new(path)), seen.clone())).collect();
        let age = Age { seconds: 0, batch: 0 };
        let Outcome { changes, findings, places } = self.tree.pass(looks, self.now, &|_| age);
        self.places.apply(places);
        for (path, found) in findings {
            assert_ne!(self.findings.get(&path), Some(&found), "only what changed is told");
            self.findings.insert(path, found);
        }
        let mut keys = Vec::new();
        for change in changes {
            let sign = if change.fact.is_none() { "-" } else { "" };
            keys.push(format!("{sign}{}", change.key));
            assert!(self.inputs.apply(change), "every change changes something");
        }
        keys
    }

    fn write(&mut self, path: &str, text: &str) -> Vec<String> {
        self.pass(&[(path, Seen::Bytes(text.as_bytes().to_vec()))])
    }

    fn gone(&mut self, path: &str) -> Vec<String> {
        self.pass(&[(path, Seen::Gone)])
    }

    fn later(&mut self, by: Duration) -> &mut Self {
        self.now += by;
        self
    }

    #[track_caller]
    fn told(&self, expected: &[&str]) {
        let told: Vec<String> = self.findings.values().flatten().map(Located::to_string).collect();
        assert_eq!(told, expected);
    }
}

#[test]
fn only_what_differs_is_a_change() {
    let mut world = World::new();
    let text = |port| stream(&[service("a", 80), service("b", port), service("c", 80)]);
    assert_eq!(
        world.write("s.yaml", &text(80)),
        ["Service/default/a", "Service/default/b", "Service/default/c"]
    );
    assert_eq!(world.write("s.yaml", &text(81)), ["Service/default/b"]);
    assert_eq!(world.write("s.yaml", &text(81)), [""; 0]);
    assert_eq!(world.write("s.yaml", &format!("# a comment\n\n{}", text(81))), [""; 0]);
    let key = ObjectKey::new(crate::base::ObjectKind::Service, "default", "b");
    assert_eq!(world.places.get(&key).expect("a place").to_string(), "s.yaml:8", "lines move along");
    world.told(&[]);
}

#[test]
fn a_broken_document_keeps_what_it_last_held_and_harms_no_other() {
    let mut world = World::new();
    world.write("s.yaml", &stream(&[service("a", 80), service("b", 80)]));
    let broken = stream(&[service("a", 81), "kind: [Service\n".to_owned()]);
    assert_eq!(world.write("s.yaml", &broken), ["Service/default/a"]);
    assert!(!world.tree.whole());
    world.told(&[
        "s.yaml:6: Error: column 7: unclosed bracket '['; the 1 object last read here stays in force",
    ]);
    let mended = stream(&[service("a", 81), service("b", 82)]);
    assert_eq!(world.write("s.yaml", &mended), ["Service/default/b"]);
    world.told(&[]);
    assert!(world.tree.whole());
}

#[test]
fn a_file_that_is_no_text_keeps_all() {
    let mut world = World::new();
    world.write("s.yaml", &stream(&[service("a", 80), service("b", 80)]));
    assert_eq!(world.pass(&[("s.yaml", Seen::Bytes(b"a: \xff".to_vec()))]), [""; 0]);
    world.told(&["s.yaml:1: Error: column 4: is not UTF-8 here; save it as UTF-8; the 2 objects last read here stay in force"]);
    assert_eq!(world.pass(&[("s.yaml", Seen::Unreadable("Permission denied".to_owned()))]), [""; 0]);
    assert_eq!(world.inputs.len(), 2);
    assert!(!world.tree.whole());
}

#[test]
fn a_refused_object_keeps_its_last_fact() {
    let mut world = World::new();
    world.write("s.yaml", &service("a", 80));
    assert_eq!(world.write("s.yaml", &service("a", 0)), [""; 0]);
    world.told(&[
        "s.yaml:1: Service/default/a spec.ports[0].port: Error Invalid: 0 is no port: must be 1 to 65535",
    ]);
    assert_eq!(world.write("s.yaml", &service("a", 81)), ["Service/default/a"]);
    world.told(&[]);
}

#[test]
fn strangers_are_told_and_ignored() {
    let mut world = World::new();
    let text = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web}\n---\nkind: 3\n";
    assert_eq!(world.write("s.yaml", text), [""; 0]);
    world.told(&[
        "s.yaml:1: Info: Deployment web (apps/v1) is of a kind that Tidegate does not read; ignored",
        "s.yaml:5: Error: kind must be a text",
    ]);
}

#[test]
fn the_first_file_wins_and_the_next_takes_over() {
    let mut world = World::new();
    assert_eq!(world.write("b.yaml", &service("a", 82)), ["Service/default/a"]);
    assert_eq!(world.write("a.yaml", &service("a", 81)), ["Service/default/a"]);
    let duplicate =
        "b.yaml:1: Service/default/a: Error Duplicate: also in a.yaml:1, which is used; remove one of them";
    world.told(&[duplicate]);
    assert_eq!(world.gone("a.yaml"), ["Service/default/a"], "the other takes over at once");
    world.told(&[]);
    world.later(GONE_GRACE);
    assert_eq!(world.gone("a.yaml"), [""; 0]);
    assert_eq!(world.inputs.len(), 1);
    let twice = stream(&[service("x", 1), service("x", 2)]);
    assert_eq!(world.write("t.yaml", &twice), ["Service/default/x"]);
    world.told(&[
        "t.yaml:6: Service/default/x: Error Duplicate: also in t.yaml:1, which is used; remove one of them",
    ]);
}

#[test]
fn a_file_that_goes_takes_its_objects_along_after_a_grace() {
    let mut world = World::new();
    world.write("a.yaml", &service("a", 80));
    assert_eq!(world.gone("a.yaml"), [""; 0]);
    assert_eq!(world.tree.held().count(), 1);
    assert_eq!(world.write("a.yaml", &service("a", 80)), [""; 0], "an editor wrote it anew");
    assert_eq!(world.tree.held().count(), 0);
    assert_eq!(world.gone("a.yaml"), [""; 0]);
    assert_eq!(world.later(GONE_GRACE).gone("a.yaml"), ["-Service/default/a"]);
    assert_eq!((world.tree.held().count(), world.tree.paths().count()), (0, 0));
}

#[test]
fn a_renamed_file_changes_nothing() {
    let mut world = World::new();
    let text = service("a", 80);
    world.write("a.yaml", &text);
    let looks = [("a.yaml", Seen::Gone), ("b.yaml", Seen::Bytes(text.into_bytes()))];
    assert_eq!(world.pass(&looks), [""; 0]);
    assert_eq!(world.later(GONE_GRACE).gone("a.yaml"), [""; 0]);
    assert_eq!(world.inputs.len(), 1);
}

#[test]
fn an_object_moved_to_another_file_is_used_from_there_at_once() {
    let mut world = World::new();
    world.write("a.yaml", &stream(&[service("a", 80), service("b", 80)]));
    let looks = [
        ("a.yaml", Seen::Bytes(service("a", 80).into_bytes())),
        ("b.yaml", Seen::Bytes(service("b", 81).into_bytes())),
    ];
    assert_eq!(world.pass(&looks), ["Service/default/b"]);
    world.told(&[]);
}

#[test]
fn an_object_taken_out_of_a_file_goes_when_a_second_look_agrees() {
    let mut world = World::new();
    world.write("a.yaml", &stream(&[service("a", 80), service("b", 80)]));
    assert_eq!(world.write("a.yaml", &service("a", 81)), [""; 0], "it may be half-written");
    assert_eq!(world.later(HOLD).write("a.yaml", &service("a", 82)), [""; 0], "another text waits anew");
    assert_eq!(
        world.later(HOLD).write("a.yaml", &service("a", 82)),
        ["Service/default/a", "-Service/default/b"]
    );
}

#[test]
fn many_files_gone_at_once_wait_longer() {
    let mut world = World::new();
    let names: Vec<String> = (0..30).map(|i| format!("{i:02}.yaml")).collect();
    for (index, name) in names.iter().enumerate() {
        world.write(name, &service(&format!("s{index}"), 80));
    }
    let all: Vec<_> = names.iter().map(|name| (name.as_str(), Seen::Gone)).collect();
    assert_eq!(world.pass(&all), [""; 0]);
    assert_eq!(world.later(GONE_GRACE).pass(&all), [""; 0]);
    assert_eq!(world.inputs.len(), 30);
    assert_eq!(world.write("00.yaml", &service("s0", 80)), [""; 0], "one is back: it stays");
    assert_eq!(world.later(HOLD).pass(&all[1..]).len(), 29);
    assert_eq!(world.inputs.len(), 1);
}

fn sample() -> String {
    let list = format!(
        "apiVersion: v1\nkind: List\nitems:\n- {}",
        service("in-a-list", 80).trim_end().replace('\n', "\n  ")
    );
    let ingress = "apiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata:\n  name: \"cart\"\nspec:\n  rules:\n  \
                   - http:\n      paths:\n      - path: /foobar\n        pathType: Prefix\n        backend:\n          \
                   service:\n            name: web\n            port:\n              number: 8080\n";
    stream(&[service("a", 8080), list + "\n", ingress.to_owned(), service("b", 80)])
}

#[test]
fn a_half_written_file_loses_nothing() {
    let text = sample();
    let mut world = World::new();
    assert_eq!(world.write("a.yaml", &text).len(), 4);
    let before = world.inputs.clone();
    for end in 0..text.len() {
        assert_eq!(
            world.later(Duration::from_millis(1)).write("a.yaml", &text[..end]),
            [""; 0],
            "cut at {end}"
        );
    }
    assert_eq!(world.write("a.yaml", &text), [""; 0]);
    assert_eq!(world.inputs, before);
    world.told(&[]);
}

#[test]
fn an_edit_half_written_loses_no_object() {
    // The edit is before the cut: the text is no beginning of the old one.
    let edited = sample().replacen("8080", "9090", 1);
    let mut world = World::new();
    world.write("a.yaml", &sample());
    for end in 0..edited.len() {
        world.later(Duration::from_millis(1)).write("a.yaml", &edited[..end]);
        assert_eq!(world.inputs.len(), 4, "cut at {end}");
    }
    world.write("a.yaml", &edited);
    world.told(&[]);
}

proptest! {
    #[test]
    fn any_looks_in_any_order_end_as_the_last_looks_alone_would(
        steps in proptest::collection::vec((0..3usize, 0..8usize), 1..25),
        junk in proptest::collection::vec(any::<u8>(), 0..40),
    ) {
        let paths = ["a.yaml", "b.yaml", "c.yaml"];
        let texts = [
            String::new(), service("a", 80), service("a", 81), stream(&[service("a", 80), service("b", 80)]),
            stream(&[service("b", 81), service("c", 80)]), stream(&[service("c", 1), service("a", 2)]),
        ];
        let mut world = World::new();
        for (path, step) in &steps {
            let seen = match step {
                6 => Seen::Gone,
                7 => Seen::Bytes(junk.clone()),
                text => Seen::Bytes(texts[*text].clone().into_bytes()),
            };
            world.later(Duration::from_millis(60)).pass(&[(paths[*path], seen)]);
        }
        // In the end each file is whole: what counts then owes nothing to what was.
        let end = |world: &mut World| {
            for _ in 0..3 {
                let looks: Vec<_> = paths.iter().enumerate()
                    .map(|(i, path)| (*path, Seen::Bytes(texts[i + 2].clone().into_bytes()))).collect();
                world.later(HOLD).pass(&looks);
            }
        };
        let mut fresh = World::new();
        end(&mut world);
        end(&mut fresh);
        prop_assert_eq!(&world.inputs, &fresh.inputs);
        prop_assert_eq!(world.tree.held().count(), 0);
        world.findings.retain(|_, found| !found.is_empty());
        prop_assert_eq!(&world.findings, &fresh.findings);
        prop_assert_eq!(&world.places, &fresh.places);
    }
}
