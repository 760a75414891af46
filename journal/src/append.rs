//! Staging: every entry gets its LSN, its link in the chain and its place in the open group.
//!
//! ```text
//!  append -> [open group] --whoever writes takes it whole--> one pwrite per segment -> written
//! ```
//! Checksums are computed before the lock is taken. Space is reserved before anything is staged, so a full disk is
//! this append's error and nobody else's.

use std::time::Duration;

use crate::control::Role;
use crate::cursor::{Draft, Tip};
use crate::entry::{EpochEntry, Flags, Kind, POLICY_BYTES_MAX, Reason, crc32c};
use crate::epoch::{Epoch, Opening, Term, TermSeen};
use crate::error::{Error, Result};
use crate::geometry::{Geometry, HEADER_BYTES, entry_bytes};
use crate::log::Journal;
use crate::lsn::Lsn;
use crate::segment::file_bytes;
use crate::ticket::Ticket;
use crate::time::Time;

/// An appender that finds this much staged and not written writes it first: the bound on memory. A group of this size
/// is still in the cache when it is written: measured twice the appends of 8 MiB.
const STAGED_BYTES_MAX: u64 = 512 << 10;
/// A wall clock that is this far behind what it said before was stepped: the log says so in an entry.
const CLOCK_STEP: Duration = Duration::from_secs(1);
/// A clock that says more (2262) counts as this: behind it there is an instant for every entry that can still come.
const CLOCK_MAX: Time = Time::from_nanos(u64::MAX / 2);
/// Of an entry that is its whole record.
const WHOLE: Flags = Flags::FIRST.with(Flags::LAST);

/// Something to append: one record, or a mark.
#[derive(Clone, Copy, Debug)]
pub struct Item<'a> {
    /// What it is: `Data`, `Mark`, `Alone` or `Detached`; anything but `Data` fits into one entry.
    pub kind: Kind,
    /// May-ignore flags (the low byte); fragment flags are set by the journal.
    pub flags: Flags,
    /// The volume it belongs to.
    pub volume: u16,
    /// The program's (producer, sequence), if it has one.
    pub producer: Option<(u64, u64)>,
    /// The payload in parts; joined in the log.
    pub parts: &'a [&'a [u8]],
}

impl<'a> Item<'a> {
    /// A record of volume 0.
    pub const fn record(parts: &'a [&'a [u8]]) -> Item<'a> {
        Item { kind: Kind::Data, flags: Flags::NONE, volume: 0, producer: None, parts }
    }
}

/// A new run to be opened.
#[derive(Clone, Debug)]
pub struct RunOpening {
    /// `Some`: a promotion; the term must be higher than every term seen. `None`: the next run of the term seen, or
    /// term 1 of a new stream.
    pub promote: Option<TermSeen>,
    /// Why.
    pub reason: Reason,
    /// Members, modes and destinations, as the layer above encodes them.
    pub policy: Vec<u8>,
}

/// The open group and where it goes on.
#[derive(Debug)]
pub(crate) struct Staging {
    pub(crate) tip: Tip,
    pub(crate) group: Vec<u8>,
    /// Tips at the segment boundaries inside the group.
    pub(crate) boundaries: Vec<Tip>,
    run: Run,
    pub(crate) reserved_to: Lsn,
    /// What the wall clock said at the last append; at first, the time of the last entry. After a step back the log's own
    /// time is ahead of it for as long as the step was.
    clock: Time,
}

#[derive(Debug)]
enum Run {
    /// Nobody writes here.
    None,
    /// Opened, but its first entry waits for the first append.
    Opened { epoch: Epoch, run_id: u64, entry: EpochEntry },
    /// Its first entry is staged.
    Writing,
}

impl Staging {
    pub(crate) fn at(tip: Tip, reserved_to: Lsn) -> Staging {
        let (group, boundaries) = (Vec::new(), Vec::new());
        let mut staging = Staging { tip, group, boundaries, run: Run::None, reserved_to, clock: tip.time };
        staging.note_boundary(tip.lsn == Lsn::ZERO);
        staging
    }

    /// Starts again at `tip`, after a run of entries came in or was cut. Any open run ends.
    pub(crate) fn restart(&mut self, tip: Tip, reserved_to: Lsn) {
        self.tip = tip;
        self.group.clear();
        self.boundaries.clear();
        self.run = Run::None;
        self.reserved_to = reserved_to;
        self.clock = tip.time;
    }

    fn note_boundary(&mut self, at_boundary: bool) {
        if at_boundary {
            self.boundaries.push(self.tip);
        }
    }
}

impl Journal {
    /// Opens a run: makes its epoch durable. Its first entry is staged with the first append, so that a run that wrote
    /// nothing leaves no trace.
    ///
    /// Whoever calls has passed the start gate or is promoting. Errors: `Fenced` when `promote` is not higher than the
    /// term seen.
    pub fn open_run(&self, opening: RunOpening) -> Result<Epoch> {
        let run_id = self.shared.options.host.ids.random();
        let node = self.node();
        let mut writer = self.writer();
        let mut staging = self.staging();
        self.check_end()?;
        if staging.tip == writer.tip() {
            self.discard_unreached(&mut writer, &mut staging)?;
        }
        let policy_bytes = opening.policy.len();
        if policy_bytes > POLICY_BYTES_MAX {
            return Err(Error::TooLarge { bytes: policy_bytes, bytes_max: POLICY_BYTES_MAX });
        }
        let mut control = self.control();
        // looked at while nobody can record another term or role: whoever fences ends the stream first
        self.check_end()?;
        let seen = control.facts.term_seen;
        if opening.promote.is_some_and(|promoted| promoted.term <= seen.term) {
            return Err(Error::Fenced { by: seen.term });
        }
        let first = TermSeen { term: Term(1), id: run_id };
        let term = opening.promote.unwrap_or(if seen == TermSeen::default() { first } else { seen });
        let last = control.facts.history.last().map(|last| last.epoch).unwrap_or_default();
        let last = last.max(control.facts.opened_last);
        let run = if last.term == term.term { last.run.checked_add(1) } else { Some(1) };
        let Some(run) = run else {
            let what = format!("term {} has had every run that it can have. Promote this node", term.term);
            return Err(Error::Incompatible { path: self.dir().to_owned(), what });
        };
        let epoch = Epoch { term: term.term, run };
        let opened = control.change(|facts| {
            facts.term_seen = term;
            facts.opened_last = epoch;
            facts.role = Role::Primary;
        });
        drop(control);
        self.checked(opened)?;
        let entry = EpochEntry { term_id: term.id, node, reason: opening.reason, policy: opening.policy };
        staging.run = Run::Opened { epoch, run_id, entry };
        Ok(epoch)
    }

    /// Writes the first entry of the open run now, without waiting for a first record: what a promotion does.
    pub fn begin_run(&self) -> Result<Ticket> {
        self.stage(&[])
    }

    /// True when this node has an open run: it takes appends.
    pub fn has_run(&self) -> bool {
        !matches!(self.staging().run, Run::None)
    }

    /// Appends one record. Returns when it has its place; wait on the ticket for more.
    ///
    /// Errors: `TooLarge`, `Unfit`, `Full` (nothing of it is in the log; try again when space returns), `NoEpoch`,
    /// `Fenced`, `Poisoned`.
    pub fn append(&self, item: Item<'_>) -> Result<Ticket> {
        if self.is_one_entry(&item)? {
            return self.stage(&[draft(&item, item.parts, WHOLE)]);
        }
        self.append_many(&[item])
    }

    /// Appends records one behind the other, with nothing in between. All or none. The ticket is that of the last; without
    /// any it is that of what is there, as with [`Journal::begin_run`].
    pub fn append_many(&self, items: &[Item<'_>]) -> Result<Ticket> {
        let fragment_bytes_max = self.geometry().payload_bytes_max();
        let mut pieces = Vec::with_capacity(items.len());
        for item in items {
            pieces.push(match self.is_one_entry(item)? {
                true => Vec::new(),
                false => fragments(item.parts, fragment_bytes_max),
            });
        }
        let mut drafts = Vec::with_capacity(items.len());
        for (item, pieces) in items.iter().zip(&pieces) {
            let Some(last) = pieces.len().checked_sub(1) else {
                drafts.push(draft(item, item.parts, WHOLE));
                continue;
            };
            for (number, piece) in pieces.iter().enumerate() {
                let first = if number == 0 { Flags::FIRST } else { Flags::NONE };
                let last = if number == last { Flags::LAST } else { Flags::NONE };
                drafts.push(draft(item, piece, first.with(last)));
            }
        }
        self.stage(&drafts)
    }

    /// True when a record is one entry, false when it takes several. Errors: `TooLarge`, and `Unfit` for what no reader
    /// would accept: once acknowledged, it would be damage.
    fn is_one_entry(&self, item: &Item<'_>) -> Result<bool> {
        if !matches!(item.kind, Kind::Data | Kind::Mark | Kind::Alone | Kind::Detached) {
            return Err(Error::Unfit { what: "entries of this kind are written by the journal alone" });
        }
        if item.flags.0 & !Flags::MAY_IGNORE != 0 {
            return Err(Error::Unfit { what: "it has flags that a reader must understand; the journal sets those" });
        }
        let bytes: usize = item.parts.iter().map(|part| part.len()).sum();
        let bytes_max = self.shared.options.record_bytes_max;
        if bytes > bytes_max {
            return Err(Error::TooLarge { bytes, bytes_max });
        }
        let entry_bytes_max = self.geometry().payload_bytes_max();
        if bytes > entry_bytes_max && item.kind != Kind::Data {
            return Err(Error::TooLarge { bytes, bytes_max: entry_bytes_max });
        }
        Ok(bytes <= entry_bytes_max)
    }

    fn stage(&self, drafts: &[Draft<'_>]) -> Result<Ticket> {
        if self.board().staged().bytes_since(self.board().written()) > STAGED_BYTES_MAX {
            self.write()?;
        }
        let clock = || self.shared.options.host.clock.now().min(CLOCK_MAX);
        let is_back = |now: Time, staging: &Staging| now.saturating_add(CLOCK_STEP) < staging.clock;
        let mut now = clock();
        let mut staging = self.staging();
        let (first_payload, stepped) = loop {
            self.check_end()?;
            if is_back(now, &staging) {
                now = clock(); // or another appender looked later and came first
            }
            let stepped = is_back(now, &staging);
            let first_payload = match &staging.run {
                Run::None => return Err(Error::NoEpoch),
                Run::Opened { entry, .. } => Some(entry.encode(self.geometry().room(staging.tip.lsn))),
                Run::Writing => None,
            };
            let end = self.end_behind(staging.tip.lsn, first_payload.as_deref(), stepped, drafts);
            if end <= staging.reserved_to {
                break (first_payload, stepped);
            }
            self.may_have_room(staging.tip.lsn, end)?;
            // room is made without the lock: whoever waits for what is staged already need not wait for this
            drop(staging);
            self.reserve_to(end)?;
            now = clock(); // it may have taken long
            staging = self.staging();
            staging.reserved_to = self.space().reserved_to();
        };
        let durable = self.board().durable();
        if let Some(payload) = first_payload {
            self.stage_first(&mut staging, &payload, now, durable)?;
        }
        staging.clock = now;
        if stepped {
            lay(&mut staging, self.geometry(), &bare(Kind::Clock, &[]), now, durable);
        }
        for draft in drafts {
            lay(&mut staging, self.geometry(), draft, now, durable);
        }
        let Tip { lsn, epoch, .. } = staging.tip;
        let ticket = Ticket { journal: self.clone(), lsn, epoch, cuts: self.board().cuts() };
        self.board().set_staged(ticket.lsn);
        Ok(ticket)
    }

    /// An error where what is appended needs more files than the budget holds: no log is given up for that in vain.
    fn may_have_room(&self, tip: Lsn, end: Lsn) -> Result<()> {
        let bytes = end.bytes_since(self.geometry().segment_of(tip));
        let files = bytes.div_ceil(self.geometry().body_bytes());
        let budget_bytes = self.budget_bytes();
        if files.saturating_mul(file_bytes(self.geometry())) <= budget_bytes {
            return Ok(());
        }
        let why =
            "what is appended at once takes more than that alone. Split it, or give this stream a larger one".into();
        Err(Error::Budget { path: self.dir().to_owned(), budget_bytes, why })
    }

    /// Where the log ends once these entries are staged.
    fn end_behind(&self, tip: Lsn, first: Option<&[u8]>, stepped: bool, drafts: &[Draft<'_>]) -> Lsn {
        let geometry = self.geometry();
        let mut end = tip;
        for bytes in first.map(<[u8]>::len).into_iter().chain(stepped.then_some(0)) {
            end = place(geometry, end, entry_bytes(bytes)).1;
        }
        for draft in drafts {
            end = place(geometry, end, entry_bytes(draft.payload_bytes())).1;
        }
        end
    }

    /// Stages the first entry of the run: its opening is synced to the control file before the entry has its place.
    fn stage_first(&self, staging: &mut Staging, payload: &[u8], now: Time, durable: Lsn) -> Result<()> {
        let Run::Opened { epoch, run_id, entry } = &staging.run else { return Ok(()) };
        let (epoch, run_id, term_id, node) = (*epoch, *run_id, entry.term_id, entry.node);
        let opening = Opening { epoch, term_id, run_id, node, first: staging.tip.lsn, chain_in: staging.tip.chain };
        let mut follows = true;
        self.change(|facts| {
            facts.history.cut(opening.first);
            follows = facts.history.push(opening);
        })?;
        debug_assert!(follows, "an epoch is opened behind every other");
        staging.tip.epoch = epoch;
        staging.tip.run_id = run_id;
        staging.run = Run::Writing;
        // never behind a Pad: every entry leaves room for it (`Geometry::fits`)
        lay_here(staging, self.geometry(), &bare(Kind::Epoch, &[payload]), now, durable);
        Ok(())
    }
}

/// Cuts a payload in parts into payloads of at most `bytes_max`, without copying.
fn fragments<'a>(parts: &[&'a [u8]], bytes_max: usize) -> Vec<Vec<&'a [u8]>> {
    let mut pieces = vec![Vec::new()];
    let mut room = bytes_max;
    for part in parts {
        let mut rest = *part;
        while !rest.is_empty() {
            if room == 0 {
                pieces.push(Vec::new());
                room = bytes_max;
            }
            let (head, tail) = rest.split_at(room.min(rest.len()));
            if let Some(piece) = pieces.last_mut() {
                piece.push(head);
            }
            room -= head.len();
            rest = tail;
        }
    }
    pieces
}

fn draft<'a>(item: &Item<'_>, parts: &'a [&'a [u8]], fragment: Flags) -> Draft<'a> {
    let (producer, sequence) = item.producer.unwrap_or_default();
    let stamped = if item.producer.is_some() { Flags::PRODUCER } else { Flags::NONE };
    let flags = item.flags.with(stamped).with(fragment);
    Draft { kind: item.kind, flags, volume: item.volume, producer, sequence, parts, payload_crc: checksum(parts) }
}

fn bare<'a>(kind: Kind, parts: &'a [&'a [u8]]) -> Draft<'a> {
    Draft { kind, flags: WHOLE, volume: 0, producer: 0, sequence: 0, parts, payload_crc: checksum(parts) }
}

fn checksum(parts: &[&[u8]]) -> u32 {
    match parts {
        [] => crc32c(&[]),
        [one] => crc32c(one),
        many => {
            let mut digest = crc_fast::Digest::new(crc_fast::CrcAlgorithm::Crc32Iscsi);
            many.iter().for_each(|part| digest.update(part));
            digest.finalize() as u32
        }
    }
}

/// Where an entry of `bytes` goes from `at` on, and where it ends: (start, end). A `Pad` fills what lies between.
fn place(geometry: Geometry, at: Lsn, bytes: u64) -> (Lsn, Lsn) {
    let start = if geometry.fits(at, bytes) { at } else { at.advance(geometry.room(at)) };
    (start, start.advance(bytes))
}

fn lay(staging: &mut Staging, geometry: Geometry, draft: &Draft<'_>, now: Time, durable: Lsn) {
    if !geometry.fits(staging.tip.lsn, entry_bytes(draft.payload_bytes())) {
        let zeros = vec![0; geometry.room(staging.tip.lsn) as usize - HEADER_BYTES];
        lay_here(staging, geometry, &bare(Kind::Pad, &[&zeros]), now, durable);
    }
    lay_here(staging, geometry, draft, now, durable);
}

fn lay_here(staging: &mut Staging, geometry: Geometry, draft: &Draft<'_>, now: Time, durable: Lsn) {
    draft.lay(&mut staging.tip, now, durable, &mut staging.group);
    let tip = staging.tip;
    staging.note_boundary(geometry.segment_of(tip.lsn) == tip.lsn);
}
