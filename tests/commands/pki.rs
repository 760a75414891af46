//! Certificates.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use crate::support::run;

#[test]
fn a_ca_and_a_node_and_nothing_twice() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    run(["pki", "init", &path("ca")]).expect(0).prints("made a CA");
    let issue = ["pki", "issue", "b", "--address", "10.0.0.2", "--ca", &path("ca"), "--out", &path("b")];
    run(issue).expect(0);
    for secret in ["ca/ca-key.pem", "b/key.pem"] {
        let mode = fs::metadata(path(secret)).unwrap().permissions().mode();
        assert_eq!(mode & 0o077, 0, "{secret} is for its owner alone");
    }
    for file in ["b/ca.pem", "b/cert.pem", "b/key.pem"] {
        assert!(fs::metadata(path(file)).is_ok(), "{file}");
    }
    let before = fs::read(path("b/key.pem")).unwrap();
    run(issue).expect(2).says("exists already");
    run(["pki", "init", &path("ca")]).expect(2).says("exists already");
    assert_eq!(fs::read(path("b/key.pem")).unwrap(), before);
    let out = path("x");
    run(["pki", "issue", "x", "--ca", &path("none"), "--out", &out]).says("ca.pem");
    assert!(fs::metadata(out).is_err(), "a failed issue leaves nothing");
    run(["pki", "issue", "a/b", "--ca", &path("ca")]).expect(2).says("is not a name");
}

#[test]
fn a_depot_that_is_not_there() {
    run(["depot", "ls", "/does/not/exist"]).expect(10).says("no such folder");
    run(["depot", "verify", "/does/not/exist"]).expect(10);
}
