//! What tells a node from another, and a message.

use journal::{Chain, EpochEntry, HEADER_BYTES, Kind, TermSeen, entry_bytes};
use wire::Message;

use super::sketch::Sketch;
use crate::log::{Control, Log};
use crate::mutant::Mutant;
use crate::node::{Node, Primary, Process, Setup};

impl Sketch {
    pub(super) fn node(&mut self, node: &Node, setup: &Setup) {
        // which boot it is doesn't matter, but whether the power was ever cut, and whether it was settled in this one
        self.flag(node.boot == 1);
        self.log(&node.log);
        self.control(&node.log.control, node.boot);
        self.control(&node.log.control_on_disk, node.boot);
        match &node.process {
            Some(process) => self.process(process, node, setup),
            None => self.word("down"),
        }
    }

    fn log(&mut self, log: &Log) {
        for tip in log.tips() {
            self.number(tip.lsn.get());
            self.chain(tip.chain);
        }
        self.word("tip");
        self.number(log.tip().epoch.term.0.into());
        self.run(log.tip().epoch.run.into());
        for opening in log.history().openings() {
            self.number(opening.first.get());
            self.number(opening.epoch.term.0.into());
            self.run(opening.epoch.run.into());
            self.identity(opening.term_id);
            self.identity(opening.run_id);
            self.number(opening.node.as_bytes()[0].into());
        }
        self.word("log");
        self.number(log.durable().lsn.get());
        self.number(log.on_disk().get());
        // the checker asks only whether there is one
        self.flag(log.branches > 0);
    }

    fn control(&mut self, control: &Control, boot: u64) {
        let Control { role, term, run, committed, applied, settled_boot, remembered } = control;
        self.number(*role as u64);
        self.term(term);
        self.run((*run).into());
        self.number(committed.get());
        self.number(applied.get());
        self.flag(*settled_boot == Some(boot));
        for (node, place) in remembered {
            self.number(node.as_bytes()[0].into());
            self.place(*place);
        }
        self.word("control");
    }

    fn process(&mut self, process: &Process, node: &Node, setup: &Setup) {
        let Process { intake, primary, sync, .. } = process;
        self.debug(intake);
        if let Some((ticket, generation)) = sync {
            self.place(ticket.to);
            self.flag(node.log.is_whole(ticket));
            self.flag(*generation == intake.generation());
        }
        if let Some(primary) = primary {
            self.primary(primary, setup);
        }
    }

    fn primary(&mut self, primary: &Primary, setup: &Setup) {
        let Primary { lanes, gate, run, run_laid, ended, committed, announced, items, local, .. } = primary;
        self.flag(*ended);
        for lane in lanes {
            // what arrives on any of them is the lane's; the last is the newest
            lane.links.values().for_each(|conn| self.identity(*conn));
            self.word("links");
            if !ended {
                self.debug(&lane.peer);
            }
            if setup.mutant != Mutant::None {
                self.number(lane.sent.get());
                self.identity(lane.session);
                self.debug(&lane.acked);
            }
        }
        if *ended {
            return;
        }
        self.debug(gate);
        if let Some((epoch, id)) = run {
            self.number(epoch.term.0.into());
            self.run(epoch.run.into());
            self.identity(*id);
        }
        self.flag(*run_laid);
        self.number(committed.get());
        self.number(announced.get());
        self.debug(local);
        for (_, end, acked) in items {
            self.place(*end);
            acked.iter().for_each(|acked| self.flag(*acked));
        }
    }

    fn term(&mut self, term: &TermSeen) {
        self.number(term.term.0.into());
        self.identity(term.id);
    }

    pub(super) fn message(&mut self, message: &Message) {
        match message {
            Message::Entries { session, at, bytes } => {
                self.word("entries");
                self.identity(*session);
                self.number(at.get());
                self.entries(bytes);
            }
            message => self.debug(message),
        }
    }

    /// The chains stand for the payloads. docs/FORMAT.md has the places.
    fn entries(&mut self, mut bytes: &[u8]) {
        while let Some(header) = bytes.get(..HEADER_BYTES) {
            let word = |at: usize| u32::from_le_bytes(header[at..at + 4].try_into().expect("four bytes"));
            let long = |at: usize| u64::from_le_bytes(header[at..at + 8].try_into().expect("eight bytes"));
            self.number(word(0).into());
            self.number(word(16).into());
            self.run(word(20).into());
            self.identity(long(24));
            self.chain(Chain::from_u64(long(80)));
            let payload = &bytes[HEADER_BYTES..word(0) as usize];
            if header[4] == Kind::Epoch as u8
                && let Some(epoch) = EpochEntry::decode(payload)
            {
                self.identity(epoch.term_id);
            }
            bytes = bytes.get(entry_bytes(payload.len()) as usize..).unwrap_or_default();
        }
    }
}
