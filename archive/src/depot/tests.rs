use std::fs;

use journal::{Lsn, LsnRange, Tip};
use tempfile::TempDir;

use super::*;
use crate::batch::{Cut, Finished, Writer};
use crate::error::What;
use crate::forge::{Forge, STREAM};

struct Bench {
    dir: TempDir,
    depot: Depot,
}

impl Bench {
    fn new() -> Bench {
        let dir = TempDir::new().expect("temp");
        let depot = Depot::create(&dir.path().join("depot"), "log", STREAM).expect("makes folders");
        Bench { dir, depot }
    }

    fn cut(&self, forge: &Forge, from: Tip, upto: Lsn) -> Finished {
        let opening = forge.opening_before(from.lsn);
        let cut = Cut { stream: STREAM, geometry: forge.geometry, first: from, opening, upto, level: 1 };
        let mut writer = Writer::create(&self.dir.path().join("cutting"), cut).expect("creates");
        writer.push(&forge.bytes[from.lsn.get() as usize..]).expect("verifies");
        let done = writer.finish().expect("has entries");
        let path = self.dir.path().join(done.info.name().to_string());
        fs::rename(&done.path, &path).expect("renames");
        Finished { path, ..done }
    }

    fn store(&self, batch: &Finished) -> Result<Stored> {
        self.depot.store(&batch.path, batch.info.file_bytes, batch.file_hash)
    }

    fn ship(&self, forge: &Forge, from: Tip, upto: Lsn) -> Stored {
        self.store(&self.cut(forge, from, upto)).expect("stored")
    }

    fn names(&self) -> Vec<String> {
        let files = self.depot.files().expect("lists");
        files.iter().filter_map(|path| Some(path.file_name()?.to_str()?.to_owned())).collect()
    }

    fn spools(&self) -> usize {
        fs::read_dir(self.depot.incoming()).expect("lists").count()
    }
}

fn forge() -> Forge {
    Forge::with(&[b"one", b"two", b"three", b"four", b"five"])
}

#[test]
fn a_line_grows_batch_by_batch_and_twice_is_once() {
    let bench = Bench::new();
    let forge = forge();
    let tips = forge.tips();
    assert_eq!(bench.depot.catalogue().expect("reads").end().expect("one line"), None);
    let first = bench.cut(&forge, tips[0], tips[3].lsn);
    assert!(bench.store(&first).expect("stored").new);
    let again = bench.store(&first).expect("stored already");
    assert!(!again.new && again.end == tips[3]);
    bench.ship(&forge, tips[3], Lsn::MAX);
    assert!(!bench.store(&first).expect("stored already").new, "and later too");
    assert_eq!(bench.names().len(), 2);
    assert_eq!(bench.spools(), 0);
    let catalogue = bench.depot.catalogue().expect("reads");
    assert_eq!(catalogue.end().expect("one line").map(|end| end.tip), Some(forge.tip));
    assert_eq!(catalogue.lines().len(), 1);
    assert!(bench.depot.verify().expect("reads").is_good());
}

#[test]
fn what_does_not_continue_is_not_stored() {
    let bench = Bench::new();
    let forge = forge();
    let tips = forge.tips();
    let gap = bench.cut(&forge, tips[2], tips[4].lsn);
    assert!(matches!(bench.store(&gap), Err(Error::NotNext { .. })), "the first must begin at the beginning");
    bench.ship(&forge, tips[0], tips[1].lsn);
    let error = bench.store(&gap).expect_err("one entry is missing");
    assert!(matches!(&error, Error::NotNext { what, .. } if what.contains(&tips[1].lsn.to_string())), "{error}");
    let overlap = bench.cut(&forge, tips[0], tips[3].lsn);
    assert!(matches!(bench.store(&overlap), Err(Error::NotNext { .. })), "ships what is there again");
    let mut other = Forge::new();
    other.at(77).open(1, 1).data(b"elsewhere");
    let strange = bench.cut(&other, other.tips()[1], Lsn::MAX);
    assert_eq!(strange.info.first.lsn, tips[1].lsn, "the same place");
    assert!(matches!(bench.store(&strange), Err(Error::NotNext { .. })), "another chain");
    assert_eq!((bench.names().len(), bench.spools()), (1, 0));
}

#[test]
fn a_new_term_below_the_end_begins_a_branch() {
    let bench = Bench::new();
    let old = forge();
    let tips = old.tips();
    bench.ship(&old, tips[0], tips[5].lsn);
    let mut new = Forge::with(&[b"one", b"two"]);
    assert_eq!(new.tip, tips[3], "the new primary got this far");
    new.open(2, 1).data(b"other three");
    let branch = bench.cut(&new, tips[3], Lsn::MAX);
    assert_eq!(bench.store(&branch).expect("branches").end, new.tip);
    let catalogue = bench.depot.catalogue().expect("reads");
    let lines = catalogue.lines();
    assert_eq!(lines.len(), 2);
    let steps: Vec<_> = lines[0].steps.iter().map(|step| (step.batch, step.upto, step.missing)).collect();
    assert_eq!(steps, [(0, tips[3].lsn, None), (1, new.end(), None)]);
    assert_eq!(lines[1].steps.len(), 1);
    // the old primary, if it still ships, is refused: a newer one does
    let stale = bench.cut(&old, tips[5], Lsn::MAX);
    assert!(matches!(bench.store(&stale), Err(Error::Diverged { .. })));
    assert!(bench.depot.verify().expect("reads").is_good());
    // a third term that branches off from nowhere in the depot
    let mut far = Forge::with(&[b"never shipped"]);
    far.open(3, 1);
    let loose = bench.cut(&far, far.tips()[2], Lsn::MAX);
    assert!(matches!(bench.store(&loose), Err(Error::NotNext { .. })));
}

#[test]
fn one_term_with_two_ids_is_split_brain() {
    let bench = Bench::new();
    let old = forge();
    bench.ship(&old, old.tips()[0], Lsn::MAX);
    let mut one = old.clone();
    one.open(2, 1).data(b"x");
    bench.ship(&one, old.tip, Lsn::MAX);
    let mut info = bench.depot.catalogue().expect("reads").batches()[1].1.clone();
    info.openings[0].term_id = 9;
    let error = bench.depot.catalogue().expect("reads").accepts(&info).expect_err("two ids");
    assert!(matches!(error, Error::Diverged { .. }), "{error}");
}

#[test]
fn a_lost_batch_is_named() {
    let bench = Bench::new();
    let forge = forge();
    let tips = forge.tips();
    for pair in tips.windows(2) {
        bench.ship(&forge, pair[0], pair[1].lsn);
    }
    let names = bench.names();
    fs::remove_file(bench.depot.batches().join(&names[2])).expect("removes");
    fs::remove_file(bench.depot.batches().join(&names[3])).expect("removes");
    let verdict = bench.depot.verify().expect("reads");
    assert_eq!(verdict.missing, [LsnRange::new(tips[2].lsn, tips[4].lsn)]);
    let end = bench.depot.catalogue().expect("reads").end().expect("one line").expect("some");
    assert_eq!(end.tip, forge.tip, "shipping goes on at the end");
}

#[test]
fn an_upload_goes_on_where_it_stopped() {
    let bench = Bench::new();
    let forge = forge();
    let batch = bench.cut(&forge, forge.tips()[0], Lsn::MAX);
    let bytes = fs::read(&batch.path).expect("there");
    let name = batch.info.name().to_string();
    let offer = || match bench.depot.offer(&name, bytes.len() as u64, batch.file_hash) {
        Ok(Offer::Have(spool)) => spool,
        other => panic!("{other:?}"),
    };
    let mut spool = offer();
    spool.write(0, &bytes[..100]).expect("takes");
    assert!(matches!(bench.depot.offer(&name, bytes.len() as u64, batch.file_hash), Err(Error::Locked { .. })));
    assert!(matches!(spool.write(99, &bytes[99..]), Err(Error::Refused { .. })), "not the next");
    drop(spool);
    let mut spool = offer();
    assert_eq!(spool.have(), 100);
    spool.write(100, &bytes[100..200]).expect("takes");
    assert!(matches!(spool.write(200, &vec![0; bytes.len()]), Err(Error::Refused { .. })), "beyond its size");
    drop(spool);
    let mut spool = offer();
    spool.write(200, &bytes[200..]).expect("takes");
    assert!(spool.finish().expect("whole").new);
    assert_eq!(fs::read(bench.depot.batches().join(&name)).expect("there"), bytes);
    assert_eq!(bench.spools(), 0);
}

/// A power cut may leave garbage where an upload had not been synced: it is never stored, and doesn't stay.
#[test]
fn a_spoiled_upload_begins_again() {
    let bench = Bench::new();
    let forge = forge();
    let batch = bench.cut(&forge, forge.tips()[0], Lsn::MAX);
    let bytes = fs::read(&batch.path).expect("there");
    let name = batch.info.name().to_string();
    let Ok(Offer::Have(mut spool)) = bench.depot.offer(&name, bytes.len() as u64, batch.file_hash) else { panic!() };
    let mut spoiled = bytes.clone();
    spoiled[150] = !spoiled[150];
    spool.write(0, &spoiled).expect("takes");
    let error = spool.finish().expect_err("another hash");
    assert!(matches!(error, Error::Damaged { what: What::Hash, .. }), "{error}");
    assert!(bench.store(&batch).expect("from the beginning").new);
}

/// A rename that reached the disk before the bytes did, as a careless copy leaves it.
#[test]
fn a_torn_batch_under_its_name_is_replaced() {
    let bench = Bench::new();
    let forge = forge();
    let batch = bench.cut(&forge, forge.tips()[0], Lsn::MAX);
    let bytes = fs::read(&batch.path).expect("there");
    let path = bench.depot.batch_path(&batch.info.name());
    for torn in [&bytes[..0], &bytes[..150], &bytes[..bytes.len() - 1], &vec![0; bytes.len()]] {
        fs::write(&path, torn).expect("writes");
        let catalogue = bench.depot.catalogue().expect("reads");
        assert_eq!((catalogue.batches().len(), catalogue.bad().len()), (0, 1));
        assert!(!bench.depot.verify().expect("reads").is_good());
        assert!(bench.store(&batch).expect("stored again").new);
        assert_eq!(fs::read(&path).expect("there"), bytes);
    }
}

#[test]
fn offers_are_bounded() {
    let bench = Bench::new();
    let forge = forge();
    let name = bench.cut(&forge, forge.tips()[0], Lsn::MAX).info.name().to_string();
    for (name, bytes) in [("../../etc/passwd", 10), (name.as_str(), 0), (name.as_str(), OFFER_BYTES_MAX + 1)] {
        assert!(matches!(bench.depot.offer(name, bytes, [0; 32]), Err(Error::Refused { .. })), "{name} {bytes}");
    }
    for hash in 0..20 {
        let Ok(Offer::Have(mut spool)) = bench.depot.offer(&name, 1000, [hash; 32]) else { panic!() };
        spool.write(0, &[1; 10]).expect("takes");
        assert!(bench.spools() <= SPOOLS_MAX);
    }
    for name in ["", ".", "..", "a/b", ".hidden", "a b", &"x".repeat(101)] {
        assert!(matches!(Depot::create(bench.dir.path(), name, STREAM), Err(Error::Refused { .. })), "{name:?}");
    }
}

#[test]
fn two_streams_are_never_mixed() {
    let bench = Bench::new();
    let forge = forge();
    let batch = bench.cut(&forge, forge.tips()[0], Lsn::MAX);
    bench.store(&batch).expect("stored");
    let mut id = *STREAM.as_bytes();
    id[15] ^= 1;
    let other = StreamId::from_bytes(id);
    let alike = Depot::create(&bench.dir.path().join("depot"), "log", other).expect("the same folder");
    assert_eq!(alike.folder(), bench.depot.folder());
    assert!(matches!(alike.catalogue(), Err(Error::Stream { wanted, .. }) if wanted == other));
    let elsewhere = Depot::create(&bench.dir.path().join("other"), "log", other).expect("makes folders");
    let error = elsewhere.store(&batch.path, batch.info.file_bytes, batch.file_hash).expect_err("another stream's");
    assert!(matches!(error, Error::Stream { .. }), "{error}");
}

#[test]
fn streams_are_found_by_name() {
    let bench = Bench::new();
    let root = bench.dir.path().join("depot");
    assert_eq!(Depot::find(&root, "log").expect("one").folder(), bench.depot.folder());
    assert_eq!(Depot::find(bench.depot.folder(), "log").expect("itself").folder(), bench.depot.folder());
    let error = Depot::find(&root, "other").expect_err("none");
    assert!(matches!(&error, Error::Absent { what, .. } if what.contains("log")), "{error}");
    Depot::create(&root, "log", StreamId::from_bytes([9; 16])).expect("another of that name");
    assert!(matches!(Depot::find(&root, "log"), Err(Error::Diverged { .. })));
}
