//! YAML, read and written: the only room that knows the crate behind it.
//!
//! *Takes* bytes of a user's file. *Gives* documents as JSON values, each with the
//! line it begins on, or an error with line and column. *Invariants*: never
//! panics; what one document may cost is bounded before it is built (bytes,
//! nodes, depth, aliases); a key written twice is an error, never "the last
//! wins"; a marker line (`---`) always ends a document, so one that is broken
//! does not swallow its neighbours. *To add one*: a limit is a field of
//! [`Limits`], and a row in the tests.

use crate::report::printable;
use serde::Serialize;
use serde_json::Value;
use std::fmt;

/// What a text may cost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of a whole text. 10,000 Ingresses are about 6 MiB.
    pub bytes: usize,
    /// Documents of a text.
    pub documents: usize,
    /// Mappings, sequences and scalars of one document, aliases expanded. An
    /// Ingress of 20,000 rules has 440,000.
    pub nodes: usize,
    /// Bytes of all scalars of one document, aliases expanded.
    pub scalar_bytes: usize,
    /// Nested mappings and sequences. Kubernetes objects have about 12.
    pub depth: usize,
    /// `*alias` uses, and `&anchor` definitions, of one document.
    pub aliases: usize,
    /// Values that anchors of one document hold, and that its aliases stand for:
    /// they are kept in a form of their own, several times as large.
    pub alias_nodes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            bytes: 32 << 20,
            documents: 100_000,
            nodes: 600_000,
            scalar_bytes: 32 << 20,
            depth: 64,
            aliases: 1_000,
            alias_nodes: 50_000,
        }
    }
}

/// Why a text is no YAML we take.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct YamlError {
    /// From 1; 0 where it concerns the whole text.
    pub line: u32,
    /// From 1, in characters; 0 where unknown.
    pub column: u32,
    pub message: String,
}

impl YamlError {
    fn whole(message: String) -> Self {
        Self { line: 0, column: 0, message }
    }
}

impl fmt::Display for YamlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.line, self.column) {
            (0, _) => write!(f, "{}", self.message),
            (line, 0) => write!(f, "line {line}: {}", self.message),
            (line, column) => write!(f, "line {line}, column {column}: {}", self.message),
        }
    }
}

/// One document of a stream.
#[derive(Debug, Clone, PartialEq)]
pub struct Document {
    /// Where its content begins, from 1.
    pub line: u32,
    pub value: Value,
}

/// The text of one document of a stream: what [`document`] takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Chunk<'a> {
    /// The line its text begins on, from 1.
    pub line: u32,
    pub text: &'a str,
}

/// All documents of a stream that are not empty.
pub fn documents(text: &str, limits: &Limits) -> Result<Vec<Document>, YamlError> {
    let mut documents = Vec::new();
    for chunk in chunks(text, limits)? {
        documents.extend(document(chunk, limits)?);
    }
    Ok(documents)
}

/// The bytes as a text: UTF-8 within the limit, without byte order mark and NUL.
pub fn text<'a>(bytes: &'a [u8], limits: &Limits) -> Result<&'a str, YamlError> {
    if bytes.len() > limits.bytes {
        return Err(YamlError::whole(format!(
            "has {} bytes; at most {} are read: split it into several files",
            bytes.len(),
            limits.bytes
        )));
    }
    if bytes.starts_with(&[0xff, 0xfe]) || bytes.starts_with(&[0xfe, 0xff]) {
        return Err(YamlError::whole("is UTF-16; save it as UTF-8".to_owned()));
    }
    let at = |position: usize, message: &str| {
        let before = &bytes[..position];
        let line = 1 + before.iter().filter(|byte| **byte == b'\n').count();
        let column = 1 + before.iter().rev().take_while(|byte| **byte != b'\n').count();
        YamlError { line: number(line), column: number(column), message: message.to_owned() }
    };
    if let Some(position) = bytes.iter().position(|byte| *byte == 0) {
        return Err(at(position, "has a NUL byte: is this a text file?"));
    }
    match std::str::from_utf8(bytes) {
        Ok(text) => Ok(text.strip_prefix('\u{feff}').unwrap_or(text)),
        Err(error) => Err(at(error.valid_up_to(), "is not UTF-8 here; save it as UTF-8")),
    }
}

/// A stream cut at its marker lines (YAML 1.2.2, 9.1.2): a line that begins with
/// `---` or `...` and a blank can stand inside no scalar. Chunks of nothing but
/// comments and directives are left out.
pub fn chunks<'a>(text: &'a str, limits: &Limits) -> Result<Vec<Chunk<'a>>, YamlError> {
    let mut chunks = Vec::new();
    let (mut start, mut start_line) = (0, 1);
    let (mut offset, mut line) = (0, 1_u32);
    let mut close = |from: usize, to: usize, line: u32| -> Result<(), YamlError> {
        if !holds_content(&text[from..to]) {
            return Ok(());
        }
        if chunks.len() == limits.documents {
            let message = format!("has more than {} documents: split it", limits.documents);
            return Err(YamlError { line, column: 0, message });
        }
        chunks.push(Chunk { line, text: &text[from..to] });
        Ok(())
    };
    for row in text.split_inclusive('\n') {
        let end = offset + row.len();
        if is_marker(row, "---") {
            close(start, offset, start_line)?;
            (start, start_line) = (offset, line);
        } else if is_marker(row, "...") {
            close(start, offset, start_line)?;
            (start, start_line) = (end, line + 1);
        }
        (offset, line) = (end, line.saturating_add(1));
    }
    close(start, text.len(), start_line)?;
    Ok(chunks)
}

fn is_marker(row: &str, marker: &str) -> bool {
    row.strip_prefix(marker).is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', '\t', '\r', '\n']))
}

fn holds_content(chunk: &str) -> bool {
    chunk.lines().any(is_content)
}

fn is_content(row: &str) -> bool {
    let rest = if is_marker(row, "---") { &row[3..] } else { row };
    let rest = rest.trim();
    !rest.is_empty() && !rest.starts_with('#') && !row.starts_with('%')
}

/// One document; nothing where it is empty or null.
pub fn document(chunk: Chunk<'_>, limits: &Limits) -> Result<Option<Document>, YamlError> {
    let Chunk { line, text } = chunk;
    let value = serde_saphyr::from_str_with_options::<Value>(text, options(limits))
        .map_err(|error| located(&error, line))?;
    if value.is_null() {
        return Ok(None);
    }
    let before = text.lines().take_while(|row| !is_content(row)).count();
    Ok(Some(Document { line: line.saturating_add(number(before)), value }))
}

/// Numbers and truth values are read as kubectl reads them (YAML 1.1: `yes` is
/// true, `0644` is octal).
fn options(limits: &Limits) -> serde_saphyr::Options {
    let mut alias_limits = serde_saphyr::options::AliasLimits::default();
    alias_limits.max_total_replayed_events = 2 * limits.alias_nodes;
    serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_reader_input_bytes: Some(limits.bytes),
            max_events: 3 * limits.nodes,
            max_nodes: limits.nodes,
            max_aliases: limits.aliases,
            max_anchors: limits.aliases,
            max_depth: limits.depth,
            flow_nesting_limit: limits.depth,
            max_documents: 2,
            max_total_scalar_bytes: limits.scalar_bytes,
            max_recorded_anchor_events: 2 * limits.alias_nodes,
            max_recorded_anchor_bytes: limits.scalar_bytes,
            max_merge_keys: limits.aliases,
            max_inclusion_depth: 0,
        },
        alias_limits: alias_limits,
        duplicate_keys: serde_saphyr::DuplicateKeyPolicy::Error,
        non_finite_float_policy: serde_saphyr::options::NonFiniteFloatPolicy::Reject,
        strict_booleans: false,
        legacy_octal_numbers: true,
        with_snippet: false,
    }
}

fn located(error: &serde_saphyr::Error, first_line: u32) -> YamlError {
    let message = said(error.without_snippet());
    match error.location() {
        Some(at) if at.line() > 0 => YamlError {
            line: first_line.saturating_add(clamp(at.line()) - 1),
            column: clamp(at.column()),
            message,
        },
        Some(_) | None => YamlError { line: first_line, column: 0, message },
    }
}

/// What the parser found, in a user's words where its own speak of its options.
fn said(error: &serde_saphyr::Error) -> String {
    use serde_saphyr::{Error, budget::BudgetBreach as Breach};
    match error {
        Error::DuplicateMappingKey { key: Some(key), .. } => {
            format!("the key '{}' stands twice in this mapping", printable(key))
        }
        Error::Budget { breach, .. } => match breach {
            Breach::Depth { .. } => "is nested too deeply".to_owned(),
            Breach::Nodes { .. } | Breach::Events { .. } => {
                "one document has too many values: split it".to_owned()
            }
            Breach::ScalarBytes { .. } => "one document has too much text: split it".to_owned(),
            _ => "has too many aliases, or aliases that grow too large".to_owned(),
        },
        Error::AliasReplayLimitExceeded { .. } | Error::AliasExpansionLimitExceeded { .. } => {
            "has aliases that grow too large".to_owned()
        }
        other => {
            // Errors inside an alias come wrapped: their kind shows in the text alone.
            let printed = other.render();
            if printed.starts_with("budget breached") {
                return "has aliases that grow too large".to_owned();
            }
            printable(printed.rfind(" at line ").map_or(printed.as_str(), |end| &printed[..end]))
        }
    }
}

fn clamp(value: u64) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}

fn number(value: usize) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}

/// A value as YAML; fails only where the value's own `Serialize` does.
pub fn to_string<T: Serialize>(value: &T) -> Result<String, YamlError> {
    serde_saphyr::to_string(value).map_err(|error| YamlError::whole(printable(&error.to_string())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    #[track_caller]
    fn check(text: &str, expected: Result<Value, &str>) {
        let found = documents(text, &Limits::default())
            .map(|all| all.into_iter().map(|document| json!([document.line, document.value])).collect());
        assert_eq!(found.map_err(|e| e.to_string()), expected.map_err(str::to_owned));
    }

    #[test]
    fn documents_and_their_lines() {
        check("", Ok(json!([])));
        check("# nothing\n---\n---\n~\n...\n", Ok(json!([])));
        check(
            "a: 1\n---\n\n# second\nb: 2\n--- {c: 3}\n",
            Ok(json!([[1, {"a": 1}], [5, {"b": 2}], [6, {"c": 3}]])),
        );
        check("%YAML 1.2\n---\na: 1\n...\n# end\nb: 2", Ok(json!([[3, {"a": 1}], [6, {"b": 2}]])));
        check(
            "\u{feff}a: x\r\nb: z\r\n---\r\nc: w\r\n",
            Ok(json!([[1, {"a": "x", "b": "z"}], [4, {"c": "w"}]])),
        );
        check("a: |\n  ---\n  x\n", Ok(json!([[1, {"a": "---\nx\n"}]])));
        check("{\n\t\"a\": [\n\t\t1]\n}\n", Ok(json!([[1, {"a": [1]}]])));
        check("a: &x [1]\nb: *x\n", Ok(json!([[1, {"a": [1], "b": [1]}]])));
        check("a: yes\nb: 0644\n8080: '1'\n", Ok(json!([[1, {"a": true, "b": 420, "8080": "1"}]])));
    }

    #[test]
    fn errors_name_line_and_column() {
        check("x: 1\n---\n\na: 1\na: 2\n", Err("line 5, column 1: the key 'a' stands twice in this mapping"));
        check("a: {b: [", Err("line 1, column 8: unclosed bracket '['"));
        check("a: 1\n---\nb: \"x\n", Err("line 3, column 4: unclosed quote"));
        check(
            "a:\n\tb: 1\n",
            Err("line 2, column 2: tabs disallowed within this context (block indentation)"),
        );
        check(
            "a: .nan\n",
            Err("line 1, column 4: non-finite float `.nan` rejected by the configured policy"),
        );
        check("a: *x\n", Err("line 1, column 4: alias references unknown anchor"));
        check("a: 'x\u{1}'\n", Err("line 1, column 6: unexpected character: `\\u{1}'"));
    }

    #[test]
    fn bytes_that_are_no_text() {
        let limits = Limits { bytes: 20, ..Limits::default() };
        let error = |bytes: &[u8]| text(bytes, &limits).expect_err("no text").to_string();
        assert_eq!(error(b"a: 1\nb: \0"), "line 2, column 4: has a NUL byte: is this a text file?");
        assert_eq!(error(b"a: \xff"), "line 1, column 4: is not UTF-8 here; save it as UTF-8");
        assert_eq!(error(b"\xff\xfea\0"), "is UTF-16; save it as UTF-8");
        assert_eq!(error(&[b'a'; 21]), "has 21 bytes; at most 20 are read: split it into several files");
        assert_eq!(text("\u{feff}a".as_bytes(), &limits), Ok("a"));
    }

    #[test]
    fn bombs_end_early() {
        let mut billion = "a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n".to_owned();
        for level in 1..12 {
            let alias = format!("*a{}", level - 1);
            billion.push_str(&format!("a{level}: &a{level} [{}]\n", [alias.as_str(); 10].join(",")));
        }
        let long = format!("a: &a {}\nb: [{}]\n", "x".repeat(1 << 20), ["*a"; 500].join(","));
        let many = format!("a: &a x\nb: [{}]\n", ["*a"; 2_000].join(","));
        for bomb in [billion, long, many] {
            let error = documents(&bomb, &Limits::default()).expect_err("a bomb").message;
            assert!(error.contains("alias") || error.contains("too much text"), "{error}");
        }
        let deep: String = (0..200).map(|level| format!("{}a:\n", " ".repeat(level))).collect();
        check(&deep, Err("line 65, column 65: is nested too deeply"));
        check(&"[".repeat(100_000), Err("line 1, column 65: recursion limit exceeded"));
        let wide = format!("[{}]", "1,".repeat(700_000));
        let error = documents(&wide, &Limits::default()).expect_err("too wide").message;
        assert_eq!(error, "one document has too many values: split it");
        let limits = Limits { documents: 2, ..Limits::default() };
        let error = documents("1\n---\n2\n---\n3\n", &limits).expect_err("three").to_string();
        assert_eq!(error, "line 4: has more than 2 documents: split it");
    }

    #[test]
    fn writes_what_it_reads() {
        let value = json!({"a": "yes", "b": ["1", 1, null], "c": {"d": "x: y\n#"}, "e": "0644"});
        let text = to_string(&value).expect("prints");
        check(&text, Ok(json!([[1, value]])));
    }

    proptest! {
        #[test]
        fn never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(text) = text(&bytes, &Limits::default()) {
                let _ = documents(text, &Limits::default());
            }
        }

        #[test]
        fn never_panics_on_what_looks_like_yaml(text in "[-a: \\[\\]{},&*!|>'\"%@`#?\n\t\r0]{0,60}") {
            let _ = documents(&text, &Limits::default());
        }
    }
}
