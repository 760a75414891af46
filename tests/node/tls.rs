//! Pairs whose links are encrypted, with both sides authenticated.

use std::time::Duration;

use journal::Class;
use node::control::Level;
use node::{Options, Security, State};
use wire::pki;

use crate::support::{LONG, class, primary, receiver, start, until};

struct Pki(tempfile::TempDir);

impl Pki {
    fn new() -> Pki {
        let dir = tempfile::tempdir().expect("a folder");
        pki::init(&dir.path().join("ca")).expect("a CA");
        Pki(dir)
    }

    /// The same options with a certificate for this name.
    fn secure(&self, options: Options) -> Options {
        let name = options.name.clone().expect("a name");
        let out = self.0.path().join(&name);
        if !out.exists() {
            pki::issue(&self.0.path().join("ca"), &name, &["127.0.0.1".into()], &out).expect("a certificate");
        }
        Options { security: Security::Tls(out), ..options }
    }
}

#[test]
fn a_pair_of_one_authority_works() {
    let (dir, ours) = (tempfile::tempdir().expect("a folder"), Pki::new());
    let b = start(ours.secure(receiver(dir.path(), "b", None)));
    let a = start(ours.secure(primary(dir.path(), "a", [b.peer()])));
    a.append(Level::PeerDurable, LONG, &["one"]).expect("acknowledged");
    assert_eq!(b.records(), ["one"]);
}

#[test]
fn a_stranger_is_refused_on_both_sides_and_nothing_is_acknowledged() {
    let (dir, ours, theirs) = (tempfile::tempdir().expect("a folder"), Pki::new(), Pki::new());
    let b = start(ours.secure(receiver(dir.path(), "b", None)));
    let a = start(theirs.secure(primary(dir.path(), "a", [b.peer()])));
    let status = a.wait_state(State::Waiting);
    assert!(status.destinations.len() == 1 && b.status().streams.is_empty());
    let told = || a.stream().destinations.pop().and_then(|to| to.last_error).unwrap_or_default();
    until(|| !told().is_empty());
    assert!(told().contains("towline pki issue"), "{}", told());
    assert_eq!(class(a.append(Level::Written, Duration::from_millis(300), &["x"])), Class::Refused);
    assert_eq!(a.stream().at.written, 0);
}
