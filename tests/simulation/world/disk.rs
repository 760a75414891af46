//! Disks that stall, fail and forget, and machines that stop.

use journal::Lsn;

use super::{Conn, Event, World};

impl World {
    pub(super) fn begin_sync(&mut self, node: usize) {
        if !self.nodes[node].begin_sync() {
            return;
        }
        self.sync_began[node] = Some(self.now);
        let fails = !self.calm && self.rng.chance(1, 300);
        let stalls = !self.calm && self.rng.chance(1, 150);
        if stalls {
            self.count("sync stalled");
        }
        let delay = if stalls { self.millis(300, 3000) } else { self.micros(50, 4000) };
        let starts = self.nodes[node].starts;
        self.after(delay, Event::SyncEnds { node, starts, fails });
    }

    pub(super) fn sync_ends(&mut self, node: usize, fails: bool) -> Result<(), String> {
        let now = self.now;
        if !fails {
            return self.touch(node, |node, setup| node.end_sync(setup, now));
        }
        let primary = self.nodes[node].is_primary();
        self.count(if primary { "sync failed at the primary" } else { "sync failed at a receiver" });
        self.touch(node, |node, setup| node.fail_sync(setup, now))?;
        if self.nodes[node].process.is_none() {
            self.hang_up(node);
        }
        let delay = self.millis(50, 800);
        // whoever runs the node starts it again
        if self.nodes[node].has_failed() && self.rng.chance(1, 2) {
            self.power_cut(node);
        } else if self.nodes[node].process.is_some() {
            self.kill(node);
        }
        self.after(delay, Event::Start { node });
        Ok(())
    }

    pub(super) fn kill(&mut self, node: usize) {
        self.nodes[node].kill();
        self.hang_up(node);
    }

    /// The kernel closes the connections of a process that died.
    pub(super) fn hang_up(&mut self, node: usize) {
        let conns: Vec<(u64, usize)> = self.conns_of(node);
        for (conn, own) in conns {
            self.end_of(conn, own).open = false;
            if !self.end_of(conn, 1 - own).silent {
                let at = self.later(conn, 1 - own);
                self.at(at, Event::Closed { conn, end: 1 - own });
            }
        }
    }

    /// Nobody tells the others.
    pub(super) fn power_cut(&mut self, node: usize) {
        let at_risk: Vec<Lsn> = self.nodes[node].log.boundaries_at_risk().collect();
        let keep = *self.rng.pick(&at_risk);
        if keep < self.nodes[node].log.tip().lsn {
            self.count("tail lost in a power cut");
        }
        self.nodes[node].power_cut(keep);
        for (conn, own) in self.conns_of(node) {
            self.end_of(conn, own).open = false;
            self.end_of(conn, 1 - own).silent = true;
        }
    }

    pub(super) fn conns_of(&self, node: usize) -> Vec<(u64, usize)> {
        let of = |(number, conn): (&u64, &Conn)| {
            (0..2).find(|&at| conn.ends[at].node == node && conn.ends[at].open).map(|at| (*number, at))
        };
        self.conns.iter().filter_map(of).collect()
    }
}
