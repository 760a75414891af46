//! A primary and a receiver, each on a machine of its own.

use std::ffi::OsStr;
use std::fs;

use journal::offline::Log;

use super::drives::Fate;
use super::machine::{Machine, Room};
use crate::checker::Checker;
use crate::kills::{Dice, until};
use crate::nodes::{Daemon, Feed, primary_args};
use crate::support::{run, towline};

/// Fed in one go these fit into the pipe to `append`: the feeder never waits for a node that is gone.
pub(super) const LINES: u64 = 120;
/// Writes and flushes of the disks before the power is cut. More than the lines need at times: then it is cut at the end.
const STEPS: u64 = 120;
/// Writes and flushes within a start.
const STEPS_OF_A_START: u64 = 30;

/// One of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Primary,
    Receiver,
}

use Side::{Primary, Receiver};

/// Who loses the power, at one instant.
pub(super) const VICTIMS: [&[Side]; 3] = [&[Primary], &[Receiver], &[Primary, Receiver]];

/// A node and the machine under it.
pub(super) struct Node<'r> {
    pub(super) machine: Machine<'r>,
    pub(super) daemon: Option<Daemon>,
}

/// The two.
pub(super) struct Pair<'r> {
    room: &'r Room,
    mode: &'static str,
    level: &'static str,
    pub(super) primary: Node<'r>,
    pub(super) receiver: Node<'r>,
    listen: String,
    pub(super) checker: Checker,
}

impl<'r> Pair<'r> {
    /// Two new machines, and a stream of that mode between them whose writers wait for `level`.
    pub(super) fn start(room: &'r Room, kind: &'static str, mode: &'static str, level: &'static str) -> Pair<'r> {
        let mut pair = Pair::down(room, kind, mode, level);
        pair.switch_on(Receiver);
        pair.switch_on(Primary);
        pair.wait("in-sync");
        pair
    }

    /// The same before anything was started.
    pub(super) fn down(room: &'r Room, kind: &'static str, mode: &'static str, level: &'static str) -> Pair<'r> {
        let node = || Node { machine: Machine::new(room, kind), daemon: None };
        let (primary, receiver, listen) = (node(), node(), "127.0.0.1:0".to_owned());
        Pair { room, mode, level, primary, receiver, listen, checker: Checker::default() }
    }

    pub(super) fn node(&self, side: Side) -> &Node<'r> {
        match side {
            Primary => &self.primary,
            Receiver => &self.receiver,
        }
    }

    fn node_mut(&mut self, side: Side) -> &mut Node<'r> {
        match side {
            Primary => &mut self.primary,
            Receiver => &mut self.receiver,
        }
    }

    /// Starts the node of a machine that is up.
    pub(super) fn switch_on(&mut self, side: Side) {
        let daemon = self.start_node(side, &self.listen).unwrap_or_else(|said| panic!("{said:?}"));
        if side == Receiver {
            // the port that it was given the first time is its own from then on
            self.listen = daemon.listen().to_owned();
        }
        self.node_mut(side).daemon = Some(daemon);
    }

    /// Starts the receiver where its primary doesn't look for it.
    pub(super) fn switch_on_elsewhere(&mut self) {
        let daemon = self.start_node(Receiver, "127.0.0.1:0");
        self.receiver.daemon = Some(daemon.unwrap_or_else(|said| panic!("{said:?}")));
    }

    fn start_node(&self, side: Side, listen: &str) -> Result<Daemon, (i32, String)> {
        let machine = &self.node(side).machine;
        machine.step_in();
        let data = machine.data();
        match side {
            Primary => Daemon::try_start(towline(primary_args(&data, &["--to", &self.listen, "--mode", self.mode]))),
            Receiver => {
                let flags = ["receiver", "--listen", listen, "--data"].map(OsStr::new);
                Daemon::try_start(towline(flags.into_iter().chain([data.as_os_str()])))
            }
        }
    }

    /// Lines are appended, and in the middle of it the power of `victims` is cut: what was acknowledged before that
    /// instant counts from now on. The machines of the victims are down afterwards; somebody who isn't one goes on.
    pub(super) fn cut_under_load(&mut self, victims: &[Side], dice: &mut Dice) -> Feed {
        let from = self.checker.len();
        let mut feed = Feed::start(&self.primary.machine.data(), self.level);
        self.arm(victims, dice.below(STEPS));
        for line in 1..=LINES {
            feed.line(&self.checker.next_line());
            if dice.below(3) == 0 {
                // no further ahead than some lines: else all of them are one group
                let ahead = dice.below(8);
                until(|| feed.last().count + ahead >= line || self.room.drives().are_cut());
            }
        }
        self.strike(victims);
        self.checker.acknowledge(from, feed.last().count);
        feed
    }

    /// No more lines, and `append` ends. What it was told.
    pub(super) fn finish(&mut self, feed: Feed) -> (u64, i32) {
        let (acked, code) = feed.finish();
        self.checker.acknowledge(self.checker.len() - LINES as usize, acked.count);
        (acked.count, code)
    }

    /// Cuts the power now.
    pub(super) fn cut(&mut self, victims: &[Side]) {
        self.arm(victims, u64::MAX);
        self.strike(victims);
    }

    /// Does something with a node (given its data folder) while its power is cut, or right before it is.
    pub(super) fn cut_during<T>(&mut self, side: Side, steps: u64, doing: impl FnOnce(&str) -> T) -> T {
        self.arm(&[side], steps);
        let done = doing(&self.data(side));
        self.strike(&[side]);
        done
    }

    /// Starts a node, and cuts the power of the other one while the two meet, or when they have.
    pub(super) fn cut_during_start(&mut self, victim: Side, started: Side, dice: &mut Dice) {
        self.arm(&[victim], dice.below(STEPS_OF_A_START));
        self.switch_on(started);
        let data = self.data(victim);
        until(|| self.room.drives().are_cut() || run(["status", "log", "--data", &data]).code == 0);
        self.strike(&[victim]);
    }

    fn arm(&self, victims: &[Side], steps: u64) {
        let nodes: Vec<_> = victims.iter().map(|&side| self.node(side)).collect();
        let nodes: Vec<_> = nodes.iter().map(|node| (&node.machine, node.daemon.as_ref())).collect();
        self.room.cut_after(steps, &nodes);
    }

    /// The power goes now, if it isn't gone, and the nodes with it.
    fn strike(&mut self, victims: &[Side]) {
        self.room.drives().cut();
        victims.iter().for_each(|&side| self.kill(side));
    }

    /// `kill -9`, where a node runs.
    pub(super) fn kill(&mut self, side: Side) {
        if let Some(daemon) = self.node_mut(side).daemon.take() {
            daemon.kill();
        }
    }

    /// Ends a node in good order.
    pub(super) fn stop(&mut self, side: Side) {
        assert_eq!(self.node_mut(side).daemon.take().map(Daemon::stop), Some(0));
    }

    /// The machine is up again, its node not started yet.
    pub(super) fn reboot(&mut self, side: Side, fate: Fate, dice: &mut Dice) {
        self.node_mut(side).machine.reboot(fate, dice);
    }

    /// The node is started, and in the middle of its start, or a little later, the power is cut again. Nobody else may
    /// be up.
    pub(super) fn stumble(&mut self, side: Side, dice: &mut Dice) {
        self.room.cut_after(dice.below(STEPS_OF_A_START), &[(&self.node(side).machine, None)]);
        let started = self.start_node(side, &self.listen);
        self.room.drives().cut();
        started.unwrap_or_else(|said| panic!("{said:?}")).kill();
        self.reboot(side, Fate::any(dice), dice);
    }

    pub(super) fn wait(&self, what: &str) {
        let data = self.data(Primary);
        run(["wait", "log", "--for", what, "--timeout", "60s", "--data", &data]).expect(0);
    }

    pub(super) fn data(&self, side: Side) -> String {
        self.node(side).machine.data().display().to_string()
    }

    /// How the stream is there, as the node itself says.
    pub(super) fn status(&self, side: Side) -> serde_json::Value {
        let status = run(["status", "log", "--json", "--data", &self.data(side)]).expect(0).stdout;
        let mut status: serde_json::Value = serde_json::from_str(&status).unwrap();
        status["streams"][0].take()
    }

    /// Waits until the node has that role.
    pub(super) fn wait_role(&self, side: Side, role: &str) {
        until(|| self.status(side)["role"] == role);
    }

    /// Waits until the receiver shows everything that the primary has.
    pub(super) fn wait_applied(&self) {
        let end = &self.status(Primary)["at"]["durable"];
        until(|| self.status(Receiver)["at"]["applied"] == *end);
    }

    /// What lies on a machine whose node isn't running is whole. All that was acknowledged is in it, if `promised`.
    pub(super) fn judge_cold(&self, side: Side, promised: bool) {
        run(["verify", &self.data(side)]).expect(0);
        let text = self.restored(side);
        let whose = format!("{side:?} after the power cut");
        match promised {
            true => self.checker.judge(&whose, &text),
            false => self.checker.judge_part(&whose, &text),
        }
    }

    /// Every record that can be had from there, whether its node is running or not.
    pub(super) fn restored(&self, side: Side) -> String {
        let restored = run(["restore", "log", "--from", &self.data(side), "--to", "-"]);
        // there is nothing to be restored from an empty log
        let code = if self.log(side).is_empty() { 10 } else { 0 };
        restored.expect(code).stdout
    }

    /// The log, byte for byte.
    pub(super) fn log(&self, side: Side) -> Vec<u8> {
        let log = self.cold_log(side);
        let mut entries = log.entries(None).unwrap();
        while entries.next_entry().unwrap().is_some() {}
        let end = entries.tip().lsn;
        let bodies = log.segments().iter().filter(|segment| segment.range.from < end);
        let mut bytes: Vec<u8> = bodies.flat_map(|segment| fs::read(&segment.path).unwrap().split_off(4096)).collect();
        bytes.truncate(end.bytes_since(log.start()) as usize);
        bytes
    }

    /// The log as it lies on the disk.
    pub(super) fn cold_log(&self, side: Side) -> Log {
        Log::open(&self.node(side).machine.data().join("streams/log/journal")).unwrap()
    }
}
