//! What the compiler doesn't check: who may import whom, where `unsafe` may stand, widths, lengths, links, leftovers.
//!
//! Each check returns its findings as `file:line: what`, and has a test of its own that it can find something.

mod docs;
mod mutants;
mod rooms;
mod semantics;
mod source;

use std::fs;
use std::path::{Path, PathBuf};

/// A text file of the repository.
struct Text {
    /// Path from the root, with `/`.
    path: String,
    text: String,
}

impl Text {
    fn has_extension(&self, extension: &str) -> bool {
        Path::new(&self.path).extension().is_some_and(|found| found == extension)
    }
}

#[test]
fn rooms_import_only_what_is_below_them() {
    report(rooms::check(&repository()));
}

#[test]
fn sources_are_tidy() {
    report(source::check(&repository()));
}

#[test]
fn documents_point_at_files_that_exist() {
    report(docs::check(&repository(), &root()));
}

#[test]
fn planted_faults_still_fit() {
    report(mutants::check(&repository()));
}

#[test]
fn every_promise_names_its_test() {
    report(semantics::check(&repository()));
}

fn report(findings: Vec<String>) {
    assert!(findings.is_empty(), "{} finding(s):\n{}", findings.len(), findings.join("\n"));
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Every text file below the root, build results and hidden folders (but `.ci`) left out.
fn repository() -> Vec<Text> {
    let mut found = Vec::new();
    walk(&root(), "", &mut found);
    assert!(found.iter().any(|file| file.path == "Cargo.toml"), "the walk begins at the root");
    found
}

fn walk(folder: &Path, prefix: &str, found: &mut Vec<Text>) {
    let mut children: Vec<_> =
        fs::read_dir(folder).expect("list a folder").map(|child| child.expect("a child")).collect();
    children.sort_by_key(|child| child.file_name());
    for child in children {
        let name = child.file_name().into_string().expect("a UTF-8 name");
        if (name.starts_with('.') && name != ".ci") || name == "target" {
            continue;
        }
        let path = format!("{prefix}{name}");
        if child.file_type().expect("a file type").is_dir() {
            walk(&child.path(), &format!("{path}/"), found);
        } else if let Ok(text) = String::from_utf8(fs::read(child.path()).expect("read a file")) {
            found.push(Text { path, text });
        }
    }
}
