//! The primary's side of a process: gate, board and the ways to the peers.

use std::collections::BTreeMap;
use std::time::Instant;

use journal::{Epoch, Lsn, Remote};
use shipper::{Gate, Local, Loss, Member, Need, Peer, PeerOptions};
use wire::Place;

use super::{Acked, Level, Out, Setup};
use crate::log::Log;

#[derive(Clone, Debug)]
pub(crate) struct Primary {
    pub(crate) lanes: Vec<Lane>,
    pub(crate) gate: Gate,
    pub(crate) run: Option<(Epoch, u64)>,
    pub(crate) run_laid: bool,
    pub(crate) ended: bool,
    pub(crate) waived: bool,
    pub(crate) remote: Remote,
    pub(crate) committed: Lsn,
    pub(crate) announced: Lsn,
    pub(crate) loss: Loss,
    pub(crate) items: Vec<(u64, Place, [bool; 3])>,
    pub(crate) local: Local,
}

/// The way to one peer.
#[derive(Clone, Debug)]
pub(crate) struct Lane {
    pub(crate) to: usize,
    pub(crate) peer: Peer,
    /// Connection of each link number.
    pub(crate) links: BTreeMap<u64, u64>,
    /// For the mutant that resumes where it thinks it stopped.
    pub(crate) sent: Lsn,
    /// For the mutant that counts the acknowledgements of an ended session.
    pub(crate) session: u64,
    pub(crate) acked: Option<wire::Ack>,
}

impl Primary {
    pub(super) fn new(setup: &Setup, index: usize, log: &Log, now: Instant) -> Primary {
        let others = (0..setup.modes.len()).filter(|&to| to != index);
        let lanes: Vec<Lane> = others.clone().map(|to| Lane::new(setup, now, to, index)).collect();
        let member = |to: usize| Member { mode: setup.modes[to], on_loss: setup.on_loss };
        let members: Vec<Member> = others.map(member).collect();
        Primary {
            lanes,
            gate: Gate::new(Need::All, &members),
            run: None,
            run_laid: false,
            ended: false,
            waived: false,
            remote: Remote::default(),
            committed: log.control.committed,
            announced: Lsn::ZERO,
            loss: Loss::None,
            items: Vec::new(),
            local: Local::default(),
        }
    }

    pub(super) fn end(&mut self) {
        self.ended = true;
        for lane in &mut self.lanes {
            lane.peer.stop("fenced");
        }
    }

    /// Answers every waiter whose level is reached.
    pub(super) fn acknowledge(&mut self, durable: Lsn, has_peers: bool, out: &mut Vec<Out>) {
        let Remote { received, peer_durable, alone, .. } = self.remote;
        let reached = [
            (Level::Committed, self.committed),
            (Level::Received, durable.min(received)),
            (Level::PeerDurable, durable.min(peer_durable)),
        ];
        for (item, end, acked) in &mut self.items {
            for (at, (level, reached)) in reached.iter().enumerate() {
                if !acked[at] && *reached >= end.lsn && (has_peers || at == 0) {
                    acked[at] = true;
                    let alone = alone && *level == Level::Committed;
                    out.push(Out::Acked(Acked { item: *item, end: *end, level: *level, alone }));
                }
            }
        }
        self.items.retain(|(_, _, acked)| !acked.iter().all(|&acked| acked));
    }
}

impl Lane {
    pub(super) fn new(setup: &Setup, now: Instant, to: usize, from: usize) -> Lane {
        let options = PeerOptions {
            window_bytes: setup.window_bytes,
            dead_after: setup.dead_after,
            announce_every: setup.report,
            remember_every: setup.report * 100,
            alive_every: setup.dead_after / 5,
            retry_min: setup.retry,
            retry_max: setup.retry * 20,
            seed: (from * 8 + to) as u64,
            ..PeerOptions::new(&format!("n{to}"), setup.modes[to])
        };
        Lane { to, peer: Peer::new(now, options), links: BTreeMap::new(), sent: Lsn::ZERO, session: 0, acked: None }
    }

    pub(super) fn link_of(&self, conn: u64) -> Option<u64> {
        self.links.iter().find_map(|(&link, &of)| (of == conn).then_some(link))
    }
}
