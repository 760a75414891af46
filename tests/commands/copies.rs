//! A repair whose copy is on another machine: `verify --repair-from towline://…`, asked of real nodes that run.

use std::fs;
use std::path::Path;

use crate::daemon::Daemon;
use crate::repair::{Nodes, flip, path};
use crate::support::{run, run_with};

/// A file and a byte in it are lost; the receiver that runs has them, and is reached by its address alone.
#[test]
fn a_damaged_primary_is_repaired_by_its_receiver_over_the_link() {
    let nodes = Nodes::new();
    let (data, copy) = (nodes.data("P"), format!("towline://{}", nodes.address));
    let whole = nodes.segments();
    fs::remove_file(nodes.segment(1)).unwrap();
    flip(&nodes.segment(2), 4096 + 100_000);
    let spoiled = nodes.segments();
    let words = ["verify", &data, "--repair-from", &copy];
    let shown = run(words.iter().chain(&["--dry-run"])).expect(0);
    shown.prints("would be repaired: LSN ").prints(&format!("bytes from the journal at {}", nodes.address));
    assert!(nodes.segments() == spoiled, "a dry run changes nothing");
    run(words).expect(0).prints("\nrepaired: LSN ").prints("all good");
    assert!(nodes.segments() == whole, "byte for byte what was there");
    // the pair goes on
    let primary = nodes.start_primary();
    run_with(["append", "log", "--data", &data, "--wait", "peer-durable", "--timeout", "60s"], b"more\n").expect(0);
    primary.stop(Path::new(&data)).expect(0);
}

/// The other way round: the primary runs and listens, and gives what its receiver lost.
#[test]
fn a_damaged_receiver_is_repaired_by_its_primary_over_the_link() {
    let listen = |_: &str| ["--listen", "127.0.0.1:0"].map(str::to_owned).to_vec();
    let nodes = Nodes::with(tempfile::tempdir().unwrap(), &[], listen);
    let primary = nodes.start_primary();
    let status = run(["status", "--data", &nodes.data("P"), "--json"]).expect(0).stdout;
    let status: serde_json::Value = serde_json::from_str(&status).unwrap();
    let address = status["listen"].as_str().unwrap().to_owned();
    let data = nodes.data("R");
    run(["stop", "--data", &data]).expect(0);
    let whole = nodes.segments_of("R");
    flip(whole.keys().nth(1).unwrap(), 4096 + 77_000);
    run(["verify", &data]).expect(4);
    run(["verify", &data, "--repair-from", &format!("towline://{address}")]).expect(0).prints("all good");
    assert!(nodes.segments_of("R") == whole, "byte for byte what was there");
    primary.stop(Path::new(&nodes.data("P"))).expect(0);
}

/// Batches that a node keeps for others count too: what its journal lost as well comes out of them.
#[test]
fn a_node_gives_from_its_depot_what_its_journal_lost() {
    let far = |address: &str| vec![format!("--to={address},depot,every=1h,name=far")];
    let nodes = Nodes::with(tempfile::tempdir().unwrap(), &[], far);
    let (data, copy) = (nodes.data("P"), format!("towline://{}", nodes.address));
    let whole = nodes.segments();
    let damaged = nodes.segment(1);
    flip(&damaged, 4096 + 50_000);
    flip(Path::new(&damaged.to_str().unwrap().replace("/P/", "/R/")), 4096 + 50_000);
    let done = run(["verify", &data, "--repair-from", &copy]).expect(0);
    done.prints(&format!("bytes from the depot at {}", nodes.address)).prints("all good");
    assert!(nodes.segments() == whole, "byte for byte what was there");
}

/// What the other node lost too is named as what it is, and nothing is put in its place.
#[test]
fn a_node_that_lost_it_too_says_so() {
    let nodes = Nodes::new();
    let (data, copy) = (nodes.data("P"), format!("towline://{}", nodes.address));
    let damaged = nodes.segment(1);
    flip(&damaged, 4096 + 50_000);
    flip(Path::new(&damaged.to_str().unwrap().replace("/P/", "/R/")), 4096 + 50_000);
    let spoiled = nodes.segments();
    let ended = run(["verify", &data, "--repair-from", &copy]).expect(4).prints("not repaired: LSN ");
    ended.prints(&format!("the journal at {}: LSN ", nodes.address)).prints("doesn't follow: its");
    assert!(nodes.segments() == spoiled, "nothing is changed");
    // the link and a folder, in this order
    run(["verify", &data, "--repair-from", &copy, "--repair-from", &nodes.data("depot")]).expect(0).prints("all good");
}

#[test]
fn a_node_that_cant_be_asked_is_named_and_keeps_nobody_from_helping() {
    let nodes = Nodes::new();
    let data = nodes.data("P");
    flip(&nodes.segment(1), 4096 + 50_000);
    let spoiled = nodes.segments();
    let verify = |more: &[&str]| run([&["verify", &data], more].concat());
    verify(&["--repair-from", "towline://127.0.0.1:1"]).expect(12).says("ask 127.0.0.1:1 for a copy: connect: ");
    let two = ["--repair-from", "towline://127.0.0.1:1", "--repair-from", "towline://127.0.0.1:2"];
    verify(&two).expect(12).says("ask 127.0.0.1:1 for a copy").says("ask 127.0.0.1:2 for a copy");
    verify(&["--repair-from", "towline://192.0.2.1:7400"]).expect(78).says("--tls DIR");
    verify(&["--repair-from", "towline://127.0.0.1:none"]).expect(2).says("its port is no number");
    verify(&["--repair-from", "towline://b"]).expect(2).says("no configuration says where that node is");
    verify(&["--repair-from", &nodes.data("R"), "--plaintext"]).expect(2).says("towline://");
    verify(&["--plaintext"]).expect(2);
    // a node that runs and has nothing of it
    let mut other = Daemon::start(["receiver", "--data", &nodes.data("other"), "--listen", "127.0.0.1:0"]);
    let other = format!("towline://{}", other.hear("listens on "));
    verify(&["--repair-from", &other]).expect(4).prints("not repaired").says("has nothing of stream");
    assert!(nodes.segments() == spoiled, "nothing is changed");
    let (nobody, copy) = ("towline://127.0.0.1:1", format!("towline://{}", nodes.address));
    let done = verify(&["--repair-from", nobody, "--repair-from", &other, "--repair-from", &copy]).expect(0);
    done.says("ask 127.0.0.1:1 for a copy").prints("all good");
}

/// A configuration names the node, its address and the certificates. A stranger is given nothing.
#[test]
fn a_repair_over_tls_needs_a_certificate_of_the_same_authority() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| path(&folder, name);
    for ca in ["ca", "stranger"] {
        run(["pki", "init", &at(ca)]).expect(0);
    }
    for (name, ca) in [("a", "ca"), ("b", "ca"), ("thief", "stranger")] {
        run(["pki", "issue", name, "--ca", &at(ca), "--out", &at(name)]).expect(0);
    }
    let tls = |name: &str| vec!["--tls".to_owned(), at(name)];
    let (own, theirs, config) = (tls("a"), tls("b"), at("towline.ron"));
    let nodes = Nodes::with(folder, &theirs, |_| own.clone());
    let (data, copy) = (nodes.data("P"), format!("towline://{}", nodes.address));
    let whole = nodes.segments();
    flip(&nodes.segment(1), 4096 + 50_000);
    let spoiled = nodes.segments();
    let thief = nodes.data("thief");
    run(["verify", &data, "--repair-from", &copy, "--tls", &thief]).expect(13).says("certificate");
    run(["verify", &data, "--repair-from", &copy]).expect(13).says("Give this side --tls DIR");
    let own = nodes.data("a");
    let named = |name: &str| format!("{copy},name={name}");
    run(["verify", &data, "--repair-from", &named("c"), "--tls", &own]).expect(13).says("certificate");
    assert!(nodes.segments() == spoiled, "nothing is changed");

    run(["verify", &data, "--repair-from", &named("b"), "--tls", &own, "--dry-run"]).expect(0).prints("would be");
    let text = format!(
        r#"Towline(data: "{data}", tls: (dir: "{}"), nodes: {{"b": "{}"}}, streams: {{}})"#,
        own, nodes.address
    );
    fs::write(&config, text).unwrap();
    run(["verify", &data, "--repair-from", "towline://c", "-c", &config]).expect(78).says("no node c here, only b");
    run(["verify", &data, "--repair-from", "towline://b", "-c", &config, "--dry-run"]).expect(0).prints("would be");
    run(["verify", &data, "--repair-from", &copy, "--tls", &own]).expect(0).prints("all good");
    assert!(nodes.segments() == whole, "byte for byte what was there");
}
