//! A log in memory with the disk under it: what was written, what a sync covered, what a power cut leaves.
//!
//! It follows the rules of the real journal (evidence, poison, recorded cuts) and is small enough to be cloned for every
//! state of the exhaustive model. Entries are laid and verified by the journal's own `Draft` and `Cursor`.

use std::collections::BTreeMap;

use journal::{
    Chain, Cursor, Draft, Epoch, EpochEntry, Flags, Geometry, History, Kind, Lsn, LsnRange, NodeId, Reason, StreamId,
    Term, TermSeen, Time, Tip, Verified, crc32c,
};
use receiver::Proof;
use wire::Place;

/// What a node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    Primary,
    Receiver,
    Fenced,
}

/// The control file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Control {
    pub(crate) role: Role,
    pub(crate) term: TermSeen,
    /// Newest run opened in `term` by this node or seen in its log.
    pub(crate) run: u32,
    pub(crate) committed: Lsn,
    pub(crate) applied: Lsn,
    pub(crate) settled_boot: Option<u64>,
    pub(crate) remembered: BTreeMap<NodeId, Place>,
}

/// Proof of a sync.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Synced(Place);

impl Synced {
    /// For the mutant that acknowledges without a sync.
    pub(crate) fn forged(place: Place) -> Synced {
        Synced(place)
    }
}

impl Proof for Synced {
    fn lsn(&self) -> Lsn {
        self.0.lsn
    }

    fn chain(&self) -> Chain {
        self.0.chain
    }
}

/// A sync in progress.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SyncTicket {
    pub(crate) to: Place,
    cuts: u64,
}

/// One node's log, its control file and the disk.
#[derive(Clone)]
pub(crate) struct Log {
    pub(crate) stream: StreamId,
    pub(crate) geometry: Geometry,
    bytes: Vec<u8>,
    /// Tips at every entry boundary, the empty log's first.
    tips: Vec<Tip>,
    history: History,
    /// What a sync that returned covers.
    durable: Lsn,
    /// What the disk really has.
    on_disk: Lsn,
    /// After a failed sync the page cache shows bytes as clean that never reached the disk: from here on.
    forgotten: Option<Lsn>,
    cuts: u64,
    pub(crate) branches: usize,
    pub(crate) control: Control,
    pub(crate) control_on_disk: Control,
}

impl Log {
    pub(crate) fn new(stream: StreamId, role: Role) -> Log {
        let control = Control {
            role,
            term: TermSeen::default(),
            run: 0,
            committed: Lsn::ZERO,
            applied: Lsn::ZERO,
            settled_boot: None,
            remembered: BTreeMap::new(),
        };
        Log {
            stream,
            geometry: Geometry::default(),
            bytes: Vec::new(),
            tips: vec![Tip::empty(stream)],
            history: History::default(),
            durable: Lsn::ZERO,
            on_disk: Lsn::ZERO,
            forgotten: None,
            cuts: 0,
            branches: 0,
            control_on_disk: control.clone(),
            control,
        }
    }

    pub(crate) fn tip(&self) -> Tip {
        *self.tips.last().expect("the empty log's tip is always there")
    }

    pub(crate) fn end(&self) -> Place {
        place(&self.tip())
    }

    pub(crate) fn durable(&self) -> Place {
        self.tip_at(self.durable).map(|tip| place(&tip)).expect("a sync ends at an entry boundary")
    }

    /// What the disk really has.
    pub(crate) fn on_disk(&self) -> Lsn {
        self.on_disk
    }

    pub(crate) fn history(&self) -> &History {
        &self.history
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub(crate) fn tips(&self) -> &[Tip] {
        &self.tips
    }

    pub(crate) fn tip_at(&self, lsn: Lsn) -> Option<Tip> {
        self.tips.binary_search_by_key(&lsn, |tip| tip.lsn).ok().map(|at| self.tips[at])
    }

    pub(crate) fn chain_at(&self, lsn: Lsn) -> Option<Chain> {
        self.tip_at(lsn).map(|tip| tip.chain)
    }

    /// Whole entries from `range.from` on, as many as end at or before `range.to`, at least one.
    pub(crate) fn slice(&self, range: LsnRange) -> Option<&[u8]> {
        let from = self.tips.binary_search_by_key(&range.from, |tip| tip.lsn).ok()?;
        let fits = self.tips[from + 1..].iter().take_while(|tip| tip.lsn <= range.to).last();
        let to = fits.or(self.tips.get(from + 1))?.lsn;
        self.bytes.get(range.from.get() as usize..to.get() as usize)
    }

    /// Makes a new epoch durable; its first entry is laid with the first append.
    pub(crate) fn open_run(&mut self, fresh: u64) -> (Epoch, u64) {
        if self.control.term.term == Term(0) {
            self.control.term = TermSeen { term: Term(1), id: fresh };
            self.control.run = 0;
        }
        self.control.run += 1;
        self.sync_control();
        (Epoch { term: self.control.term.term, run: self.control.run }, fresh)
    }

    pub(crate) fn append_epoch(&mut self, now: Time, (epoch, run_id): (Epoch, u64), node: NodeId) {
        let entry = EpochEntry { term_id: self.control.term.id, node, reason: Reason::Started, policy: Vec::new() };
        let before = self.tip();
        let payload = entry.encode(self.geometry.room(before.lsn));
        let header = self.lay(Tip { epoch, run_id, ..before }, now, Kind::Epoch, &payload);
        assert!(self.history.push(entry.opening(&header, before.chain)), "epochs open in order");
    }

    /// Appends a record, returns its end.
    pub(crate) fn append(&mut self, now: Time, payload: &[u8]) -> Place {
        self.lay(self.tip(), now, Kind::Data, payload);
        self.end()
    }

    /// Writes verified entries at the end.
    pub(crate) fn extend(&mut self, run: &Verified<'_>) {
        assert_eq!(run.first().lsn, self.tip().lsn, "a receiver's write continues the log");
        let mut cursor = Cursor::new(self.geometry, self.tip());
        let mut rest = run.bytes();
        while !rest.is_empty() {
            let before = cursor.tip().lsn;
            cursor.next(rest).expect("verified already");
            rest = &rest[cursor.tip().lsn.bytes_since(before) as usize..];
            self.tips.push(*cursor.tip());
        }
        self.bytes.extend_from_slice(run.bytes());
        for opening in run.openings() {
            assert!(self.history.push(*opening), "epochs arrive in order");
        }
    }

    /// Cuts the log durably; the tail becomes a branch.
    pub(crate) fn cut(&mut self, to: Lsn) {
        self.branches += 1;
        self.cuts += 1;
        self.truncate(to);
        self.sync_control();
    }

    pub(crate) fn begin_sync(&self) -> SyncTicket {
        SyncTicket { to: self.end(), cuts: self.cuts }
    }

    /// Nothing was cut since the sync began.
    pub(crate) fn is_whole(&self, ticket: &SyncTicket) -> bool {
        ticket.cuts == self.cuts
    }

    /// The sync returned without an error.
    pub(crate) fn end_sync(&mut self, ticket: SyncTicket) -> Synced {
        if self.is_whole(&ticket) {
            let reached = self.forgotten.map_or(ticket.to.lsn, |forgotten| forgotten.min(ticket.to.lsn));
            self.on_disk = self.on_disk.max(reached);
            self.durable = self.durable.max(ticket.to.lsn);
        }
        Synced(ticket.to)
    }

    /// The sync returned an error: the disk forgot, and the page cache won't say so again.
    pub(crate) fn fail_sync(&mut self) {
        self.forgotten = Some(self.on_disk);
    }

    pub(crate) fn sync_control(&mut self) {
        self.control_on_disk = self.control.clone();
    }

    /// Entries whose loss a power cut may cause: boundaries from what is on disk to the end.
    pub(crate) fn boundaries_at_risk(&self) -> impl Iterator<Item = Lsn> {
        let on_disk = self.on_disk;
        self.tips.iter().map(|tip| tip.lsn).filter(move |lsn| *lsn >= on_disk)
    }

    /// The power goes; of what no sync covered, the part below `keep` is on disk.
    pub(crate) fn power_cut(&mut self, keep: Lsn) {
        assert!(keep >= self.on_disk, "what is on disk stays");
        self.truncate(keep);
        self.control = self.control_on_disk.clone();
    }

    /// Opening after a kill or a power cut: what is there is written again and synced before it counts as durable.
    pub(crate) fn open(&mut self) {
        self.forgotten = None;
        self.durable = self.tip().lsn;
        self.on_disk = self.durable;
        let written = self.history.last().map(|last| (last.term_seen(), last.epoch.run));
        if let Some((term, run)) = written.filter(|(term, _)| term.term >= self.control.term.term) {
            self.control.run = if term.term > self.control.term.term { run } else { run.max(self.control.run) };
            self.control.term = term;
        }
        self.sync_control();
    }

    fn truncate(&mut self, to: Lsn) {
        self.bytes.truncate(to.get() as usize);
        self.tips.retain(|tip| tip.lsn <= to);
        self.history.cut(to);
        self.durable = self.durable.min(to);
        self.on_disk = self.on_disk.min(to);
        assert_eq!(self.tip().lsn, to, "a log is cut between two entries");
    }

    fn lay(&mut self, mut tip: Tip, now: Time, kind: Kind, payload: &[u8]) -> journal::Header {
        let flags = if kind == Kind::Data { Flags::FIRST.with(Flags::LAST) } else { Flags::NONE };
        let parts = [payload];
        let payload_crc = crc32c(payload);
        let draft = Draft { kind, flags, volume: 0, producer: 0, sequence: 0, parts: &parts, payload_crc };
        let header = draft.lay(&mut tip, now, self.durable, &mut self.bytes);
        self.tips.push(tip);
        header
    }
}

/// Everything that tells two logs apart, without the bytes: the chains stand for them.
impl std::fmt::Debug for Log {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let tips: Vec<_> = self.tips.iter().map(|tip| (tip.lsn.get(), tip.chain)).collect();
        let marks = (self.durable, self.on_disk, self.forgotten, self.cuts, self.branches);
        (tips, marks, &self.control, &self.control_on_disk).fmt(f)
    }
}

pub(crate) fn place(tip: &Tip) -> Place {
    Place { lsn: tip.lsn, chain: tip.chain }
}
