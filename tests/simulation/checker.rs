//! Judges a run from outside: it sees every node's disk and what was said, and takes no part in any decision.

use std::collections::BTreeMap;

use journal::{Chain, Lsn, Term};
use wire::{Mode, Place};

use crate::exhaustive::Sketch;
use crate::node::{Acked, Level, Node, Setup};

/// What the world knows to be promised.
#[derive(Clone, Debug, Default)]
pub(crate) struct Checker {
    items: BTreeMap<u64, Item>,
    /// What was committed by everybody required: one line, never forked but by an operator's word.
    line: BTreeMap<Lsn, Chain>,
    newest: Option<Promotion>,
}

#[derive(Clone, Debug)]
struct Item {
    end: Place,
    acks: Vec<(Level, bool)>,
    /// The operator accepted its loss.
    forgiven: bool,
}

#[derive(Clone, Debug)]
struct Promotion {
    node: usize,
    term: Term,
    /// How often each node had been started by then.
    starts: Vec<u64>,
    /// The operator took the risk, or the mode takes it: what the old primary still acknowledges may be lost.
    lenient: bool,
}

/// What is wrong.
pub(crate) type Verdict = Result<(), String>;

impl Checker {
    pub(crate) fn acked(&mut self, setup: &Setup, nodes: &[&Node], by: usize, acked: Acked) -> Verdict {
        let Acked { item, end, level, alone } = acked;
        let node = nodes[by];
        let says = format!("node {by} acknowledged item {item} (LSN {}) at {level:?}", end.lsn);
        if !node.is_primary() {
            return Err(format!("{says}, but it is fenced"));
        }
        if node.log.chain_at(end.lsn) != Some(end.chain) || node.log.on_disk() < end.lsn {
            return Err(format!("{says}, but its own disk has {}", node.log.on_disk()));
        }
        for (index, peer) in nodes.iter().enumerate() {
            let required = setup.modes[index] != Mode::Async && index != by;
            if !required || peer.lives() > 0 || alone {
                continue;
            }
            let needs = match (level, setup.modes[index]) {
                (Level::PeerDurable, _) | (Level::Committed, Mode::Sync) => true,
                (Level::Received, _) | (Level::Committed, _) => peer.boot == 1,
            };
            let has = peer.log.chain_at(end.lsn) == Some(end.chain);
            if needs && !has && !self.newest.as_ref().is_some_and(|newest| newest.lenient) {
                return Err(format!("{says}, but node {index} doesn't have it"));
            }
        }
        let required = (0..nodes.len()).any(|index| index != by && setup.modes[index] != Mode::Async);
        let entry = self.items.entry(item).or_insert_with(|| Item { end, acks: Vec::new(), forgiven: false });
        entry.acks.push((level, alone));
        if let Some(newest) = self.newest.as_ref().filter(|newest| newest.term > node.log.control.term.term) {
            let fences = setup.modes[newest.node] != Mode::Async;
            if fences && node.starts > newest.starts[by] {
                return Err(format!("{says}, but it started after node {} was promoted", newest.node));
            }
            let kept = nodes[newest.node].log.chain_at(end.lsn) == Some(end.chain);
            if !kept && required && !alone && !newest.lenient {
                return Err(format!("{says}, but node {} was promoted without it", newest.node));
            }
            entry.forgiven |= !kept;
        }
        Ok(())
    }

    /// A primary announced its commit point.
    pub(crate) fn committed(&mut self, setup: &Setup, nodes: &[&Node], by: usize, to: Lsn) -> Verdict {
        let node = nodes[by];
        let stale = self.newest.as_ref().filter(|newest| newest.term > node.log.control.term.term);
        let required = (0..nodes.len()).any(|index| index != by && setup.modes[index] != Mode::Async);
        if stale.is_some_and(|newest| newest.lenient || !required) {
            return Ok(());
        }
        for tip in node.log.tips().iter().filter(|tip| tip.lsn <= to) {
            let known = *self.line.entry(tip.lsn).or_insert(tip.chain);
            if known != tip.chain {
                return Err(format!(
                    "node {by} committed another history at LSN {} than was committed before",
                    tip.lsn
                ));
            }
        }
        Ok(())
    }

    /// A receiver's replica shows everything below `to`.
    pub(crate) fn applied(&self, setup: &Setup, nodes: &[&Node], by: usize, to: Lsn) -> Verdict {
        let node = nodes[by];
        if to > node.log.on_disk() {
            return Err(format!("node {by} applied up to {to}, its disk has {}", node.log.on_disk()));
        }
        let behind = self.newest.as_ref().is_some_and(|newest| newest.term > node.log.control.term.term);
        if behind || setup.modes.iter().all(|mode| *mode == Mode::Async) {
            return Ok(());
        }
        match self.line.get(&to) {
            Some(chain) if node.log.chain_at(to) == Some(*chain) => Ok(()),
            Some(_) => Err(format!("node {by} applied another history at LSN {to}")),
            // of a term whose line an operator gave up
            None if self.newest.as_ref().is_some_and(|newest| newest.lenient) => Ok(()),
            None => Err(format!("node {by} applied up to {to}, which nobody committed")),
        }
    }

    /// The operator promoted a node. What it lacks must be forgivable.
    pub(crate) fn promoted(&mut self, setup: &Setup, nodes: &[&Node], node: &Node, was_in_doubt: bool) -> Verdict {
        let mode = setup.modes[node.index];
        let replaced = node.lives() > 0;
        let has = |place: &Place| node.log.chain_at(place.lsn) == Some(place.chain);
        // whoever acknowledges without having heard of its first promotion hasn't heard of a second one either
        let again = self.newest.as_ref().is_some_and(|newest| newest.node == node.index && newest.lenient);
        let mut lenient = mode == Mode::Async || was_in_doubt || again;
        for (number, item) in self.items.iter_mut().filter(|(_, item)| !item.forgiven && !has(&item.end)) {
            for &(level, alone) in &item.acks {
                let doubtful = was_in_doubt && (replaced || mode == Mode::SemiSync);
                let forgivable = alone
                    || mode == Mode::Async
                    || match level {
                        Level::Committed => doubtful,
                        Level::Received => was_in_doubt,
                        Level::PeerDurable => was_in_doubt && replaced,
                    };
                if !forgivable {
                    let lsn = item.end.lsn;
                    return Err(format!(
                        "node {} was promoted without item {number} (LSN {lsn}), acknowledged at {level:?}",
                        node.index
                    ));
                }
            }
            item.forgiven = true;
        }
        let lost: Vec<Lsn> = self
            .line
            .iter()
            .filter(|(lsn, chain)| node.log.chain_at(**lsn) != Some(**chain))
            .map(|(lsn, _)| *lsn)
            .collect();
        lenient |= !lost.is_empty();
        if !lost.is_empty() && mode != Mode::Async && !was_in_doubt {
            return Err(format!("node {} was promoted without what was committed at LSN {}", node.index, lost[0]));
        }
        for lsn in lost {
            self.line.remove(&lsn);
        }
        let starts = nodes.iter().map(|node| node.starts).collect();
        self.newest = Some(Promotion { node: node.index, term: node.log.control.term.term, starts, lenient });
        Ok(())
    }

    /// A peer is said to have lost durable data: true only if somebody cut or replaced its log.
    pub(crate) fn lost_durable(&self, nodes: &[&Node], who: journal::NodeId) -> Verdict {
        let honest = nodes.iter().find(|node| node.id == who || node.index + 1 == usize::from(who.as_bytes()[0]));
        match honest {
            Some(node) if node.log.branches == 0 && node.lives() == 0 => {
                Err(format!("node {} lost what it had acknowledged as durable", node.index))
            }
            _ => Ok(()),
        }
    }

    /// What must hold for every node, and between any two, at every moment.
    pub(crate) fn always(&self, nodes: &[&Node]) -> Verdict {
        for node in nodes {
            let noted = &node.log.control;
            let known = node.intake().map_or(Lsn::ZERO, |intake| intake.log().committed);
            let (kept, end) = (known.max(noted.committed).max(noted.applied), node.log.tip().lsn);
            if kept > end {
                let index = node.index;
                return Err(format!("node {index} knew up to {kept} to be committed, and its log ends at {end}"));
            }
        }
        let mut primaries: BTreeMap<Term, usize> = BTreeMap::new();
        for node in nodes.iter().filter(|node| node.is_primary()) {
            let term = node.log.control.term.term;
            if let Some(other) = primaries.insert(term, node.index) {
                return Err(format!("nodes {other} and {} are both primary in term {term}", node.index));
            }
        }
        for primary in nodes.iter().filter(|node| node.is_primary()) {
            for (to, conn, marks) in primary.streaming() {
                let peer = nodes[to];
                let Some(intake) = peer.intake().filter(|intake| intake.link() == Some(conn)) else { continue };
                let pair = format!("nodes {} and {to}", primary.index);
                let (ours, theirs) = (primary.log.bytes(), peer.log.bytes());
                if !ours.starts_with(theirs) {
                    return Err(format!("{pair}: the receiver's log is no prefix of the primary's"));
                }
                if marks.received > peer.log.tip().lsn {
                    let end = peer.log.tip().lsn;
                    return Err(format!(
                        "{pair}: {} counts as received, the receiver's log ends at {end}",
                        marks.received
                    ));
                }
                if marks.durable > peer.log.on_disk() {
                    let on_disk = peer.log.on_disk();
                    return Err(format!(
                        "{pair}: {} counts as durable, the receiver's disk has {on_disk}",
                        marks.durable
                    ));
                }
                if intake.log().applied > intake.log().durable.lsn {
                    return Err(format!("{pair}: applied above durable"));
                }
            }
        }
        Ok(())
    }

    /// What later verdicts depend on.
    pub(crate) fn sketch(&self, nodes: &[&Node], sketch: &mut Sketch) {
        for Item { end, acks, .. } in self.items.values().filter(|item| !item.forgiven) {
            sketch.place(*end);
            for level in [Level::Committed, Level::Received, Level::PeerDurable] {
                // one that was given alone asks for nothing
                sketch.flag(acks.contains(&(level, false)));
            }
        }
        sketch.word("items");
        for (lsn, chain) in &self.line {
            sketch.place(Place { lsn: *lsn, chain: *chain });
        }
        sketch.word("line");
        if let Some(Promotion { node, term, starts, lenient }) = &self.newest {
            sketch.number(*node as u64);
            sketch.number(term.0.into());
            nodes.iter().zip(starts).for_each(|(node, starts)| sketch.flag(node.starts > *starts));
            sketch.flag(*lenient);
        }
    }

    /// After everything healed: one primary, equal logs, nothing lost.
    pub(crate) fn settled(&self, nodes: &[&Node]) -> Verdict {
        let mut primaries = nodes.iter().filter(|node| node.takes_appends());
        let (Some(primary), None) = (primaries.next(), primaries.next()) else {
            return Err("there isn't exactly one primary after everything healed".into());
        };
        for node in nodes {
            if node.log.bytes() != primary.log.bytes() {
                let (own, all) = (node.log.tip().lsn, primary.log.tip().lsn);
                return Err(format!(
                    "node {} ends at {own}, the primary at {all}: not equal after everything healed",
                    node.index
                ));
            }
        }
        let lost = |item: &&Item| primary.log.chain_at(item.end.lsn) != Some(item.end.chain) && !item.forgiven;
        match self.items.values().find(lost) {
            Some(item) => Err(format!("an acknowledged item (LSN {}, {:?}) is gone", item.end.lsn, item.acks)),
            None => Ok(()),
        }
    }
}
