use super::*;
use std::fs;

fn key(kind: ResourceKind, name: &str) -> ResourceKey {
    ResourceKey { kind, name: name.into() }
}

fn resource(kind: ResourceKind, name: &str, version: u128) -> Resource {
    Resource {
        key: key(kind, name),
        version: Version(version),
        body: format!("body of {name} {version}").into_bytes().into(),
        needs: [key(ResourceKind::Cluster, "shop/web/80")].into(),
        origins: [].into(),
    }
}

fn set(resources: &[Resource]) -> Update {
    Update { set: resources.to_vec(), removed: vec![] }
}

struct Home(tempfile::TempDir);

impl Home {
    fn new() -> Self {
        let home = tempfile::tempdir_in("/dev/shm").expect("a tmpfs");
        Self(home)
    }

    fn open(&self) -> (Snapshot, Option<Vec<(ResourceKey, Version)>>) {
        let keys = self.0.path().join("keys");
        let (snapshot, state) = Snapshot::open(self.0.path(), Some(&keys)).expect("the folder is ours");
        let state = state.map(|state| state.set.iter().map(|set| (set.key.clone(), set.version)).collect());
        (snapshot, state)
    }

    fn log(&self) -> std::path::PathBuf {
        self.0.path().join("snapshot.log")
    }
}

#[test]
fn what_was_kept_is_there_again() {
    let home = Home::new();
    let route = resource(ResourceKind::Route, "r", 1);
    let (mut snapshot, state) = home.open();
    assert_eq!(state, None);
    snapshot.keep(&set(&[route.clone(), resource(ResourceKind::Cluster, "gone", 1)]));
    snapshot.keep(&set(&[resource(ResourceKind::Secret, "a.example.com", 3)]));
    snapshot.finish();
    snapshot.keep(&set(&[resource(ResourceKind::Route, "r", 2)]));
    snapshot.keep(&Update { set: vec![], removed: vec![key(ResourceKind::Cluster, "gone")] });
    drop(snapshot);
    let keys = Some(home.0.path().join("keys"));
    let (_, state) = Snapshot::open(home.0.path(), keys.as_deref()).expect("ours");
    let state = state.expect("a whole state").set;
    let [secret, route] = &state[..] else { panic!("{state:?}") };
    assert_eq!((route.version, &route.body.bytes()[..]), (Version(2), &b"body of r 2"[..]));
    assert_eq!(*route.needs, [key(ResourceKind::Cluster, "shop/web/80")]);
    assert_eq!(secret.version, Version(3));
    let public = fs::read(home.log()).expect("a log");
    assert!(!public.windows(13).any(|bytes| bytes == b"a.example.com"), "secrets are in memory alone");
}

#[test]
fn half_a_state_is_none() {
    let home = Home::new();
    let (mut snapshot, _) = home.open();
    snapshot.keep(&set(&[resource(ResourceKind::Route, "r", 1)]));
    drop(snapshot);
    assert_eq!(home.open().1, None);
    assert_eq!(fs::metadata(home.log()).expect("a log").len(), 0);
}

/// Whatever is wrong with it: never a panic, and never anything that was not true once.
#[test]
fn a_damaged_log_gives_an_earlier_state() {
    let home = Home::new();
    let (mut snapshot, _) = home.open();
    snapshot.finish();
    for version in 1..40 {
        snapshot.keep(&set(&[resource(ResourceKind::Route, "r", version)]));
    }
    drop(snapshot);
    let whole = fs::read(home.log()).expect("a log");
    for at in 0..whole.len() {
        let mut damaged = whole.clone();
        if at % 3 == 0 {
            damaged.truncate(at);
        } else {
            damaged[at] ^= 1 << (at % 8);
        }
        fs::write(home.log(), damaged).expect("written");
        let (mut snapshot, state) = home.open();
        let Some(state) = state else { continue };
        for (known, version) in state {
            assert_eq!(known, key(ResourceKind::Route, "r"));
            assert!((1..40).contains(&version.0), "{version:?}");
        }
        // What is kept behind the damage is read again.
        snapshot.keep(&set(&[resource(ResourceKind::Route, "s", 7)]));
        drop(snapshot);
        let (_, state) = home.open();
        assert!(state.expect("whole").contains(&(key(ResourceKind::Route, "s"), Version(7))));
    }
}

#[test]
fn a_log_that_is_mostly_past_is_written_anew() {
    let home = Home::new();
    let (mut snapshot, _) = home.open();
    let mut cache = Cache::new();
    let body = vec![b'x'; 1 << 20];
    for version in 1..12 {
        let mut route = resource(ResourceKind::Route, "r", version);
        route.body = body.clone().into();
        let secret = resource(ResourceKind::Secret, "s", version);
        for update in [set(&[route]), set(&[secret])] {
            snapshot.keep(&update);
            cache.apply(update);
        }
        snapshot.finish();
        snapshot.tidy(&cache);
    }
    drop(snapshot);
    assert!(fs::metadata(home.log()).expect("a log").len() < 5 << 20);
    let (_, state) = home.open();
    let expected =
        [(key(ResourceKind::Secret, "s"), Version(11)), (key(ResourceKind::Route, "r"), Version(11))];
    assert_eq!(state.expect("whole"), expected);
}

/// An old state must not come back after newer ones were served.
#[test]
fn a_log_that_cannot_be_written_is_removed() {
    let home = Home::new();
    let (mut snapshot, _) = home.open();
    snapshot.finish();
    snapshot.keep(&set(&[resource(ResourceKind::Route, "r", 1)]));
    snapshot.public.break_for_test();
    snapshot.keep(&set(&[resource(ResourceKind::Route, "r", 2)]));
    assert!(!home.log().exists());
    let mut cache = Cache::new();
    cache.apply(set(&[resource(ResourceKind::Route, "r", 2)]));
    snapshot.tidy(&cache);
    drop(snapshot);
    assert_eq!(home.open().1.expect("whole"), [(key(ResourceKind::Route, "r"), Version(2))]);
}

#[test]
fn keys_are_not_put_where_others_or_disks_are() {
    let home = Home::new();
    let open = home.0.path().join("open");
    fs::create_dir(&open).expect("a folder");
    fs::set_permissions(&open, std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("ours");
    let on_disk = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).expect("a folder");
    for folder in [open.as_path(), on_disk.path()] {
        let refused = Snapshot::open(home.0.path(), Some(folder)).expect_err("no place for keys");
        assert!(matches!(refused, EngineError::NoPlaceForKeys(_)), "{refused}");
    }
}
