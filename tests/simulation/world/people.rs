//! Who writes, who breaks things, and who mends them.

use std::time::Duration;

use journal::{Lsn, Term, Time};
use wire::{Mode, Refusal};

use super::{CALM, Event, ITEMS_MAX, STORMY, World, seen};
use crate::log::Role;

impl World {
    pub(super) fn client(&mut self) -> Result<(), String> {
        let delay = if self.calm { self.millis(200, 2000) } else { self.millis(1, 130) };
        self.after(delay, Event::Client);
        let late = self.now > self.start + STORMY + CALM - Duration::from_secs(5);
        if late || (self.items >= ITEMS_MAX && !self.calm) {
            return Ok(());
        }
        let now = self.now;
        let clock = Time::from_nanos(now.duration_since(self.start).as_nanos() as u64);
        for node in 0..self.nodes.len() {
            for _ in 0..self.rng.between(1, 4) {
                if self.nodes[node].takes_appends() {
                    self.items += 1;
                    let item = self.items;
                    self.touch(node, |node, setup| node.append(setup, now, clock, item))?;
                }
            }
        }
        Ok(())
    }

    pub(super) fn fault(&mut self) -> Result<(), String> {
        let delay = self.millis(20, 500);
        self.after(delay, Event::Fault);
        if self.calm {
            return Ok(());
        }
        let node = self.rng.below(self.nodes.len() as u64) as usize;
        let up = self.nodes[node].process.is_some();
        let primary = self.nodes[node].is_primary();
        match self.rng.below(11) {
            0 | 1 if up => {
                self.count(if primary { "kill -9 of the primary" } else { "kill -9 of a receiver" });
                self.kill(node);
                let delay = self.millis(10, 1500);
                self.after(delay, Event::Start { node });
            }
            2 | 3 if up => {
                self.count(if primary { "power cut at the primary" } else { "power cut at a receiver" });
                self.power_cut(node);
                let delay = self.millis(100, 2500);
                self.after(delay, Event::Start { node });
            }
            4 | 5 => {
                let conns = self.conns_of(node);
                if let Some(&(conn, own)) = (!conns.is_empty()).then(|| self.rng.pick(&conns)) {
                    self.count("connection reset");
                    for end in [own, 1 - own] {
                        let at = self.later(conn, end);
                        self.at(at, Event::Closed { conn, end });
                    }
                }
            }
            6 | 7 => {
                let conns = self.conns_of(node);
                if let Some(&(conn, own)) = (!conns.is_empty()).then(|| self.rng.pick(&conns)) {
                    self.count("connection half open");
                    self.end_of(conn, own).silent = true;
                }
            }
            8 => {
                self.count("nodes partitioned");
                let other = (node + 1 + self.rng.below(self.nodes.len() as u64 - 1) as usize) % self.nodes.len();
                let until = self.now + self.millis(100, 2500);
                self.partitioned.push((node, other, until));
            }
            9 if up && !primary => {
                self.count("disk full");
                if let Some(process) = &mut self.nodes[node].process {
                    process.full = !process.full;
                }
            }
            10 if !primary && self.nodes[node].log.control.role == Role::Receiver && self.rng.chance(1, 4) => {
                self.count("machine replaced by an empty one");
                self.power_cut(node);
                let setup = self.setup.clone();
                self.nodes[node].replace(&setup);
                let delay = self.millis(50, 800);
                self.after(delay, Event::Start { node });
            }
            _ => {}
        }
        Ok(())
    }

    pub(super) fn operate(&mut self) -> Result<(), String> {
        let delay = self.millis(300, 1500);
        self.after(delay, Event::Operator);
        let now = self.now;
        // a fenced node follows again, a replica that would have to be cut is told to
        for node in 0..self.nodes.len() {
            let up = self.nodes[node].process.is_some();
            if up && self.nodes[node].log.control.role == Role::Fenced && (self.calm || self.rng.chance(1, 2)) {
                self.hang_up(node);
                self.touch(node, |node, setup| node.rejoin(setup, now))?;
            }
        }
        let refused: Vec<(usize, usize)> = self.refused.keys().copied().collect();
        for (from, by) in refused {
            let cut = matches!(self.refused.remove(&(from, by)), Some(Refusal::CutBelowCommitted { .. }));
            let newest = self.nodes[from].log.control.term.term == Term(self.term);
            if cut && newest && self.nodes[by].process.is_some() && self.nodes[by].log.control.role == Role::Receiver {
                self.hang_up(by);
                self.touch(by, |node, setup| node.rejoin(setup, now))?;
            }
        }
        let newest_up =
            self.nodes.iter().any(|node| node.is_primary() && node.log.control.term.term == Term(self.term));
        let any = self.nodes.iter().any(|node| node.log.control.role == Role::Primary);
        let wanted = if self.calm { !any } else { self.rng.chance(1, if newest_up { 12 } else { 3 }) };
        if wanted { self.promote() } else { Ok(()) }
    }

    pub(super) fn promote(&mut self) -> Result<(), String> {
        let up: Vec<usize> = (0..self.nodes.len()).filter(|&node| self.nodes[node].process.is_some()).collect();
        // after the storm only a node that keeps every promise is chosen
        let (calm, setup) = (self.calm, &self.setup);
        let keeps = |node: &usize| !calm || setup.modes[*node] != Mode::Async;
        let up: Vec<usize> = up.into_iter().filter(keeps).collect();
        if up.is_empty() || self.nodes.iter().all(|node| node.log.tip().lsn == Lsn::ZERO) {
            return Ok(());
        }
        let node = *self.rng.pick(&up);
        let in_doubt = self.nodes[node].intake().is_some_and(|intake| intake.in_doubt());
        let was_primary = self.nodes[node].log.control.role == Role::Primary;
        let careful = in_doubt && !was_primary && !self.rng.chance(1, 4);
        if careful || self.nodes[node].has_failed() {
            return Ok(());
        }
        self.count("promotion");
        if self.nodes.iter().any(|other| other.index != node && other.is_primary()) {
            self.count("promotion while the old primary runs");
        }
        self.term = self.term.max(self.nodes.iter().map(|node| node.log.control.term.term.0).max().unwrap_or(1)) + 1;
        let (term, now, alone) = (Term(self.term), self.now, self.rng.chance(1, 2));
        let mut promoted = self.nodes[node].clone();
        promoted.log.control.term.term = term;
        self.checker.promoted(&self.setup, &seen(&self.nodes), &promoted, in_doubt && !was_primary)?;
        self.touch(node, |node, setup| node.promote(setup, now, term, alone))
    }
}
