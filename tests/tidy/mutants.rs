//! tests/mutants/*.txt: a planted fault replaces text that is there, once: the script plants it at the first place that has
//! it. Whether a test then turns red takes long to see (tests/mutants/run); that none of them has gone stale doesn't.

use crate::Text;

const FOLDER: &str = "tests/mutants/";

pub(crate) fn check(files: &[Text]) -> Vec<String> {
    let lists = files.iter().filter(|file| file.path.starts_with(FOLDER) && file.has_extension("txt"));
    lists.flat_map(|list| check_list(list, files)).collect()
}

fn check_list(list: &Text, files: &[Text]) -> Vec<String> {
    let mut findings = Vec::new();
    let mut target = "";
    for (number, line) in list.text.lines().enumerate() {
        if let Some(path) = line.strip_prefix("file ") {
            target = path;
        }
        let Some(replaced) = line.strip_prefix("- ") else { continue };
        let held = files.iter().find(|file| file.path == target).map_or(0, |file| file.text.matches(replaced).count());
        let place = format!("{}:{}", list.path, number + 1);
        match held {
            0 => findings.push(format!("{place}: {target} doesn't hold {replaced:?} any more")),
            1 => {}
            held => findings.push(format!("{place}: {target} holds {replaced:?} {held} times")),
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stale_fault_is_found() {
        let text = |path: &str, text: &str| Text { path: path.to_owned(), text: text.to_owned() };
        let list = "== one\nfile a.rs\ntest x y\n- let a = 1;\n+ let a = 2;\n- let b = 1;\n+ \n- f();\n+ g();\n";
        let files = [text("a.rs", "fn f() { let a = 1; f(); f(); }"), text("tests/mutants/x.txt", list)];
        let stale = "tests/mutants/x.txt:6: a.rs doesn't hold \"let b = 1;\" any more";
        assert_eq!(check(&files), [stale, "tests/mutants/x.txt:8: a.rs holds \"f();\" 2 times"]);
    }
}
