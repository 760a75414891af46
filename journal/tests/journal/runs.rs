//! A node that is restarted every ten minutes for years: each start that writes something adds an epoch to the history.

use std::fs;

use journal::testing::{Keep, SimDisk, Survivors};
use journal::{
    Cursor, Item, Journal, Lsn, NodeId, Reason, Rebuild, Role, RunOpening, StreamId, Tip, Verified, offline,
};

use crate::host::{TestClock, folder, options};

/// The control file held some 4600 once; the next start failed, for good.
const RUNS: usize = 20_000;
/// Opened again after this many: a start of its own each time would only be slower.
const RUNS_PER_LIFE: usize = 500;
/// What a receiver gets at once: entries of some 4000 runs.
const RECEIVED_BYTES: usize = 1 << 20;

fn run_with_a_record(journal: &Journal, number: usize) {
    journal.open_run(RunOpening { promote: None, reason: Reason::Started, policy: b"{}".to_vec() }).unwrap();
    journal.append(Item::record(&[&number.to_le_bytes()])).unwrap();
}

fn bytes_of(journal: &Journal) -> Vec<u8> {
    let mut bytes = Vec::new();
    while let Some(slice) = journal.slice(Lsn::new(bytes.len() as u64), 1 << 20).unwrap() {
        bytes.extend_from_slice(&slice);
    }
    bytes
}

/// Hands over as many whole entries as a piece holds.
fn verified<'a>(journal: &Journal, bytes: &'a [u8], tip: Tip) -> Verified<'a> {
    let from = tip.lsn.get() as usize;
    Cursor::new(journal.geometry(), tip).verify(&bytes[from..bytes.len().min(from + RECEIVED_BYTES)]).unwrap()
}

#[test]
fn thousands_of_runs_are_opened_again_received_rebuilt_and_cut() {
    let (base, disk, clock) = (folder(), SimDisk::default(), TestClock::default());
    let dir = base.path().join("primary");
    let (stream, node) = (StreamId::random(), NodeId::random());
    drop(Journal::create(&dir, stream, node, Role::Primary, options(&disk, &clock)).unwrap());
    for life in 0..RUNS / RUNS_PER_LIFE {
        let journal = Journal::open(&dir, options(&disk, &clock)).unwrap();
        assert_eq!(journal.history().openings().len(), life * RUNS_PER_LIFE);
        for number in 0..RUNS_PER_LIFE {
            run_with_a_record(&journal, life * RUNS_PER_LIFE + number);
        }
        match life % 2 {
            0 => journal.close().unwrap(),
            _ => drop(journal.write().unwrap()),
        }
    }

    let journal = Journal::open(&dir, options(&disk, &clock)).unwrap();
    let history = journal.history();
    let runs: Vec<u32> = history.openings().iter().map(|opening| opening.epoch.run).collect();
    assert_eq!(runs, (1..=RUNS as u32).collect::<Vec<_>>());
    assert_eq!(*offline::Log::open(&dir).unwrap().history(), history);

    // the other side gets them all, some thousand with one call
    let copy = base.path().join("receiver");
    let receiver = Journal::create(&copy, stream, NodeId::random(), Role::Receiver, options(&disk, &clock)).unwrap();
    let bytes = bytes_of(&journal);
    while receiver.written_tip().lsn.get() < bytes.len() as u64 {
        receiver.extend(&verified(&journal, &bytes, receiver.written_tip())).unwrap();
    }
    receiver.close().unwrap();
    let receiver = Journal::open(&copy, options(&disk, &clock)).unwrap();
    assert_eq!(receiver.history(), history);

    // it is cut far back, and gets them again; the branch remembers
    let middle = history.openings()[RUNS / 3];
    let branch = receiver.cut(middle.first).unwrap().path;
    assert_eq!(receiver.history().openings(), &history.openings()[..RUNS / 3]);
    drop(receiver);
    let receiver = Journal::open(&copy, options(&disk, &clock)).unwrap();
    assert_eq!(receiver.history().openings(), &history.openings()[..RUNS / 3]);
    assert_eq!(*offline::Log::open(&branch).unwrap().history(), history);
    while receiver.written_tip().lsn.get() < bytes.len() as u64 {
        receiver.extend(&verified(&journal, &bytes, receiver.written_tip())).unwrap();
    }
    assert_eq!(receiver.history(), history);
    drop(receiver);

    // the log alone knows them too
    drop(journal);
    fs::remove_file(dir.join("control")).unwrap();
    let rebuild = Rebuild::plan(&dir, Some(node), options(&disk, &clock).host).unwrap();
    assert_eq!(*rebuild.history(), history);
    rebuild.write(false).unwrap();
    let journal = Journal::open(&dir, options(&disk, &clock)).unwrap();
    assert_eq!(journal.history(), history);
    journal.set_role(Role::Primary).unwrap();
    run_with_a_record(&journal, RUNS);
    journal.sync().unwrap();
    assert_eq!(journal.history().openings().len(), RUNS + 1);
}

/// What is durable has its epoch, whatever of the rest survives.
#[test]
fn a_power_cut_costs_no_epoch_that_was_acknowledged() {
    let (base, disk, clock) = (folder(), SimDisk::default(), TestClock::default());
    let dir = base.path().join("live");
    let journal =
        Journal::create(&dir, StreamId::random(), NodeId::random(), Role::Primary, options(&disk, &clock)).unwrap();
    for number in 0..1000 {
        run_with_a_record(&journal, number);
        if number % 7 == 0 {
            journal.sync().unwrap();
        }
        if number % 37 > 0 {
            continue;
        }
        let history = journal.history();
        let durable = journal.board().durable();
        for (index, sectors) in [Keep::None, Keep::All, Keep::Random(number as u64)].into_iter().enumerate() {
            let to = base.path().join(format!("{number}-{index}"));
            fs::create_dir(&to).unwrap();
            let after = disk.cut_power(Survivors { names: disk.pending_names(), sectors }, base.path(), &to).unwrap();
            let found = Journal::open(&to.join("live"), options(&after, &clock)).unwrap();
            assert!(found.board().durable() >= durable);
            let kept = found.history().openings().len();
            assert_eq!(found.history().openings(), &history.openings()[..kept]);
            assert!(history.openings().get(kept).is_none_or(|lost| lost.first >= durable));
        }
    }
}
