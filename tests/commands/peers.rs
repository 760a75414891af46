//! A primary and the nodes it ships to.

use std::path::Path;

use tempfile::TempDir;

use crate::daemon::Daemon;
use crate::support::{run, run_with};

#[test]
fn a_receiver_that_is_not_there_is_waited_for_and_nothing_is_acknowledged() {
    let folder = tempfile::tempdir().unwrap();
    let data = path(&folder, "P");
    // bound and never accepted on: nobody else can take the port meanwhile
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let mut primary = Daemon::start(["primary", "--data", &data, "--stream", "log", "--to", &nobody]);
    primary.hear("next: ");
    let words = ["append", "log", "--data", &data, "--acks", "--wait", "peer-durable", "--timeout", "2s"];
    let ended = run_with(words, b"x\n").expect(12).says("unknown").says(&nobody);
    assert_eq!(ended.stdout, "", "nothing is acknowledged");
    run(["status", "--data", &data, "--exit-code"]).expect(5).prints("waits for").prints(&nobody).prints("promote log");
    run(["wait", "log", "--for", "connected", "--timeout", "100ms", "--data", &data]).expect(12);
    primary.stop(Path::new(&data)).expect(0);
}

fn path(folder: &TempDir, name: &str) -> String {
    folder.path().join(name).to_str().unwrap().to_owned()
}
