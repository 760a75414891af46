//! Doing what the intake orders: at once and under its lock what never blocks for long, the rest without.

use std::sync::atomic::Ordering;
use std::sync::{MutexGuard, Weak};
use std::thread;
use std::time::{Duration, Instant};

use journal::{Class, End, Error, Journal, Lsn, Role, TermSeen};

use super::ReceiverStream;
use crate::intake::{Action, Intake};

/// Where the primary waits for less than a sync here, syncs are at least so far apart: they are for power cuts, and
/// each takes the disk from somebody. It bounds how old a merely received tail gets.
const FLUSH_EVERY: Duration = Duration::from_millis(20);
/// The flush thread looks by itself this often, and syncs what nobody else did.
const FLUSH_IDLE: Duration = Duration::from_millis(100);

/// What may take long, and is done without the intake's lock.
enum Duty {
    SeeTerm { link: u64, term: TermSeen },
    Cut { link: u64, to: Lsn },
    Look { link: u64, at: Lsn },
    Sync { generation: u64 },
}

/// Doing what the intake orders.
impl ReceiverStream {
    /// Does everything that is ordered, until nothing is.
    pub(super) fn act<'a>(&'a self, mut intake: MutexGuard<'a, Intake>) {
        while let Some(action) = intake.poll_action() {
            if let Some(duty) = self.act_at_once(&mut intake, action) {
                drop(intake);
                let report = self.perform(duty);
                intake = self.intake();
                report(&mut intake);
            }
        }
    }

    /// Does what never blocks for long; gives back what may.
    fn act_at_once(&self, intake: &mut Intake, action: Action) -> Option<Duty> {
        match action {
            Action::Send { link, message } => {
                if let Some(feed) = self.feeds().get(&link) {
                    feed.outlet.send(&message);
                }
            }
            Action::Close { link, reason } => {
                if let Some(feed) = self.feeds().get(&link) {
                    feed.outlet.close(&reason);
                }
            }
            Action::SendEntries { link, session, range } => {
                if let Some(feed) = self.feeds().get(&link) {
                    feed.give_back(session, range);
                }
            }
            // once per boot of the machine, and no acknowledgement may overtake it
            Action::Settle => {
                let vouched = self.journal.vouched().map_err(|error| error.to_string());
                if let Err(reason) = vouched.and_then(|()| self.keeper.settle()) {
                    self.fail(intake, &reason);
                }
            }
            Action::Apply { to } => {
                // the flush thread writes it down: the control file may be in the middle of a sync, and what is only
                // received must be acknowledged all the same
                self.learnt.fetch_max(to.get(), Ordering::AcqRel);
                self.keeper.apply(to);
            }
            // remembered with the next `Apply`: only what is durable here counts for anything
            Action::Committed { .. } => {}
            Action::Report(notice) => {
                self.keeper.notice(&notice);
                self.seen().notice = Some(notice);
            }
            Action::SeeTerm { link, term } => return Some(Duty::SeeTerm { link, term }),
            Action::Cut { link, to } => return Some(Duty::Cut { link, to }),
            Action::Look { link, at } => return Some(Duty::Look { link, at }),
            Action::Sync { generation } => return Some(Duty::Sync { generation }),
        }
        None
    }

    /// Does what may take long, without the lock; returns how to tell the intake.
    fn perform<'a>(&'a self, duty: Duty) -> Box<dyn FnOnce(&mut Intake) + 'a> {
        match duty {
            Duty::SeeTerm { link, term } => {
                let seen = match self.journal.role() {
                    Role::Primary => self.journal.fence(term),
                    Role::Receiver | Role::Fenced => self.journal.see_term(term),
                };
                Box::new(move |intake| match seen {
                    Ok(()) => intake.handle_term_seen(link, term),
                    Err(error) => self.broken(intake, link, &error),
                })
            }
            Duty::Cut { link, to } => {
                let cut = self.journal.cut(to);
                let tip = self.journal.written_tip();
                Box::new(move |intake| match cut {
                    Ok(branch) => {
                        tracing::warn!(stream = self.name(), range = %branch.range, path = %branch.path.display(), "cut a tail that the primary doesn't have; it is kept as a branch");
                        intake.handle_cut(link, tip);
                    }
                    Err(error) => self.broken(intake, link, &error),
                })
            }
            Duty::Look { link, at } => {
                let found = self.journal.tip_at(at);
                Box::new(move |intake| match found {
                    Ok(tip) => intake.handle_looked(link, at, tip.map(|tip| tip.chain)),
                    Err(error) => self.broken(intake, link, &error),
                })
            }
            Duty::Sync { generation } => {
                let synced = self.journal.sync();
                Box::new(move |intake| match synced {
                    Ok(proof) => intake.handle_durable(generation, &proof),
                    Err(error) => match self.journal.board().ended() {
                        // closed or fenced meanwhile: nobody waits for this sync any more
                        Some(End::Closed | End::Fenced(_)) => {}
                        Some(End::Failed(_)) | None => self.fail(intake, &error.to_string()),
                    },
                })
            }
        }
    }

    /// Writes down how far the log is known to be committed.
    fn note_learnt(&self) -> Result<(), String> {
        let learnt = Lsn::new(self.learnt.load(Ordering::Acquire));
        match learnt > self.journal.committed() {
            true => self.journal.learn_committed(learnt).map_err(|error| error.to_string()),
            false => Ok(()),
        }
    }

    /// The log couldn't be written, cut or read. After a failed sync it is over; else the primary tries again.
    pub(super) fn broken(&self, intake: &mut Intake, link: u64, error: &Error) {
        match self.troubles.is_news((), &error.to_string(), Instant::now()) {
            true => tracing::error!(stream = self.name(), %error, "receive"),
            false => tracing::debug!(stream = self.name(), %error, "receive"),
        }
        if error.class() == Class::Full {
            self.full.store(true, Ordering::Relaxed);
        }
        match self.journal.board().ended() {
            Some(End::Failed(reason)) => self.fail(intake, &reason),
            _ => intake.handle_failed(link, &error.to_string()),
        }
    }

    fn fail(&self, intake: &mut Intake, reason: &str) {
        if !self.failed.swap(true, Ordering::AcqRel) {
            intake.handle_sync_failed(reason);
            self.keeper.failed(reason);
        }
    }
}

/// The flush thread: syncs what the connection's thread leaves to it.
pub(super) fn flush(journal: &Journal, stream: &Weak<ReceiverStream>) {
    let mut watch = journal.board().watch();
    let mut idle = true;
    loop {
        let Some(stream) = stream.upgrade() else { return };
        if stream.stopping.load(Ordering::Acquire) {
            return;
        }
        match journal.board().ended() {
            Some(End::Failed(reason)) => return stream.step(|intake| stream.fail(intake, &reason)),
            Some(_) => return,
            None => {}
        }
        let (generation, durable) = {
            let intake = stream.intake();
            (intake.generation(), intake.log().durable.lsn)
        };
        let mine = idle || !stream.inline.load(Ordering::Relaxed);
        if mine && journal.board().written() > durable {
            let told = stream.perform(Duty::Sync { generation });
            stream.step(|intake| told(intake));
        }
        if let Err(reason) = stream.note_learnt() {
            stream.step(|intake| stream.fail(intake, &reason));
        }
        drop(stream);
        idle = !watch.wait(FLUSH_IDLE);
        if !idle {
            thread::sleep(FLUSH_EVERY);
        }
    }
}
