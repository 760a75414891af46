//! The driver: does what the cores ask, in the order of their duties.

use std::time::Instant;

use bytes::Bytes;
use journal::{Cursor, Lsn, LsnRange};
use shipper::Local;
use wire::Message;

use super::primary::Lane;
use super::{Node, Out, Setup, node_id};
use crate::log::Role;
use crate::mutant::Mutant;

impl Node {
    /// Does what the cores ask until they ask for nothing, and publishes the commit point.
    pub(super) fn settle(&mut self, setup: &Setup, now: Instant) {
        for round in 0.. {
            assert!(round < 10_000, "the cores of node {} never come to rest", self.index);
            let did = self.serve_intake(setup) | self.serve_lanes(setup, now);
            if !self.publish(setup, now) && !did {
                break;
            }
        }
    }

    fn serve_intake(&mut self, setup: &Setup) -> bool {
        let mut did = false;
        while let Some(action) = self.process.as_mut().and_then(|process| process.intake.poll_action()) {
            did = true;
            self.do_for_intake(setup, action);
        }
        did
    }

    fn do_for_intake(&mut self, setup: &Setup, action: receiver::Action) {
        let Some(process) = &mut self.process else { return };
        match action {
            receiver::Action::SeeTerm { link, term } => {
                if let Some(primary) = &mut process.primary {
                    primary.end();
                    self.log.control.role = fenced(setup);
                }
                self.log.control.term = term;
                self.log.control.run = 0;
                self.log.sync_control();
                process.intake.handle_term_seen(link, term);
            }
            receiver::Action::Send { link, message } => self.out.push(Out::Send { conn: link, message }),
            receiver::Action::Close { link, .. } => self.out.push(Out::Close { conn: link }),
            receiver::Action::Look { link, at } => process.intake.handle_looked(link, at, self.log.chain_at(at)),
            receiver::Action::Cut { link, to } => {
                self.log.cut(to);
                process.intake.handle_cut(link, self.log.tip());
            }
            receiver::Action::SendEntries { link, session, range } => {
                let mut at = range.from;
                while let Some(bytes) = self.log.slice(LsnRange::new(at, range.to.min(at.advance(256)))) {
                    let message = Message::Entries { session, at, bytes: Bytes::copy_from_slice(bytes) };
                    at = at.advance(bytes.len() as u64);
                    self.out.push(Out::Send { conn: link, message });
                    if at >= range.to {
                        break;
                    }
                }
            }
            receiver::Action::Sync { .. } => process.sync_wanted = true,
            receiver::Action::Apply { to } => {
                self.log.control.committed = self.log.control.committed.max(to);
                self.log.control.applied = to;
                process.intake.handle_applied(to, to);
                self.out.push(Out::Applied { to });
            }
            // noted with the next `Apply`, as the driver of the program does it: only what is durable here counts
            receiver::Action::Committed { .. } => {}
            receiver::Action::Settle => {
                self.log.control.settled_boot = Some(self.boot);
                self.log.sync_control();
            }
            receiver::Action::Report(receiver::Notice::LostDurable { .. }) => {
                self.out.push(Out::LostDurable { node: self.id });
            }
            receiver::Action::Report(_) => {}
        }
    }

    fn serve_lanes(&mut self, setup: &Setup, now: Instant) -> bool {
        let lanes = self.primary().map_or(0, |primary| primary.lanes.len());
        let mut did = false;
        for index in 0..lanes {
            while let Some(action) = self.lane_at(index).and_then(|lane| lane.peer.poll_action()) {
                did = true;
                self.do_for_lane(setup, now, index, action);
            }
        }
        did
    }

    fn lane_at(&mut self, index: usize) -> Option<&mut Lane> {
        self.process.as_mut()?.primary.as_mut()?.lanes.get_mut(index)
    }

    fn do_for_lane(&mut self, setup: &Setup, now: Instant, index: usize, action: shipper::Action) {
        use shipper::Action;
        let Some(process) = &mut self.process else { return };
        let Some(primary) = &mut process.primary else { return };
        let ended = primary.ended;
        let Some(lane) = primary.lanes.get_mut(index) else { return };
        match action {
            Action::Connect { link } if !ended => self.out.push(Out::Dial { to: lane.to, link }),
            Action::Connect { link } => lane.peer.handle_disconnected(now, link, "fenced"),
            Action::Close { link, .. } => self.out.extend(lane.links.get(&link).map(|&conn| Out::Close { conn })),
            Action::Send { link, message } => {
                self.out.extend(lane.links.get(&link).map(|&conn| Out::Send { conn, message }));
            }
            Action::SendEntries { link, session, mut range } => {
                if setup.mutant == Mutant::GapOnReconnect {
                    range.from = range.from.max(lane.sent.min(self.log.tip().lsn));
                    range.to = range.to.max(range.from);
                }
                let at = range.from;
                let bytes = self.log.slice(range).unwrap_or_default();
                let to = at.advance(bytes.len() as u64);
                lane.sent = lane.sent.max(to);
                if !bytes.is_empty()
                    && let Some(&conn) = lane.links.get(&link)
                {
                    let message = Message::Entries { session, at, bytes: Bytes::copy_from_slice(bytes) };
                    self.out.push(Out::Send { conn, message });
                }
                lane.peer.handle_sent(now, link, to);
            }
            Action::Look { link, at } => lane.peer.handle_looked(now, link, at, self.log.chain_at(at)),
            Action::Extend { link, at, bytes } => {
                let mut cursor = Cursor::new(self.log.geometry, self.log.tip());
                match cursor.verify(&bytes) {
                    Ok(run) if at == run.first().lsn && run.bytes().len() == bytes.len() => {
                        self.log.extend(&run);
                        let end = self.log.end();
                        lane.peer.handle_extended(now, link, end);
                    }
                    _ => lane.peer.handle_failed(now, link, "entries that don't continue the log"),
                }
            }
            Action::Fence { by } => {
                primary.end();
                self.log.control.term = by;
                self.log.control.run = 0;
                self.log.control.role = fenced(setup);
                self.log.sync_control();
                process.intake.retire("fenced", by);
            }
            Action::Remember { node, place } => {
                self.log.control.remembered.insert(node, place);
            }
            Action::Report(shipper::Notice::LostDurable { .. }) => {
                let to = lane.to;
                self.out.push(Out::LostDurable { node: node_id(to, u64::MAX) });
            }
            Action::Report(shipper::Notice::Refused(refusal)) => {
                let by = lane.to;
                self.out.push(Out::Refused { by, refusal });
            }
            Action::Report(_) => {}
        }
    }

    /// The gate, the board and the peers' view of this node; true when something moved.
    fn publish(&mut self, setup: &Setup, now: Instant) -> bool {
        let durable = self.log.durable().lsn;
        let written = self.log.tip().lsn;
        let Some(process) = &mut self.process else { return false };
        let Some(primary) = process.primary.as_mut().filter(|primary| !primary.ended) else { return false };
        let marks: Vec<_> = primary.lanes.iter().map(|lane| lane.peer.marks()).collect();
        let verdict = primary.gate.update(now, durable, &marks);
        primary.remote = verdict.remote;
        primary.loss = verdict.loss;
        let own = if setup.mutant == Mutant::OwnDiskForgotten { written } else { durable };
        primary.committed = primary.committed.max(own.min(verdict.remote.promised));
        self.log.control.committed = self.log.control.committed.max(primary.committed);
        if verdict.open && primary.run.is_none() {
            self.fresh += 1;
            let run = self.log.open_run((self.index as u64 + 1) << 48 | self.fresh);
            primary.run = Some(run);
        }
        if verdict.committed > primary.announced {
            primary.announced = verdict.committed;
            self.out.push(Out::Committed { to: verdict.committed });
        }
        primary.acknowledge(durable, setup.modes.len() > 1, &mut self.out);
        process.sync_wanted |= written > durable;
        let local = Local {
            written,
            durable,
            committed: if setup.mutant == Mutant::AnnouncedAlone { primary.committed } else { verdict.committed },
            floor: Lsn::ZERO,
            alone: verdict.remote.alone,
            opened: primary.run.is_some(),
            sync_ms: 0,
            full: false,
        };
        if local == primary.local {
            return false;
        }
        primary.local = local;
        for lane in &mut primary.lanes {
            lane.peer.handle_local(now, local);
        }
        true
    }
}

/// What a node becomes that meets a higher term.
fn fenced(setup: &Setup) -> Role {
    if setup.mutant == Mutant::FencedForgets { Role::Primary } else { Role::Fenced }
}
