use std::path::Path;

use journal::{Cursor, Entry, Next, Term, Tip};
use tempfile::TempDir;

use super::*;
use crate::batch::{Cut, Mark, Writer};
use crate::depot::Depot;
use crate::forge::{Forge, STREAM};
use crate::source::Source;
use crate::tail::{Run, Tail, TailEntries};

/// A journal in memory that begins at one of its tips.
struct Memory {
    forge: Forge,
    start: Tip,
}

impl Tail for Memory {
    fn path(&self) -> &Path {
        Path::new("journal")
    }

    fn stream(&self) -> StreamId {
        STREAM
    }

    fn geometry(&self) -> Geometry {
        self.forge.geometry
    }

    fn start(&self) -> Lsn {
        self.start.lsn
    }

    fn near_end(&self) -> Lsn {
        let tips = self.forge.tips();
        tips[tips.len() * 2 / 3].lsn.max(self.start.lsn)
    }

    fn runs(&self) -> Vec<Run> {
        let openings = self.forge.openings.iter().filter(|opening| opening.first < self.near_end());
        openings.map(|o| Run { epoch: o.epoch, run_id: o.run_id, first: o.first }).collect()
    }

    fn read(&self, from: Lsn) -> Result<Box<dyn TailEntries + '_>> {
        let tip = self.forge.tips().into_iter().find(|tip| tip.lsn == from && from >= self.start.lsn);
        let tip = tip.expect("reads begin at entries");
        Ok(Box::new(MemoryEntries { bytes: &self.forge.bytes, cursor: Cursor::new(self.forge.geometry, tip) }))
    }
}

struct MemoryEntries<'a> {
    bytes: &'a [u8],
    cursor: Cursor,
}

impl TailEntries for MemoryEntries<'_> {
    fn tip(&self) -> Tip {
        *self.cursor.tip()
    }

    fn next_entry(&mut self) -> Result<Option<Entry<'_>>> {
        let rest = &self.bytes[self.cursor.tip().lsn.get() as usize..];
        match self.cursor.next(rest).map_err(Error::Log)? {
            Next::Entry(entry) => Ok(Some(entry)),
            Next::Need(_) => Ok(None),
        }
    }
}

struct Scene {
    dir: TempDir,
    depot: Depot,
}

impl Scene {
    fn new() -> Scene {
        let dir = TempDir::new().expect("temp");
        let depot = Depot::create(dir.path(), "log", STREAM).expect("makes folders");
        Scene { dir, depot }
    }

    /// Puts batches with these bounds (indices of tips) into the depot, past its own rules.
    fn ship(&self, forge: &Forge, bounds: &[usize]) -> &Scene {
        let tips = forge.tips();
        for pair in bounds.windows(2) {
            let first = tips[pair[0]];
            let opening = forge.opening_before(first.lsn);
            let upto = tips[pair[1]].lsn;
            let cut = Cut { stream: STREAM, geometry: forge.geometry, first, opening, upto, level: 1 };
            let mut writer = Writer::create(&self.dir.path().join("cutting"), cut).expect("creates");
            writer.push(&forge.bytes[first.lsn.get() as usize..]).expect("verifies");
            writer.finish().expect("has entries").publish(&self.depot.folder().join("batches")).expect("renames");
        }
        self
    }

    fn lose(&self, from: Lsn) {
        let catalogue = self.depot.catalogue().expect("reads");
        let (path, _) = catalogue.batches().iter().find(|(_, info)| info.first.lsn == from).expect("there");
        std::fs::remove_file(path).expect("removes");
    }

    /// Cuts the last byte off the batch that begins there.
    fn tear(&self, from: Lsn) {
        let catalogue = self.depot.catalogue().expect("reads");
        let (path, info) = catalogue.batches().iter().find(|(_, info)| info.first.lsn == from).expect("there");
        let file = std::fs::File::options().write(true).open(path).expect("opens");
        file.set_len(info.file_bytes - 1).expect("shortens");
    }

    fn plan(&self, journal: Option<&Memory>, point: Point, epoch: Option<Epoch>) -> Result<Plan> {
        let catalogue = self.depot.catalogue().expect("reads");
        let coverage = journal.map(|journal| {
            let scan = Coverage::scan(journal).expect("reads");
            let ends = Coverage::ends(journal).expect("reads");
            assert_eq!(Coverage { marks: scan.marks.clone(), ..ends }, scan);
            scan
        });
        plan(Some(&catalogue), coverage.as_ref(), &Wanted { point, epoch })
    }
}

fn drain(plan: &Plan, journal: Option<&Memory>) -> Result<(Vec<u8>, Tip)> {
    let mut source = Source::new(plan, journal.map(|journal| journal as &dyn Tail));
    let mut records = Vec::new();
    while let Some(entry) = source.next_entry()? {
        if entry.header.kind == Some(journal::Kind::Data) {
            records.extend_from_slice(entry.payload);
        }
    }
    assert!(source.next_entry()?.is_none(), "the end stays the end");
    Ok((records, source.tip()))
}

fn lsn(at: &Tip) -> Point {
    Point::Lsn(at.lsn)
}

fn time(nanos: u64) -> Point {
    Point::Time(Time::from_nanos(nanos))
}

/// Records a..h at 1000, 2000, …: entry n (from 1, the epoch's first being 0) ends at `tips[n + 1]`.
fn alphabet() -> Forge {
    let mut forge = Forge::new();
    forge.at(500).open(1, 1);
    for (index, letter) in "abcd".chars().enumerate() {
        forge.at(1000 * (index as u64 + 1)).data(letter.to_string().as_bytes());
    }
    forge.mark("mid");
    for (index, letter) in "efgh".chars().enumerate() {
        forge.at(1000 * (index as u64 + 5)).data(letter.to_string().as_bytes());
    }
    forge
}

#[test]
fn every_kind_of_point_on_a_line() {
    let scene = Scene::new();
    let forge = alphabet();
    let tips = forge.tips();
    scene.ship(&forge, &[0, 3, 6, 10]);
    let cases: Vec<(&str, Point, usize, &str, usize)> = vec![
        ("latest", Point::Latest, 3, "abcdefgh", 10),
        ("nothing at all", Point::Lsn(Lsn::ZERO), 0, "", 0),
        ("end of a batch", lsn(&tips[3]), 1, "ab", 3),
        ("inside a batch", lsn(&tips[4]), 2, "abc", 4),
        ("between two ends", Point::Lsn(tips[4].lsn.advance(5)), 2, "abc", 4),
        ("the very end", lsn(&tips[10]), 3, "abcdefgh", 10),
        ("a time hit exactly", time(2000), 1, "ab", 3),
        ("a time between", time(2001), 1, "ab", 3),
        ("a time just before", time(1999), 1, "a", 2),
        ("the last time", time(8000), 3, "abcdefgh", 10),
        ("a mark", Point::Mark("mid".into()), 2, "abcd", 6),
    ];
    for (name, point, steps, wanted, at) in cases {
        let plan = scene.plan(None, point, None).expect(name);
        assert_eq!(plan.steps.len(), steps, "{name}");
        assert_eq!(plan.short, None, "{name}");
        let (records, tip) = drain(&plan, None).expect(name);
        assert_eq!((records.as_slice(), tip), (wanted.as_bytes(), tips[at]), "{name}");
        let near = Source::neighbours(&plan, None).expect(name);
        let before = at.checked_sub(1).map(|index| tips[index].lsn);
        let after = (at + 1 < tips.len()).then(|| tips[at].lsn);
        assert_eq!((near.before.map(|e| e.lsn), near.after.map(|e| e.lsn)), (before, after), "{name}");
    }
}

#[test]
fn points_that_are_not_there() {
    let scene = Scene::new();
    let forge = alphabet();
    scene.ship(&forge, &[0, 3, 6, 10]);
    let beyond = Point::Lsn(forge.end().advance(8));
    for (point, part) in [
        (beyond, forge.end().to_string()),
        (time(499), "1970".into()),
        (Point::Mark("end".into()), "the last of 1 here are mid".into()),
    ] {
        let error = scene.plan(None, point, None).expect_err("not there");
        assert_eq!(error.class(), Class::NotReached);
        assert!(error.to_string().contains(&part), "{error}");
    }
    let late = scene.plan(None, time(9000), None).expect("all there is");
    let (asked, last) = (Time::from_nanos(9000), Time::from_nanos(8000));
    assert_eq!(late.short, Some(Short { asked, last, end: forge.end() }));
    assert_eq!(drain(&late, None).expect("verifies").0, b"abcdefgh");
    let empty = Scene::new();
    assert_eq!(empty.plan(None, Point::Latest, None).expect_err("empty").class(), Class::Absent);
}

#[test]
fn a_gap_is_named_and_never_jumped() {
    let scene = Scene::new();
    let forge = alphabet();
    let tips = forge.tips();
    scene.ship(&forge, &[0, 3, 5, 7, 10]);
    scene.lose(tips[3].lsn);
    scene.lose(tips[5].lsn);
    let gap = LsnRange::new(tips[3].lsn, tips[7].lsn);
    for point in [Point::Latest, lsn(&tips[9]), lsn(&tips[4]), time(3500), time(7500), time(9000)] {
        let error = scene.plan(None, point.clone(), None).expect_err("a gap");
        assert!(matches!(&error, Error::Gap { missing, .. } if *missing == gap), "{point}: {error}");
        assert_eq!(error.class(), Class::Corrupt);
    }
    for point in [lsn(&tips[3]), lsn(&tips[2]), time(1500)] {
        scene.plan(None, point, None).expect("below the gap");
    }
    scene.lose(Lsn::ZERO);
    let error = scene.plan(None, lsn(&tips[2]), None).expect_err("nothing leads there");
    assert!(matches!(&error, Error::Gap { missing, .. } if missing.from == Lsn::ZERO), "{error}");
}

/// A batch that was cut short was left out as if it had never been: the latest was then an older state than the depot
/// had taken, and the exit code said that all was well.
#[test]
fn a_damaged_batch_is_not_the_end_of_the_log() {
    let forge = alphabet();
    let tips = forge.tips();
    let scene = Scene::new();
    scene.ship(&forge, &[0, 3, 5, 10]);
    scene.tear(tips[5].lsn);
    for point in [Point::Latest, lsn(&tips[9]), time(9_000), Point::Mark("mid".into())] {
        let error = scene.plan(None, point.clone(), None).expect_err("it may lie in the damaged batch");
        assert_eq!(error.class(), Class::Corrupt, "{point}: {error}");
        assert!(error.to_string().contains(&format!("lsn:{}", tips[5].lsn)), "{point}: {error}");
    }
    for point in [lsn(&tips[5]), lsn(&tips[2]), time(1500)] {
        scene.plan(None, point, None).expect("below it");
    }
    // what is whole elsewhere is taken from there
    let whole = Memory { forge: forge.clone(), start: tips[0] };
    scene.plan(Some(&whole), Point::Latest, None).expect("the journal has it");
    // in the middle, and as the only one
    scene.tear(tips[3].lsn);
    let error = scene.plan(None, Point::Latest, None).expect_err("two are damaged");
    assert!(matches!(&error, Error::Unusable { whole, .. } if *whole == tips[3].lsn), "{error}");
    scene.tear(Lsn::ZERO);
    let error = scene.plan(None, Point::Latest, None).expect_err("all are damaged");
    assert!(matches!(&error, Error::Unusable { whole: Lsn::ZERO, .. }), "{error}");
}

/// Term 1 shipped up to `d`; the node promoted to term 2 had only `b`.
fn fork() -> (Forge, Forge) {
    let old = alphabet();
    let mut new = Forge::new();
    new.at(500).open(1, 1).at(1000).data(b"a").at(2000).data(b"b");
    assert_eq!(new.tip, old.tips()[3]);
    new.at(2500).open(2, 1).at(2600).data(b"X").mark("mid").at(2700).data(b"Y");
    (old, new)
}

#[test]
fn a_restore_follows_the_newest_term() {
    let (old, new) = fork();
    let scene = Scene::new();
    scene.ship(&old, &[0, 4, 6]).ship(&new, &[3, 5, 7]);
    let one = Some(Epoch { term: Term(1), run: 1 });
    let two = Some(Epoch { term: Term(2), run: 1 });
    let cases: Vec<(&str, Point, Option<Epoch>, &str)> = vec![
        ("newest", Point::Latest, None, "abXY"),
        ("term 2", Point::Latest, two, "abXY"),
        ("term 1", Point::Latest, one, "abcd"),
        ("time on the new line", time(2650), None, "abX"),
        ("time on the old line", time(3500), one, "abc"),
        ("mark on the new line", Point::Mark("mid".into()), None, "abX"),
        ("mark on the old line", Point::Mark("mid".into()), one, "abcd"),
        ("below the fork", lsn(&old.tips()[2]), None, "a"),
    ];
    for (name, point, epoch, wanted) in cases {
        let plan = scene.plan(None, point, epoch).expect(name);
        let (records, _) = drain(&plan, None).expect(name);
        assert_eq!(records, wanted.as_bytes(), "{name}");
        if plan.short.is_none() {
            Source::neighbours(&plan, None).expect(name);
        }
    }
    let none = Some(Epoch { term: Term(1), run: 7 });
    let error = scene.plan(None, Point::Latest, none).expect_err("no such run");
    assert!(error.to_string().contains("1.1, 2.1"), "{error}");
}

#[test]
fn a_term_that_went_on_without_a_fork_is_cut_where_the_next_begins() {
    let scene = Scene::new();
    let mut forge = alphabet();
    forge.open(2, 1).data(b"X");
    scene.ship(&forge, &[0, 5, 12]);
    let one = Some(Epoch { term: Term(1), run: 1 });
    let plan = scene.plan(None, Point::Latest, one).expect("cut");
    let (records, tip) = drain(&plan, None).expect("verifies");
    assert_eq!((records.as_slice(), tip), (&b"abcdefgh"[..], forge.tips()[10]));
}

#[test]
fn batches_first_then_the_journal() {
    let forge = alphabet();
    let tips = forge.tips();
    let pruned = |at: usize| Memory { forge: forge.clone(), start: tips[at] };
    let points =
        [(time(6500), "abcdef", 8), (lsn(&tips[9]), "abcdefg", 9), (time(3500), "abc", 4), (time(4000), "abcd", 5)];
    let cases: Vec<(&str, usize, &[usize], usize, usize)> = vec![
        ("a whole journal needs no batches", 0, &[0, 3, 6], 0, 1),
        ("batches up to their end", 4, &[0, 3, 6], 2, 1),
        ("the journal begins where they end", 6, &[0, 3, 6], 2, 1),
        ("it begins inside the last", 5, &[0, 3, 7], 2, 1),
        ("batches reach as far", 4, &[0, 3, 10], 2, 0),
    ];
    for (name, start, bounds, batches, journals) in cases {
        let scene = Scene::new();
        scene.ship(&forge, bounds);
        let journal = pruned(start);
        let plan = scene.plan(Some(&journal), Point::Latest, None).expect(name);
        let batch = |step: &&Step| matches!(step.source, StepSource::Batch { .. });
        assert_eq!(plan.steps.iter().filter(batch).count(), batches, "{name}");
        assert_eq!(plan.steps.len(), batches + journals, "{name}");
        let (records, tip) = drain(&plan, Some(&journal)).expect(name);
        assert_eq!((records.as_slice(), tip), (&b"abcdefgh"[..], forge.tip), "{name}");
        for (point, wanted, at) in points.clone() {
            let plan = scene.plan(Some(&journal), point, None).expect(name);
            assert_eq!(drain(&plan, Some(&journal)).expect(name).0, wanted.as_bytes(), "{name}");
            let near = Source::neighbours(&plan, Some(&journal)).expect(name);
            assert_eq!(near.before.map(|e| e.end), Some(tips[at].lsn), "{name}");
            assert_eq!(near.after.map(|e| e.lsn), Some(tips[at].lsn), "{name}");
        }
        let plan = scene.plan(Some(&journal), Point::Mark("mid".into()), None).expect(name);
        assert_eq!(drain(&plan, Some(&journal)).expect(name).0, b"abcd", "{name}");
    }
    let scene = Scene::new();
    scene.ship(&forge, &[0, 3]);
    let error = scene.plan(Some(&pruned(5)), Point::Latest, None).expect_err("nothing leads to it");
    assert!(matches!(error, Error::Gap { .. }), "{error}");
}

#[test]
fn a_journal_of_another_line_is_not_glued_on() {
    let (old, new) = fork();
    let scene = Scene::new();
    scene.ship(&old, &[0, 3, 6]);
    // the promoted node's journal: what it shares with the depot ends at `b`
    let journal = Memory { forge: new.clone(), start: new.tips()[2] };
    let plan = scene.plan(Some(&journal), Point::Latest, None).expect("joins below the fork");
    assert_eq!(drain(&plan, Some(&journal)).expect("verifies").0, b"abXY");
    let whole = Scene::new();
    whole.ship(&old, &[0, 6]);
    for (point, wanted) in [(Point::Latest, "abXY"), (time(2650), "abX"), (time(2550), "ab"), (time(1500), "a")] {
        let plan = whole.plan(Some(&journal), point, None).expect("leaves the batch inside");
        assert_eq!(drain(&plan, Some(&journal)).expect("verifies").0, wanted.as_bytes());
    }
    // the same epochs and places, other bytes: only the chain can tell
    let mut forged = Forge::new();
    forged.at(500).open(1, 1).at(1000).data(b"a").at(2000).data(b"!");
    forged.at(2500).open(2, 1).at(2600).data(b"X");
    let journal = Memory { forge: forged.clone(), start: forged.tips()[2] };
    let plan = scene.plan(Some(&journal), Point::Latest, None).expect("looks alike");
    let error = drain(&plan, Some(&journal)).expect_err("another history");
    assert!(matches!(error, Error::Diverged { .. }), "{error}");
}

/// A branch that looks right by its numbers, but was cut from other bytes.
#[test]
fn a_branch_of_another_history_is_not_glued_on() {
    let scene = Scene::new();
    let mut forged = Forge::new();
    forged.at(500).open(1, 1).at(1000).data(b"a").at(2000).data(b"!");
    forged.at(2500).open(2, 1).at(2600).data(b"X");
    scene.ship(&alphabet(), &[0, 6]).ship(&forged, &[3, 5]);
    let plan = scene.plan(None, Point::Latest, None).expect("looks alike");
    let error = drain(&plan, None).expect_err("another history");
    assert!(matches!(error, Error::Diverged { .. }), "{error}");
    assert!(!scene.depot.verify().expect("reads").is_good());
}

#[test]
fn a_batch_that_changed_since_is_not_read() {
    let scene = Scene::new();
    let forge = alphabet();
    scene.ship(&forge, &[0, 10]);
    let plan = scene.plan(None, Point::Latest, None).expect("whole");
    let StepSource::Batch { path, .. } = &plan.steps[0].source else { panic!("a batch") };
    let mut bytes = std::fs::read(path).expect("there");
    bytes[140] ^= 1;
    std::fs::write(path, &bytes).expect("writes");
    let error = drain(&plan, None).expect_err("damaged");
    assert_eq!(error.class(), Class::Corrupt);
    assert!(error.to_string().contains(&format!("{}", LsnRange::new(Lsn::ZERO, forge.end()))), "{error}");
}

#[test]
fn coverage_is_what_a_journal_holds() {
    let (_, new) = fork();
    let tips = new.tips();
    let journal = Memory { forge: new.clone(), start: tips[2] };
    let found = Coverage::scan(&journal).expect("reads");
    let run = |term, run_id, first: Lsn| Run { epoch: Epoch { term: Term(term), run: 1 }, run_id, first };
    assert_eq!(found.runs, [run(1, 1001, tips[2].lsn), run(2, 2001, tips[3].lsn)]);
    assert_eq!((found.start, found.end, found.first_time), (tips[2].lsn, tips[7], tips[3].time));
    let time = tips[6].time;
    assert_eq!(found.marks, [Mark { name: "mid".into(), at: tips[5].lsn, end: tips[6].lsn, time }]);
    for start in &tips {
        let journal = Memory { forge: new.clone(), start: *start };
        let scan = Coverage::scan(&journal).expect("reads");
        let ends = Coverage::ends(&journal).expect("reads");
        assert_eq!(Coverage { marks: scan.marks.clone(), ..ends }, scan);
    }
    let none = Coverage::scan(&Memory { forge: new.clone(), start: tips[7] }).expect("reads");
    assert_eq!(none.end, tips[7]);
    let wanted = Wanted { point: Point::Latest, epoch: None };
    let error = plan(None, Some(&none), &wanted).expect_err("holds nothing");
    assert_eq!(error.class(), Class::Absent);
}
