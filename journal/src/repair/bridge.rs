//! From the last good tip over the damage to the next place that proves the way: entries of sources, each linked to the one
//! before it.

use super::survey::Survey;
use crate::cursor::{Cursor, FaultKind, Next, Tip};
use crate::error::Result;
use crate::lsn::Lsn;

/// Entries of one source inside one segment.
#[derive(Clone, Debug)]
pub(super) struct Patch {
    /// Which source.
    pub(super) source: usize,
    /// The tip that they follow.
    pub(super) first: Tip,
    /// The tip behind them.
    pub(super) last: Tip,
}

/// How far one source leads.
enum Followed {
    /// To a place that proves it.
    Proven(Vec<Patch>),
    /// Only up to here.
    Ends { patches: Vec<Patch>, at: Tip, why: String },
    /// Elsewhere.
    Refuted(String),
}

/// What stands at a place that was reached.
enum Verdict {
    Proven,
    Open,
    Refuted(String),
}

impl Survey<'_, '_> {
    /// Entries from `from` on up to a proof at `behind` or later; why there are none otherwise, a line for each source.
    pub(super) fn bridge(&mut self, from: &Tip, behind: Lsn) -> Result<std::result::Result<Vec<Patch>, Vec<String>>> {
        let mut used = vec![false; self.sources.len()];
        let mut tried = Vec::new();
        let found = self.search(from, behind, &mut used, &mut tried)?;
        Ok(found.ok_or(tried))
    }

    /// Where one source ends, the others go on: the proof is the same whoever gave the entries.
    fn search(
        &mut self,
        from: &Tip,
        behind: Lsn,
        used: &mut [bool],
        tried: &mut Vec<String>,
    ) -> Result<Option<Vec<Patch>>> {
        for index in 0..self.sources.len() {
            if used[index] {
                continue;
            }
            used[index] = true;
            let name = self.sources[index].name();
            match self.follow(index, from, behind)? {
                Followed::Proven(patches) => return Ok(Some(patches)),
                Followed::Ends { mut patches, at, why } => {
                    tried.push(format!("{name}: {why}"));
                    if at.lsn > from.lsn
                        && let Some(rest) = self.search(&at, behind, used, tried)?
                    {
                        patches.extend(rest);
                        return Ok(Some(patches));
                    }
                }
                Followed::Refuted(why) => tried.push(format!("{name}: {why}")),
            }
            used[index] = false;
        }
        Ok(None)
    }

    fn follow(&mut self, index: usize, from: &Tip, behind: Lsn) -> Result<Followed> {
        let (stream, geometry) = (self.repair.facts.stream, self.repair.facts.geometry);
        let source = &self.sources[index];
        if source.stream() != stream {
            return Ok(Followed::Refuted(format!("it holds stream {}, not {stream}", source.stream())));
        }
        if source.geometry() != geometry {
            return Ok(Followed::Refuted("its segments have another size".to_owned()));
        }
        let mut cursor = Cursor::new(geometry, *from);
        let mut patches: Vec<Patch> = Vec::new();
        let mut piece = Vec::new();
        let mut used = 0;
        loop {
            let at = *cursor.tip();
            let ends = |patches, why| Ok(Followed::Ends { patches, at, why });
            match cursor.next(piece.get(used..).unwrap_or_default()) {
                Ok(Next::Entry(entry)) => used += entry.header.range().bytes() as usize,
                Ok(Next::Need(_)) if used == 0 && !piece.is_empty() => {
                    return ends(patches, format!("it ends inside the entry at LSN {}", at.lsn));
                }
                Ok(Next::Need(_)) => {
                    piece = match self.sources[index].fetch(&at) {
                        Ok(Some(piece)) if !piece.is_empty() => piece,
                        Ok(_) => return ends(patches, format!("it has nothing at LSN {}", at.lsn)),
                        Err(fault) => return ends(patches, format!("LSN {}: {}", at.lsn, with_causes(&*fault))),
                    };
                    used = 0;
                    continue;
                }
                Err(fault) if fault.kind == FaultKind::Zero => {
                    return ends(patches, format!("it has nothing at LSN {}", at.lsn));
                }
                Err(fault) => return ends(patches, format!("what it has doesn't follow: {fault}")),
            }
            let here = *cursor.tip();
            match patches.last_mut().filter(|patch| patch.last == at && geometry.segment_of(at.lsn) != at.lsn) {
                Some(patch) => patch.last = here,
                None => patches.push(Patch { source: index, first: at, last: here }),
            }
            match self.judge(&here, behind)? {
                Verdict::Proven => return Ok(Followed::Proven(patches)),
                Verdict::Refuted(why) => return Ok(Followed::Refuted(why)),
                Verdict::Open => {}
            }
        }
    }

    /// Whether what stands at `at` proves the entries that led there: each is the only history that leads on to it.
    fn judge(&mut self, at: &Tip, behind: Lsn) -> Result<Verdict> {
        let bound = self.bound;
        if let Some(chain) = bound.chain
            && at.lsn >= bound.lsn
        {
            return Ok(match (at.lsn, at.chain) == (bound.lsn, chain) {
                true => Verdict::Proven,
                false => Verdict::Refuted(format!("at LSN {} it has another history than was durable here", at.lsn)),
            });
        }
        let first = self.repair.facts.geometry.segment_of(at.lsn);
        let local = self.files.local(first)?;
        if at.lsn == first
            && let Some(tip) = local.head.tip()
        {
            return Ok(match tip == *at {
                true => Verdict::Proven,
                false => Verdict::Refuted(format!(
                    "it has another history: at LSN {} chain {}, but {} begins behind chain {}",
                    at.lsn,
                    at.chain,
                    local.path.display(),
                    tip.chain
                )),
            });
        }
        if at.lsn >= behind && local.body.as_mut().is_some_and(|body| body.step(at).is_ok()) {
            return Ok(Verdict::Proven);
        }
        Ok(match at.lsn == first && at.lsn >= bound.lsn {
            true => Verdict::Refuted(format!("up to LSN {} nothing proves what it has", at.lsn)),
            false => Verdict::Open,
        })
    }
}

/// The text of an error with its causes, each said once.
fn with_causes(fault: &(dyn std::error::Error + 'static)) -> String {
    let mut text = fault.to_string();
    let mut cause = fault.source();
    while let Some(error) = cause {
        let said = error.to_string();
        if !text.contains(&said) {
            text = format!("{text}: {said}");
        }
        cause = error.source();
    }
    text
}
