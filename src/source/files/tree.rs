//! What a set of files says together: pure, the looks at files come in.
//!
//! What may be a mishap waits for a second look that agrees: a file that lost
//! objects may be half-written, a file that is gone may be an editor's move
//! aside, many files gone at once may be a mount that failed.

use super::{Located, Place, What, parallel, parse::Parsed, print::Print};
use crate::{
    base::{ObjectKey, SortedMap},
    inputs::{Change, Fact, fact::Age, read::Reading},
    report::{Finding, Reason, Severity},
    yaml::{self, YamlError},
};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    fmt,
    path::Path,
    sync::Arc,
    time::Duration,
};

/// What a look at a path found.
#[derive(Clone, PartialEq, Eq)]
pub enum Seen {
    Bytes(Vec<u8>),
    /// Its folder was listed, and it is not there.
    Gone,
    /// It is there, but cannot be read: why. Said of folders too.
    Unreadable(String),
}

/// A file may be a Secret: its content does not print.
impl fmt::Debug for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bytes(bytes) => write!(f, "Bytes({} bytes)", bytes.len()),
            Self::Gone => f.write_str("Gone"),
            Self::Unreadable(why) => write!(f, "Unreadable({why:?})"),
        }
    }
}

/// What a look comes to, beside the text in force.
enum Read {
    Gone,
    Unreadable(String),
    Same,
    Parsed(Parsed),
}

/// What one pass found different.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Outcome {
    pub changes: Vec<Change>,
    pub findings: BTreeMap<Arc<Path>, Vec<Located>>,
    pub places: Vec<(ObjectKey, Option<Place>)>,
}

/// A file that is gone may be one that an editor moved aside to write it anew.
pub(super) const GONE_GRACE: Duration = Duration::from_millis(100);
/// A loss that looks like a mishap must still be there after this long.
pub(super) const HOLD: Duration = Duration::from_secs(1);
/// Objects that may vanish in one pass without a second look: this many, or one
/// in ten (F23).
const VANISH_MAX: usize = 10;

/// All files, what is in force of each, and what is published of it.
pub struct Tree {
    limits: yaml::Limits,
    files: HashMap<Arc<Path>, File>,
    /// The files that have an object, sorted.
    holders: HashMap<ObjectKey, Vec<Arc<Path>>>,
    published: HashMap<ObjectKey, (Fact, Place)>,
    findings: BTreeMap<Arc<Path>, Vec<Located>>,
    /// Files whose loss waits, and files that cannot be read whole: kept beside
    /// `files`, so that a pass costs nothing for files it does not look at.
    held: BTreeSet<Arc<Path>>,
    torn: BTreeSet<Arc<Path>>,
}

#[derive(Default)]
struct File {
    /// The text in force.
    parsed: Parsed,
    objects: SortedMap<ObjectKey, Entry>,
    /// What is wrong with the file beside its objects.
    problems: Vec<Located>,
    /// Something of the file could not be read.
    broken: bool,
    /// It could not be read at the last look.
    unreadable: Option<String>,
    hold: Option<Hold>,
}

/// An object as one file has it.
#[derive(Clone, PartialEq)]
struct Entry {
    line: u32,
    /// None for an object that never could be used.
    fact: Option<Fact>,
    findings: Vec<Finding>,
    /// It is not in the file's latest text: another file that has it goes first.
    leaving: bool,
}

/// A loss that waits for a second look.
enum Hold {
    Gone {
        since: Duration,
    },
    /// The file's new text has lost something.
    Shrunk {
        since: Duration,
        print: Print,
    },
}

impl Tree {
    #[must_use]
    pub fn new(limits: yaml::Limits) -> Self {
        Self {
            limits,
            files: HashMap::new(),
            holders: HashMap::new(),
            published: HashMap::new(),
            findings: BTreeMap::new(),
            held: BTreeSet::new(),
            torn: BTreeSet::new(),
        }
    }

    /// Takes in looks of one time (a duration since any fixed instant).
    pub fn pass(
        &mut self,
        looks: Vec<(Arc<Path>, Seen)>,
        now: Duration,
        first_seen: &(dyn Fn(&ObjectKey) -> Age + Sync),
    ) -> Outcome {
        let looks = parallel::map(looks, |(path, seen)| {
            let read = self.read(&path, seen, first_seen);
            (path, read)
        });
        let mut touched = Touched::default();
        let mut gone = Vec::new();
        for (path, read) in looks {
            touched.files.insert(path.clone());
            match read {
                Read::Gone => gone.push(path),
                Read::Unreadable(why) => self.unreadable(&path, why, &mut touched),
                Read::Same => self.same(&path, &mut touched),
                Read::Parsed(parsed) => self.parsed(&path, parsed, now, &mut touched),
            }
        }
        self.gone(gone, now, &mut touched);
        for path in &touched.files {
            let file = self.files.get(path);
            note(&mut self.held, path, file.is_some_and(|file| file.hold.is_some()));
            let torn = file.is_some_and(|file| file.broken || file.unreadable.is_some());
            note(&mut self.torn, path, torn);
        }
        self.publish(touched)
    }

    /// The files whose loss waits: to be looked at again.
    pub fn held(&self) -> impl Iterator<Item = &Arc<Path>> {
        self.held.iter()
    }

    /// Every path something is known of.
    pub fn paths(&self) -> impl Iterator<Item = &Arc<Path>> {
        self.files.keys()
    }

    #[must_use]
    pub fn knows(&self, path: &Path) -> bool {
        self.files.contains_key(path)
    }

    #[must_use]
    pub fn is_held(&self, path: &Path) -> bool {
        self.held.contains(path)
    }

    /// Whether an object is published.
    #[must_use]
    pub fn has(&self, key: &ObjectKey) -> bool {
        self.published.contains_key(key)
    }

    /// Whether every file and every document in it can be read.
    #[must_use]
    pub fn whole(&self) -> bool {
        self.torn.is_empty()
    }

    /// How many objects are published.
    #[must_use]
    pub fn len(&self) -> usize {
        self.published.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.published.is_empty()
    }

    fn unreadable(&mut self, path: &Arc<Path>, why: String, touched: &mut Touched) {
        let file = self.files.entry(path.clone()).or_default();
        file.unreadable = Some(why);
        file.hold = None;
        file.stay(touched);
    }

    /// What a look comes to; the costly part, and one that changes nothing.
    fn read(&self, path: &Path, seen: Seen, first_seen: &dyn Fn(&ObjectKey) -> Age) -> Read {
        let bytes = match seen {
            Seen::Gone => return Read::Gone,
            Seen::Unreadable(why) => return Read::Unreadable(why),
            Seen::Bytes(bytes) => bytes,
        };
        let before = self.files.get(path).map(|file| &file.parsed);
        let print = Print::of(&bytes);
        match before {
            Some(before) if *before.print() == print => Read::Same,
            Some(_) | None => Read::Parsed(Parsed::new(&bytes, print, before, &self.limits, first_seen)),
        }
    }

    fn same(&mut self, path: &Arc<Path>, touched: &mut Touched) {
        if let Some(file) = self.files.get_mut(path) {
            file.unreadable = None;
            file.hold = None;
            file.stay(touched);
        }
    }

    fn parsed(&mut self, path: &Arc<Path>, parsed: Parsed, now: Duration, touched: &mut Touched) {
        let file = self.files.entry(path.clone()).or_default();
        file.unreadable = None;
        let next = Contents::of(path, &parsed, &file.objects);
        let cut = parsed.print().is_cut_of(file.parsed.print());
        if !file.objects.is_empty() && (cut || !next.missing.is_empty()) {
            let since = match &file.hold {
                Some(Hold::Shrunk { since, print }) if print == parsed.print() => *since,
                Some(Hold::Shrunk { .. } | Hold::Gone { .. }) | None => now,
            };
            if now - since < HOLD {
                file.hold = Some(Hold::Shrunk { since, print: parsed.print().clone() });
                for (key, entry) in file.objects.iter_mut() {
                    entry.leaving = next.missing.contains(key);
                    touched.keys.insert(key.clone());
                }
                return;
            }
        }
        let Contents { objects, problems, broken, missing: _ } = next;
        let objects = objects.into_iter().collect();
        touched.changed(&file.objects, &objects);
        for key in file.objects.keys().filter(|key| !objects.contains_key(*key)) {
            drop_holder(&mut self.holders, key, path);
        }
        for key in objects.keys().filter(|key| !file.objects.contains_key(*key)) {
            add_holder(&mut self.holders, key, path);
        }
        *file = File { parsed, objects, problems, broken, unreadable: None, hold: None };
    }

    /// Files that are gone: few objects go after a grace, many after a longer hold.
    fn gone(&mut self, paths: Vec<Arc<Path>>, now: Duration, touched: &mut Touched) {
        let mut waiting = Vec::new();
        for path in paths {
            let Some(file) = self.files.get_mut(&path) else { continue };
            let since = match file.hold {
                Some(Hold::Gone { since }) => since,
                Some(Hold::Shrunk { .. }) | None => now,
            };
            file.hold = Some(Hold::Gone { since });
            for (key, entry) in file.objects.iter_mut() {
                entry.leaving = true;
                touched.keys.insert(key.clone());
            }
            waiting.push((path, since));
        }
        if waiting.is_empty() {
            return;
        }
        let vanishing = self.vanishing();
        let wait = if vanishing > VANISH_MAX.max(self.published.len() / 10) { HOLD } else { GONE_GRACE };
        for (path, since) in waiting {
            let empty = self.files.get(&path).is_some_and(|file| file.objects.is_empty());
            if empty || now - since >= wait {
                let file = self.files.remove(&path).expect("it was found above");
                for key in file.objects.keys() {
                    drop_holder(&mut self.holders, key, &path);
                }
            } else if wait == HOLD && now == since {
                tracing::warn!(
                    file = %path.display(),
                    objects = vanishing,
                    "Many objects vanished at once: kept until a second look agrees"
                );
            }
        }
    }

    /// Objects that only files now gone have.
    fn vanishing(&self) -> usize {
        let gone = |path: &Arc<Path>| {
            matches!(self.files.get(path).and_then(|file| file.hold.as_ref()), Some(Hold::Gone { .. }))
        };
        let files = self.files.values().filter(|file| matches!(file.hold, Some(Hold::Gone { .. })));
        let keys: BTreeSet<&ObjectKey> = files.flat_map(|file| file.objects.keys()).collect();
        keys.into_iter()
            .filter(|key| self.holders.get(*key).is_some_and(|paths| paths.iter().all(gone)))
            .count()
    }

    /// Chooses anew for every object touched, and tells what that changes.
    fn publish(&mut self, touched: Touched) -> Outcome {
        let Touched { keys, mut files } = touched;
        let mut outcome = Outcome::default();
        for key in keys {
            if let Some(paths) = self.holders.get(&key).filter(|paths| paths.len() > 1) {
                files.extend(paths.iter().cloned());
            }
            let chosen = self.chosen(&key);
            let (fact, place) = match self.published.get(&key) {
                Some((fact, place)) => (Some(fact), Some(place)),
                None => (None, None),
            };
            if fact != chosen.as_ref().map(|(fact, _)| fact) {
                let fact = chosen.as_ref().map(|(fact, _)| fact.clone());
                outcome.changes.push(Change { key: key.clone(), fact });
            }
            if place != chosen.as_ref().map(|(_, place)| place) {
                let place = chosen.as_ref().map(|(_, place)| place.clone());
                outcome.places.push((key.clone(), place));
            }
            match chosen {
                Some(chosen) => self.published.insert(key, chosen),
                None => self.published.remove(&key),
            };
        }
        for path in files {
            let findings = self.findings_of(&path);
            if self.findings.get(&path).map_or(&[][..], Vec::as_slice) != findings {
                match findings.is_empty() {
                    true => self.findings.remove(&path),
                    false => self.findings.insert(path.clone(), findings.clone()),
                };
                outcome.findings.insert(path, findings);
            }
        }
        outcome
    }

    /// The fact that counts: of the first file, those that are losing it last.
    fn chosen(&self, key: &ObjectKey) -> Option<(Fact, Place)> {
        let entries = self.holders.get(key)?.iter().filter_map(|path| {
            let entry = self.files.get(path)?.objects.get(key)?;
            Some((entry.leaving, path, entry.line, entry.fact.as_ref()?))
        });
        let (_, path, line, fact) = entries.min_by_key(|(leaving, path, ..)| (*leaving, *path))?;
        Some((fact.clone(), Place { file: path.clone(), line }))
    }

    fn findings_of(&self, path: &Arc<Path>) -> Vec<Located> {
        let Some(file) = self.files.get(path) else { return Vec::new() };
        let mut findings = file.problems.clone();
        if let Some(why) = &file.unreadable {
            let kept = kept(file.objects.len());
            let message = format!("cannot be read: {}{kept}", crate::report::printable(why));
            findings.push(text(path, 0, Severity::Error, message));
        }
        for (key, entry) in file.objects.iter() {
            let place = Place { file: path.clone(), line: entry.line };
            let at = |finding| Located { place: Some(place.clone()), what: What::Object(finding) };
            findings.extend(entry.findings.iter().cloned().map(at));
            let used = self.published.get(key).map(|(_, used)| used).filter(|used| used.file != *path);
            if let (Some(used), false) = (used, entry.leaving) {
                findings.push(at(duplicate(key, used)));
            }
        }
        findings.sort();
        findings
    }
}

impl File {
    /// Its text is as before: nothing of it is leaving.
    fn stay(&mut self, touched: &mut Touched) {
        for (key, entry) in self.objects.iter_mut() {
            if std::mem::take(&mut entry.leaving) {
                touched.keys.insert(key.clone());
            }
        }
    }
}

/// What one pass may have changed.
#[derive(Default)]
struct Touched {
    keys: BTreeSet<ObjectKey>,
    files: HashSet<Arc<Path>>,
}

impl Touched {
    fn changed(&mut self, old: &SortedMap<ObjectKey, Entry>, new: &SortedMap<ObjectKey, Entry>) {
        let gone = old.keys().filter(|key| !new.contains_key(*key));
        let other = new.iter().filter(|(key, entry)| old.get(*key) != Some(*entry)).map(|(key, _)| key);
        self.keys.extend(gone.chain(other).cloned());
    }
}

/// What a file would hold with a new text.
struct Contents {
    objects: BTreeMap<ObjectKey, Entry>,
    problems: Vec<Located>,
    broken: bool,
    /// Objects in force that the new text does not have.
    missing: BTreeSet<ObjectKey>,
}

impl Contents {
    fn of(path: &Arc<Path>, parsed: &Parsed, before: &SortedMap<ObjectKey, Entry>) -> Self {
        let mut this =
            Self { objects: BTreeMap::new(), problems: Vec::new(), broken: false, missing: BTreeSet::new() };
        let mut errors = Vec::new();
        for reading in parsed.readings() {
            match reading {
                Err(YamlError { line, column: 0, message }) => errors.push((line, message)),
                Err(YamlError { line, column, message }) => {
                    errors.push((line, format!("column {column}: {message}")));
                }
                Ok((line, Reading::Nameless { field, message })) => {
                    let said = message.starts_with(field.as_str());
                    let message = if said { message.clone() } else { format!("{field}: {message}") };
                    errors.push((line, message));
                }
                Ok((_, Reading::Ignored(None))) => {}
                Ok((line, Reading::Ignored(Some(message)))) => {
                    this.problem(text(path, line, Severity::Info, message.clone()));
                }
                Ok((line, Reading::Fact { key, fact, findings })) => {
                    this.object(path, line, key, Some(fact.clone()), findings);
                }
                Ok((line, Reading::Refused { key, findings })) => {
                    // What an object last said that could be used stays in force.
                    let fact = before.get(key).and_then(|entry| entry.fact.clone());
                    this.object(path, line, key, fact, findings);
                }
            }
        }
        this.broken = !errors.is_empty();
        let missing: Vec<_> = before.iter().filter(|(key, _)| !this.objects.contains_key(*key)).collect();
        let kept = kept(if this.broken { missing.len() } else { 0 });
        if this.broken {
            // The missing ones may stand in what cannot be read.
            let stay = |entry: &Entry| Entry { leaving: false, ..entry.clone() };
            this.objects.extend(missing.into_iter().map(|(key, entry)| (key.clone(), stay(entry))));
        } else {
            this.missing = missing.into_iter().map(|(key, _)| key.clone()).collect();
        }
        for (line, message) in errors {
            this.problem(text(path, line, Severity::Error, format!("{message}{kept}")));
        }
        this
    }

    fn object(
        &mut self,
        path: &Arc<Path>,
        line: u32,
        key: &ObjectKey,
        fact: Option<Fact>,
        findings: &[Finding],
    ) {
        if let Some(first) = self.objects.get(key) {
            let used = Place { file: path.clone(), line: first.line };
            let place = Some(Place { file: path.clone(), line });
            self.problem(Located { place, what: What::Object(duplicate(key, &used)) });
            return;
        }
        let findings = findings.to_vec();
        self.objects.insert(key.clone(), Entry { line, fact, findings, leaving: false });
    }

    fn problem(&mut self, problem: Located) {
        if self.problems.len() < PROBLEMS_MAX {
            self.problems.push(problem);
        }
    }
}

/// Problems told of one file.
const PROBLEMS_MAX: usize = 256;

fn note(set: &mut BTreeSet<Arc<Path>>, path: &Arc<Path>, holds: bool) {
    if holds {
        set.insert(path.clone());
    } else {
        set.remove(path);
    }
}

fn kept(objects: usize) -> String {
    match objects {
        0 => String::new(),
        1 => "; the 1 object last read here stays in force".to_owned(),
        more => format!("; the {more} objects last read here stay in force"),
    }
}

fn text(path: &Arc<Path>, line: u32, severity: Severity, message: String) -> Located {
    let place = Some(Place { file: path.clone(), line });
    Located { place, what: What::Text { severity, message } }
}

fn duplicate(key: &ObjectKey, used: &Place) -> Finding {
    Finding {
        object: key.clone(),
        severity: Severity::Error,
        reason: Reason::Duplicate,
        field: String::new(),
        message: format!("also in {used}, which is used; remove one of them"),
    }
}

fn add_holder(holders: &mut HashMap<ObjectKey, Vec<Arc<Path>>>, key: &ObjectKey, path: &Arc<Path>) {
    match holders.get_mut(key) {
        Some(paths) => {
            let at = paths.partition_point(|known| known < path);
            paths.insert(at, path.clone());
        }
        // Most objects are in one file: room for no more than that.
        None => drop(holders.insert(key.clone(), vec![path.clone()])),
    }
}

fn drop_holder(holders: &mut HashMap<ObjectKey, Vec<Arc<Path>>>, key: &ObjectKey, path: &Arc<Path>) {
    if let Some(paths) = holders.get_mut(key) {
        paths.retain(|known| known != path);
        if paths.is_empty() {
            holders.remove(key);
        }
    }
}

#[cfg(test)]
mod tests;
