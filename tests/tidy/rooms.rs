//! Import directions between the rooms, read from their Cargo.toml.

use crate::Text;

/// Who may import whom. `towline` (binary, library, tests, benches) may import everything.
const ALLOWED: [(&str, &[&str]); 10] = [
    ("journal", &[]),
    ("journal/fuzz", &["journal"]),
    ("benches/rivals", &["journal"]),
    ("wire", &["journal"]),
    ("archive", &["journal"]),
    ("volume", &["journal"]),
    ("shipper", &["journal", "wire", "archive"]),
    ("receiver", &["journal", "wire", "archive"]),
    ("node", &["journal", "wire", "archive", "volume", "shipper", "receiver"]),
    // option types of everything; who imports config itself is said by its absence above
    ("config", &["journal", "wire", "archive", "volume", "shipper", "receiver", "node"]),
];

pub(crate) fn check(files: &[Text]) -> Vec<String> {
    let mut findings = Vec::new();
    for file in files.iter().filter(|file| file.path.ends_with("/Cargo.toml")) {
        let room = file.path.trim_end_matches("/Cargo.toml");
        match ALLOWED.iter().find(|(name, _)| *name == room) {
            Some((_, allowed)) => findings.extend(check_room(room, allowed, &file.text)),
            None => findings.push(format!("{}: an unknown room; say in tests/tidy what it may import", file.path)),
        }
    }
    for (room, _) in ALLOWED {
        if !files.iter().any(|file| file.path == format!("{room}/Cargo.toml")) {
            findings.push(format!("{room}/Cargo.toml: missing"));
        }
    }
    findings
}

fn check_room(room: &str, allowed: &[&str], manifest: &str) -> Vec<String> {
    let mut findings = Vec::new();
    let mut table = String::new();
    for (number, line) in manifest.lines().enumerate() {
        let line = line.trim();
        let at = format!("{room}/Cargo.toml:{}", number + 1);
        if let Some(name) = line.strip_prefix('[') {
            table = name.trim_end_matches(']').to_owned();
            // [dependencies.wire] would slip through the line rule below
            if let Some((_, dependency)) = table.split_once("dependencies.") {
                findings.extend(check_dependency(&at, room, allowed, dependency));
            }
        } else if table.ends_with("dependencies") && !line.starts_with('#') && !line.is_empty() {
            let dependency = line.split(['.', '=', ' ']).next().unwrap_or_default();
            findings.extend(check_dependency(&at, room, allowed, dependency));
        }
    }
    findings
}

fn check_dependency(at: &str, room: &str, allowed: &[&str], dependency: &str) -> Option<String> {
    let plain = dependency.trim_matches('"').trim_start_matches("towline-");
    let ours = plain == "towline" || ALLOWED.iter().any(|(name, _)| *name == plain);
    // a room may name itself: its tests switch on a feature of it
    (ours && plain != room && !allowed.contains(&plain)).then(|| format!("{at}: {room} may not import {plain}"))
}

#[test]
fn a_sideways_import_is_found() {
    let manifest = "[dependencies]\njournal.workspace = true\nwire = { path = \"../wire\" }\n";
    assert_eq!(check_room("archive", &["journal"], manifest), ["archive/Cargo.toml:3: archive may not import wire"]);
}

#[test]
fn an_upward_import_in_a_test_or_under_its_own_heading_is_found() {
    let manifest = "[dev-dependencies]\ntowline-node = { path = \"..\" }\n[dependencies.config]\nworkspace = true\n";
    assert_eq!(
        check_room("shipper", &["journal"], manifest),
        ["shipper/Cargo.toml:2: shipper may not import node", "shipper/Cargo.toml:3: shipper may not import config"]
    );
}
