//! How two logs go on together: one pure function that both sides run over the same two greetings.
//!
//! ```text
//!  primary   1.1 --- 1.2 ------- 2.1 ---->        common = 1.2's end on the shorter side
//!  receiver  1.1 --- 1.2 ---- 1.3 ->              1.3 is a foreign tail: cut, kept as a branch
//! ```
//! Histories are compared by openings: an epoch with equal ids has one writer, so its bytes are equal as far as both
//! logs go. What openings can't prove, the two sides prove with chains afterwards ([`Agreement`] says who checks what).
//! A greeting leaves out the oldest openings of a very long history: no tail is cut for want of them.

use journal::{History, Lsn, LsnRange, Opening};

use crate::message::{Agreement, Greeting, Refusal};

/// What the two sides do, computed from nothing but the two greetings.
///
/// Total: every pair of greetings has an answer. It names a cut only at or above everything that the receiver knows to
/// be committed or has applied. When both sides did what it says, it answers [`Agreement::Stream`] at the receiver's end.
pub fn agree(primary: &Greeting, receiver: &Greeting) -> Agreement {
    match identity(primary, receiver).or_else(|| terms(primary, receiver)) {
        Some(refusal) => Agreement::Refused(refusal),
        None => logs(primary, receiver).unwrap_or_else(Agreement::Refused),
    }
}

/// Are they two nodes with one stream?
fn identity(primary: &Greeting, receiver: &Greeting) -> Option<Refusal> {
    if primary.protocol != receiver.protocol {
        return Some(Refusal::Protocol { primary: primary.protocol, receiver: receiver.protocol });
    }
    if primary.stream != receiver.stream {
        return Some(Refusal::Stream { primary: primary.stream, receiver: receiver.stream });
    }
    if primary.node.id == receiver.node.id {
        return Some(Refusal::SameNode { node: primary.node.id });
    }
    if primary.geometry != receiver.geometry {
        let (primary, receiver) = (primary.geometry.body_bytes(), receiver.geometry.body_bytes());
        return Some(Refusal::Geometry { primary, receiver });
    }
    None
}

/// Is the primary the newest that both know of? Terms alone fence.
fn terms(primary: &Greeting, receiver: &Greeting) -> Option<Refusal> {
    let ours = primary.term;
    // a log never holds a term that its node hasn't seen; were it so, the log would be right
    for theirs in [receiver.term, receiver.history.term_seen()] {
        if theirs.term > ours.term {
            return Some(Refusal::Fenced { primary: ours, receiver: theirs });
        }
        if theirs.term == ours.term && theirs.id != ours.id {
            return Some(Refusal::SplitBrain { primary: ours, receiver: theirs });
        }
    }
    None
}

/// Where do the logs part, and whose tail is it?
fn logs(primary: &Greeting, receiver: &Greeting) -> Result<Agreement, Refusal> {
    if let Some((ours, theirs)) = copied_run(primary, receiver) {
        return Err(Refusal::CopiedFolder { primary: ours.run_id, receiver: theirs.run_id });
    }
    let common = common_point(primary, receiver)?;
    let end = receiver.end.lsn;
    let base = Agreement::Base { receiver_end: end, primary_start: primary.start };
    if end == common {
        if primary.start > end {
            return Ok(base);
        }
        if primary.end.lsn == end && primary.end.chain != receiver.end.chain {
            let (primary, receiver) = (Some(primary.end.chain), Some(receiver.end.chain));
            return Err(Refusal::Diverged { at: end, primary, receiver });
        }
        return Ok(Agreement::Stream { from: receiver.end });
    }
    if primary.end.lsn == common && !primary.opened {
        // the primary lost a tail of its own past, or was promoted with a shorter log: nothing of its own is beyond
        if receiver.start > common {
            return Err(Refusal::Pruned { primary_end: common, receiver_start: receiver.start });
        }
        return Ok(Agreement::TakeBack { from: primary.end, to: end });
    }
    let committed = receiver.committed.max(receiver.applied);
    if common < committed {
        return Err(Refusal::CutBelowCommitted { to: common, committed });
    }
    if primary.start > common || receiver.start > common {
        return Ok(base);
    }
    Ok(Agreement::Cut { to: common, tail: LsnRange::new(common, end) })
}

/// An epoch of the primary's own term that both have, with different run ids. One of an older term is no conflict any
/// more: somebody promoted the log to keep, and the other's run is a foreign tail.
fn copied_run<'a>(primary: &'a Greeting, receiver: &'a Greeting) -> Option<(&'a Opening, &'a Opening)> {
    let ours = primary.history.openings().iter().filter(|opening| opening.epoch.term == primary.term.term);
    ours.filter_map(|ours| Some((ours, same_epoch(&receiver.history, ours)?)))
        .find(|(ours, theirs)| ours.term_id == theirs.term_id && ours.run_id != theirs.run_id)
}

/// The last position up to which both logs are one history.
fn common_point(primary: &Greeting, receiver: &Greeting) -> Result<Lsn, Refusal> {
    let shared = primary.history.openings().iter().rev().find_map(|ours| {
        let theirs = same_epoch(&receiver.history, ours)?;
        (ours.term_id == theirs.term_id && ours.run_id == theirs.run_id).then_some((ours, theirs))
    });
    if let Some((ours, theirs)) = shared
        && ours != theirs
    {
        let at = ours.first.min(theirs.first);
        return Err(Refusal::Diverged { at, primary: Some(ours.chain_in), receiver: Some(theirs.chain_in) });
    }
    if shared.is_none()
        && let (Some(ours), Some(theirs)) = (oldest(primary), oldest(receiver))
        && !(begins(ours) && begins(theirs))
    {
        return unseen(primary, receiver, ours, theirs);
    }
    let shared = shared.map(|(ours, _)| ours);
    Ok(end_in(primary, shared).min(end_in(receiver, shared)))
}

/// No epoch in common among those that are told, and there are older ones. One log may all the same be the beginning of
/// the other; whether it is, the chain at its end proves: the side that has the longer one looks there.
fn unseen(primary: &Greeting, receiver: &Greeting, ours: &Opening, theirs: &Opening) -> Result<Lsn, Refusal> {
    let ends_below = |shorter: &Greeting, oldest: &Opening| {
        shorter.history.last().is_some_and(|last| last.epoch < oldest.epoch) && shorter.end.lsn <= oldest.first
    };
    if ends_below(receiver, ours) {
        return Ok(receiver.end.lsn);
    }
    if ends_below(primary, theirs) && !primary.opened {
        return Ok(primary.end.lsn);
    }
    Err(Refusal::Diverged { at: ours.first.min(theirs.first), primary: None, receiver: None })
}

fn oldest(greeting: &Greeting) -> Option<&Opening> {
    greeting.history.openings().first()
}

/// True of the opening that a log begins with.
fn begins(opening: &Opening) -> bool {
    opening.first == Lsn::ZERO
}

/// Where the part of a log ends that belongs to `shared` and the epochs before it.
fn end_in(greeting: &Greeting, shared: Option<&Opening>) -> Lsn {
    let mut beyond = greeting.history.openings().iter();
    let next = beyond.find(|opening| shared.is_none_or(|shared| opening.epoch > shared.epoch));
    next.map_or(greeting.end.lsn, |next| next.first.min(greeting.end.lsn))
}

fn same_epoch<'a>(history: &'a History, wanted: &Opening) -> Option<&'a Opening> {
    let openings = history.openings();
    openings.binary_search_by_key(&wanted.epoch, |opening| opening.epoch).ok().and_then(|at| openings.get(at))
}

#[cfg(test)]
mod tests;
