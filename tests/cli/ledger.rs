//! `tidegate vip export|import`: the way back from a ledger that is damaged.

use super::{Site, text, tidegate, tidegate_reads};
use std::fs;

#[test]
fn export_and_import_are_each_others_way_back() {
    let folder = tempfile::tempdir().unwrap();
    let [state, fresh, log] = ["state", "fresh", "log"].map(|name| folder.path().join(name));
    let example = super::support::golden::root().join("examples/quickstart");
    let site = Site::serve(&example, &state, &log);
    let busy = tidegate(&["vip", "export", "--state", text(&state)]).ends(3);
    assert!(busy.err.contains("another"), "a ledger in use is not touched: {}", busy.err);
    drop(site);

    let exported = tidegate(&["vip", "export", "--state", text(&state)]).ends(0);
    assert_eq!(exported.json()["addresses"][0]["address"], "127.80.0.1");
    tidegate_reads(&["vip", "import", "--state", text(&fresh), "-"], &exported.out).ends(0);
    let again = tidegate(&["vip", "export", "--state", text(&fresh)]).ends(0);
    for list in ["addresses", "ages", "serials", "history"] {
        assert_eq!(again.json()[list], exported.json()[list], "{list}");
    }

    let ledger = state.join("ledger.redb");
    let mut bytes = fs::read(&ledger).unwrap();
    for byte in &mut bytes[..64] {
        *byte ^= 0x5a;
    }
    fs::write(&ledger, &bytes).unwrap();
    let refused =
        tidegate(&["serve", text(&example), "--state", text(&state), "--admin", "127.0.0.1:0"]).ends(3);
    assert!(refused.err.contains("vip import"), "the way back is told: {}", refused.err);
    assert_eq!(fs::read(&ledger).unwrap(), bytes, "a damaged ledger is left as it is");

    let salvaged = tidegate(&["vip", "export", "--state", text(&state)]).ends(0);
    assert!(salvaged.err.contains("backup"), "{}", salvaged.err);
    assert_eq!(salvaged.json()["addresses"], exported.json()["addresses"]);
    let file = folder.path().join("ledger.json");
    fs::write(&file, &salvaged.out).unwrap();
    tidegate(&["vip", "import", "--state", text(&state), text(&file)]).ends(0);
    let restored = tidegate(&["vip", "export", "--state", text(&state)]).ends(0);
    assert_eq!(restored.err, "");
    assert_eq!(restored.json()["addresses"], exported.json()["addresses"]);

    tidegate(&["vip", "export", "--state", "/no/such/folder"]).ends(2);
    tidegate_reads(&["vip", "import", "--state", text(&fresh), "-"], "{}").ends(2);
}
