//! Rules for every source file: where `unsafe` stands, width, length, leftovers, paths of somebody's machine.

use crate::Text;

/// The one file that may say `unsafe`.
const UNSAFE_HOME: &str = "journal/src/mmap.rs";
/// As in rustfmt.toml.
const WIDTH_MAX: usize = 120;
/// rustfmt leaves comments alone; a word over the edge is no finding.
const COMMENT_WIDTH_MAX: usize = 125;
/// A string of this length can't be broken without changing how it reads.
const LONG_STRING: usize = 40;
/// Lines of a file in front of its tests.
const LINES_MAX: usize = 500;
/// Lines of a file that is nothing but tests.
const TEST_LINES_MAX: usize = 1000;

// split, so that this file doesn't find itself
const LEFTOVERS: [&str; 7] = [
    concat!("TO", "DO"),
    concat!("FIX", "ME"),
    concat!("XX", "X"),
    concat!("HA", "CK"),
    concat!("to", "do!("),
    concat!("unimple", "mented!("),
    concat!("dbg", "!("),
];
const FORBIDDEN_ALLOWS: [&str; 2] = [concat!("allow(", "dead_code"), concat!("allow(", "unused")];
const MACHINE_PATHS: [&str; 4] =
    [concat!("/wo", "rk/"), concat!("/ro", "ot/"), concat!("/ho", "me/"), concat!("/Us", "ers/")];

pub(crate) fn check(files: &[Text]) -> Vec<String> {
    let mut findings = Vec::new();
    for file in files.iter().filter(|file| !file.path.starts_with("LICENSE") && file.path != "Cargo.lock") {
        findings.extend(check_text(file));
        if file.has_extension("rs") {
            findings.extend(check_rust(file));
        }
    }
    findings
}

fn check_text(file: &Text) -> Vec<String> {
    let mut findings = Vec::new();
    for (number, line) in file.text.lines().enumerate() {
        let at = format!("{}:{}", file.path, number + 1);
        for mark in LEFTOVERS {
            if stands_alone(line, mark) {
                findings.push(format!("{at}: unfinished: {mark}"));
            }
        }
        for path in MACHINE_PATHS {
            if begins_a_path(line, path) {
                findings.push(format!("{at}: a path of somebody's machine: {path}"));
            }
        }
        if line.ends_with([' ', '\t']) && file.has_extension("rs") {
            findings.push(format!("{at}: spaces at the end"));
        }
    }
    findings
}

fn check_rust(file: &Text) -> Vec<String> {
    let mut findings = Vec::new();
    let code = blank_comments_and_strings(&file.text);
    for (number, (line, code)) in file.text.lines().zip(code.lines()).enumerate() {
        let at = format!("{}:{}", file.path, number + 1);
        if stands_alone(code, concat!("un", "safe")) && file.path != UNSAFE_HOME {
            findings.push(format!("{at}: {} belongs into {UNSAFE_HOME} alone", concat!("un", "safe")));
        }
        if let Some(allow) = FORBIDDEN_ALLOWS.iter().find(|allow| code.contains(**allow)) {
            findings.push(format!("{at}: {allow}): use it or remove it"));
        }
        let width = line.chars().count();
        let width_max = if code.trim().is_empty() { COMMENT_WIDTH_MAX } else { WIDTH_MAX };
        if width > width_max && !has_long_string(line, code) {
            findings.push(format!("{at}: {width} columns, at most {width_max}"));
        }
    }
    let lines = lines_before_tests(&file.text);
    let tests = file.path.ends_with("/tests.rs") || file.path.contains("tests/");
    let lines_max = if tests { TEST_LINES_MAX } else { LINES_MAX };
    if lines > lines_max {
        findings
            .push(format!("{}: {lines} lines, tests aside; at most {lines_max}: look for the second idea", file.path));
    }
    findings
}

/// `word` in `line`, not as a part of a longer word.
fn stands_alone(line: &str, word: &str) -> bool {
    let in_word = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(word).any(|(at, _)| {
        !line[..at].chars().next_back().is_some_and(in_word)
            && (word.ends_with('(') || !line[at + word.len()..].chars().next().is_some_and(in_word))
    })
}

/// `path` in `line` as the beginning of a path, not the middle of one.
fn begins_a_path(line: &str, path: &str) -> bool {
    line.match_indices(path).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        !before.is_some_and(|c| c.is_alphanumeric() || "._-/}*>".contains(c))
    })
}

/// A string that takes much of the line; `code` is the line without strings and comments.
fn has_long_string(line: &str, code: &str) -> bool {
    let in_string = |(line, code): (char, char)| line != ' ' && code == ' ';
    line.contains('"') && line.chars().zip(code.chars()).filter(|pair| in_string(*pair)).count() > LONG_STRING
}

fn lines_before_tests(text: &str) -> usize {
    let lines: Vec<&str> = text.lines().collect();
    let tests = lines.windows(2).position(|pair| pair[0] == "#[cfg(test)]" && pair[1].starts_with("mod "));
    tests.unwrap_or(lines.len())
}

/// The same text with comments, strings and characters as spaces; newlines stay.
fn blank_comments_and_strings(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    while at < chars.len() {
        let end = skip_end(&chars, at);
        if end == at {
            out.push(chars[at]);
            at += 1;
        } else {
            out.extend(chars[at..end].iter().map(|&c| if c == '\n' { '\n' } else { ' ' }));
            at = end;
        }
    }
    out
}

/// Where the comment, string or character that begins at `at` ends; `at` itself when none does.
fn skip_end(chars: &[char], at: usize) -> usize {
    let rest = &chars[at..];
    let until = |from: usize, ends: &dyn Fn(&[char]) -> Option<usize>| {
        (from..rest.len()).find_map(|i| ends(&rest[i..]).map(|more| at + i + more)).unwrap_or(chars.len())
    };
    match rest {
        ['/', '/', ..] => until(2, &|r| (r[0] == '\n').then_some(0)),
        ['/', '*', ..] => until(2, &|r| r.starts_with(&['*', '/']).then_some(2)),
        ['r', '"' | '#', ..] if at == 0 || !chars[at - 1].is_alphanumeric() => {
            let hashes = rest[1..].iter().take_while(|&&c| c == '#').count();
            if rest.get(1 + hashes) != Some(&'"') {
                return at;
            }
            let close: Vec<char> = std::iter::once('"').chain(std::iter::repeat_n('#', hashes)).collect();
            until(2 + hashes, &|r| r.starts_with(&close).then_some(close.len()))
        }
        ['"', ..] => {
            let mut i = 1;
            while i < rest.len() && rest[i] != '"' {
                i += if rest[i] == '\\' { 2 } else { 1 };
            }
            chars.len().min(at + i + 1)
        }
        ['\'', '\\', ..] => until(3, &|r| (r[0] == '\'').then_some(1)),
        ['\'', _, '\'', ..] => at + 3,
        _ => at,
    }
}

#[test]
fn code_is_told_from_comments_and_strings() {
    let word = concat!("un", "safe");
    for hidden in [
        format!("// {word}\n"),
        format!("/* {word} */"),
        format!("let a = \"\\\" {word}\";"),
        format!("r#\"\" {word}\"#"),
        format!("let c = '\"'; // {word}"),
        format!("{word}_op"),
    ] {
        assert!(!stands_alone(&blank_comments_and_strings(&hidden), word), "{hidden}");
    }
    for seen in
        [format!("{word} {{"), format!("let c = '\"'; {word} {{}}"), format!("\"a\"; {word}"), format!("'a; {word}")]
    {
        assert!(stands_alone(&blank_comments_and_strings(&seen), word), "{seen}");
    }
}

#[test]
fn each_rule_finds_what_it_is_for() {
    let found = |text: String| {
        let file = Text { path: "volume/src/x.rs".to_owned(), text };
        [check_text(&file), check_rust(&file)].concat()
    };
    let bad = [
        format!("// {} later", LEFTOVERS[0]),
        LEFTOVERS[4].to_owned(),
        format!("#[{})]", FORBIDDEN_ALLOWS[0]),
        format!("let path = \"{}main\";", MACHINE_PATHS[0]),
        format!("{} {{}}", concat!("un", "safe")),
        format!("// {}", "x".repeat(COMMENT_WIDTH_MAX)),
        format!("let {} = \"\";", "x".repeat(WIDTH_MAX)),
        "\n".repeat(LINES_MAX + 1),
        "let x = 1; ".to_owned(),
    ];
    for text in bad {
        assert_eq!(found(text.clone()).len(), 1, "{text}");
    }
    let fine = [
        format!("    \"{}\",", "x".repeat(WIDTH_MAX)),
        format!("{}#[cfg(test)]\nmod tests {{{}}}\n", "\n".repeat(LINES_MAX - 1), "\n".repeat(LINES_MAX)),
        "let dir = data.join(\"a\"); // in DATA".to_owned() + MACHINE_PATHS[0] + "x",
    ];
    for text in fine {
        assert_eq!(found(text), Vec::<String>::new());
    }
}
