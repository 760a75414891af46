//! Staging: every entry gets its LSN, its link in the chain and its place in the open group.
//!
//! ```text
//!  append -> [open group] --whoever writes takes it whole--> one pwrite per segment -> written
//! ```
//! Checksums are computed before the lock is taken. Space is reserved before anything is staged, so a full disk is
//! this append's error and nobody else's.

use std::task::Poll;
use std::time::{Duration, Instant};

use crate::class::Class;
use crate::commit::Durable;
use crate::control::Role;
use crate::cursor::{Draft, Tip};
use crate::entry::{EpochEntry, Flags, Kind, POLICY_BYTES_MAX, Reason, crc32c};
use crate::epoch::{Epoch, Opening, Term, TermSeen};
use crate::error::{Error, Result};
use crate::geometry::{Geometry, HEADER_BYTES, entry_bytes};
use crate::level::{Level, WaitError};
use crate::log::Journal;
use crate::lsn::Lsn;
use crate::segment::file_bytes;
use crate::sync::now;
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

/// What an append returns: the place of the record, and the way to wait for it.
#[derive(Clone, Debug)]
pub struct Ticket {
    journal: Journal,
    lsn: Lsn,
    epoch: Epoch,
    /// Cuts of the log before it was staged.
    cuts: u64,
}

/// An acknowledgement: it says how far the record got, and no more than that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ack {
    /// Position behind the record's last entry: everything below has reached `level` too.
    pub lsn: Lsn,
    /// The epoch that wrote it.
    pub epoch: Epoch,
    /// The highest level reached at this instant, at least the one that was waited for.
    pub level: Level,
    /// The stream goes on without a required peer.
    pub alone: bool,
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

    /// Appends records one behind the other, with nothing in between. All or none. The ticket is that of the last.
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

    /// Waits until `lsn` reaches `level`, syncing for itself and for others if nobody else does. Blocking.
    ///
    /// After `Unknown`, or a failure of class `Full`, the record may still get there: ask again with the same LSN. Where a
    /// cut took the record, another one may come to stand there: only its ticket can tell.
    pub fn wait(&self, level: Level, lsn: Lsn, deadline: Option<Instant>) -> std::result::Result<(), WaitError> {
        self.wait_unless_cut(level, lsn, deadline, None)
    }

    /// The same; returns early when there have been other than so many `cuts`.
    fn wait_unless_cut(
        &self,
        level: Level,
        lsn: Lsn,
        deadline: Option<Instant>,
        cuts: Option<u64>,
    ) -> std::result::Result<(), WaitError> {
        use crate::board::Turn;
        if lsn > self.board().staged() {
            // who appends what comes up to there may not wait for it
            self.spawn_flusher().map_err(|error| self.wait_error(&error))?;
        }
        if level == Level::Written
            && let Err(error) = self.write()
            && lsn > self.board().written()
        {
            return Err(self.wait_error(&error));
        }
        loop {
            match self.board().turn(level, lsn, deadline, cuts, true)? {
                Turn::Reached | Turn::Cut => return Ok(()),
                Turn::Lead(lead) => {
                    let synced = self.sync();
                    drop(lead);
                    self.prepare_without_flusher();
                    if let Err(error) = synced
                        && lsn > self.board().reached(level)
                    {
                        return Err(self.wait_error(&error));
                    }
                }
            }
        }
    }

    /// What a waiter is told when it could not write or sync: the end of the stream is why, if it has ended.
    fn wait_error(&self, error: &Error) -> WaitError {
        match self.board().end_reached() {
            Some(end) => end.wait_error(),
            None if error.class() == Class::Full => {
                let why =
                    format!("{error}. What was waited for has its place, and may still get there: ask again by LSN");
                WaitError::Failed { class: Class::Full, why }
            }
            None => WaitError::Failed { class: error.class(), why: error.to_string() },
        }
    }

    /// True when the log still has what `epoch` wrote up to `lsn`. A cut ends the run: what stands there later is of another.
    fn holds(&self, lsn: Lsn, epoch: Epoch) -> bool {
        let last = Lsn::new(lsn.get().saturating_sub(1));
        lsn <= self.board().staged() && self.history().at(last).is_some_and(|opening| opening.epoch == epoch)
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

impl Ticket {
    /// Position behind the record: what an acknowledgement names.
    pub fn lsn(&self) -> Lsn {
        self.lsn
    }

    /// The epoch that it was staged in.
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// Returns when the record is whole in the segment. Never waits for a sync in progress.
    ///
    /// Errors: those of [`Journal::write`]; `NotReached` when the record was cut off.
    pub fn written(&self) -> Result<Lsn> {
        let outcome = self.journal.write();
        let written = self.journal.board().written();
        if self.is_cut() {
            return Err(Error::NotReached { wanted: self.lsn, end: written });
        }
        match outcome {
            // what failed is a later record's
            Err(_) if self.lsn <= written => Ok(self.lsn),
            outcome => outcome,
        }
    }

    /// Returns when a sync covers the record.
    pub fn durable(&self) -> std::result::Result<Ack, WaitError> {
        self.reach(Level::Durable, None)
    }

    /// Waits for `level`, at most `timeout`.
    pub fn wait(&self, level: Level, timeout: Duration) -> std::result::Result<Ack, WaitError> {
        self.reach(level, now().checked_add(timeout))
    }

    /// For async code: resolves when the record reaches `level`. Starts the flush thread if there is none: a task has no
    /// thread to sync with. Where there is no space, it tries again until there is. Cancel-safe.
    ///
    /// What is only written is so at once: as with [`Ticket::written`], the task writes what nobody has written yet.
    pub async fn level(&self, level: Level) -> std::result::Result<Ack, WaitError> {
        if level == Level::Written
            && let Err(error) = self.journal.write()
            && error.class() != Class::Full
            && self.lsn > self.journal.board().written()
        {
            return Err(self.journal.wait_error(&error));
        }
        self.journal.spawn_flusher().map_err(|error| self.journal.wait_error(&error))?;
        std::future::poll_fn(|cx| match self.journal.board().poll_reached(level, self.lsn, cx) {
            _ if self.is_cut() => Poll::Ready(Err(WaitError::Cut { lsn: self.lsn })),
            polled => polled,
        })
        .await?;
        Ok(self.ack(level))
    }

    fn reach(&self, level: Level, deadline: Option<Instant>) -> std::result::Result<Ack, WaitError> {
        let mut cuts = self.cuts;
        loop {
            let waited = self.journal.wait_unless_cut(level, self.lsn, deadline, Some(cuts));
            if self.is_cut() {
                return Err(WaitError::Cut { lsn: self.lsn });
            }
            let cuts_now = self.journal.board().cuts();
            if cuts_now == cuts {
                return waited.map(|()| self.ack(level));
            }
            cuts = cuts_now;
        }
    }

    /// True when a cut took the record: whatever stands in its place is not it.
    fn is_cut(&self) -> bool {
        self.journal.board().cuts() != self.cuts && !self.journal.holds(self.lsn, self.epoch)
    }

    /// The acknowledgement from the watermarks at this instant. A peer may have gone since `reached` was true: the
    /// level that was waited for has been reached all the same.
    fn ack(&self, reached: Level) -> Ack {
        let board = self.journal.board();
        let now = board.level_of(self.lsn);
        let level = match reached {
            Level::Committed => now.unwrap_or(Level::Durable),
            level => now.map_or(level, |now| now.max(level)),
        };
        Ack { lsn: self.lsn, epoch: self.epoch, level, alone: board.remote().alone }
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

impl Durable {
    /// True when the proof covers `lsn`.
    pub fn covers(&self, lsn: Lsn) -> bool {
        lsn <= self.lsn()
    }
}
