//! An independent judge: it knows what was handed in and what was acknowledged, and nothing of how it was kept.

use std::path::Path;

use crate::support::run;

/// Everything handed in so far, in order.
#[derive(Debug, Default)]
pub(crate) struct Checker {
    lines: Vec<String>,
    acknowledged: Vec<bool>,
}

impl Checker {
    /// The next line to hand in. It says its number, and enough that no two are alike.
    pub(crate) fn next_line(&mut self) -> String {
        let number = self.lines.len();
        let filler = "x".repeat((number * 37) % 700);
        let line = format!("{number} {:016x} {filler}", (number as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        self.lines.push(line.clone());
        self.acknowledged.push(false);
        line
    }

    /// How many lines were handed in.
    pub(crate) fn len(&self) -> usize {
        self.lines.len()
    }

    /// The lines `from .. from + count` were acknowledged.
    pub(crate) fn acknowledge(&mut self, from: usize, count: u64) {
        self.acknowledged[from..from + count as usize].fill(true);
    }

    /// How many lines were acknowledged.
    pub(crate) fn acknowledged(&self) -> usize {
        self.acknowledged.iter().filter(|&&acknowledged| acknowledged).count()
    }

    /// Judges what somebody gives back: none missing, altered, doubled, out of order or invented.
    pub(crate) fn judge(&self, whose: &str, text: &str) {
        self.judge_against(whose, text, &self.acknowledged);
    }

    /// Judges somebody who promised nothing: none altered, doubled, out of order or invented.
    pub(crate) fn judge_part(&self, whose: &str, text: &str) {
        self.judge_against(whose, text, &vec![false; self.lines.len()]);
    }

    fn judge_against(&self, whose: &str, text: &str, promised: &[bool]) {
        let mut next = 0;
        for line in text.lines() {
            let number: usize = line.split(' ').next().and_then(|number| number.parse().ok()).unwrap_or(usize::MAX);
            let known = self.lines.get(number).unwrap_or_else(|| panic!("{whose}: invented {line:?}"));
            assert_eq!(known, line, "{whose}: altered");
            assert!(number >= next, "{whose}: line {number} is doubled or out of order, expected {next} or later");
            let missing = (next..number).find(|&skipped| promised[skipped]);
            assert_eq!(missing, None, "{whose}: an acknowledged line is missing in front of {number}");
            next = number + 1;
        }
        let missing = (next..self.lines.len()).find(|&number| promised[number]);
        assert_eq!(missing, None, "{whose}: an acknowledged line is missing at the end");
    }

    /// Restores the stream from `source` and judges the result.
    pub(crate) fn judge_restore(&self, whose: &str, source: &Path, scratch: &Path) {
        let out = scratch.join("restored.txt");
        let (from, to) = (source.display().to_string(), out.display().to_string());
        run(["restore", "log", "--from", &from, "--to", &to, "--force"]).expect(0);
        self.judge(whose, &std::fs::read_to_string(&out).expect("read what was restored"));
    }
}
