//! What is said on the control socket: one JSON line each.

use std::fmt;
use std::path::PathBuf;

use journal::Class;
use serde::{Deserialize, Serialize};

use super::shipping::Ship;
use crate::status::NodeStatus;

/// Version of everything this node says in JSON: answers, `--json`, `status`. 1: the first.
pub const SCHEMA: u32 = 1;

/// One request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// [`SCHEMA`] of the client; the node refuses another one.
    pub schema: u32,
    /// What to do.
    pub command: Command,
}

/// What a client may ask for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Command {
    /// Append records; frames follow.
    Append(Append),
    /// Read records; frames come back.
    Tail(TailFrom),
    /// How are you?
    Status(StatusOf),
    /// Wait until something holds.
    Wait(Wait),
    /// Write a named restore point.
    Mark(Mark),
    /// Ship to the depots.
    Ship(Ship),
    /// Keep the log for a restore that reads it.
    Hold(Hold),
    /// Make this node the primary of a stream.
    Promote(Promote),
    /// End the node as TERM does.
    Stop,
}

/// How far a write must have got before it is acknowledged. The order is not a scale: `Received` and `PeerDurable`
/// speak of the required peers, `Committed` is what the stream's modes promise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Level {
    /// In the primary's segment: survives kill -9 of the node.
    Written,
    /// A sync of the primary covers it: survives a power cut of the primary.
    Durable,
    /// Durable here and received by every required peer.
    Received,
    /// Durable here and at every required peer.
    PeerDurable,
    /// Whatever the stream's modes promise.
    Committed,
}

impl Level {
    /// Every level, weakest promise first.
    pub const ALL: [Level; 5] = [Level::Written, Level::Durable, Level::Received, Level::PeerDurable, Level::Committed];

    /// The word for it, on the command line and in JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Level::Written => "written",
            Level::Durable => "durable",
            Level::Received => "received",
            Level::PeerDurable => "peer-durable",
            Level::Committed => "committed",
        }
    }

    /// Reads what [`Level::name`] writes.
    pub fn from_name(name: &str) -> Option<Level> {
        Level::ALL.into_iter().find(|level| level.name() == name)
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Records are to be appended to `stream`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Append {
    /// The stream's name.
    pub stream: String,
    /// What to wait for before a record counts as acknowledged.
    pub wait: Level,
    /// Longest wait for one group; after it the answer is *unknown*. `None`: for ever.
    pub timeout_ms: Option<u64>,
}

/// Records are wanted from `stream`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TailFrom {
    /// The stream's name.
    pub stream: String,
    /// Where to begin.
    pub from: From,
    /// Go on when the end is reached.
    pub follow: bool,
}

/// Where a tail begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum From {
    /// The oldest record still kept.
    Start,
    /// The first record that begins at or above this LSN.
    Lsn(u64),
    /// The first record later than this instant, in nanoseconds since 1970.
    Time(u64),
    /// The end: only what is appended from now on.
    End,
}

/// Keep the log of a stream for a restore, from its beginning on, for as long as this connection lasts. It gives way
/// where there is no room for what is appended: what it comes to then may not be kept any more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hold {
    /// The stream's name.
    pub stream: String,
    /// The process that reads, for people.
    pub pid: u32,
}

/// Answer to `hold`: the log is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Holding {
    /// From here on.
    pub from: u64,
}

/// Which status is wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StatusOf {
    /// One stream by name; `None`: all of them.
    pub stream: Option<String>,
}

/// What a `wait` waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Until {
    /// The start gate is open and every required peer is connected.
    Connected,
    /// Every peer has received all that is durable here.
    InSync,
    /// Durable here, and at every required peer.
    Durable,
    /// In every depot.
    Shipped,
}

impl Until {
    /// Every one.
    pub const ALL: [Until; 4] = [Until::Connected, Until::InSync, Until::Durable, Until::Shipped];

    /// The word for it, on the command line and in JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Until::Connected => "connected",
            Until::InSync => "in-sync",
            Until::Durable => "durable",
            Until::Shipped => "shipped",
        }
    }

    /// Reads what [`Until::name`] writes.
    pub fn from_name(name: &str) -> Option<Until> {
        Until::ALL.into_iter().find(|until| until.name() == name)
    }
}

impl fmt::Display for Until {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Wait until something holds for a position.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Wait {
    /// The stream's name.
    pub stream: String,
    /// For what.
    pub until: Until,
    /// Up to which position; `None`: the end of the log at the moment of asking.
    pub lsn: Option<u64>,
    /// Longest wait; after it the answer is an error of class `unknown`. `None`: for ever.
    pub timeout_ms: Option<u64>,
}

/// Write a named restore point.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mark {
    /// The stream's name.
    pub stream: String,
    /// The name: 1 to 200 bytes of UTF-8 without control characters.
    pub name: String,
    /// What to wait for.
    pub wait: Level,
    /// As in [`Append`].
    pub timeout_ms: Option<u64>,
}

/// Make this node the primary of a stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Promote {
    /// The stream's name.
    pub stream: String,
    /// Go on although something acknowledged may be missing, or peers that would have to be asked can't be.
    pub accept_loss: bool,
    /// Acknowledge nothing before the required peers are connected, instead of opening alone.
    pub wait_for_peer: bool,
}

/// One answer line.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Answer<T> {
    /// It was done; what came of it.
    Ok(T),
    /// It was not, or not as far as is known.
    Error(Failure),
}

/// A line behind the first answer to `append`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Done {
    /// A group is acknowledged; more may follow.
    Acked(Acked),
    /// All that was sent is acknowledged. Nothing follows.
    Done(Acked),
    /// The rest isn't acknowledged, or its outcome is unknown. Nothing follows.
    Error(Failure),
}

/// Records of this call up to here are acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Acked {
    /// Records of this call so far. Cumulative.
    pub count: u64,
    /// End position of the last of them; 0 when there is none.
    pub lsn: u64,
    /// Term of the primary.
    pub term: u32,
    /// Run of the primary within the term.
    pub run: u32,
    /// The level they have reached: the one asked for; for `committed` the one that the promise came to, so that a
    /// degraded acknowledgement can't be taken for a full one.
    pub level: Level,
    /// The primary went on without a required peer: `committed` means less than the modes promise.
    pub alone: bool,
}

/// Why something was not done, and who must act.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// Name of the [`Class`]: decides the exit code.
    pub class: String,
    /// What, where.
    pub message: String,
    /// What to do next.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// Class `unknown`: the position that may or may not be reached. Ask again: `towline wait STREAM --lsn N`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lsn: Option<u64>,
}

impl Failure {
    /// A failure without a hint.
    pub fn new(class: Class, message: impl Into<String>) -> Failure {
        Failure { class: class.name().into(), message: message.into(), hint: None, lsn: None }
    }

    /// The same with what to do next.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Failure {
        self.hint = Some(hint.into());
        self
    }

    /// The same naming a position whose outcome is unknown.
    #[must_use]
    pub fn at(mut self, lsn: journal::Lsn) -> Failure {
        self.lsn = Some(lsn.get());
        self
    }

    /// Who must act. A name that this version doesn't know is `Io`: failed.
    pub fn class(&self) -> Class {
        Class::from_name(&self.class).unwrap_or(Class::Io)
    }
}

/// Answer to `status`.
pub type Status = NodeStatus;

/// Answer to `wait`: it holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reached {
    /// What holds.
    pub until: Until,
    /// Up to where.
    pub lsn: u64,
    /// The primary goes on without a required peer.
    pub alone: bool,
}

/// Answer to `mark`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Marked {
    /// The mark's name.
    pub name: String,
    /// Position behind the mark: restoring to it gives everything before the mark.
    pub lsn: u64,
    /// The level it has reached.
    pub level: Level,
    /// As in [`Acked`].
    pub alone: bool,
}

/// Answer to `promote`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Promoted {
    /// The stream's name.
    pub stream: String,
    /// The new term.
    pub term: u32,
    /// Where this node's log ended: everything below was kept.
    pub end: u64,
    /// Everything below is known to have been committed.
    pub committed: u64,
    /// What may be lost, in words: one line each.
    pub loss: Vec<String>,
    /// The stream acknowledges without a peer from now on.
    pub alone: bool,
}

/// Answer to `tail`: frames follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tailing {
    /// Where the first record is looked for.
    pub from: u64,
}

/// Answer to `stop`: the node is ending.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stopping {
    /// Its process id, to wait for.
    pub pid: u32,
    /// Its data folder.
    pub data: PathBuf,
}

#[cfg(test)]
mod tests {
    use std::fmt::Debug;

    use serde::de::DeserializeOwned;

    use super::super::shipping::{ShipWaits, ShipWhen, Shipped, Shipping};
    use super::*;

    /// The text is read as the value and written from it: docs/FORMAT.md, "Control socket".
    #[track_caller]
    fn stands_for<T: Serialize + DeserializeOwned + Debug>(text: &str, value: &T) {
        assert_eq!(serde_json::to_string(value).expect("it has a text"), text);
        let read: T = serde_json::from_str(text).expect("it is read");
        assert_eq!(format!("{read:?}"), format!("{value:?}"));
    }

    fn request(command: Command) -> Request {
        Request { schema: SCHEMA, command }
    }

    /// Schema 1 as it was first released: a client of it is understood.
    #[test]
    fn schema_one_stays_as_it_is() {
        let stream = || "log".to_owned();
        let append = Append { stream: stream(), wait: Level::PeerDurable, timeout_ms: Some(2000) };
        let text = r#"{"schema":1,"command":{"append":{"stream":"log","wait":"peer-durable","timeout_ms":2000}}}"#;
        stands_for(text, &request(Command::Append(append)));
        let tail = |from| request(Command::Tail(TailFrom { stream: stream(), from, follow: false }));
        let tails = [(From::Start, r#""start""#), (From::Lsn(8), r#"{"lsn":8}"#), (From::Time(9), r#"{"time":9}"#)];
        for (from, text) in tails {
            let text =
                format!(r#"{{"schema":1,"command":{{"tail":{{"stream":"log","from":{text},"follow":false}}}}}}"#);
            stands_for(&text, &tail(from));
        }
        let wait = Wait { stream: stream(), until: Until::InSync, lsn: None, timeout_ms: None };
        let text = r#"{"schema":1,"command":{"wait":{"stream":"log","until":"in-sync","lsn":null,"timeout_ms":null}}}"#;
        stands_for(text, &request(Command::Wait(wait)));
        let promote = Promote { stream: stream(), accept_loss: true, wait_for_peer: false };
        let text = r#"{"schema":1,"command":{"promote":{"stream":"log","accept_loss":true,"wait_for_peer":false}}}"#;
        stands_for(text, &request(Command::Promote(promote)));
        stands_for(r#"{"schema":1,"command":"stop"}"#, &request(Command::Stop));
        let text = r#"{"schema":1,"command":{"hold":{"stream":"log","pid":77}}}"#;
        stands_for(text, &request(Command::Hold(Hold { stream: stream(), pid: 77 })));
        let ship = Ship { stream: None, when: ShipWhen::Next, timeout_ms: Some(5) };
        let text = r#"{"schema":1,"command":{"ship":{"stream":null,"when":"next","timeout_ms":5}}}"#;
        stands_for(text, &request(Command::Ship(ship)));
        let depot = || "night".to_owned();
        let waits = ShipWaits {
            stream: stream(),
            depot: depot(),
            upto: None,
            due: Some(9),
            missing_bytes: Some(4096),
            last_error: Some("gone".into()),
        };
        let text = r#"{"waits":{"stream":"log","depot":"night","upto":null,"due":9,"missing_bytes":4096,"last_error":"gone"}}"#;
        stands_for(text, &Shipping::Waits(waits));
        let shipped =
            |had_nothing| Shipping::Ok(vec![Shipped { stream: stream(), depot: depot(), lsn: 8, had_nothing }]);
        stands_for(r#"{"ok":[{"stream":"log","depot":"night","lsn":8}]}"#, &shipped(false));
        stands_for(r#"{"ok":[{"stream":"log","depot":"night","lsn":8,"had_nothing":true}]}"#, &shipped(true));
        let acked = Acked { count: 2, lsn: 320, term: 1, run: 3, level: Level::Durable, alone: true };
        let text = r#"{"acked":{"count":2,"lsn":320,"term":1,"run":3,"level":"durable","alone":true}}"#;
        stands_for(text, &Done::Acked(acked));
        let failure = Failure::new(Class::Unknown, "late").at(journal::Lsn::new(8));
        let text = r#"{"error":{"class":"unknown","message":"late","lsn":8}}"#;
        stands_for(text, &Answer::<()>::Error(failure));
    }

    #[test]
    fn every_word_is_read_back() {
        for level in Level::ALL {
            assert_eq!(Level::from_name(level.name()), Some(level));
            assert_eq!(serde_json::to_string(&level).expect("a text"), format!("{:?}", level.name()));
        }
        for until in Until::ALL {
            assert_eq!(Until::from_name(until.name()), Some(until));
            assert_eq!(serde_json::to_string(&until).expect("a text"), format!("{:?}", until.name()));
        }
    }

    #[test]
    fn a_class_of_a_later_version_is_a_failure_like_any_other() {
        let failure = Failure { class: "tomorrow".into(), ..Failure::new(Class::Full, "x") };
        assert_eq!(failure.class(), Class::Io);
    }
}
