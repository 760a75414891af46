//! The bodies of agreements and refusals.

use journal::LsnRange;

use super::Field;
use crate::fields::{Put, Take};
use crate::frame::TEXT_BYTES_MAX;
use crate::message::{Agreement, Refusal};

pub(super) fn put_agreement(put: &mut Put<'_>, agreement: &Agreement) {
    match agreement {
        Agreement::Stream { from } => {
            put.u8(0);
            put.place(*from);
        }
        Agreement::Cut { to, tail } => {
            put.u8(1);
            put.lsn(*to);
            put.lsn(tail.from);
            put.lsn(tail.to);
        }
        Agreement::TakeBack { from, to } => {
            put.u8(2);
            put.place(*from);
            put.lsn(*to);
        }
        Agreement::Base { receiver_end, primary_start } => {
            put.u8(3);
            put.lsn(*receiver_end);
            put.lsn(*primary_start);
        }
        Agreement::Refused(refusal) => {
            put.u8(4);
            put_refusal(put, refusal);
        }
    }
}

pub(super) fn take_agreement(take: &mut Take<'_>) -> Field<Agreement> {
    Ok(match take.u8("agreement")? {
        0 => Agreement::Stream { from: take.place("place")? },
        1 => Agreement::Cut { to: take.lsn("cut")?, tail: LsnRange::new(take.lsn("tail")?, take.lsn("tail")?) },
        2 => Agreement::TakeBack { from: take.place("place")?, to: take.lsn("end")? },
        3 => Agreement::Base { receiver_end: take.lsn("end")?, primary_start: take.lsn("start")? },
        4 => Agreement::Refused(take_refusal(Take(std::mem::take(&mut take.0)))?),
        _ => return Err("agreement"),
    })
}

/// Tag, the refusal in words, its fields. Whoever doesn't know the tag still has the words.
pub(super) fn put_refusal(put: &mut Put<'_>, refusal: &Refusal) {
    let tag = match refusal {
        Refusal::Unable { .. } => 0,
        Refusal::Protocol { .. } => 1,
        Refusal::Stream { .. } => 2,
        Refusal::Geometry { .. } => 3,
        Refusal::Fenced { .. } => 4,
        Refusal::SplitBrain { .. } => 5,
        Refusal::CopiedFolder { .. } => 6,
        Refusal::SameNode { .. } => 7,
        Refusal::Diverged { .. } => 8,
        Refusal::CutBelowCommitted { .. } => 9,
        Refusal::Pruned { .. } => 10,
        Refusal::NotReceiver { .. } => 11,
        Refusal::Busy => 12,
        Refusal::Disagree => 13,
    };
    put.u8(tag);
    match refusal {
        Refusal::Unable { reason } => put.text(reason, TEXT_BYTES_MAX),
        other => put.text(&other.to_string(), TEXT_BYTES_MAX),
    }
    match refusal {
        Refusal::Unable { .. } | Refusal::Busy | Refusal::Disagree => {}
        Refusal::Protocol { primary, receiver } => {
            put.u16(*primary);
            put.u16(*receiver);
        }
        Refusal::Stream { primary, receiver } => {
            put.bytes(primary.as_bytes());
            put.bytes(receiver.as_bytes());
        }
        Refusal::Geometry { primary, receiver } => {
            put.u64(*primary);
            put.u64(*receiver);
        }
        Refusal::Fenced { primary, receiver } | Refusal::SplitBrain { primary, receiver } => {
            put.term(*primary);
            put.term(*receiver);
        }
        Refusal::CopiedFolder { primary, receiver } => {
            put.u64(*primary);
            put.u64(*receiver);
        }
        Refusal::SameNode { node } => put.bytes(node.as_bytes()),
        Refusal::Diverged { at, primary, receiver } => {
            put.lsn(*at);
            put.optional_chain(*primary);
            put.optional_chain(*receiver);
        }
        Refusal::CutBelowCommitted { to: first, committed: second }
        | Refusal::Pruned { primary_end: first, receiver_start: second } => {
            put.lsn(*first);
            put.lsn(*second);
        }
        Refusal::NotReceiver { role } => put.text(role, TEXT_BYTES_MAX),
    }
}

pub(super) fn take_refusal(mut take: Take<'_>) -> Field<Refusal> {
    let tag = take.u8("reason")?;
    let text = take.text("text")?;
    let refusal = match tag {
        0 => Refusal::Unable { reason: text },
        1 => Refusal::Protocol { primary: take.u16("version")?, receiver: take.u16("version")? },
        2 => Refusal::Stream { primary: take.stream("stream")?, receiver: take.stream("stream")? },
        3 => Refusal::Geometry { primary: take.u64("geometry")?, receiver: take.u64("geometry")? },
        4 => Refusal::Fenced { primary: take.term("term")?, receiver: take.term("term")? },
        5 => Refusal::SplitBrain { primary: take.term("term")?, receiver: take.term("term")? },
        6 => Refusal::CopiedFolder { primary: take.u64("run")?, receiver: take.u64("run")? },
        7 => Refusal::SameNode { node: take.node("node")? },
        8 => Refusal::Diverged {
            at: take.lsn("place")?,
            primary: take.optional_chain("chain")?,
            receiver: take.optional_chain("chain")?,
        },
        9 => Refusal::CutBelowCommitted { to: take.lsn("cut")?, committed: take.lsn("commit point")? },
        10 => Refusal::Pruned { primary_end: take.lsn("end")?, receiver_start: take.lsn("start")? },
        11 => Refusal::NotReceiver { role: take.text("role")? },
        12 => Refusal::Busy,
        13 => Refusal::Disagree,
        // a later version's reason: its words are enough
        _ => return Ok(Refusal::Unable { reason: text }),
    };
    take.end()?;
    Ok(refusal)
}
