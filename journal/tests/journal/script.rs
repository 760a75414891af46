//! Operations on one journal, and what each does to its twin.

use std::path::PathBuf;
use std::sync::LazyLock;

use journal::testing::{SimDisk, Survivors};
use journal::{
    Class, End, Error, Flags, Item, Journal, Kind, Level, NodeId, Reason, Role, RunOpening, Slice, StreamId, Term,
    TermSeen, Tip, WaitError,
};

use crate::host::{TestClock, folder, options};
use crate::twin::{CutTail, Fact, Feed, PEER, Said, Twin, items};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Op {
    /// Appends a record of that many bytes.
    Append(usize),
    /// Appends them together.
    Many(&'static [usize]),
    /// The same, and waits until it is durable.
    Durable(usize),
    Mark,
    Alone,
    Write,
    Sync,
    /// The clean stop, and opens it again.
    Close,
    /// Drops the journal and opens it again.
    Reopen,
    /// Removes the sealed segments that are durable.
    Prune,
    /// Keeps a slice of the first segment, as a reader does, and lets go of it.
    Pin,
    Unpin,
    /// Cuts the last records off.
    Cut(usize),
    /// Cuts at the beginning of the last segment.
    CutSegment,
    /// Cuts everything.
    CutAll,
    /// Receives that many bytes of the feed, or somewhat less: whole entries.
    Extend(usize),
    OpenRun,
    BeginRun,
    /// Opens and begins that many runs.
    Runs(u32),
    Promote(u32),
    SetRole(Role),
    See(u32),
    Fence(u32),
    Checkpoint,
    Peer,
    Committed,
    /// The clock is stepped back by so many seconds.
    StepBack(u64),
}

/// What an operation failed with.
#[derive(Clone, Debug)]
pub(crate) struct Failure {
    pub(crate) class: Class,
    pub(crate) text: String,
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        Failure { class: error.class(), text: error.to_string() }
    }
}

impl From<WaitError> for Failure {
    fn from(error: WaitError) -> Failure {
        Failure { class: error.class(), text: error.to_string() }
    }
}

/// One journal, its disk, and its twin.
pub(crate) struct Scene {
    base: tempfile::TempDir,
    life: u32,
    pub(crate) dir: PathBuf,
    pub(crate) disk: SimDisk,
    pub(crate) clock: TestClock,
    pub(crate) journal: Option<Journal>,
    pub(crate) twin: Twin,
    serial: u64,
    pin: Option<(Slice, Vec<u8>)>,
}

pub(crate) const STREAM: StreamId = StreamId::from_bytes([0x51; 16]);
pub(crate) const NODE: NodeId = NodeId::from_bytes([0xaa; 16]);

/// Two runs of another node.
pub(crate) static FEED: LazyLock<Feed> = LazyLock::new(|| {
    let base = folder();
    let clock = TestClock::default();
    let on = |journal: &Journal, lengths: &[usize], serial: u64| {
        journal.open_run(opening(None)).unwrap();
        for (index, &length) in lengths.iter().enumerate() {
            journal.append(Item::record(&[&payload(serial + index as u64, length)])).unwrap();
        }
        journal.write().unwrap();
    };
    let disk = SimDisk::default();
    let node = NodeId::from_bytes([0xcc; 16]);
    let dir = base.path().join("feed");
    let journal = Journal::create(&dir, STREAM, node, Role::Primary, options(&disk, &clock)).unwrap();
    on(&journal, &[100, 9_000, 40_000, 16_000, 9, 12_000], 1_000_000);
    journal.close().unwrap();
    let journal = Journal::open(&dir, options(&disk, &clock)).unwrap();
    on(&journal, &[300, 16_000, 16_000, 16_000, 2_000, 16_000, 500, 8_000], 2_000_000);
    Feed::of(&journal)
});

/// A payload that no other record has.
pub(crate) fn payload(serial: u64, length: usize) -> Vec<u8> {
    let mut payload = vec![serial as u8 | 1; length];
    for (to, from) in payload.iter_mut().zip(serial.to_le_bytes()) {
        *to = from;
    }
    payload
}

fn opening(promote: Option<u32>) -> RunOpening {
    let promote = promote.map(|term| TermSeen { term: Term(term), id: u64::from(term) << 8 });
    let reason = if promote.is_some() { Reason::Promoted } else { Reason::Started };
    RunOpening { promote, reason, policy: b"{}".to_vec() }
}

impl Scene {
    /// An empty disk, and nothing on it yet.
    pub(crate) fn bare() -> Scene {
        let base = folder();
        let dir = base.path().join("0");
        std::fs::create_dir(&dir).unwrap();
        let (disk, clock) = (SimDisk::default(), TestClock::default());
        let twin = Twin::new(Role::Primary);
        Scene { base, life: 0, dir, disk, clock, journal: None, twin, serial: 0, pin: None }
    }

    /// A new journal of this role.
    pub(crate) fn new(role: Role) -> Scene {
        let mut scene = Scene::bare();
        scene.create(role).unwrap();
        scene
    }

    pub(crate) fn create(&mut self, role: Role) -> Result<(), Failure> {
        self.twin.role = Fact::new(role);
        let options = options(&self.disk, &self.clock);
        self.journal = Some(Journal::create(&self.dir.join("j"), STREAM, NODE, role, options)?);
        Ok(())
    }

    pub(crate) fn journal(&self) -> &Journal {
        self.journal.as_ref().unwrap()
    }

    pub(crate) fn ended(&self) -> Option<End> {
        self.journal.as_ref().and_then(|journal| journal.board().ended())
    }

    /// A scene with what is left of this one's disk after a power cut now. This one stays as it is.
    pub(crate) fn after_power_cut(&self, survivors: Survivors) -> Scene {
        let base = folder();
        let dir = base.path().join("0");
        std::fs::create_dir(&dir).unwrap();
        let disk = self.disk.cut_power(survivors, &self.dir, &dir).unwrap();
        let (clock, twin, serial) = (self.clock.clone(), self.twin.clone(), self.serial + 1000);
        Scene { base, life: 0, dir, disk, clock, journal: None, twin, serial, pin: None }
    }

    /// The same in place.
    pub(crate) fn power_cut(&mut self, survivors: Survivors) {
        (self.journal, self.pin) = (None, None);
        self.life += 1;
        let to = self.base.path().join(self.life.to_string());
        std::fs::create_dir(&to).unwrap();
        self.disk = self.disk.cut_power(survivors, &self.dir, &to).unwrap();
        std::fs::remove_dir_all(&self.dir).unwrap();
        self.dir = to;
    }

    /// Opens what is there.
    pub(crate) fn open(&mut self) -> Result<(), Failure> {
        (self.journal, self.pin) = (None, None);
        self.journal = Some(Journal::open(&self.dir.join("j"), options(&self.disk, &self.clock))?);
        Ok(())
    }

    /// Opens what is there and holds it against the twin.
    pub(crate) fn reopen(&mut self) -> Result<(), Failure> {
        self.open()?;
        self.compare();
        Ok(())
    }

    pub(crate) fn compare(&mut self) {
        let Scene { journal, twin, .. } = self;
        twin.compare(journal.as_ref().unwrap(), &FEED);
    }

    /// The journal goes on: it takes a record and keeps it through a power cut that leaves nothing unsynced.
    pub(crate) fn goes_on(&mut self) {
        self.act(Op::OpenRun).unwrap();
        self.act(Op::Durable(77)).unwrap();
        self.power_cut(Survivors { names: 0, sectors: journal::testing::Keep::None });
        self.reopen().unwrap();
    }

    /// Does it, and keeps the twin beside it.
    pub(crate) fn act(&mut self, op: Op) -> Result<(), Failure> {
        let done = self.perform(op);
        if let Some(journal) = &self.journal
            && self.twin.cutting.is_none()
        {
            // whoever waits believes the board, also when the call that moved it failed
            self.twin.durable = self.twin.durable.max(journal.board().durable());
        }
        done
    }

    fn perform(&mut self, op: Op) -> Result<(), Failure> {
        match op {
            Op::Append(length) => self.append(Kind::Data, &[length]).map(drop),
            Op::Many(lengths) => self.append(Kind::Data, lengths).map(drop),
            Op::Mark => self.append(Kind::Mark, &[9]).map(drop),
            Op::Alone => self.append(Kind::Alone, &[9]).map(drop),
            Op::Durable(length) => {
                let ticket = self.append(Kind::Data, &[length])?;
                let ack = ticket.durable()?;
                assert!(ack.level >= Level::Durable && ack.lsn <= self.journal().board().durable());
                self.twin.durable = ack.lsn;
                Ok(())
            }
            Op::Write => Ok(self.journal().write().map(drop)?),
            Op::Sync => self.sync(),
            Op::Close => {
                let (staged, ended) = (self.journal().board().staged(), self.ended());
                self.journal.take().unwrap().close()?;
                self.twin.durable = staged;
                if ended.is_none() {
                    self.twin.noted();
                }
                self.reopen()
            }
            Op::Reopen => {
                let written = self.journal().board().written();
                self.open()?;
                // a process that ends loses nothing that it wrote
                self.twin.durable = written;
                self.twin.noted();
                self.compare();
                Ok(())
            }
            Op::Prune => self.prune(),
            Op::Pin => {
                let from = self.journal().start();
                self.journal().write()?;
                self.pin = self.journal().slice(from, 1 << 20)?.map(|slice| (slice.clone(), slice.to_vec()));
                Ok(())
            }
            Op::Unpin => {
                if let Some((slice, before)) = self.pin.take() {
                    assert!(slice[..] == before[..], "bytes of a pinned slice changed");
                }
                Ok(())
            }
            Op::Cut(_) | Op::CutSegment | Op::CutAll => self.cut(op),
            Op::Extend(bytes_max) => self.extend(bytes_max),
            Op::OpenRun => self.open_run(None),
            Op::Promote(term) => self.open_run(Some(term)),
            Op::BeginRun => Ok(self.journal().begin_run().map(drop)?),
            Op::Runs(count) => (0..count).try_for_each(|_| {
                self.perform(Op::OpenRun)?;
                self.perform(Op::BeginRun)
            }),
            Op::SetRole(role) => {
                self.twin.role.may_be(role);
                self.journal().set_role(role)?;
                self.twin.role.is(role);
                Ok(())
            }
            Op::See(term) => {
                self.twin.term.may_be(term);
                self.journal().see_term(TermSeen { term: Term(term), id: 1 })?;
                self.twin.term.is(term);
                Ok(())
            }
            Op::Fence(term) => {
                self.twin.term.may_be(term);
                self.twin.role.may_be(Role::Fenced);
                self.journal().fence(TermSeen { term: Term(term), id: 1 })?;
                self.twin.term.is(term);
                self.twin.role.is(Role::Fenced);
                Ok(())
            }
            Op::Checkpoint => {
                let durable = self.journal().board().durable();
                self.twin.checkpoint.may_be(durable);
                self.journal().set_checkpoint(durable)?;
                self.twin.checkpoint.is(durable);
                Ok(())
            }
            Op::Peer => {
                let tip = self.journal().written_tip();
                self.twin.peer.may_be(Some(tip.lsn));
                Ok(self.journal().remember_peer(PEER, tip.lsn, tip.chain)?)
            }
            Op::Committed => {
                let durable = self.journal().board().durable();
                self.twin.committed.may_be(durable);
                Ok(self.journal().learn_committed(durable)?)
            }
            Op::StepBack(seconds) => {
                self.clock.step_back(seconds * 1_000_000_000);
                Ok(())
            }
        }
    }

    fn append(&mut self, kind: Kind, lengths: &[usize]) -> Result<journal::Ticket, Failure> {
        let payloads: Vec<Vec<u8>> = lengths
            .iter()
            .map(|&length| {
                self.serial += 1;
                payload(self.serial, length)
            })
            .collect();
        let parts: Vec<[&[u8]; 2]> =
            payloads.iter().map(|payload| payload.split_at(payload.len() / 3).into()).collect();
        let items: Vec<Item<'_>> =
            parts.iter().map(|parts| Item { kind, flags: Flags::NONE, ..Item::record(parts) }).collect();
        let ticket = self.journal().append_many(&items)?;
        self.twin.offered = self.twin.received;
        let last = payloads.len() - 1;
        for (index, payload) in payloads.into_iter().enumerate() {
            self.twin.said.push(Said { kind, payload, end: (index == last).then(|| ticket.lsn()) });
        }
        Ok(ticket)
    }

    fn sync(&mut self) -> Result<(), Failure> {
        let durable = self.journal().sync()?;
        assert_eq!(durable.lsn(), self.journal().board().durable());
        self.twin.durable = durable.lsn();
        Ok(())
    }

    fn prune(&mut self) -> Result<(), Failure> {
        self.twin.start_max = self.journal().board().durable();
        let start = self.journal().prune(self.twin.start_max)?;
        (self.twin.start, self.twin.start_max) = (start, start);
        Ok(())
    }

    fn cut(&mut self, op: Op) -> Result<(), Failure> {
        let journal = self.journal().clone();
        if self.ended().is_some() {
            return Ok(journal.cut(journal.start()).map(drop)?);
        }
        self.sync()?;
        self.twin.said = items(&mut journal.entries(journal.start()).unwrap());
        let to = match op {
            Op::Cut(count) => {
                let kept = self.twin.said.len().saturating_sub(count + 1);
                self.twin.said.get(kept).and_then(|said| said.end).unwrap_or(journal.start())
            }
            Op::CutSegment => journal.geometry().segment_of(journal.written_tip().lsn).max(journal.start()),
            _ => journal.start(),
        };
        let kept = self.twin.said.iter().filter(|said| said.end < Some(to)).count();
        let tail = self.twin.said.iter().skip(kept + usize::from(to > journal.start())).cloned().collect();
        self.twin.cutting = Some(CutTail { path: None, to, tail });
        let branch = match journal.cut(to) {
            Ok(branch) => branch,
            Err(error) => {
                if journal.board().ended().is_none() {
                    self.twin.cutting = None; // it goes on, so nothing was cut
                }
                return Err(error.into());
            }
        };
        let mut cut = self.twin.cutting.take().unwrap();
        cut.path = Some(branch.path.strip_prefix(journal.dir()).unwrap().to_owned());
        self.twin.branches.push(cut);
        self.twin.lose(to);
        assert_eq!(journal.written_tip().lsn, to);
        Ok(())
    }

    fn extend(&mut self, bytes_max: usize) -> Result<(), Failure> {
        let journal = self.journal().clone();
        let tip: Tip = journal.written_tip();
        let (to, outcome) = FEED.lend(tip, bytes_max, |run| (run.range().to, journal.extend(run)));
        let term = FEED.terms.iter().filter(|(first, _)| *first < to).map(|(_, term)| *term).max().unwrap_or(0);
        let term = term.max(journal.term_seen().term.0);
        self.twin.offered = self.twin.offered.max(to);
        self.twin.term.may_be(term);
        outcome?;
        self.twin.said.extend(FEED.between(tip.lsn, to));
        self.twin.received = to;
        self.twin.term.is(term);
        Ok(())
    }

    fn open_run(&mut self, promote: Option<u32>) -> Result<(), Failure> {
        let term = promote.unwrap_or(self.twin.term.sure().max(1));
        self.twin.term.may_be(term);
        self.twin.role.may_be(Role::Primary);
        let epoch = self.journal().open_run(opening(promote))?;
        assert!(epoch > self.twin.epoch, "epoch {epoch} was given before: {}", self.twin.epoch);
        self.twin.epoch = epoch;
        self.twin.term.is(term);
        self.twin.role.is(Role::Primary);
        Ok(())
    }
}
