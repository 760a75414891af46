//! `wait`.

use std::time::{Duration, Instant};

use journal::{Board, Class, Lsn};
use shipper::WaitShipped;

use super::place::Place;
use super::{appender, ship};
use crate::control::{Failure, Level, Patience, Reached, Until, Wait};
use crate::error::Error;
use crate::receiving::Receiving;
use crate::stream::Stream;

/// What is waited for is looked at again at least this often: not everything tells of itself.
const LOOK_EVERY: Duration = Duration::from_millis(50);

impl Place {
    /// Blocks until what `wait` names holds.
    pub(super) fn wait(&self, wait: &Wait, patience: &Patience<'_>) -> Result<Reached, Failure> {
        match self.primary() {
            Ok(stream) => wait_primary(&stream, wait, patience),
            Err(Error::NotPrimary { .. }) => self.wait_receiver(wait, patience),
            Err(error) => Err(error.into()),
        }
    }

    fn wait_receiver(&self, wait: &Wait, patience: &Patience<'_>) -> Result<Reached, Failure> {
        let board = self.journal()?.board().clone();
        let lsn = wait.lsn.map_or_else(|| board.written(), Lsn::new);
        if wait.until == Until::Shipped {
            return Err(Error::NotShipping { stream: self.name().to_owned(), role: "receiver" }.into());
        }
        let holds = || {
            let there = |receiving: &Receiving| match wait.until {
                Until::Connected => receiving.is_fed(),
                Until::InSync => receiving.in_sync() && board.durable() >= lsn,
                Until::Durable | Until::Shipped => board.durable() >= lsn,
            };
            // promoted meanwhile: it has no primary to be in sync with
            self.with_receiving(there).unwrap_or(true)
        };
        look_until(&board, wait.until, lsn, patience, holds)?;
        Ok(Reached { until: wait.until, lsn: lsn.get(), alone: false })
    }
}

fn wait_primary(stream: &Stream, wait: &Wait, patience: &Patience<'_>) -> Result<Reached, Failure> {
    appender::wait_ready(stream, patience)?;
    let board = stream.journal().board();
    let lsn = wait.lsn.map_or_else(|| board.staged(), Lsn::new);
    let primary = stream.primary();
    match wait.until {
        Until::Connected => look_until(board, wait.until, lsn, patience, || primary.connected())?,
        Until::InSync => {
            let mut detached = None;
            let holds = || {
                detached = primary.detached_peer();
                detached.is_some() || primary.in_sync(lsn)
            };
            look_until(board, wait.until, lsn, patience, holds)?;
            if let Some(peer) = detached.filter(|_| !primary.in_sync(lsn)) {
                let message = format!("{peer} is detached: it won't be in sync by waiting");
                let hint = format!("towline status {} says what to do", stream.name());
                return Err(Failure::new(Class::NotReached, message).hint(hint).at(lsn));
            }
        }
        Until::Durable => {
            let level = if primary.has_required() { Level::PeerDurable } else { Level::Durable };
            appender::wait(stream, lsn, level, patience)?;
        }
        Until::Shipped => wait_shipped(stream, lsn, patience)?,
    }
    Ok(Reached { until: wait.until, lsn: lsn.get(), alone: primary.alone() })
}

/// Looks whenever the board changes, and now and then.
fn look_until(
    board: &Board,
    until: Until,
    lsn: Lsn,
    patience: &Patience<'_>,
    mut holds: impl FnMut() -> bool,
) -> Result<(), Failure> {
    let mut watch = board.watch();
    while !holds() {
        if let Some(end) = board.ended() {
            return Err(Failure::new(
                Class::Unknown,
                format!("unknown: the stream ended before it was {until} ({end:?})"),
            )
            .at(lsn));
        }
        match patience.slice() {
            Ok(_) if patience.stopping() => {
                return Err(Failure::new(
                    Class::Unknown,
                    format!("unknown: the node is stopping; LSN {lsn} was not {until}"),
                )
                .at(lsn));
            }
            Ok(slice) => drop(watch.wait(slice.saturating_duration_since(Instant::now()).min(LOOK_EVERY))),
            Err(over) => {
                let message = format!("unknown: LSN {lsn} was not {until} when the wait ended ({over})");
                return Err(Failure::new(Class::Unknown, message).at(lsn));
            }
        }
    }
    Ok(())
}

fn wait_shipped(stream: &Stream, lsn: Lsn, patience: &Patience<'_>) -> Result<(), Failure> {
    if !stream.primary().has_depots() {
        return Err(ship::no_depot(&format!("{} has no depot", stream.name())));
    }
    loop {
        if let Some(failure) = stream.primary().out_of_reach(lsn) {
            return Err(failure);
        }
        let (until, over) = match patience.slice() {
            Ok(until) => (until, None),
            Err(over) => (Instant::now(), Some(over)),
        };
        match stream.primary().wait_shipped(lsn, until) {
            Ok(()) => return Ok(()),
            Err((_, WaitShipped::Timeout { .. })) if over.is_none() => {}
            Err((depot, error)) => {
                let over = over.map(|over| format!(" ({over})")).unwrap_or_default();
                return Err(Failure::new(Class::Unknown, format!("unknown: {depot}: {error}{over}")).at(lsn));
            }
        }
    }
}
