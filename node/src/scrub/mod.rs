//! The thread that looks for rot in a stream's log before it is needed.
//!
//! ```text
//!  journal::scrub::Pace -> Scrub::step -> Findings -> status, log, the file `scrub`
//! ```
//! Damage in the past ends nothing: what is acknowledged now is kept elsewhere in the log. It is said once in the log,
//! and stays in `status` until it is mended.

mod findings;

use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use journal::scrub::{Finding, Pace, Scrub, ScrubPolicy, Scrubbed, Turn};
use journal::{Journal, Lsn, LsnRange, Time};

use self::findings::{Findings, Noted};
use crate::error::{Error, Result};
use crate::status::{DamageStatus, ScrubStatus};

/// After an error that is none of the disk's, such as no free descriptors.
const TRY_AGAIN_AFTER: Duration = Duration::from_secs(60);

/// Looks after one stream until it is dropped.
#[derive(Debug)]
pub(crate) struct Scrubber {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    name: String,
    file: PathBuf,
    policy: ScrubPolicy,
    state: Mutex<State>,
    told: Condvar,
}

#[derive(Debug, Default)]
struct State {
    stop: bool,
    findings: Findings,
    /// Where the look at hand stands.
    at: Option<Lsn>,
}

impl Scrubber {
    /// Begins to look after the stream of this journal. `file` remembers what was found, across restarts.
    pub(crate) fn start(name: &str, journal: &Journal, file: PathBuf, policy: ScrubPolicy) -> Result<Scrubber> {
        let findings = Findings::of(findings::read(&file));
        // what is known to be damaged is looked at again in any case: it may be mended
        let wanted = policy.bytes_per_second > 0 || findings.damaged().next().is_some();
        let state = Mutex::new(State { findings, ..State::default() });
        let shared = Arc::new(Shared { name: name.to_owned(), file, policy, state, told: Condvar::new() });
        let mut scrubber = Scrubber { shared: shared.clone(), thread: None };
        if wanted {
            let journal = journal.clone();
            let dir = journal.dir().to_owned();
            let spawned = thread::Builder::new().name("scrub".into()).spawn(move || shared.run(&journal));
            scrubber.thread = Some(spawned.map_err(Error::io("start a thread for", &dir))?);
        }
        Ok(scrubber)
    }

    /// How it goes.
    pub(crate) fn status(&self) -> ScrubStatus {
        let state = self.shared.state();
        ScrubStatus {
            bytes_per_second: self.shared.policy.bytes_per_second,
            last_full: state.findings.last_full(),
            at: state.at.map(Lsn::get),
            damaged: state.findings.damaged().cloned().collect(),
        }
    }

    /// Ends it. The journal is free when it returns.
    pub(crate) fn stop(&mut self) {
        self.shared.state().stop = true;
        self.shared.told.notify_all();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!(stream = self.shared.name, "the thread that scrubs panicked");
        }
    }
}

impl Drop for Scrubber {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Shared {
    fn run(&self, journal: &Journal) {
        let begun = Instant::now();
        let last_full = match self.recall(journal) {
            true => self.state().findings.last_full_time().map(|at| Time::now().since(at)),
            // what was damaged is looked at again at once, all of it
            false => None,
        };
        if self.policy.bytes_per_second == 0 {
            return;
        }
        let mut pace = Pace::new(self.policy, begun.elapsed(), last_full);
        let mut look = None;
        loop {
            let wait = match pace.turn(begun.elapsed()) {
                Turn::Wait(span) => span,
                Turn::Begin => {
                    self.state().findings.begin();
                    look = Some(Scrub::all(journal));
                    Duration::ZERO
                }
                Turn::Read => match look.as_mut().map(Scrub::step) {
                    Some(Ok(Scrubbed::Good(bytes))) => {
                        pace.read(bytes, begun.elapsed());
                        Duration::ZERO
                    }
                    Some(Ok(Scrubbed::Damaged(bytes, finding))) => {
                        self.found(journal, finding);
                        pace.read(bytes, begun.elapsed());
                        Duration::ZERO
                    }
                    Some(Ok(Scrubbed::End)) | None => {
                        look = None;
                        pace.ended();
                        self.ended(journal);
                        Duration::ZERO
                    }
                    Some(Err(error)) => {
                        tracing::warn!(stream = self.name, %error, "scrub the log");
                        TRY_AGAIN_AFTER
                    }
                },
            };
            let mut state = self.state();
            state.at = look.as_ref().map(Scrub::at);
            let waited = self.told.wait_timeout_while(state, wait, |state| !state.stop);
            if waited.unwrap_or_else(PoisonError::into_inner).0.stop {
                return;
            }
        }
    }

    /// Looks first at what was damaged when this node last ran. True when there was nothing, or all is mended.
    fn recall(&self, journal: &Journal) -> bool {
        let known: Vec<DamageStatus> = self.state().findings.damaged().cloned().collect();
        if known.is_empty() {
            return true;
        }
        self.state().findings.begin();
        for damage in known {
            let mut look = Scrub::range(journal, LsnRange::new(Lsn::new(damage.from), Lsn::new(damage.to)));
            loop {
                match look.step() {
                    Ok(Scrubbed::Good(_)) => {}
                    Ok(Scrubbed::Damaged(_, finding)) => self.found(journal, finding),
                    Ok(Scrubbed::End) => break,
                    Err(error) => {
                        tracing::warn!(stream = self.name, %error, "look again at what was damaged");
                        return false;
                    }
                }
                if self.state().stop {
                    return false;
                }
            }
        }
        let mut state = self.state();
        state.findings.settle(journal.start().get());
        let mended = state.findings.damaged().next().is_none();
        self.note(&state.findings);
        mended
    }

    fn found(&self, journal: &Journal, finding: Finding) {
        let Finding { path, range, harm } = finding;
        let (from, to) = (range.from.get(), range.to.get());
        let damage = DamageStatus { path, from, to, what: harm.to_string(), pruned: false };
        let mut state = self.state();
        if state.findings.found(damage.clone()) {
            let repair = repair_command(journal);
            tracing::error!(stream = self.name, "rot: {damage}. {repair}");
            self.note(&state.findings);
        }
    }

    fn ended(&self, journal: &Journal) {
        let mut state = self.state();
        for mended in state.findings.settle(journal.start().get()) {
            tracing::info!(stream = self.name, "{mended}: it reads well again");
        }
        state.findings.looked_at_everything(Time::now());
        self.note(&state.findings);
    }

    /// Not to remember is no harm to the log: the next start looks earlier than it must.
    fn note(&self, findings: &Findings) {
        if let Err(error) = findings::write(&self.file, &Noted::of(findings)) {
            tracing::warn!(stream = self.name, %error, "note what the scrub found");
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // the state is whole at every moment: a panic elsewhere doesn't spoil it
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What helps against damage in this log.
pub(crate) fn repair_command(journal: &Journal) -> String {
    format!(
        "Stop this node and repair it from a copy: towline verify {} --repair-from COPY (towline://HOST:PORT of another node, its data, a journal or a depot)",
        journal.dir().display()
    )
}
