//! The binary as its users see it: exit codes, help, formats, pipes, the ledger's
//! way back, limits, our own addresses, releases, bad input, and private keys that are printed nowhere.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking, its fixtures too")]

mod support;

#[path = "cli/bad_input.rs"]
mod bad_input;
#[path = "cli/canary.rs"]
mod canary;
#[path = "cli/ledger.rs"]
mod ledger;
#[path = "cli/limits.rs"]
mod limits;
#[path = "cli/own.rs"]
mod own;
#[path = "cli/release.rs"]
mod release;

use std::{
    io::Write,
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

const TIDEGATE: &str = env!("CARGO_BIN_EXE_tidegate");

/// What a command said, and how it ended.
struct Run {
    code: i32,
    out: String,
    err: String,
}

impl Run {
    #[track_caller]
    fn ends(self, code: i32) -> Self {
        assert_eq!(self.code, code, "stdout: {}\nstderr: {}", first(&self.out), first(&self.err));
        assert!(!self.err.contains("panicked"), "{}", self.err);
        self
    }

    fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.out).unwrap_or_else(|why| panic!("{why}: {}", first(&self.out)))
    }
}

/// The beginning of what may be long.
fn first(text: &str) -> String {
    text.chars().take(2_000).collect()
}

fn tidegate(args: &[&str]) -> Run {
    tidegate_reads(args, "")
}

fn tidegate_reads(args: &[&str], stdin: &str) -> Run {
    let mut child = Command::new(TIDEGATE)
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut pipe = child.stdin.take().unwrap();
    let stdin = stdin.to_owned();
    // A command that does not read what it is given closes the pipe: no failure here.
    let writer = std::thread::spawn(move || drop(pipe.write_all(stdin.as_bytes())));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    Run {
        code: output.status.code().expect("it was not killed"),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// `tidegate serve` on a folder, until dropped.
struct Site {
    child: Child,
    admin: String,
}

/// How often and how long something that is on its way is waited for.
const LOOK: Duration = Duration::from_millis(20);
const LOOKS: usize = 1_500;

impl Site {
    fn serve(folder: &Path, state: &Path, log: &Path) -> Self {
        Self::serve_by(Command::new(TIDEGATE), "127.0.0.1:0", folder, state, log)
    }

    /// By a command that becomes the product, which listens there.
    fn serve_by(mut command: Command, at: &str, folder: &Path, state: &Path, log: &Path) -> Self {
        let child = command
            .args(["serve", text(folder), "--state", text(state), "--admin", at, "--xds", at])
            .stderr(std::fs::File::create(log).unwrap())
            .spawn()
            .unwrap();
        let mut site = Self { child, admin: String::new() };
        let up = wait_for("up.json", || std::fs::read_to_string(state.join("up.json")).ok());
        let up: serde_json::Value = serde_json::from_str(&up).unwrap();
        site.admin = up["admin"].as_str().unwrap().to_owned();
        wait_for("the first sync", || (!site.status()["vips"].as_array()?.is_empty()).then_some(()));
        site
    }

    fn status(&self) -> serde_json::Value {
        let run = tidegate(&["status", "-o", "json", "--admin", &self.admin]);
        serde_json::from_str(&run.out).unwrap_or_default()
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    for _ in 0..LOOKS {
        if let Some(seen) = look() {
            return seen;
        }
        std::thread::sleep(LOOK);
    }
    panic!("{what} did not come");
}

const SUBCOMMANDS: &[&str] = &[
    "up",
    "serve",
    "translate",
    "validate",
    "status",
    "vip",
    "engine",
    "bootstrap",
    "echo",
    "crds",
    "completion",
];

const GOOD: &str = "apiVersion: tidegate.dev/v1alpha1\nkind: VipPool\nmetadata: {name: p}\nspec: {addresses: [192.0.2.0/24]}\n";

#[test]
fn exit_codes() {
    tidegate_reads(&["validate", "-f", "-"], GOOD).ends(0);
    tidegate_reads(&["validate", "-f", "-"], &GOOD.replace("/24", "/99")).ends(1);
    tidegate(&["validate"]).ends(2);
    tidegate(&["validate", "-f", "-", "--no-such-flag"]).ends(2);
    tidegate(&["translate", "-f", "-", "-o", "table"]).ends(2);
    tidegate(&["status", "Pod/shop/cart"]).ends(2);
    tidegate(&["status", "--admin", "127.0.0.1:1"]).ends(3);
    tidegate(&["vip", "list", "--admin", "127.0.0.1:1"]).ends(3);
    tidegate(&["validate", "-f", "/no/such/folder"]).ends(3);
    tidegate(&["up", "/no/such/folder"]).ends(2);
}

#[test]
fn help_tells_of_every_subcommand_with_examples() {
    let help = tidegate(&["--help"]).ends(0).out;
    for subcommand in SUBCOMMANDS {
        assert!(help.contains(&format!("\n  {subcommand} ")), "--help says nothing of {subcommand}");
        let help = tidegate(&[subcommand, "--help"]).ends(0).out;
        let examples = help.split_once("Example").map(|(_, examples)| examples);
        assert!(examples.is_some_and(|it| it.contains(&format!("tidegate {subcommand}"))), "{subcommand}");
    }
    let told = help.lines().filter(|line| line.starts_with("  ") && !line.starts_with("   ")).count();
    assert_eq!(told, SUBCOMMANDS.len() + 3, "each subcommand is in the list above, beside help, -h and -V");
}

#[test]
fn completions() {
    for shell in ["bash", "zsh", "fish"] {
        let script = tidegate(&["completion", shell]).ends(0).out;
        for subcommand in SUBCOMMANDS {
            assert!(script.contains(subcommand), "{shell} does not complete {subcommand}");
        }
    }
    tidegate(&["completion", "cobol"]).ends(2);
}

#[test]
fn formats_are_what_they_say() {
    let bad = GOOD.replace("/24", "/99");
    let run = |args: &[&str]| tidegate_reads(args, &bad).ends(1);
    let findings = run(&["validate", "-f", "-", "-o", "json"]).json();
    assert_eq!(findings[0]["what"]["object"], "VipPool/p");
    let yaml = run(&["validate", "-f", "-", "-o", "yaml"]).out;
    let documents = tidegate::yaml::documents(&yaml, &tidegate::yaml::Limits::default()).unwrap();
    assert_eq!(documents[0].value, findings);
    assert!(
        run(&["validate", "-f", "-", "-o", "table"]).out.starts_with("-:1: VipPool/p spec.addresses[0]: ")
    );
    for to in ["static", "ads", "ir"] {
        let json = run(&["translate", "-f", "-", "--to", to]).json();
        let yaml = run(&["translate", "-f", "-", "--to", to, "-o", "yaml"]).out;
        let documents = tidegate::yaml::documents(&yaml, &tidegate::yaml::Limits::default()).unwrap();
        assert_eq!(documents[0].value, json, "{to}");
    }
}

#[test]
fn a_reader_that_goes_is_no_failure() {
    let folder = support::golden::root().join("examples/quickstart");
    for output in ["json", "yaml"] {
        let mut child = Command::new(TIDEGATE)
            .args(["translate", "--allow-loopback-endpoints", "-o", output, "-f", text(&folder)])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        drop(child.stdout.take());
        let output = child.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!said.contains("panicked"), "{said}");
        assert_eq!(output.status.code(), Some(0), "{said}");
    }
}

#[test]
fn crds_have_schema_and_words() {
    let text = tidegate(&["crds"]).ends(0).out;
    let documents = tidegate::yaml::documents(&text, &tidegate::yaml::Limits::default()).unwrap();
    let mut kinds = Vec::new();
    for document in &documents {
        let spec = &document.value["spec"];
        kinds.push(spec["names"]["kind"].as_str().unwrap());
        let schema = &spec["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"];
        for (name, property) in schema["properties"].as_object().unwrap() {
            let said = property["description"].as_str().is_some_and(|text| text.len() > 10);
            let by_type = property["properties"].is_object();
            assert!(said || by_type, "{}: {name} has no description", kinds.last().unwrap());
        }
    }
    assert_eq!(kinds, ["VipPool", "InfraSetting", "DnsZone"]);
}
