//! F15: the disk is full. The plan is refused, nothing of it is given, and the
//! ledger is what it was once there is space again.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    process::Command,
    sync::Arc,
};
use tidegate::{
    api::VipPoolSpec,
    base::ObjectKey,
    ipam::{Ledger, Pools, Request, check, plan},
    ir::{Claim, Families},
    store::{FirstSeen, Opened, Store, StoreError},
};

/// Names the directory to the process that may not write much.
const CHILD: &str = "TIDEGATE_STORE_FULL_DIR";
/// No file of it may grow beyond this many blocks of 512 bytes: `ulimit -f`.
const BLOCKS: u32 = 1_200;
const CLAIMS_MAX: u32 = 20_000;

const SEEN: FirstSeen = FirstSeen { seconds: 7, batch: 1 };

fn object() -> ObjectKey {
    "Ingress/shop/cart".parse().expect("a key")
}

/// One more claim, as a plan of its own.
fn one_more(store: &mut Store, ledger: &mut Ledger, i: u32) -> Result<(), StoreError> {
    let spec = VipPoolSpec {
        addresses: vec!["2001:db8::/64".to_owned()],
        exclude: Vec::new(),
        namespaces: None,
        priority: 0,
        quarantine_seconds: 30,
    };
    let (pools, _) = Pools::read([("public", &spec)]);
    let claim = Claim {
        name: format!("claim/{i}").into(),
        namespace: None,
        namespace_labels: BTreeMap::new(),
        pool: None,
        families: Families { v4: false, v6: true },
        requested: Vec::new(),
    };
    let pending = BTreeMap::from([(claim.name.clone(), Some(Arc::new(claim)))]);
    let plan = plan(&Request { pools: &pools, ledger, pending: &pending, named: &BTreeSet::new(), now: 0 });
    store.commit(&plan)?;
    ledger.apply(&plan).expect("a plan of this ledger");
    Ok(())
}

/// Writes until it may not; the exit of the test is the verdict.
fn fill(dir: &Path) {
    let Opened { mut store, mut ledger, .. } = Store::open(dir).expect("opens");
    let failed =
        (0..CLAIMS_MAX).find_map(|i| one_more(&mut store, &mut ledger, i).err().map(|error| (i, error)));
    let (i, error) = failed.expect("the limit is reached");
    assert!(matches!(error, StoreError::Io { .. }), "{error}");
    assert!(error.to_string().contains("check free space"), "{error}");
    assert_eq!(ledger.entries().count(), i as usize);
    // It is read again, and there is still no space: nothing more is given.
    for n in 1..4 {
        if let Ok(read) = store.reopen() {
            ledger = read;
        }
        let again = one_more(&mut store, &mut ledger, i + n).expect_err("fails closed");
        assert!(matches!(again, StoreError::Io { .. } | StoreError::Failed { .. }), "{again}");
    }
    store.remember(&[(object(), Some(SEEN))], &[]).expect_err("fails, and is owed");
    // Space again: it goes on where it was, without a restart.
    let Rlimit { maximum, .. } = getrlimit(Resource::Fsize);
    setrlimit(Resource::Fsize, Rlimit { current: maximum, maximum }).expect("up to the hard limit");
    store.remember(&[], &[]).expect("opens again, and writes what it owes");
    ledger = store.reopen().expect("opens again");
    one_more(&mut store, &mut ledger, CLAIMS_MAX + 1).expect("goes on");
    let given = ledger.entries().count();
    assert!((i as usize + 1..=i as usize + 5).contains(&given), "{given} are given, {i} were");
    assert_eq!(store.export().expect("reads").ledger().expect("whole"), ledger);
    std::fs::write(dir.join("given"), given.to_string()).expect("a small file");
}

#[test]
#[expect(clippy::disallowed_methods, reason = "the writer is this test itself, told so by its environment")]
fn a_full_disk_gives_no_address() {
    if let Some(dir) = std::env::var_os(CHILD) {
        fill(Path::new(&dir));
        return;
    }
    let dir = tempfile::tempdir().expect("a directory");
    let this = std::env::current_exe().expect("this test has a file");
    // With the signal ignored, a write beyond the limit fails as on a full disk.
    let limited =
        format!("trap '' XFSZ; ulimit -S -f {BLOCKS}; exec \"$0\" --exact a_full_disk_gives_no_address");
    let output = Command::new("sh").args(["-c", &limited]).arg(this).env(CHILD, dir.path()).output();
    let output = output.expect("starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));

    let given: usize =
        std::fs::read_to_string(dir.path().join("given")).expect("told").parse().expect("a number");
    assert!(given > 100, "{given}");
    let Opened { mut store, mut ledger, ages, .. } =
        Store::open(dir.path()).expect("opens when there is space");
    assert_eq!(ages.get(&object()), Some(&SEEN));
    check(&ledger).expect("whole");
    let held = ledger.entries().count();
    assert_eq!(held, given);
    one_more(&mut store, &mut ledger, CLAIMS_MAX).expect("goes on");
    println!("{given} addresses before the limit");
}
