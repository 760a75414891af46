//! Links in documents lead to files and headings that exist; each wrong config sample has its expected message.

use std::path::Path;

use crate::Text;

pub(crate) fn check(files: &[Text], root: &Path) -> Vec<String> {
    let mut findings = Vec::new();
    for file in files.iter().filter(|file| file.has_extension("md")) {
        let folder = root.join(&file.path).parent().expect("a file has a folder").to_owned();
        for (number, target) in links(&file.text) {
            let (path, anchor) = target.split_once('#').unwrap_or((&target, ""));
            let to = if path.is_empty() { root.join(&file.path) } else { folder.join(path) };
            if !to.exists() {
                findings.push(format!("{}:{number}: no such file: {target}", file.path));
            } else if !anchor.is_empty() && !anchors(&to).iter().any(|known| known == anchor) {
                findings.push(format!("{}:{number}: no such heading: {target}", file.path));
            }
        }
    }
    findings.extend(check_samples(files));
    findings
}

/// Right samples are there, and every wrong one has the message that it must end with beside it.
fn check_samples(files: &[Text]) -> Vec<String> {
    let invalid: Vec<&Text> = files.iter().filter(|file| file.path.starts_with("config/samples/invalid/")).collect();
    let right = files.iter().any(|file| file.path.starts_with("config/samples/") && !file.path.contains("/invalid/"));
    let mut findings = Vec::new();
    if invalid.is_empty() || !right {
        findings.push("config/samples: there must be right samples, and wrong ones in invalid/".to_owned());
    }
    for file in &invalid {
        let (stem, other) = match file.path.rsplit_once('.') {
            Some((stem, "ron")) => (stem, "txt"),
            Some((stem, "txt")) => (stem, "ron"),
            _ => (file.path.as_str(), "ron and txt"),
        };
        if !invalid.iter().any(|found| found.path == format!("{stem}.{other}")) {
            findings.push(format!("{}: {stem}.{other} is missing beside it", file.path));
        }
    }
    findings
}

/// Relative link targets with their line, code left out.
fn links(text: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    let mut in_code = false;
    for (number, line) in text.lines().enumerate() {
        if line.trim_start().starts_with("```") {
            in_code = !in_code;
        }
        if in_code {
            continue;
        }
        let prose: String = line.split('`').step_by(2).collect::<Vec<_>>().join("`");
        for (at, _) in prose.match_indices("](") {
            let target = prose[at + 2..].split([')', ' ']).next().unwrap_or_default();
            if !target.contains("://") && !target.starts_with("mailto:") && !target.is_empty() {
                found.push((number + 1, target.to_owned()));
            }
        }
    }
    found
}

/// The anchors of a document's headings, as the usual renderers make them.
fn anchors(document: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(document).unwrap_or_default();
    text.lines().filter(|line| line.starts_with('#')).map(|line| anchor(line.trim_start_matches('#').trim())).collect()
}

fn anchor(heading: &str) -> String {
    let kept = heading.to_lowercase();
    kept.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c)).map(|c| if c == ' ' { '-' } else { c }).collect()
}

#[test]
fn links_are_found_outside_of_code() {
    let text = "[a](b.md#c) and [d](https://e.example)\n```\n[not](here.md)\n```\n`[nor](here.md)` [`f`](g/h.md)\n";
    assert_eq!(links(text), [(1, "b.md#c".to_owned()), (5, "g/h.md".to_owned())]);
}

#[test]
fn a_dead_link_is_found() {
    let text = Text { path: "README.md".to_owned(), text: "[x](nowhere.md)\n[y](Cargo.toml)\n".to_owned() };
    assert!(check(&[text], &crate::root()).contains(&"README.md:1: no such file: nowhere.md".to_owned()));
}

#[test]
fn headings_become_anchors() {
    assert_eq!(anchor("What `Sync` loses, and when"), "what-sync-loses-and-when");
}

#[test]
fn a_sample_without_its_message_is_found() {
    let text = |path: &str| Text { path: path.to_owned(), text: String::new() };
    let files = ["pair.ron", "invalid/a.ron", "invalid/b.ron", "invalid/b.txt", "invalid/c.txt"];
    let files = files.map(|name| text(&format!("config/samples/{name}")));
    assert_eq!(
        check_samples(&files),
        [
            "config/samples/invalid/a.ron: config/samples/invalid/a.txt is missing beside it",
            "config/samples/invalid/c.txt: config/samples/invalid/c.ron is missing beside it"
        ]
    );
    assert_eq!(check_samples(&files[1..2]).len(), 2);
}
