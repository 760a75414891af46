//! The status for people.

use std::fmt::{self, Display, Formatter};

use super::{DamageStatus, DestinationStatus, Lag, NodeStatus, RoleName, ScrubStatus, State, StreamStatus};

impl Display for NodeStatus {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        writeln!(f, "node {} ({})  pid {}  towline {}", self.node, self.node_id, self.pid, self.version)?;
        writeln!(f, "data {}", self.data.display())?;
        match &self.listen {
            Some(listen) => writeln!(f, "listens on {listen}")?,
            None => writeln!(f, "listens on nothing")?,
        }
        if self.streams.is_empty() {
            writeln!(f, "no streams yet: the first greeting of a primary makes one")?;
        }
        for stream in &self.streams {
            write!(f, "\n{stream}")?;
        }
        Ok(())
    }
}

impl Display for StreamStatus {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let run = self.run.map(|run| format!(".{run}")).unwrap_or_default();
        writeln!(f, "{}: {}, {}, term {}{run}  ({})", self.name, self.role, self.state, self.term, self.id)?;
        if let Some(asked) = &self.mode_asked {
            let in_force = self.mode_in_force.as_deref().unwrap_or("nothing is acknowledged");
            writeln!(f, "  mode         {asked}, in force: {in_force}")?;
        }
        let at = &self.at;
        write!(f, "  here         written {}  durable {}  committed {}", at.written, at.durable, at.committed)?;
        write_some(f, "received", at.received)?;
        write_some(f, "peer-durable", at.peer_durable)?;
        write_some(f, "applied", at.applied)?;
        write_some(f, "checkpoint", at.checkpoint)?;
        write!(f, "  kept from {}", at.start)?;
        writeln!(f, "{}", self.kept_for.as_ref().map(|kept| format!(" for {}", kept.who)).unwrap_or_default())?;
        for destination in &self.destinations {
            write!(f, "{destination}")?;
        }
        if let Some(source) = &self.source {
            let nobody = if source.last_contact_ms.is_some() { "its primary" } else { "nobody yet" };
            let name = source.name.as_deref().unwrap_or(nobody);
            let state = if source.connected { "connected" } else { "not connected" };
            write!(f, "  from         {name}, {state}{}", heard(source.last_contact_ms))?;
            write_some(f, "durable there", source.durable)?;
            writeln!(f)?;
            write_line(f, "last error", source.last_error.as_deref())?;
        }
        if let Some(scrub) = &self.scrub {
            write!(f, "{scrub}")?;
        }
        for waits in &self.waits_for {
            write_line(f, "waits for", Some(waits))?;
        }
        for note in &self.notes {
            write_line(f, "note", Some(note))?;
        }
        write_line(f, "next step", self.next_step.as_deref())
    }
}

impl Display for DestinationStatus {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let required = if self.required { ", required" } else { "" };
        // by flags alone a destination is often called as its address
        let at = if self.at == self.name { String::new() } else { format!(" {}", self.at) };
        write!(f, "  to {:<9} {}{at}, {}{required}: {}", self.name, self.kind, self.mode, self.state)?;
        writeln!(f, "{}", heard(self.last_contact_ms))?;
        let positions = [
            ("received", self.received, self.lag_received),
            (if self.kind == "depot" { "shipped" } else { "durable" }, self.durable, self.lag_durable),
            ("applied", self.applied, self.lag_applied),
        ];
        for (word, at, lag) in positions {
            if let Some(at) = at {
                writeln!(f, "    {word:<10} {at}{}", lag.map(behind).unwrap_or_default())?;
            }
        }
        if let Some(detached) = &self.detached {
            let lacks = detached.lacks.map(|lacks| format!(", lacks what begins at LSN {lacks}")).unwrap_or_default();
            writeln!(f, "    detached   since {}{lacks}", detached.since)?;
        }
        if let Some(due) = &self.next_due {
            writeln!(f, "    next       {due}")?;
        }
        if let Some(early) = &self.cut_early {
            writeln!(f, "    cut early  {early}")?;
        }
        write_line(f, "  error", self.last_error.as_deref())
    }
}

impl Display for ScrubStatus {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let last = self.last_full.as_deref().unwrap_or("never");
        let at = self.at.map(|at| format!(", now at LSN {at}")).unwrap_or_default();
        let off = if self.bytes_per_second == 0 { ", off" } else { "" };
        writeln!(f, "  scrub        last full {last}{at}{off}")?;
        self.damaged.iter().try_for_each(|damage| write_line(f, "DAMAGED", Some(&damage.to_string())))
    }
}

impl Display for DamageStatus {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self.to > self.from {
            true => write!(f, "LSN {}..{}", self.from, self.to)?,
            false => write!(f, "the header of the segment at LSN {}", self.from)?,
        }
        let pruned = if self.pruned { "; pruned since" } else { "" };
        write!(f, " in {}: {}{pruned}", self.path.display(), self.what)
    }
}

impl Display for RoleName {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            RoleName::Primary => "primary",
            RoleName::Receiver => "receiver",
            RoleName::Fenced => "fenced",
        })
    }
}

impl Display for State {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            State::Waiting => "waiting",
            State::Open => "open",
            State::Alone => "alone (going on without a required peer)",
            State::Blocked => "blocked (a required peer is lost; commits wait)",
            State::Following => "following",
            State::Fenced => "fenced (a higher term exists)",
            State::Failed => "failed",
        })
    }
}

fn behind(lag: Lag) -> String {
    if lag.bytes == 0 { "  up to date".into() } else { format!("  {} bytes, {:.1} s behind", lag.bytes, lag.seconds) }
}

fn heard(ms: Option<u64>) -> String {
    ms.map(|ms| format!(", heard {:.1} s ago", ms as f64 / 1000.0)).unwrap_or_default()
}

fn write_some(f: &mut Formatter<'_>, word: &str, at: Option<u64>) -> fmt::Result {
    at.map_or(Ok(()), |at| write!(f, "  {word} {at}"))
}

fn write_line(f: &mut Formatter<'_>, word: &str, text: Option<&str>) -> fmt::Result {
    text.map_or(Ok(()), |text| writeln!(f, "  {word:<12} {text}"))
}

#[cfg(test)]
mod tests {
    use super::super::{KeptFor, SourceStatus, Watermarks};
    use super::*;

    #[test]
    fn what_waits_says_for_whom_and_what_to_do() {
        let stream = StreamStatus {
            name: "log".into(),
            id: "5f…".into(),
            role: RoleName::Primary,
            state: State::Waiting,
            term: 1,
            run: None,
            mode_asked: Some("sync".into()),
            mode_in_force: None,
            at: Watermarks { written: 64, durable: 64, ..Watermarks::default() },
            kept_for: Some(KeptFor { who: "peer b".into(), from: 0 }),
            destinations: vec![DestinationStatus {
                name: "b".into(),
                kind: "peer".into(),
                at: "10.0.0.2:7400".into(),
                mode: "sync".into(),
                required: true,
                state: "connecting".into(),
                durable: Some(32),
                lag_durable: Some(Lag { bytes: 32, seconds: 1.25 }),
                last_error: Some("connection refused".into()),
                ..DestinationStatus::default()
            }],
            source: None,
            in_doubt: false,
            scrub: Some(ScrubStatus { at: Some(32), ..ScrubStatus::default() }),
            waits_for: vec!["b to connect".into()],
            notes: Vec::new(),
            next_step: Some("start b, or: towline promote log --accept-loss".into()),
        };
        assert!(stream.degraded());
        assert_eq!(
            stream.to_string(),
            "log: primary, waiting, term 1  (5f…)\n\
             \x20 mode         sync, in force: nothing is acknowledged\n\
             \x20 here         written 64  durable 64  committed 0  kept from 0 for peer b\n\
             \x20 to b         peer 10.0.0.2:7400, sync, required: connecting\n\
             \x20   durable    32  32 bytes, 1.2 s behind\n\
             \x20   error      connection refused\n\
             \x20 scrub        last full never, now at LSN 32, off\n\
             \x20 waits for    b to connect\n\
             \x20 next step    start b, or: towline promote log --accept-loss\n"
        );
    }

    #[test]
    fn a_receiver_names_its_primary() {
        let source =
            SourceStatus { name: Some("a".into()), connected: true, durable: Some(8), ..SourceStatus::default() };
        let damage = DamageStatus { path: "x.seg".into(), from: 8, to: 96, what: "rot".into(), pruned: true };
        let last_full = Some("2026-11-28T15:41:00Z".into());
        let scrub = ScrubStatus { bytes_per_second: 1, last_full, at: None, damaged: vec![damage] };
        let stream = StreamStatus {
            name: "log".into(),
            id: "5f…".into(),
            role: RoleName::Receiver,
            state: State::Following,
            term: 1,
            run: None,
            mode_asked: None,
            mode_in_force: None,
            at: Watermarks::default(),
            kept_for: None,
            destinations: Vec::new(),
            source: Some(source),
            in_doubt: false,
            scrub: Some(scrub),
            waits_for: Vec::new(),
            notes: Vec::new(),
            next_step: None,
        };
        let node = NodeStatus { node: "b".into(), streams: vec![stream], ..NodeStatus::default() };
        assert!(!node.degraded() && node.damaged());
        let text = node.to_string();
        assert!(text.contains("log: receiver, following, term 1"), "{text}");
        assert!(text.contains("  from         a, connected  durable there 8\n"), "{text}");
        let scrub =
            "  scrub        last full 2026-11-28T15:41:00Z\n  DAMAGED      LSN 8..96 in x.seg: rot; pruned since\n";
        assert!(text.contains(scrub), "{text}");
    }
}
