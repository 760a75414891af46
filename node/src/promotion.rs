//! `promote`: this node becomes the primary of a stream.
//!
//! In this order: the connection to the old primary ends; everything received is synced; the higher term is made durable,
//! which fences the old primary; the first entry of the term is written and synced; only then anything is acknowledged.
//! A crash in between leaves a receiver that refuses the old primary, or a primary of the new term at its start gate: both
//! can be promoted again.

use journal::{Journal, Lsn, Role, Term, TermSeen, Time};
use shipper::{Need, Policy};
use wire::Mode;

use crate::control::{Failure, Promoted};
use crate::error::{Error, Result};
use crate::stream::time_text;

/// Why a promotion needs the operator's word first.
#[derive(Debug, Default)]
pub(crate) struct Doubts(Vec<String>);

/// What is known of a stream before its promotion.
#[derive(Debug)]
pub(crate) struct Before {
    pub(crate) policy: Option<Policy>,
    pub(crate) node: String,
    pub(crate) in_doubt: bool,
    pub(crate) rebuilt: bool,
    pub(crate) alone: bool,
    pub(crate) last_contact: Option<Time>,
    pub(crate) committed: Lsn,
}

impl Before {
    /// Of a node that has met nobody since it was started.
    pub(crate) fn of(node: &str, journal: &Journal) -> Before {
        Before {
            policy: None,
            node: node.to_owned(),
            in_doubt: false,
            rebuilt: journal.is_rebuilt(),
            alone: false,
            last_contact: None,
            committed: journal.committed(),
        }
    }

    /// Why it can't be promoted without `--accept-loss`.
    pub(crate) fn doubts(&self, role: Role) -> Doubts {
        let mut doubts = Doubts::default();
        if self.rebuilt {
            doubts.add(
                "its control file was rebuilt from its log: another node may have been promoted, and more may have been \
                 acknowledged than is here",
            );
        } else if self.in_doubt {
            doubts.add(
                "this machine was started anew and has not met its primary since: what was only received may be lost",
            );
        }
        if role == Role::Fenced && !self.rebuilt {
            doubts.add("a higher term was opened elsewhere: what was written there since will not be here");
        }
        match &self.policy {
            None => doubts.add("this node holds no policy of the stream: nothing says what was promised"),
            Some(policy) => {
                let needed = nodes_needed(policy);
                if role == Role::Receiver && needed > 1 {
                    doubts.add(format!(
                        "a commit waits for fewer peers than there are: {needed} nodes would have to be asked, and this \
                         version asks this one alone"
                    ));
                }
            }
        }
        doubts
    }

    /// Why a primary that waits at its start gate can't go on without `--accept-loss`.
    pub(crate) fn doubts_at_the_gate(&self, waiting_for: &[String]) -> Doubts {
        let mut doubts = Doubts::default();
        doubts.add(format!(
            "{} was not met since this start: it may have been promoted meanwhile, or hold entries that this node lacks",
            waiting_for.join(" and ")
        ));
        doubts
    }

    /// What going on without the peers may have lost, in words.
    pub(crate) fn loss_at_the_gate(&self, end: Lsn) -> Vec<String> {
        vec![
            format!("kept: this node's own log, up to LSN {end}"),
            "unknown: what a peer that was promoted meanwhile has written, and what a peer holds above that LSN".into(),
        ]
    }

    /// What the promotion may have lost, in words.
    pub(crate) fn loss(&self, end: Lsn) -> Vec<String> {
        let contact = match self.last_contact {
            Some(at) => format!("last contact {}", time_text(at)),
            None => "no contact since this node was started".into(),
        };
        let mut lines = vec![format!("kept: everything received, up to LSN {end}")];
        if self.rebuilt {
            let line =
                format!("unknown: what was acknowledged after LSN {end}, here or by another primary ({contact})");
            lines.push(line);
            return lines;
        }
        lines.push(match self.own_mode() {
            Some(Mode::Sync | Mode::SemiSync) if self.in_doubt => {
                format!("acknowledged by the old primary: in doubt after LSN {} ({contact})", self.committed)
            }
            Some(Mode::Sync | Mode::SemiSync) if self.alone => format!(
                "acknowledged with this node: lost 0; the old primary was going on alone: what it acknowledged alone after \
                 LSN {end} is not here, how much is unknown without its journal ({contact})"
            ),
            Some(Mode::Sync | Mode::SemiSync) => {
                format!("acknowledged as committed: lost 0; acknowledged alone after the last contact: unknown ({contact})")
            }
            Some(Mode::Async) | None => {
                format!("asynchronous: what the old primary acknowledged after LSN {end} is unknown ({contact})")
            }
        });
        lines
    }

    /// What the old primary asked of this node: by its name, or as the only one that promises anything.
    fn own_mode(&self) -> Option<Mode> {
        let members = &self.policy.as_ref()?.members;
        match members.iter().find(|member| member.name == self.node) {
            Some(member) => Some(member.mode),
            // when every member promises something, this one does, whatever it was called there
            None => members.iter().map(|member| member.mode).min(),
        }
    }
}

impl Doubts {
    fn add(&mut self, doubt: impl Into<String>) {
        self.0.push(doubt.into());
    }

    /// An error unless there are none, or they are accepted.
    pub(crate) fn settle(self, stream: &str, accept_loss: bool) -> Result<(), Failure> {
        if accept_loss || self.0.is_empty() {
            return Ok(());
        }
        let message = format!("{stream} was not promoted: {}", self.0.join("; "));
        Err(Failure::new(journal::Class::Refused, message)
            .hint(format!("start the old primary if it can be; else: towline promote {stream} --accept-loss")))
    }
}

/// Nodes that must take part so that every committed entry is in sight: N - k.
fn nodes_needed(policy: &Policy) -> usize {
    let required = policy.required();
    let k = match policy.need {
        Need::All => required,
        Need::Quorum(k) => k.min(required),
    };
    required + 1 - k
}

/// A term above every one that this journal has seen.
pub(crate) fn next_term(journal: &Journal, random: u64) -> Result<TermSeen> {
    let seen = journal.term_seen().term;
    let term = seen.0.checked_add(1).map(Term);
    term.map(|term| TermSeen { term, id: random }).ok_or(Error::Journal(journal::Error::Fenced { by: seen }))
}

/// The answer.
pub(crate) fn promoted(
    stream: &str,
    term: Term,
    end: Lsn,
    loss: Vec<String>,
    before: &Before,
    alone: bool,
) -> Promoted {
    Promoted { stream: stream.to_owned(), term: term.0, end: end.get(), committed: before.committed.get(), loss, alone }
}
