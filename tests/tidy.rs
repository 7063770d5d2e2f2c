//! The house rules that no compiler holds: who imports whom, sizes, names, and
//! calls that have one home. ARCHITECTURE.md prints the table of imports.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking, its fixtures too")]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

/// Each room (a top-level module of `src`), and the rooms it may import. Below
/// whoever imports it, but for three that know each other: `pipeline` fills what
/// `status` says of engines, and `status` reads the pipeline's core.
const ROOMS: &[(&str, &[&str])] = &[
    ("base", &[]),
    ("clock", &[]),
    ("settings", &[]),
    ("telemetry", &[]),
    ("failpoint", &[]),
    ("incremental", &[]),
    ("echo", &[]),
    ("planted", &[]),
    ("whole", &[]),
    ("report", &["base"]),
    ("yaml", &["report"]),
    ("api", &[]),
    ("inputs", &["base", "report", "api"]),
    ("source", &["base", "report", "failpoint", "yaml", "inputs"]),
    ("ir", &["base"]),
    ("translate", &["base", "report", "api", "inputs", "ir"]),
    ("compile", &["base", "report", "api", "inputs", "ir", "incremental", "translate"]),
    ("ipam", &["base", "report", "api", "ir", "planted"]),
    ("store", &["base", "failpoint", "ipam"]),
    ("xds", &["base", "ir"]),
    ("server", &["base", "failpoint", "xds", "planted", "whole"]),
    ("dns", &["base", "ir"]),
    ("engine", &["base", "clock", "failpoint", "xds", "server", "whole"]),
    ("desired", &["base", "report", "api", "inputs", "ir", "translate", "compile", "ipam", "xds"]),
    ("status", &["base", "report", "inputs", "ir", "translate", "compile", "xds", "desired"]),
    (
        "pipeline",
        &[
            "base",
            "report",
            "clock",
            "failpoint",
            "inputs",
            "source",
            "ir",
            "ipam",
            "store",
            "xds",
            "server",
            "dns",
            "desired",
            "status",
            "planted",
        ],
    ),
    ("admin", &["base", "report", "server", "dns", "store", "status", "pipeline"]),
    (
        "app",
        &[
            "base",
            "clock",
            "settings",
            "failpoint",
            "inputs",
            "source",
            "translate",
            "store",
            "xds",
            "server",
            "dns",
            "engine",
            "desired",
            "pipeline",
            "admin",
            "whole",
        ],
    ),
    (
        "cli",
        &[
            "base",
            "report",
            "clock",
            "settings",
            "telemetry",
            "echo",
            "yaml",
            "api",
            "source",
            "translate",
            "store",
            "xds",
            "desired",
            "status",
            "app",
        ],
    ),
    // A crate of its own, inside Envoy.
    ("envoy/module", &[]),
];

/// Crates that make a room what it is, and the rooms that may know them.
const CRATES: &[(&str, &[&str])] = &[
    ("envoy_types", &["xds", "server", "engine"]),
    ("kube", &["api", "cli"]),
    ("k8s_openapi", &["inputs"]),
    ("tonic", &["server"]),
    ("warp", &["admin", "app"]),
    ("redb", &["store"]),
    ("inotify", &["source"]),
    ("serde_saphyr", &["yaml"]),
];

/// Lines of a file: beyond this it is two rooms.
const LINES_MAX: usize = 700;

/// Calls with a home, and the files or folders that are it.
const CALLS: &[(&str, &[&str])] = &[
    ("env::var", &["src/settings.rs", "src/failpoint.rs"]),
    ("SystemTime::now", &["src/clock.rs"]),
    // Besides the clock, socket shells and the watcher, which wait on the runtime's own.
    (
        "Instant::now",
        &["src/clock.rs", "src/dns/responder.rs", "src/server/ads.rs", "src/source/files/watch.rs"],
    ),
    ("tokio::spawn", &["src/app.rs", "src/server/ads.rs"]),
    ("Mutex", &[]),
    ("unsafe ", &["envoy/module/src/"]),
    ("print!", &["src/cli/"]),
    ("println!", &["src/cli/"]),
    ("todo!", &[]),
    ("unimplemented!", &[]),
];

/// Not even in a comment, and not in tests.
const WORDS: [&str; 4] =
    [concat!("FIX", "ME"), concat!("X", "XX"), concat!("dbg", "!("), concat!("#[", "ignore")];

/// Names that say nothing of what is inside.
const NAMES: [&str; 5] = ["mod.rs", "utils.rs", "common.rs", "helpers.rs", "types.rs"];

/// What a room says of itself.
const HEADINGS: [&str; 4] = ["*Takes*", "*Gives*", "*Invariants*", "*To add one*"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A source file, from the root of the repository.
struct Source {
    path: String,
    text: String,
}

/// All `.rs` files of a folder.
fn sources(folder: &str) -> Vec<Source> {
    let mut folders = vec![root().join(folder)];
    let mut sources = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap_or_else(|why| panic!("{}: {why}", folder.display())) {
            let path: PathBuf = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).unwrap();
                let path = path.strip_prefix(root()).unwrap().to_str().unwrap().to_owned();
                sources.push(Source { path, text });
            }
        }
    }
    sources.sort_by(|a, b| a.path.cmp(&b.path));
    sources
}

/// What ships: `src` and the module.
fn shipped() -> Vec<Source> {
    let all: Vec<_> = sources("src").into_iter().chain(sources("envoy/module/src")).collect();
    assert!(all.len() > 100, "the sources are found");
    all
}

impl Source {
    fn room(&self) -> &str {
        match self.path.strip_prefix("src/") {
            Some(rest) => rest.split(['/', '.']).next().unwrap(),
            None => "envoy/module",
        }
    }

    /// Lines of code with their numbers: without comments and without tests.
    fn code(&self) -> Vec<(usize, &str)> {
        if self.path.ends_with("/tests.rs") {
            return Vec::new();
        }
        let own = self.text.split("#[cfg(test)]\nmod tests {").next().unwrap();
        let lines = own.lines().enumerate().map(|(n, line)| (n + 1, line));
        let code = lines.map(|(n, line)| (n, line.split_once("//").map_or(line, |(code, _)| code)));
        code.filter(|(_, line)| !line.trim().is_empty()).collect()
    }

    /// The first segments of its `crate::` paths, with their lines.
    fn imports(&self) -> Vec<(usize, String)> {
        let mut imports = Vec::new();
        let mut text = String::new();
        let mut starts = Vec::new();
        for (n, line) in self.code() {
            starts.push((text.len(), n));
            text.push_str(line);
            text.push('\n');
        }
        for (at, _) in text.match_indices("crate::") {
            let line = starts.iter().rev().find(|(start, _)| *start <= at).expect("it is in a line").1;
            let rest = &text[at + "crate::".len()..];
            let names = match rest.strip_prefix('{') {
                Some(group) => top_level(group),
                None => vec![rest],
            };
            imports.extend(names.into_iter().map(|name| (line, first_word(name))));
        }
        imports
    }
}

/// The items of a group of imports, up to its closing brace.
fn top_level(group: &str) -> Vec<&str> {
    let (mut depth, mut start, mut items) = (0, 0, Vec::new());
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => {
                items.push(&group[start..at]);
                break;
            }
            '}' => depth -= 1,
            ',' if depth == 0 => {
                items.push(&group[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    items.into_iter().filter(|item| !item.trim().is_empty()).collect()
}

fn first_word(text: &str) -> String {
    text.trim_start().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
}

#[track_caller]
fn none(what: &str, found: &[String]) {
    assert!(found.is_empty(), "{what}:\n  {}", found.join("\n  "));
}

#[test]
fn rooms_import_what_the_table_says() {
    let table: BTreeMap<&str, &[&str]> = ROOMS.iter().copied().collect();
    let (mut wrong, mut used) = (Vec::new(), BTreeSet::new());
    for source in shipped() {
        if matches!(source.path.as_str(), "src/lib.rs" | "src/main.rs") {
            continue;
        }
        let room = source.room();
        let Some(allowed) = table.get(room) else {
            wrong.push(format!("{}: room {room} is not in the table", source.path));
            continue;
        };
        for (line, import) in source.imports() {
            if room == "envoy/module" || import == room {
                continue;
            }
            if !allowed.contains(&import.as_str()) {
                wrong.push(format!("{}:{line}: {room} may not import {import}", source.path));
            }
            used.insert((room.to_owned(), import));
        }
    }
    for &(room, allowed) in ROOMS {
        for import in allowed {
            if !used.contains(&(room.to_owned(), (*import).to_owned())) {
                wrong.push(format!("{room} does not import {import}: take it out of the table"));
            }
        }
    }
    none("imports", &wrong);
}

#[test]
fn crates_stay_in_their_rooms() {
    let mut wrong = Vec::new();
    for source in shipped() {
        for (line, code) in source.code() {
            for &(name, rooms) in CRATES {
                let path = format!("{name}::");
                let named = code.match_indices(&path).any(|(at, _)| {
                    !code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == ':')
                });
                if named && !rooms.contains(&source.room()) {
                    wrong.push(format!("{}:{line}: {name} is known to {rooms:?} alone", source.path));
                }
            }
            if source.room() == "envoy/module" && code.contains("tidegate::") {
                wrong.push(format!("{}:{line}: the module knows nothing of the control plane", source.path));
            }
        }
    }
    none("crates", &wrong);
}

/// As ARCHITECTURE.md prints it.
fn printed() -> String {
    let mut table = "| room | imports |\n| --- | --- |\n".to_owned();
    for &(room, imports) in ROOMS {
        let imports: Vec<_> = imports.iter().map(|import| format!("`{import}`")).collect();
        let imports = if imports.is_empty() { vec!["nothing".to_owned()] } else { imports };
        table.push_str(&format!("| `{room}` | {} |\n", imports.join(", ")));
    }
    table
}

#[test]
fn architecture_prints_the_table() {
    let (begin, end) = ("<!-- imports -->\n", "<!-- /imports -->");
    let text = fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    let there = text.split_once(begin).and_then(|(_, rest)| rest.split_once(end)).map(|(table, _)| table);
    let table = printed();
    assert!(
        there == Some(table.as_str()),
        "between {begin}and {end} in ARCHITECTURE.md must stand:\n{table}"
    );
}

#[test]
fn files_are_small_and_named_for_what_they_hold() {
    let mut wrong = Vec::new();
    for Source { path, text } in shipped() {
        let lines = text.lines().count();
        if lines > LINES_MAX {
            wrong.push(format!("{path} has {lines} lines; {LINES_MAX} are two rooms"));
        }
        let name = path.rsplit('/').next().unwrap();
        if NAMES.contains(&name) {
            wrong.push(format!("{path}: the name says nothing"));
        }
    }
    none("files", &wrong);
}

#[test]
fn calls_stay_at_home() {
    let mut wrong = Vec::new();
    for source in shipped() {
        for (line, code) in source.code() {
            let code = without_texts(code);
            for &(call, homes) in CALLS {
                let inside = |at: usize| code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_');
                let called = code.match_indices(call).any(|(at, _)| !inside(at));
                if called && !homes.iter().any(|home| source.path.starts_with(home)) {
                    wrong.push(format!("{}:{line}: {call} belongs to {homes:?}", source.path));
                }
            }
        }
    }
    none("calls", &wrong);
}

/// A line of code without what stands in quotes.
fn without_texts(code: &str) -> String {
    code.split('"').step_by(2).collect::<Vec<_>>().join("\"\"")
}

#[test]
fn nothing_is_left_for_later() {
    let mut wrong = Vec::new();
    for folder in ["src", "tests", "envoy"] {
        for Source { path, text } in sources(folder) {
            for (n, line) in text.lines().enumerate() {
                wrong.extend(
                    WORDS
                        .iter()
                        .filter(|word| line.contains(*word))
                        .map(|word| format!("{path}:{}: {word}", n + 1)),
                );
            }
        }
    }
    none("words", &wrong);
}

/// Names of tests, wherever they stand.
fn tests_named(prefix: &str) -> BTreeSet<String> {
    let all = sources("tests").into_iter().chain(sources("src"));
    let mut found = BTreeSet::new();
    for Source { path: _, text } in all {
        let names = text.split("fn ").skip(1).map(first_word);
        found.extend(names.filter(|name| name.starts_with(prefix)));
    }
    found
}

#[test]
fn every_trap_has_its_tests() {
    let text = fs::read_to_string(root().join("tests/TRAPS.md")).unwrap();
    let rows: Vec<Vec<&str>> = text
        .lines()
        .filter(|line| line.starts_with("| ") && !line.starts_with("| trap") && !line.starts_with("| ---"))
        .map(|line| line.trim_matches('|').split('|').map(str::trim).collect())
        .collect();
    let numbers: Vec<usize> = rows.iter().map(|row| row[0].parse().unwrap()).collect();
    assert_eq!(numbers, (1..=52).collect::<Vec<_>>());
    let tests = tests_named("trap_");
    let (mut wrong, mut listed) = (Vec::new(), BTreeSet::new());
    for row in &rows {
        let names: Vec<_> = row[3].split('`').skip(1).step_by(2).collect();
        if names.is_empty() != row[2].starts_with("no") {
            wrong.push(format!("trap {}: applies? {}, tests: {}", row[0], row[2], row[3]));
        }
        for name in names {
            let number = format!("_{:0>2}_", row[0]);
            if !name.contains(&number) || !tests.contains(name) {
                wrong.push(format!("trap {}: no test {name}", row[0]));
            }
            listed.insert(name.to_owned());
        }
    }
    wrong.extend(tests.difference(&listed).map(|name| format!("{name} stands in no row")));
    none("tests/TRAPS.md", &wrong);
}

/// All of Envoy's stats, or its whole configuration, would hold up its main thread.
#[test]
fn trap_46_envoy_is_asked_for_little() {
    let mut asked = Vec::new();
    for Source { path, text } in shipped().into_iter().filter(|source| source.room() == "engine") {
        for (at, _) in text.match_indices("\"/") {
            let target: String = text[at + 1..].chars().take_while(|c| *c != '"').collect();
            let small = ["/ready", "/healthcheck/", "/drain_listeners", "/quitquitquit"];
            let few = target.starts_with("/stats") && target.contains("filter=");
            if path.ends_with("admin.rs") && !few && !small.iter().any(|it| target.starts_with(it)) {
                asked.push(format!("{path}: {target}"));
            }
        }
        let whole = ["config_dump", "/clusters"];
        asked.extend(whole.iter().filter(|it| text.contains(*it)).map(|it| format!("{path}: {it}")));
    }
    none("Envoy is asked for too much", &asked);
}

#[test]
fn rooms_say_what_they_are() {
    let mut wrong = Vec::new();
    for (room, _) in ROOMS.iter().filter(|(room, _)| *room != "envoy/module") {
        let path = format!("src/{room}.rs");
        let text = fs::read_to_string(root().join(&path)).unwrap_or_default();
        let words: String = text.lines().take_while(|line| line.starts_with("//!")).collect();
        // A heading may be broken over two lines.
        let words = words.replace("//!", "").replace("  ", " ");
        wrong.extend(HEADINGS.iter().filter(|it| !words.contains(*it)).map(|it| format!("{path}: no {it}")));
    }
    none("headings", &wrong);
}

#[test]
fn imports_are_found_however_they_are_written() {
    let text = "//! crate::no\nuse crate::{\n    a::{self, b::C},\n    d,\n};\nlet x = crate::e::f();\n\
                #[cfg(test)]\nmod tests {\n    use crate::g;\n}\n";
    let source = Source { path: "src/x/y.rs".to_owned(), text: text.to_owned() };
    let found = source.imports();
    let found: Vec<_> = found.iter().map(|(line, name)| (*line, name.as_str())).collect();
    assert_eq!((source.room(), found), ("x", vec![(2, "a"), (2, "d"), (6, "e")]));
}
