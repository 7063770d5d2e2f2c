//! Golden cases: manifests in; IR, resources, status and DNS out, compared with
//! the files beside them. A folder with `in.yaml` is a case; `make golden` writes
//! the files, and the diff of a commit then shows what a change really changes.

mod support;

use std::{collections::BTreeSet, fmt::Write, fs, path::Path};
use support::golden::{Case, OUTPUTS, cases, names_in, private_keys, root};

/// `GOLDEN_WRITE=1` writes instead of comparing; never in CI.
#[expect(clippy::disallowed_methods, reason = "how a test is run is told by its environment")]
fn writing() -> bool {
    std::env::var("GOLDEN_WRITE").is_ok_and(|value| value == "1")
        && std::env::var("CI").map_or(true, |value| value != "true")
}

#[test]
fn cases_come_to_what_is_written() {
    let write = writing();
    let mut failures = String::new();
    for case in cases() {
        let outputs = case.translate().outputs();
        for (file, text) in OUTPUTS.iter().zip(&outputs) {
            let path = case.folder.join(file);
            if write {
                fs::create_dir_all(&case.folder).unwrap();
                fs::write(&path, text).unwrap();
            } else {
                compare(&case, &path, text, &mut failures);
            }
        }
    }
    assert!(
        failures.is_empty(),
        "{failures}\nIf that is as it should be: make golden, and look at the diff."
    );
}

fn compare(case: &Case, path: &Path, text: &str, failures: &mut String) {
    let file = path.file_name().unwrap().to_string_lossy();
    match fs::read_to_string(path) {
        Ok(golden) if golden == text => {}
        Ok(golden) => {
            let _ = writeln!(failures, "--- {}/{file}\n{}", case.name, diff(&golden, text));
        }
        Err(why) => {
            let _ = writeln!(failures, "--- {}/{file}: {why}", case.name);
        }
    }
}

#[test]
fn nothing_stands_beside_the_cases() {
    let known: BTreeSet<String> = cases().into_iter().map(|case| case.name).collect();
    let mut orphans = Vec::new();
    for name in names_in(&root().join("tests/golden")) {
        if name == "certificates" {
            continue;
        }
        if !known.contains(&name) {
            orphans.push(name);
            continue;
        }
        for file in names_in(&root().join("tests/golden").join(&name)) {
            if file != "in.yaml" && !OUTPUTS.contains(&file.as_str()) {
                orphans.push(format!("{name}/{file}"));
            }
        }
    }
    assert_eq!(orphans, Vec::<String>::new(), "these belong to no case: delete them");
}

#[test]
fn no_output_holds_a_private_key() {
    let keys = private_keys();
    assert!(keys.len() > 10, "the keys are found");
    for case in cases() {
        for (file, text) in OUTPUTS.iter().zip(case.translate().outputs()) {
            let leaks = text.contains("PRIVATE KEY") || keys.iter().any(|key| text.contains(key));
            assert!(!leaks, "{}/{file} holds a private key", case.name);
        }
    }
}

/// Lines shown around a difference.
const CONTEXT: usize = 3;
/// Beyond this many differing lines a diff helps nobody.
const SHOWN_MAX: usize = 60;

/// Lines that went (`-`) and came (`+`), with a few around them.
fn diff(before: &str, after: &str) -> String {
    let (before, after): (Vec<_>, Vec<_>) = (before.lines().collect(), after.lines().collect());
    let prefix = before.iter().zip(&after).take_while(|(a, b)| a == b).count();
    let rest = before.len().min(after.len()) - prefix;
    let suffix = before.iter().rev().zip(after.iter().rev()).take(rest).take_while(|(a, b)| a == b).count();
    let mut lines: Vec<String> = Vec::new();
    lines.push(format!("@@ line {}", prefix + 1));
    lines.extend(before[prefix.saturating_sub(CONTEXT)..prefix].iter().map(|line| format!("  {line}")));
    lines.extend(middle(&before[prefix..before.len() - suffix], &after[prefix..after.len() - suffix]));
    let end = before.len() - suffix;
    lines.extend(before[end..before.len().min(end + CONTEXT)].iter().map(|line| format!("  {line}")));
    if lines.len() > SHOWN_MAX {
        let more = lines.len() - SHOWN_MAX;
        lines.truncate(SHOWN_MAX);
        lines.push(format!("  ... and {more} more lines"));
    }
    lines.join("\n")
}

/// By the longest common subsequence.
fn middle(before: &[&str], after: &[&str]) -> Vec<String> {
    let mut longest = vec![vec![0_u32; after.len() + 1]; before.len() + 1];
    for (i, a) in before.iter().enumerate().rev() {
        for (j, b) in after.iter().enumerate().rev() {
            longest[i][j] =
                if a == b { longest[i + 1][j + 1] + 1 } else { longest[i + 1][j].max(longest[i][j + 1]) };
        }
    }
    let (mut i, mut j) = (0, 0);
    let mut lines = Vec::new();
    while i < before.len() || j < after.len() {
        if i < before.len() && j < after.len() && before[i] == after[j] {
            lines.push(format!("  {}", before[i]));
            (i, j) = (i + 1, j + 1);
        } else if j == after.len() || (i < before.len() && longest[i + 1][j] >= longest[i][j + 1]) {
            lines.push(format!("- {}", before[i]));
            i += 1;
        } else {
            lines.push(format!("+ {}", after[j]));
            j += 1;
        }
    }
    lines
}

#[test]
fn a_diff_shows_the_lines_that_differ() {
    assert_eq!(diff("a\nb\nc\nd\n", "a\nx\nc\ny\nd\n"), "@@ line 2\n  a\n- b\n+ x\n  c\n+ y\n  d");
}
