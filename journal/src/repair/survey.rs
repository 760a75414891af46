//! The walk over everything that was durable: what is good, what is damaged, and what can be done about it.

use super::bridge::Patch;
use super::files::{Files, Head};
use super::replace::Rewrite;
use super::{Bound, Cure, Damage, Harm, Plan, Repair, Sources};
use crate::cursor::{Fault, FaultKind, Tip};
use crate::error::Result;
use crate::geometry::ENTRY_ALIGN;
use crate::lsn::{Lsn, LsnRange};
use crate::recovery::written_here;
use crate::segment::SegmentHeader;

/// A walk over one journal.
pub(super) struct Survey<'a, 's> {
    pub(super) repair: &'a Repair,
    pub(super) sources: &'a mut Sources<'s>,
    pub(super) files: Files<'a>,
    pub(super) bound: Bound,
    plan: Plan,
    /// The segment that the walk is in.
    entered: Option<Lsn>,
}

/// What becomes of the walk at a damaged place.
enum Way {
    /// It goes on here.
    On(Tip),
    /// Nothing durable stands behind.
    End,
}

impl<'a, 's> Survey<'a, 's> {
    pub(super) fn new(repair: &'a Repair, sources: &'a mut Sources<'s>) -> Survey<'a, 's> {
        let files = Files::new(&repair.dir, &repair.facts);
        Survey { repair, sources, files, bound: repair.bound, plan: Plan::default(), entered: None }
    }

    pub(super) fn run(mut self) -> Result<Plan> {
        let geometry = self.repair.facts.geometry;
        let mut tip = self.repair.facts.start;
        loop {
            let first = geometry.segment_of(tip.lsn);
            if self.entered != Some(first) && !self.enter(&tip)? {
                break;
            }
            let local = self.files.local(first)?;
            let stepped = match &mut local.body {
                Some(body) => body.step(&tip),
                None => Err(Fault { at: tip.lsn, kind: FaultKind::Short, to: tip.lsn }),
            };
            let way = match stepped {
                Ok(next) => match self.contradicted(&next)? {
                    None => Way::On(next),
                    Some(behind) => self.other_history(first, behind)?,
                },
                Err(fault) => self.gap(&tip, &fault)?,
            };
            match way {
                Way::On(next) => {
                    // a bridge may have gone through several
                    if let Some(entered) = self.entered.filter(|entered| geometry.segment_of(next.lsn) != *entered) {
                        self.leave(entered, next);
                    }
                    tip = next;
                }
                Way::End => break,
            }
        }
        self.end(tip)?;
        self.plan.settle();
        Ok(self.plan)
    }

    /// Comes to the segment that `tip` begins; `false` when it belongs to nothing durable.
    fn enter(&mut self, tip: &Tip) -> Result<bool> {
        let first = self.repair.facts.geometry.segment_of(tip.lsn);
        let beyond = tip.lsn >= self.bound.lsn;
        let local = self.files.local(first)?;
        let facts = &self.repair.facts;
        let opening = facts.history.of(tip.epoch).copied();
        let (stream, geometry) = (facts.stream, facts.geometry);
        let rebuilt = SegmentHeader { stream, geometry, first, tip: *tip, opening };
        let (header, harm) = match &local.head {
            Head::Missing if beyond => return Ok(false),
            // made in advance by a life whose tail was lost
            Head::Whole(own) | Head::OneCopy(own) if beyond && own.tip != *tip => return Ok(false),
            Head::Whole(own) | Head::OneCopy(own) if own.tip != *tip && own.tip.lsn >= facts.start.lsn => {
                let what = format!("its header names chain {} in front of it, not {}", own.tip.chain, tip.chain);
                (rebuilt, Some((Harm::Header(what), Cure::Rebuilt)))
            }
            Head::Whole(own) => (*own, None),
            Head::OneCopy(own) => (*own, Some((Harm::HeaderCopy, Cure::OtherCopy))),
            Head::Bad(what) => (rebuilt, Some((Harm::Header(what.clone()), Cure::Rebuilt))),
            Head::Missing => (rebuilt, None),
        };
        self.entered = Some(first);
        self.plan.rewrites.insert(first, Rewrite::new(header, *tip));
        if let Some((harm, cure)) = harm {
            self.damaged(first, LsnRange::new(first, first), harm, Some(cure), Vec::new());
        }
        Ok(true)
    }

    /// The walk left the segment at `first` with this tip.
    fn leave(&mut self, first: Lsn, tip: Tip) {
        if let Some(rewrite) = self.plan.rewrites.get_mut(&first) {
            rewrite.last = tip;
        }
    }

    /// Whether the own entries up to `next`, each linked to the one before, contradict what is known of that place. From
    /// where on they must be right again, if so.
    fn contradicted(&mut self, next: &Tip) -> Result<Option<Lsn>> {
        if self.bound.chain.is_some_and(|chain| next.lsn == self.bound.lsn && next.chain != chain) {
            return Ok(Some(next.lsn));
        }
        let boundary = self.repair.facts.geometry.segment_of(next.lsn) == next.lsn;
        if !boundary || next.lsn >= self.bound.lsn {
            return Ok(None);
        }
        let named = self.files.local(next.lsn)?.head.tip();
        Ok(named.filter(|named| named != next).map(|_| next.lsn))
    }

    /// The segment at `first` is whole and not what was durable: none of it counts.
    fn other_history(&mut self, first: Lsn, behind: Lsn) -> Result<Way> {
        let Some(from) = self.plan.rewrites.get_mut(&first).map(|rewrite| {
            rewrite.patches.clear();
            rewrite.first
        }) else {
            return Ok(Way::End);
        };
        self.plan.damages.retain(|damage| damage.segment != first || damage.range.is_empty());
        match self.bridge(&from, behind)? {
            Ok(patches) => self.accept(patches, &Harm::OtherHistory),
            Err(tried) => {
                self.damaged(first, LsnRange::new(from.lsn, behind), Harm::OtherHistory, None, tried);
                self.resume(first)
            }
        }
    }

    /// The entry behind `tip` is not what belongs there.
    fn gap(&mut self, tip: &Tip, fault: &Fault) -> Result<Way> {
        if tip.lsn >= self.bound.lsn {
            match self.durable_behind(tip.lsn)? {
                // entries that this node itself wrote say what was durable when they were written
                Some(lsn) => self.bound = Bound { lsn, chain: None },
                None => return Ok(Way::End),
            }
        }
        let (harm, to) = self.harm(fault)?;
        match self.bridge(tip, tip.lsn.advance(ENTRY_ALIGN as u64))? {
            Ok(patches) => self.accept(patches, &harm),
            Err(tried) => {
                let first = self.repair.facts.geometry.segment_of(tip.lsn);
                self.damaged(first, LsnRange::new(tip.lsn, to), harm, None, tried);
                self.resume(first)
            }
        }
    }

    /// What is wrong at a place where no good entry stands, and how far it goes.
    fn harm(&mut self, fault: &Fault) -> Result<(Harm, Lsn)> {
        let (at, bound) = (fault.at, self.bound.lsn);
        let first = self.repair.facts.geometry.segment_of(at);
        let local = self.files.local(first)?;
        let short = local.short;
        let Some(body) = &mut local.body else {
            let end = first.advance(self.repair.facts.geometry.body_bytes());
            return Ok((Harm::Missing, end.min(bound.max(at))));
        };
        body.bytes(at);
        let refused = body.refusal().filter(|_| fault.kind == FaultKind::Short);
        let harm = match refused {
            Some(cause) => Harm::Unreadable(cause),
            None if fault.kind == FaultKind::Short && short => Harm::Truncated,
            None => Harm::Entry(fault.kind),
        };
        let end = body.range().to.min(bound.max(at));
        let to = match fault.to > at {
            true => fault.to,
            false => body.believable(at).map_or(end, |header| header.lsn),
        };
        Ok((harm, to))
    }

    /// Takes over what a bridge found; the walk goes on behind it.
    fn accept(&mut self, patches: Vec<Patch>, harm: &Harm) -> Result<Way> {
        let geometry = self.repair.facts.geometry;
        let mut harm = harm.clone();
        let mut end = None;
        for patch in patches {
            let first = geometry.segment_of(patch.first.lsn);
            if self.entered != Some(first) {
                if let Some(before) = self.entered {
                    self.leave(before, patch.first);
                }
                self.enter(&patch.first)?;
                let at = patch.first.lsn;
                harm = self.harm(&Fault { at, kind: FaultKind::Chain, to: at })?.0;
            }
            let name = self.sources[patch.source].name();
            let range = LsnRange::new(patch.first.lsn, patch.last.lsn);
            end = Some(patch.last);
            let before = self.plan.damages.last_mut().filter(|d| d.segment == first && d.range.to == range.from);
            match before.map(|damage| (&mut damage.range, &mut damage.cure)) {
                // another source went on where one ended
                Some((whole, Some(Cure::Sources(names)))) if !whole.is_empty() => {
                    whole.to = range.to;
                    if !names.contains(&name) {
                        names.push(name);
                    }
                }
                _ => self.damaged(first, range, harm.clone(), Some(Cure::Sources(vec![name])), Vec::new()),
            }
            if let Some(rewrite) = self.plan.rewrites.get_mut(&first) {
                rewrite.patches.push(patch);
            }
        }
        Ok(end.map_or(Way::End, Way::On))
    }

    /// Nothing proves what stands behind a place in segment `lost`, up to the next segment that names its own tip.
    fn resume(&mut self, lost: Lsn) -> Result<Way> {
        let geometry = self.repair.facts.geometry;
        let mut first = lost.advance(geometry.body_bytes());
        while first < self.bound.lsn {
            let head = self.files.local(first)?.head.clone();
            let harm = match head {
                Head::Whole(own) | Head::OneCopy(own) => return Ok(Way::On(own.tip)),
                Head::Bad(what) => Harm::Header(what),
                Head::Missing => Harm::Missing,
            };
            let end = first.advance(geometry.body_bytes()).min(self.bound.lsn);
            let range = LsnRange::new(first, if harm == Harm::Missing { end } else { first });
            let why = "what stands in front of it is damaged too".to_owned();
            self.damaged(first, range, harm, None, vec![why]);
            first = first.advance(geometry.body_bytes());
        }
        Ok(Way::End)
    }

    /// How far the log was durable by the word of entries behind `at` that this node wrote, if farther than `at`.
    fn durable_behind(&mut self, at: Lsn) -> Result<Option<Lsn>> {
        let facts = &self.repair.facts;
        let local = self.files.local(facts.geometry.segment_of(at))?;
        let Some(body) = &mut local.body else { return Ok(None) };
        let (mut here, mut found) = (at, None);
        while let Some(header) = body.believable(here) {
            if header.durable > at && written_here(&facts.history, header.run_id, facts.node) {
                found = found.max(Some(header.durable));
            }
            here = header.lsn;
        }
        Ok(found)
    }

    /// The walk is over. A last file that was cut off is made as long as a segment again.
    fn end(&mut self, tip: Tip) -> Result<()> {
        let Some(first) = self.entered else { return Ok(()) };
        if self.repair.facts.geometry.segment_of(tip.lsn) != first {
            return Ok(());
        }
        self.leave(first, tip);
        let local = self.files.local(first)?;
        let range = LsnRange::new(tip.lsn, first.advance(self.repair.facts.geometry.body_bytes()));
        let short = local.short && !self.plan.damages.iter().any(|damage| damage.segment == first);
        if short && tip.lsn >= self.bound.lsn {
            self.damaged(first, range, Harm::Truncated, Some(Cure::Zeros), Vec::new());
        }
        Ok(())
    }

    fn damaged(&mut self, segment: Lsn, range: LsnRange, harm: Harm, cure: Option<Cure>, tried: Vec<String>) {
        let path = self.files.path(segment);
        self.plan.damages.push(Damage { path, range, harm, cure, tried, segment });
    }
}
