//! Connections that delay, lose, half close and overtake one another.

use std::collections::VecDeque;
use std::time::Instant;

use wire::Message;

use super::{Conn, End, Event, World};

impl World {
    pub(super) fn dialled(&mut self, node: usize, starts: u64, to: usize, link: u64) -> Result<(), String> {
        if self.nodes[node].starts != starts || self.nodes[node].process.is_none() {
            return Ok(());
        }
        let fails = !self.calm && self.rng.chance(1, 12);
        if fails {
            self.count("dialling failed");
        }
        let up = self.nodes[to].process.is_some() && !self.is_partitioned(node, to) && !fails;
        let now = self.now;
        let conn = up.then(|| {
            self.newest_conn += 1;
            let end = |node: usize, starts| End {
                node,
                starts,
                open: true,
                silent: false,
                queue: VecDeque::new(),
                last: now,
            };
            let ends = [end(node, starts), end(to, self.nodes[to].starts)];
            self.conns.insert(self.newest_conn, Conn { ends, opened: self.newest_conn });
            self.newest_conn
        });
        self.touch(node, |node, setup| node.dialled(setup, now, to, link, conn))
    }

    pub(super) fn post(&mut self, conn: u64, end: usize, message: Message) {
        let [a, b] = [0, 1].map(|at| self.end_of(conn, at).node);
        if self.is_partitioned(a, b) {
            self.end_of(conn, end).silent = true;
        }
        let sender_open = self.end_of(conn, 1 - end).open;
        if self.end_of(conn, end).silent || !sender_open {
            return;
        }
        let message = match self.spoil(conn, message) {
            Some(message) => message,
            None => return,
        };
        self.end_of(conn, end).queue.push_back(message);
        let at = self.later(conn, end);
        self.at(at, Event::Deliver { conn, end });
    }

    /// Now and then a frame is damaged or lost on the way, as no TCP would do it but a broken proxy.
    pub(super) fn spoil(&mut self, conn: u64, message: Message) -> Option<Message> {
        let Message::Entries { session, at, bytes } = message else { return Some(message) };
        if !self.calm && self.rng.chance(1, 150) {
            self.count("frame lost in flight");
            // such a connection doesn't live for ever; nobody is told of the frame if nothing follows it
            let at = self.now + self.millis(300, 3000);
            for end in 0..2 {
                self.at(at, Event::Closed { conn, end });
            }
            return None;
        }
        if !self.calm && self.rng.chance(1, 150) {
            self.count("bits flipped in flight");
            let mut spoiled = bytes.to_vec();
            let place = self.rng.below(spoiled.len() as u64) as usize;
            spoiled[place] ^= 1 << self.rng.below(8);
            return Some(Message::Entries { session, at, bytes: spoiled.into() });
        }
        Some(Message::Entries { session, at, bytes })
    }

    pub(super) fn deliver(&mut self, conn: u64, end: usize) -> Result<(), String> {
        let Some(message) = self.end_of(conn, end).queue.pop_front() else { return Ok(()) };
        let End { node, starts, open, .. } = *self.end_of(conn, end);
        if self.nodes[node].starts != starts || self.nodes[node].process.is_none() {
            return Ok(());
        }
        let from = self.end_of(conn, 1 - end).node;
        let opened = self.conns.get(&conn).map_or(0, |conn| conn.opened);
        let newest = self.heard.entry((node, from)).or_insert(opened);
        if opened < *newest {
            self.count("reordered across connections");
        } else {
            *newest = opened;
        }
        if !open {
            // the driver had read it already when the core closed the connection
            self.count("late message of an ended connection");
        }
        let replaces = matches!(message, Message::Greeting(_))
            && end == 1
            && self.nodes[node].intake().is_some_and(|intake| intake.link().is_some());
        if replaces {
            self.count("connection replaced by a newer one");
        }
        let now = self.now;
        self.touch(node, |node, setup| node.receive(setup, now, conn, message))
    }

    /// When something sent now arrives: behind what was sent before on the same connection.
    pub(super) fn later(&mut self, conn: u64, end: usize) -> Instant {
        let delay = match self.rng.below(if self.calm { 1 } else { 300 }) {
            1..8 => self.millis(5, 400),
            8 | 9 => self.millis(400, 4000), // longer than a connection without a sign of life is kept
            _ => self.micros(20, 2000),
        };
        let now = self.now;
        let end = self.end_of(conn, end);
        end.last = end.last.max(now + delay);
        end.last
    }

    pub(super) fn end_of(&mut self, conn: u64, end: usize) -> &mut End {
        &mut self.conns.get_mut(&conn).expect("connections are never forgotten").ends[end]
    }

    pub(super) fn other_end(&self, conn: u64, from: usize) -> Option<usize> {
        let conn = self.conns.get(&conn)?;
        let own = (0..2).find(|&at| conn.ends[at].node == from)?;
        conn.ends[own].open.then_some(1 - own)
    }

    pub(super) fn is_partitioned(&self, a: usize, b: usize) -> bool {
        let cut =
            |(x, y, until): &(usize, usize, Instant)| ((*x, *y) == (a, b) || (*x, *y) == (b, a)) && self.now < *until;
        self.partitioned.iter().any(cut)
    }

    pub(super) fn alive(&mut self) -> Result<(), String> {
        self.after(self.setup.dead_after / 5, Event::Alive);
        for node in 0..self.nodes.len() {
            if self.nodes[node].primary().is_some_and(|primary| primary.run.is_none() && !primary.ended) {
                self.count("gate waited");
            }
            if let Some(conn) = self.nodes[node].intake().and_then(|intake| intake.link()) {
                let ms = self.sync_began[node].map_or(0, |began| self.now.duration_since(began).as_millis() as u32);
                self.touch(node, |node, _| node.say_alive(conn, ms))?;
            }
        }
        Ok(())
    }
}
