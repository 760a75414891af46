//! docs/SEMANTICS.md: every cell names its test as `(t7)`, and the list at the end says which test or tests that is.

use std::collections::BTreeMap;

use crate::Text;

const PATH: &str = "docs/SEMANTICS.md";

pub(crate) fn check(files: &[Text]) -> Vec<String> {
    match files.iter().find(|file| file.path == PATH) {
        Some(document) => check_document(&document.text, files),
        None => vec![format!("{PATH} is missing")],
    }
}

fn check_document(text: &str, files: &[Text]) -> Vec<String> {
    let mut findings = Vec::new();
    let listed: BTreeMap<&str, Vec<&str>> = text.lines().filter_map(listed).collect();
    let sources: Vec<&Text> = files.iter().filter(|file| file.has_extension("rs")).collect();
    for (mark, test) in listed.iter().flat_map(|(mark, tests)| tests.iter().map(move |test| (mark, test))) {
        let function = format!("fn {}(", test.rsplit("::").next().unwrap_or_default());
        if !sources.iter().any(|source| source.text.contains(&function)) {
            findings.push(format!("{PATH}: {mark} names {test}, and there is no such test"));
        }
    }
    for (number, line) in text.lines().enumerate() {
        for mark in marks(line) {
            if !listed.contains_key(mark) {
                findings.push(format!("{PATH}:{}: ({mark}) is not in the list of tests", number + 1));
            }
        }
        let is_row =
            line.starts_with("| ") && !text.lines().nth(number + 1).is_some_and(|next| next.starts_with("| ---"));
        if is_row && listed_row(line).is_none() && !line.starts_with("| ---") {
            for cell in line.trim_matches('|').split(" | ").skip(1) {
                if marks(cell).next().is_none() {
                    findings.push(format!("{PATH}:{}: no test behind {:?}", number + 1, cell.trim()));
                }
            }
        }
    }
    findings
}

/// The references `(t7)` in some text.
fn marks(text: &str) -> impl Iterator<Item = &str> {
    text.match_indices("(t").filter_map(|(at, _)| {
        let mark = text[at + 1..].split(')').next()?;
        mark[1..].chars().all(|c| c.is_ascii_digit()).then_some(mark).filter(|mark| mark.len() > 1)
    })
}

/// A row of the list: `| t7 | test, test |`.
fn listed(line: &str) -> Option<(&str, Vec<&str>)> {
    listed_row(line).map(|(mark, tests)| (mark, tests.split(", ").map(|test| test.trim_matches('`')).collect()))
}

fn listed_row(line: &str) -> Option<(&str, &str)> {
    let mut cells = line.strip_prefix("| ")?.split('|').map(str::trim);
    let (mark, test) = (cells.next()?, cells.next()?);
    let number = mark.strip_prefix('t')?;
    (!number.is_empty() && number.chars().all(|c| c.is_ascii_digit())).then_some((mark, test))
}

#[test]
fn cells_without_a_test_are_found() {
    let source = Text { path: "tests/x.rs".into(), text: "fn it_holds() {}".into() };
    let good =
        "| what | kept |\n| --- | --- |\n| a | yes (t1) |\n\n| test | name |\n| --- | --- |\n| t1 | `it_holds` |\n";
    assert_eq!(check_document(good, std::slice::from_ref(&source)), Vec::<String>::new());
    for (bad, finding) in [
        (good.replace("(t1)", ""), "no test behind"),
        (good.replace("(t1)", "(t2)"), "not in the list"),
        (good.replace("it_holds", "it_broke"), "no such test"),
        (good.replace("`it_holds`", "`it_holds`, `it_broke`"), "t1 names it_broke"),
    ] {
        let found = check_document(&bad, std::slice::from_ref(&source));
        assert!(found.iter().any(|line| line.contains(finding)), "{finding}: {found:?}");
    }
}
