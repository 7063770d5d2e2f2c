//! How users' mistakes travel: as data, on the object that holds them.
//!
//! *Takes* what a room found wrong or worth saying. *Gives* findings by object.
//! *Invariants*: a finding names its object and field, and never stops anything
//! else. *To add one*: a [`Reason`], with what its reader should do about it.

use crate::base::ObjectKey;
use serde::Serialize;
use std::fmt;

/// How much a finding matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub enum Severity {
    /// Worth knowing; nothing is missing.
    Info,
    /// Served, but not as the object's author may think.
    Warning,
    /// A part of the object is not served.
    Error,
}

/// What is the matter, as one stable word that tools may compare.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub enum Reason {
    /// A field holds what its type does not allow.
    Invalid,
    /// Something larger than its limit.
    TooLarge,
    /// The same object twice in the sources; the first is used.
    Duplicate,
    /// A named object is not there.
    NotFound,
    /// A reference of a kind that is not supported here.
    Unsupported,
    /// Another namespace owns this host.
    HostOwnedByOther,
    /// An older object has the same host and path.
    PathConflict,
    /// A certificate cannot be used.
    BadCertificate,
    /// A certificate is used, although it has expired.
    CertificateExpired,
    /// A certificate is used, although it does not name the host.
    CertificateMismatch,
    /// Traffic to this backend is encrypted but its identity is not checked.
    UpstreamUnverified,
    /// An endpoint address we refuse to send traffic to.
    EndpointRefused,
    /// No pool has a free address.
    PoolExhausted,
    /// No pool is there for this claim.
    NoPool,
    /// An address could not be written down, and so is not given.
    LedgerUnwritable,
    /// The requested address cannot be given.
    AddressRefused,
    /// Two pools have the same address; one of them gives it.
    PoolOverlap,
    /// An address is kept although no pool gives it to this claim any more.
    AddressOutsidePool,
    /// No zone holds this name.
    NoZone,
    /// Something Envoy cannot do, or does in part.
    PartlyHonoured,
    /// Envoy refused what was made of this object.
    RefusedByEnvoy,
}

/// One finding about one object.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Finding {
    pub object: ObjectKey,
    pub severity: Severity,
    pub reason: Reason,
    /// The path of the field, as `spec.rules[0].host`; empty for the whole.
    pub field: String,
    /// A sentence: what is wrong, what is served instead, what to check.
    pub message: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { object, severity, reason, field, message } = self;
        write!(f, "{object}")?;
        if !field.is_empty() {
            write!(f, " {field}")?;
        }
        write!(f, ": {severity:?} {reason:?}: {message}")
    }
}

/// Findings gathered while a value is made.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report(Vec<Finding>);

impl Report {
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    pub fn error(
        &mut self,
        at: &ObjectKey,
        field: impl Into<String>,
        reason: Reason,
        message: impl Into<String>,
    ) {
        self.push(at, Severity::Error, field.into(), reason, message.into());
    }

    pub fn warning(
        &mut self,
        at: &ObjectKey,
        field: impl Into<String>,
        reason: Reason,
        message: impl Into<String>,
    ) {
        self.push(at, Severity::Warning, field.into(), reason, message.into());
    }

    pub fn info(
        &mut self,
        at: &ObjectKey,
        field: impl Into<String>,
        reason: Reason,
        message: impl Into<String>,
    ) {
        self.push(at, Severity::Info, field.into(), reason, message.into());
    }

    fn push(&mut self, at: &ObjectKey, severity: Severity, field: String, reason: Reason, message: String) {
        // One object cannot fill the memory with what is wrong with it.
        if self.0.len() < FINDINGS_MAX {
            let (field, message) = (bounded(field, FIELD_CHARS_MAX), bounded(message, MESSAGE_CHARS_MAX));
            self.0.push(Finding { object: at.clone(), severity, reason, field, message });
        }
    }

    #[must_use]
    pub fn findings(&self) -> &[Finding] {
        &self.0
    }

    #[must_use]
    pub fn into_findings(self) -> Vec<Finding> {
        self.0
    }
}

/// Findings of one compile unit or one file: beyond this the reader has enough to mend.
const FINDINGS_MAX: usize = 256;

/// Characters of a message, and of a field's path: a name of 64 KiB inside one
/// must not be kept, and printed, for each object that refers to it.
const MESSAGE_CHARS_MAX: usize = 1_000;
const FIELD_CHARS_MAX: usize = 300;

fn bounded(text: String, chars_max: usize) -> String {
    let plain = |c: char| matches!(c, '\'' | '"' | '\\') || c.escape_debug().len() == 1;
    if text.len() <= chars_max && text.chars().all(plain) { text } else { cut(&text, chars_max) }
}

/// A user's text inside a message: what does not print (NUL, bidi overrides,
/// line ends) is escaped, so that a name cannot rewrite the line that reports
/// it; cut at [`PRINTABLE_CHARS_MAX`].
#[must_use]
pub fn printable(text: &str) -> String {
    cut(text, PRINTABLE_CHARS_MAX)
}

fn cut(text: &str, chars_max: usize) -> String {
    let mut out = String::new();
    for (position, c) in text.chars().enumerate() {
        if position == chars_max {
            out.push('…');
            break;
        }
        match c {
            '\'' | '"' | '\\' => out.push(c),
            _ => out.extend(c.escape_debug()),
        }
    }
    out
}

/// Characters of one user's text that a message repeats.
const PRINTABLE_CHARS_MAX: usize = 200;
