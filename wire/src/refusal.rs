//! Refusals in words: what, both sides of it, and what to do next.

use std::fmt;

use journal::{Chain, Class, TermSeen};

use crate::frame::GREETING_OPENINGS_MAX;
use crate::message::Refusal;

impl Refusal {
    /// Who must act.
    pub fn class(&self) -> Class {
        match self {
            Refusal::Fenced { .. } => Class::Fenced,
            Refusal::Protocol { .. } | Refusal::Geometry { .. } | Refusal::Disagree => Class::Incompatible,
            Refusal::Diverged { .. } => Class::Corrupt,
            Refusal::Pruned { .. } => Class::NotReached,
            Refusal::Unable { .. } => Class::Io,
            Refusal::Stream { .. }
            | Refusal::SplitBrain { .. }
            | Refusal::CopiedFolder { .. }
            | Refusal::SameNode { .. }
            | Refusal::CutBelowCommitted { .. }
            | Refusal::NotReceiver { .. }
            | Refusal::Busy => Class::Refused,
        }
    }

    /// True when trying again later may succeed without anybody's doing on this side.
    pub fn is_transient(&self) -> bool {
        matches!(self, Refusal::Busy | Refusal::Unable { .. } | Refusal::NotReceiver { .. })
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refusal::Protocol { primary, receiver } => write!(
                f,
                "the primary speaks protocol version {primary}, the receiver {receiver}. Run the same version on both"
            ),
            Refusal::Stream { primary, receiver } => write!(
                f,
                "two streams with one name: the primary's is {primary}, the receiver's is {receiver}. Give one of them another name, or move the receiver's old data folder away"
            ),
            Refusal::Geometry { primary, receiver } => write!(
                f,
                "segment bodies of {primary} bytes on the primary and {receiver} on the receiver. A stream has one size for life; the receiver's data folder belongs to something else"
            ),
            Refusal::Fenced { primary, receiver } => write!(
                f,
                "fenced: the receiver knows {}, the primary only {}. A newer primary exists; this one stays stopped until it is promoted",
                Seen(receiver),
                Seen(primary)
            ),
            Refusal::SplitBrain { primary, receiver } => write!(
                f,
                "split brain: the primary is in {}, the receiver in {}. Both were promoted; promote the one to keep again",
                Seen(primary),
                Seen(receiver)
            ),
            Refusal::CopiedFolder { primary, receiver } => write!(
                f,
                "one run with two ids, {primary:016x} on the primary and {receiver:016x} on the receiver: a data folder was copied. Remove the copy, or promote the one to keep"
            ),
            Refusal::SameNode { node } => write!(
                f,
                "both sides are node {node}: a data folder was copied, or the node was told to send to itself. Start the other side with an empty data folder"
            ),
            Refusal::Diverged { at: _, primary: None, receiver: None } => write!(
                f,
                "the runs that the primary and the receiver name (the newest {GREETING_OPENINGS_MAX} at most) have none in common: their logs parted before these, and nobody can say where. To follow this primary all the same, move the stream's folder on the receiver away and start it again: it copies everything"
            ),
            Refusal::Diverged { at, primary, receiver } => write!(
                f,
                "the logs differ at LSN {at} although their histories agree: chain {} on the primary, {} on the receiver. One of them is damaged (run towline verify on both), or they parted more than {GREETING_OPENINGS_MAX} runs ago (then move the stream's folder on the receiver away: it copies everything)",
                Link(primary),
                Link(receiver)
            ),
            Refusal::CutBelowCommitted { to, committed } => write!(
                f,
                "the receiver would have to cut its log to LSN {to}, but it knows everything up to {committed} to be committed. Nothing was cut. To follow this primary all the same, move the stream's folder on the receiver away and start it again: it copies everything"
            ),
            Refusal::Pruned { primary_end, receiver_start } => write!(
                f,
                "the primary's log ends at LSN {primary_end}, and the receiver keeps nothing below {receiver_start}: the primary lost what nobody can send it. Promote the receiver instead"
            ),
            Refusal::NotReceiver { role } => write!(
                f,
                "the other side is no receiver of this stream: it is {role}. To let it follow, stop it, move the stream's folder away and start it again: it copies everything"
            ),
            Refusal::Busy => f.write_str(
                "another connection feeds this stream already. If it is a dead one of this primary, it ends by itself within the time limit",
            ),
            Refusal::Disagree => {
                f.write_str("the two sides computed different agreements: a fault in the program. Please report it")
            }
            Refusal::Unable { reason } => write!(f, "the other side can't go on: {reason}"),
        }
    }
}

/// A term for people.
struct Seen<'a>(&'a TermSeen);

impl fmt::Display for Seen<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "term {} (id {:016x})", self.0.term, self.0.id)
    }
}

/// A chain that may be missing, for people.
struct Link<'a>(&'a Option<Chain>);

impl fmt::Display for Link<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(chain) => fmt::Display::fmt(chain, f),
            None => f.write_str("none (no entry ends there)"),
        }
    }
}
