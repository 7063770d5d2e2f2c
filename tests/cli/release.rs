//! `tidegate vip release`, and the one call of the admin API that changes something.

use super::{Site, tidegate};
use std::{
    io::{Read, Write},
    net::TcpStream,
};

/// The example, served in a folder that has to live as long.
fn site() -> (tempfile::TempDir, Site) {
    let folder = tempfile::tempdir().unwrap();
    let [state, log] = ["state", "log"].map(|name| folder.path().join(name));
    let site = Site::serve(&super::support::golden::root().join("examples/quickstart"), &state, &log);
    (folder, site)
}

#[test]
fn an_address_in_use_is_not_released() {
    let (_folder, site) = site();
    let held = || tidegate(&["vip", "list", "-o", "json", "--admin", &site.admin]).ends(0).json();
    let release = |claim: &str| tidegate(&["vip", "release", claim, "--admin", &site.admin]).ends(1);
    let before = held();
    let claim = before[0]["claim"].as_str().unwrap();
    let refused = release(claim);
    assert_eq!(refused.out, "");
    let told = format!("{claim} is in use: its addresses go when the objects behind it go");
    assert!(refused.err.contains(&told), "{}", refused.err);
    assert_eq!(held(), before);
    assert!(release("nobody").err.contains("nobody holds no address"));
}

/// What a form of a web page could send: everything but the header.
#[test]
fn a_release_without_our_header_is_refused() {
    let (_folder, site) = site();
    let post = |header: &str| {
        let mut stream = TcpStream::connect(&site.admin).unwrap();
        let (path, host) = ("/api/v1/vips/release?claim=nobody", &site.admin);
        let head = format!("POST {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n{header}\r\n");
        stream.write_all(head.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    };
    assert!(post("x-tidegate-admin: 1\r\n").contains("this claim holds no address"), "with it, it is asked");
    for header in ["", "x-tidegate-admin: 0\r\n", "origin: http://a.test\r\n"] {
        let answer = post(header);
        assert!(answer.starts_with("HTTP/1.1 400 ") && !answer.contains("claim"), "{header:?}: {answer}");
        assert!(!answer.contains("access-control"), "nor are other origins let in: {answer}");
    }
}
