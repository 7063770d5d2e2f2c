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
    ipam::{Ledger, Pools, Request, check, plan},
    ir::{Claim, Families},
    store::{Opened, Store, StoreError},
};

/// Names the directory to the process that may not write much.
const CHILD: &str = "TIDEGATE_STORE_FULL_DIR";
/// No file of it may grow beyond this many blocks of 512 bytes: `ulimit -f`.
const BLOCKS: u32 = 1_200;
const CLAIMS_MAX: u32 = 20_000;

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
    // The file is read again, and there is still no space: nothing more is given.
    for _ in 0..3 {
        let again = one_more(&mut store, &mut ledger, i).expect_err("fails closed");
        assert!(matches!(again, StoreError::Io { .. } | StoreError::Failed { .. }), "{again}");
    }
    // Space again: it goes on where it was, without a restart.
    let Rlimit { maximum, .. } = getrlimit(Resource::Fsize);
    setrlimit(Resource::Fsize, Rlimit { current: maximum, maximum })
        .expect("a limit may be raised to the hard one");
    one_more(&mut store, &mut ledger, i).expect("goes on");
    assert_eq!(ledger.entries().count(), i as usize + 1);
    assert_eq!(store.export().expect("reads").ledger().expect("whole"), ledger);
    std::fs::write(dir.join("given"), (i + 1).to_string()).expect("a small file");
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
    let Opened { mut store, mut ledger, .. } = Store::open(dir.path()).expect("opens when there is space");
    check(&ledger).expect("whole");
    let held = ledger.entries().count();
    assert_eq!(held, given);
    one_more(&mut store, &mut ledger, CLAIMS_MAX).expect("goes on");
    println!("{given} addresses before the limit");
}
