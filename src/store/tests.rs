//! The store against restarts, refusals and damage.

use super::*;
use crate::{
    api::VipPoolSpec,
    base::{ObjectKind, Version},
    ipam::{Allocation, Broken, Desk, State},
    ir::{Claim, Families},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};
use tempfile::TempDir;

fn spec() -> VipPoolSpec {
    VipPoolSpec {
        addresses: vec!["10.0.0.0/16".to_owned(), "2001:db8::/64".to_owned()],
        exclude: Vec::new(),
        namespaces: None,
        priority: 0,
        quarantine_seconds: 60,
    }
}

fn pools() -> Pools {
    Pools::read([("public", &spec())]).0
}

fn claim(name: &str) -> Arc<Claim> {
    Arc::new(Claim {
        name: name.into(),
        namespace: None,
        namespace_labels: BTreeMap::new(),
        pool: None,
        families: Families { v4: true, v6: true },
        requested: Vec::new(),
    })
}

/// A store with the desk and ledger of its user.
struct User {
    opened: Opened,
    desk: Desk,
}

impl User {
    #[track_caller]
    fn open(dir: &Path) -> Self {
        let opened = Store::open(dir).expect("a store that opens");
        let mut desk = Desk::default();
        desk.set_pools(Arc::new(pools()));
        Self { opened, desk }
    }

    #[track_caller]
    fn step(&mut self, now: i64, claims: &[(&str, bool)]) -> Plan {
        for (name, wanted) in claims {
            self.desk.set_claim(&(*name).into(), wanted.then(|| claim(name)));
        }
        let plan = self.desk.plan(&self.opened.ledger, &BTreeSet::new(), now);
        self.opened.store.commit(&plan).expect("written");
        self.opened.ledger.apply(&plan).expect("applies");
        self.desk.done(&plan);
        plan
    }
}

/// Memory if there is some as a disk: the tests below write a lot.
fn temporary() -> TempDir {
    let memory = Path::new("/dev/shm");
    let dir = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
    dir.expect("a directory")
}

/// A directory with a bit of everything in it.
fn some_state(dir: &Path) -> (Ledger, ExportDoc) {
    let user = some_user(dir);
    (user.opened.ledger.clone(), user.opened.store.export().expect("reads"))
}

fn some_user(dir: &Path) -> User {
    let mut user = User::open(dir);
    user.step(100, &[("a", true), ("b", true), ("c", true)]);
    user.step(110, &[("b", false), ("d", true)]);
    for i in 0..40 {
        user.step(120 + i, &[(&format!("more/{i}"), true)]);
    }
    user.step(175, &[("c", false)]);
    let shop = ObjectKey::new(ObjectKind::Ingress, "shop", "cart");
    let class = ObjectKey::cluster(ObjectKind::IngressClass, "public");
    let seen = |seconds, batch| Some(FirstSeen { seconds, batch });
    user.opened.store.remember(&[(shop, seen(7, 1)), (class, seen(8, 2))], &[]).expect("written");
    let serial = Serial { content: Version(7), serial: 3 };
    user.opened.store.remember(&[], &[("example.com".to_owned(), serial)]).expect("written");
    user
}

#[test]
fn what_was_written_is_there_again() {
    let dir = temporary();
    let (ledger, document) = some_state(dir.path());
    let mut user = User::open(dir.path());
    assert_eq!(user.opened.ledger, ledger);
    assert_eq!(user.opened.store.export().expect("reads"), document);
    assert_eq!(user.opened.serials["example.com"], Serial { content: Version(7), serial: 3 });
    let shop: ObjectKey = "Ingress/shop/cart".parse().expect("a key");
    assert_eq!(user.opened.ages[&shop], FirstSeen { seconds: 7, batch: 1 });
    user.opened.store.remember(&[(shop.clone(), None)], &[]).expect("written");
    drop(user);
    assert!(!User::open(dir.path()).opened.ages.contains_key(&shop));
}

#[test]
fn history_tells_the_newest_first() {
    let dir = temporary();
    let mut user = User::open(dir.path());
    user.step(100, &[("a", true), ("b", true)]);
    user.step(110, &[("a", false)]);
    user.step(170, &[]);
    let store = &user.opened.store;
    let tell = |claim, address, limit| -> Vec<(i64, String)> {
        let found = store.history(claim, address, limit).expect("reads");
        found.into_iter().map(|entry| (entry.at, format!("{} {:?}", entry.address, entry.event))).collect()
    };
    let expected = [
        (170, "10.0.0.1 Freed".to_owned()),
        (110, "10.0.0.1 Released { until: 170 }".to_owned()),
        (100, "10.0.0.1 Allocated { pool: \"public\" }".to_owned()),
    ];
    assert_eq!(tell(None, Some("10.0.0.1".parse().expect("an address")), 9), expected);
    assert_eq!(tell(Some("b"), None, 9).len(), 2);
    assert_eq!(tell(None, None, 3).len(), 3);
}

#[test]
fn history_is_bounded() {
    let dir = temporary();
    let mut user = User::open(dir.path());
    // One plan of many events, twice: the oldest go.
    let half = HISTORY_MAX / 4 + 50;
    let names: Vec<String> = (0..half).map(|i| format!("c{i:05}")).collect();
    let wanted: Vec<(&str, bool)> = names.iter().map(|name| (name.as_str(), true)).collect();
    let gone: Vec<(&str, bool)> = names.iter().map(|name| (name.as_str(), false)).collect();
    user.step(1, &wanted);
    user.step(2, &gone);
    let found = user.opened.store.history(None, None, usize::MAX).expect("reads");
    assert_eq!(found.len(), HISTORY_MAX);
    assert_eq!(found.iter().filter(|entry| entry.at == 1).count(), 2 * half - 200);
    drop(user);
    User::open(dir.path()).step(3, &[("z", true)]);
    let found = User::open(dir.path()).opened.store.history(None, None, 1).expect("reads");
    assert_eq!(&*found[0].claim, "z");
}

#[test]
fn one_process_at_a_time() {
    let dir = temporary();
    let user = User::open(dir.path());
    assert!(matches!(Store::open(dir.path()), Err(StoreError::InUse { .. })));
    let document = user.opened.store.export().expect("reads");
    assert!(matches!(Store::import(dir.path(), &document), Err(StoreError::InUse { .. })));
    drop(user);
    User::open(dir.path());
}

#[test]
fn a_plan_that_does_not_fit_is_refused() {
    let dir = temporary();
    let mut user = User::open(dir.path());
    user.step(100, &[("a", true)]);
    let before = user.opened.store.export().expect("reads");
    let steal = Plan {
        allocate: vec![Allocation {
            claim: "thief".into(),
            address: "10.0.0.1".parse().expect("an address"),
            pool: "public".into(),
        }],
        ..Plan::default()
    };
    let refused = user.opened.store.commit(&steal);
    assert!(matches!(refused, Err(StoreError::Conflict(Broken::TwoOwners { .. }))), "{refused:?}");
    assert_eq!(user.opened.store.export().expect("reads"), before);
    // And it goes on.
    user.step(101, &[("b", true)]);
}

#[test]
fn a_missing_ledger_is_no_empty_start() {
    let dir = temporary();
    let (ledger, _) = some_state(dir.path());
    fs::remove_file(dir.path().join(LEDGER)).expect("removes");
    let refused = Store::open(dir.path()).expect_err("refused");
    assert!(matches!(refused, StoreError::Missing { .. }));
    let told = refused.to_string();
    assert!(told.contains("ledger.redb") && told.contains("tidegate vip import --state"), "{told}");
    fs::remove_file(dir.path().join(CREATED)).expect("removes");
    assert!(matches!(Store::open(dir.path()), Err(StoreError::Missing { .. })));
    let document = Store::salvage(dir.path()).expect("a backup");
    Store::import(dir.path(), &document).expect("imports");
    assert_eq!(User::open(dir.path()).opened.ledger, ledger);
}

/// An empty directory, one with only the lock, and one where the making of the
/// file was cut short are beginnings; an empty file is damage.
#[test]
fn beginnings() {
    let dir = temporary();
    fs::write(dir.path().join("ledger.redb.new"), b"half").expect("writes");
    drop(User::open(&dir.path().join("deep/er")));
    drop(User::open(dir.path()));
    fs::write(dir.path().join(LEDGER), b"").expect("writes");
    let refused = Store::open(dir.path()).expect_err("refused");
    assert!(matches!(refused, StoreError::Corrupt { .. }), "{refused}");
    let told = refused.to_string();
    assert!(told.contains("tidegate vip export") && told.contains("tidegate vip import"), "{told}");
}

#[test]
fn an_older_ledger_is_refused() {
    let dir = temporary();
    let mut user = User::open(dir.path());
    user.step(100, &[("a", true)]);
    drop(user);
    let old = fs::read(dir.path().join(LEDGER)).expect("reads");
    let mut user = User::open(dir.path());
    user.step(101, &[("b", true)]);
    let ledger = user.opened.ledger.clone();
    drop(user);
    fs::write(dir.path().join(LEDGER), old).expect("writes");
    let refused = Store::open(dir.path()).expect_err("refused");
    assert!(matches!(refused, StoreError::Behind { .. }), "{refused}");
    Store::import(dir.path(), &Store::salvage(dir.path()).expect("a backup")).expect("imports");
    assert_eq!(User::open(dir.path()).opened.ledger, ledger);
}

#[test]
fn exports_import_and_edited_ones_are_checked() {
    let (dir, other) = (temporary(), temporary());
    let (ledger, document) = some_state(dir.path());
    let text = serde_json::to_string_pretty(&document).expect("json");
    let read: ExportDoc = serde_json::from_str(&text).expect("reads what it prints");
    assert_eq!(read, document);
    Store::import(other.path(), &read).expect("imports");
    let user = User::open(other.path());
    assert_eq!(user.opened.ledger, ledger);
    let ExportDoc { generation, history, .. } = user.opened.store.export().expect("reads");
    assert!(generation > document.generation);
    assert_eq!(history, document.history);
    drop(user);
    let refused = |why: &str, edit: &dyn Fn(&mut ExportDoc)| {
        let mut edited = document.clone();
        edit(&mut edited);
        let error = Store::import(other.path(), &edited).expect_err(why).to_string();
        assert!(error.contains(why), "{error}");
    };
    refused("10.0.0.1 is written twice", &|doc| doc.addresses.push(doc.addresses[0].clone()));
    refused("format is 9", &|doc| doc.format = 9);
    refused("IPv4 in disguise", &|doc| {
        doc.addresses[0].address = "::ffff:10.0.0.1".parse().expect("an address")
    });
    refused("no kind", &|doc| doc.ages[0].object = "Pod/a/b".to_owned());
    // What was refused changed nothing.
    assert_eq!(User::open(other.path()).opened.ledger, ledger);
}

#[test]
fn the_backup_follows_and_is_bounded() {
    let dir = temporary();
    let mut user = User::open(dir.path());
    let long = "x".repeat(20_000);
    for i in 0..150 {
        user.step(i, &[(&format!("{long}/{}", i % 3), i % 2 == 0)]);
        let salvaged = Store::salvage(dir.path()).expect("a backup").ledger().expect("whole");
        assert_eq!(salvaged, user.opened.ledger);
    }
    let bytes = fs::metadata(dir.path().join(BACKUP)).expect("is there").len();
    assert!(bytes < 3 << 20, "{bytes}");
    // Damage at its end costs the end alone; at its beginning, all of it. The
    // ledger is not touched by either.
    let ledger = user.opened.ledger.clone();
    drop(user);
    let whole = fs::read(dir.path().join(BACKUP)).expect("reads");
    for kept in [whole.len() / 2, 10, 0] {
        fs::write(dir.path().join(BACKUP), &whole[..kept]).expect("writes");
        assert!(kept > 1000 || Store::salvage(dir.path()).is_err());
        assert_eq!(User::open(dir.path()).opened.ledger, ledger);
        assert_eq!(Store::salvage(dir.path()).expect("begun anew").ledger().expect("whole"), ledger);
    }
}

#[test]
fn a_damaged_cache_is_begun_anew() {
    let dir = temporary();
    let (cache, content) = Cache::open(dir.path()).expect("opens");
    assert!(content.is_empty());
    cache.write(&[("a", Some(b"1")), ("b", Some(b"2")), ("a", None)]).expect("writes");
    drop(cache);
    let (_, content) = Cache::open(dir.path()).expect("opens");
    assert_eq!(content, BTreeMap::from([("b".to_owned(), b"2".to_vec())]));
    let path = dir.path().join("cache.redb");
    for damage in [b"".to_vec(), b"nonsense".to_vec(), fs::read(&path).expect("reads")[..9000].to_vec()] {
        fs::write(&path, damage).expect("writes");
        let (cache, content) = Cache::open(dir.path()).expect("begins anew");
        assert!(content.is_empty());
        cache.write(&[("a", Some(b"1"))]).expect("writes");
    }
}

/// A small generator, so that a failure names its seed.
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        // SplitMix64.
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((z ^ (z >> 31)) % end as u64).expect("below a usize")
    }
}

fn damage(random: &mut Random, bytes: &mut Vec<u8>, used: usize) {
    // Half of it where the content is, the rest anywhere.
    let end = if random.below(2) == 0 { used } else { bytes.len() };
    match random.below(12) {
        0 => bytes.truncate(random.below(bytes.len())),
        1 => {
            let page = random.below(end / 4096) * 4096;
            bytes[page..page + 4096].fill(0);
        }
        2 => {
            // A page written to where another belongs.
            let (from, to) = (random.below(end / 4096) * 4096, random.below(end / 4096) * 4096);
            let page = bytes[from..from + 4096].to_vec();
            bytes[to..to + 4096].copy_from_slice(&page);
        }
        3 => {
            let at = random.below(end - 64);
            (at..at + 64).for_each(|at| bytes[at] = u8::try_from(random.below(256)).expect("a byte"));
        }
        4 => bytes.extend(std::iter::repeat_n(0, 1 + random.below(9000))),
        // The header has no checksum of its own: look there closely.
        5..8 => bytes[random.below(320)] ^= 1 << random.below(8),
        _ => bytes[random.below(end)] ^= 1 << random.below(8),
    }
}

/// A ledger to be damaged, and what it holds.
struct Sound {
    /// The file as kill -9 leaves it, the commit before the last still in it; and as
    /// it is closed.
    killed: Vec<u8>,
    closed: Vec<u8>,
    backup: Vec<u8>,
    ledger: Ledger,
    document: ExportDoc,
}

impl Sound {
    fn new() -> Self {
        let dir = temporary();
        let user = some_user(dir.path());
        let killed = fs::read(dir.path().join(LEDGER)).expect("reads");
        let (ledger, document) = (user.opened.ledger.clone(), user.opened.store.export().expect("reads"));
        drop(user);
        let closed = fs::read(dir.path().join(LEDGER)).expect("reads");
        let backup = fs::read(dir.path().join(BACKUP)).expect("reads");
        Self { killed, closed, backup, ledger, document: ExportDoc { generation: 0, ..document } }
    }

    fn damaged(&self, seed: u64) -> Vec<u8> {
        let mut random = Random(seed);
        let mut bytes = if seed.is_multiple_of(2) { self.closed.clone() } else { self.killed.clone() };
        if seed < HEADER_FLAGS {
            // Each flag of the header, which say which commit is the newest.
            bytes[9] ^= 1 << (seed / 2);
            return bytes;
        }
        let used = bytes.len() - bytes.iter().rev().take_while(|byte| **byte == 0).count();
        let used = used.next_multiple_of(4096).min(bytes.len());
        damage(&mut random, &mut bytes, used);
        bytes
    }

    /// Whether a file is refused, and as what. It is, or it has what was written.
    fn judge(&self, dir: &Path, seed: u64) -> Option<&'static str> {
        fs::write(dir.join(LEDGER), self.damaged(seed)).expect("writes");
        fs::write(dir.join(BACKUP), &self.backup).expect("writes");
        match Store::open(dir) {
            Ok(opened) => {
                assert_eq!(opened.ledger, self.ledger, "seed {seed}");
                let read = opened.store.export().expect("reads");
                assert_eq!(ExportDoc { generation: 0, ..read }, self.document, "seed {seed}");
                None
            }
            Err(StoreError::Corrupt { why, .. }) if why.contains("stopped") => Some("contained panic"),
            Err(StoreError::Corrupt { .. }) => Some("corrupt"),
            Err(StoreError::Behind { .. }) => Some("behind"),
            Err(other) => panic!("seed {seed}: {other}"),
        }
    }
}

const HEADER_FLAGS: u64 = 16;

/// F16: whatever becomes of the file, it is refused, or it has exactly the
/// content that was written. Never a panic, never another content.
#[test]
fn damage_is_found_or_harmless() {
    const ROUNDS: u64 = 10_000;
    const THREADS: u64 = 2;
    let sound = Sound::new();
    let judge = &|thread: u64| {
        let dir = temporary();
        let mut verdicts = BTreeMap::<Option<&str>, u32>::new();
        for seed in (thread..ROUNDS).step_by(THREADS as usize) {
            *verdicts.entry(sound.judge(dir.path(), seed)).or_default() += 1;
        }
        verdicts
    };
    let mut verdicts = BTreeMap::<Option<&str>, u32>::new();
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS).map(|thread| scope.spawn(move || judge(thread))).collect();
        for (verdict, count) in threads.into_iter().flat_map(|thread| thread.join().expect("no panic")) {
            *verdicts.entry(verdict).or_default() += count;
        }
    });
    println!("{} bytes: {verdicts:?}", sound.closed.len());
    assert!([None, Some("corrupt"), Some("behind")].iter().all(|verdict| verdicts[verdict] > 0));
    let state =
        |state| sound.ledger.entries().any(|(_, entry)| std::mem::discriminant(&entry.state) == state);
    assert!(state(std::mem::discriminant(&State::Held { since: 0 })));
    assert!(state(std::mem::discriminant(&State::Quarantined { until: 0 })));
}

#[test]
fn a_plan_of_nothing_writes_nothing() {
    let dir = temporary();
    let mut user = User::open(dir.path());
    user.step(1, &[("a", true)]);
    let generation = user.opened.store.export().expect("reads").generation;
    assert!(user.step(2, &[("a", true)]).is_empty());
    assert_eq!(user.opened.store.export().expect("reads").generation, generation);
}

/// Damage of the backup never harms a ledger that is whole.
#[test]
fn damage_of_the_backup_is_mended() {
    let dir = temporary();
    let (ledger, _) = some_state(dir.path());
    let (path, backup) = (dir.path().join(BACKUP), dir.path().join(LEDGER));
    let (backup, whole) = (fs::read(&path).expect("reads"), fs::read(backup).expect("reads"));
    for seed in 0..300 {
        let mut random = Random(seed);
        let mut bytes = backup.clone();
        let used = bytes.len();
        damage(&mut random, &mut bytes, used);
        fs::write(dir.path().join(LEDGER), &whole).expect("writes");
        fs::write(&path, bytes).expect("writes");
        assert_eq!(Store::open(dir.path()).expect("opens").ledger, ledger, "seed {seed}");
        let mended = Store::salvage(dir.path()).expect("begun anew").ledger().expect("whole");
        assert_eq!(mended, ledger, "seed {seed}");
    }
}
