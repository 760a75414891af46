//! The intake by itself: what must be durable before what leaves, and what must count for nothing.

use std::time::Duration;

use journal::{
    Draft, Epoch, EpochEntry, Flags, Geometry, History, Kind, LsnRange, Reason, StreamId, Term, Time, crc32c,
};
use wire::{Ack, Mode, NodeInfo, PROTOCOL, Ready, Start};

use super::*;

/// A primary's log: one run, some records.
struct Primary {
    bytes: Vec<u8>,
    tips: Vec<Tip>,
    history: History,
}

/// Proof of a sync in these tests.
struct Synced(Tip);

impl Proof for Synced {
    fn lsn(&self) -> Lsn {
        self.0.lsn
    }

    fn chain(&self) -> Chain {
        self.0.chain
    }
}

fn stream() -> StreamId {
    StreamId::from_bytes([9; 16])
}

fn term(term: u32) -> TermSeen {
    // id 0 belongs to "none yet"
    TermSeen { term: Term(term), id: if term == 0 { 0 } else { u64::from(term) + 10 } }
}

impl Primary {
    fn new(node: u8, epoch: Epoch, records: usize) -> Primary {
        let mut tip = Tip { epoch, run_id: u64::from(node), ..Tip::empty(stream()) };
        let (mut bytes, mut tips) = (Vec::new(), vec![Tip::empty(stream())]);
        let entry = EpochEntry {
            term_id: term(epoch.term.0).id,
            node: NodeId::from_bytes([node; 16]),
            reason: Reason::Created,
            policy: Vec::new(),
        };
        let first = entry.encode(Geometry::default().room(Lsn::ZERO));
        let payloads =
            std::iter::once((Kind::Epoch, first)).chain((0..records).map(|n| (Kind::Data, vec![n as u8; 8])));
        let mut history = History::default();
        for (kind, payload) in payloads {
            let parts = [payload.as_slice()];
            let flags = if kind == Kind::Data { Flags::FIRST.with(Flags::LAST) } else { Flags::NONE };
            let payload_crc = crc32c(&payload);
            let draft = Draft { kind, flags, volume: 0, producer: 0, sequence: 0, parts: &parts, payload_crc };
            let header = draft.lay(&mut tip, Time::from_nanos(1), Lsn::ZERO, &mut bytes);
            if kind == Kind::Epoch {
                assert!(history.push(entry.opening(&header, Chain::seed(stream()))));
            }
            tips.push(tip);
        }
        Primary { bytes, tips, history }
    }

    /// Bytes of the entries from number `from` up to number `to`.
    fn entries(&self, from: usize, to: usize) -> &[u8] {
        &self.bytes[self.tips[from].lsn.get() as usize..self.tips[to].lsn.get() as usize]
    }

    fn greeting(&self, node: u8, seen: u32) -> Greeting {
        let tip = self.tips[self.tips.len() - 1];
        greeting(node, seen, &tip, self.history.clone())
    }
}

fn greeting(node: u8, seen: u32, tip: &Tip, history: History) -> Greeting {
    Greeting {
        protocol: PROTOCOL,
        stream: stream(),
        stream_name: "log".into(),
        geometry: Geometry::default(),
        node: NodeInfo { id: NodeId::from_bytes([node; 16]), name: format!("n{node}"), start_id: 1, boot_id: [0; 16] },
        mode: Mode::Sync,
        term: term(seen),
        opened: true,
        history,
        start: Lsn::ZERO,
        end: Place { lsn: tip.lsn, chain: tip.chain },
        durable: tip.lsn,
        committed: Lsn::ZERO,
        applied: Lsn::ZERO,
        remembers: None,
        clock: Time::ZERO,
    }
}

fn run(term: u32) -> Epoch {
    Epoch { term: Term(term), run: 1 }
}

fn intake(tip: Tip, seen: u32) -> Intake {
    let durable = Place { lsn: tip.lsn, chain: tip.chain };
    let log = Log {
        geometry: Geometry::default(),
        tip,
        durable,
        committed: Lsn::ZERO,
        applied: Lsn::ZERO,
        term: term(seen),
        instead: None,
        in_doubt: false,
        rebuilt: false,
    };
    Intake::new(IntakeOptions::default(), log)
}

fn actions(intake: &mut Intake) -> Vec<Action> {
    std::iter::from_fn(|| intake.poll_action()).collect()
}

fn acks(actions: &[Action]) -> Vec<Ack> {
    let ack = |action: &Action| match action {
        Action::Send { message: Message::Ack(ack), .. } => Some(*ack),
        _ => None,
    };
    actions.iter().filter_map(ack).collect()
}

fn says(actions: &[Action], wanted: impl Fn(&Message) -> bool) -> bool {
    actions.iter().any(|action| matches!(action, Action::Send { message, .. } if wanted(message)))
}

/// An empty receiver on connection 1 that streams in session 5.
fn streaming(primary: &Primary, seen: u32) -> (Intake, Instant) {
    let now = Instant::now();
    let empty = Tip::empty(stream());
    let mut intake = intake(empty, seen);
    // a primary that greets before it opens its first run has nothing to show yet
    let theirs = if seen == 0 { greeting(1, 0, &empty, History::default()) } else { primary.greeting(1, seen) };
    intake.handle_greeting(now, 1, theirs, greeting(2, seen, &empty, History::default()));
    actions(&mut intake);
    let from = Place { lsn: empty.lsn, chain: empty.chain };
    let start = Start { session: 5, agreement: Agreement::Stream { from } };
    intake.handle_message(now, 1, Message::Start(start));
    let ready = actions(&mut intake);
    assert!(says(&ready, |message| matches!(message, Message::Ready(Ready { session: 5, .. }))), "{ready:?}");
    (intake, now)
}

fn write(intake: &mut Intake, now: Instant, primary: &Primary, from: usize, to: usize) {
    match intake.verify(now, 1, 5, primary.tips[from].lsn, primary.entries(from, to)) {
        Found::Write { run, .. } => intake.handle_written(*run.last()),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_higher_term_is_durable_before_the_greeting_is_answered() {
    let primary = Primary::new(1, run(3), 2);
    let empty = Tip::empty(stream());
    let mut intake = intake(empty, 2);
    intake.handle_greeting(Instant::now(), 1, primary.greeting(1, 3), greeting(2, 2, &empty, History::default()));
    assert_eq!(actions(&mut intake), [Action::SeeTerm { link: 1, term: term(3) }]);
    intake.handle_term_seen(1, term(3));
    assert!(says(&actions(&mut intake), |message| matches!(message, Message::Greeting(own) if own.term == term(3))));
}

#[test]
fn an_older_term_is_told_so_and_the_session_that_runs_goes_on() {
    let primary = Primary::new(1, run(3), 2);
    let (mut intake, now) = streaming(&primary, 3);
    let old = Primary::new(4, run(2), 1);
    intake.handle_greeting(now, 2, old.greeting(4, 2), greeting(2, 3, &Tip::empty(stream()), History::default()));
    let told = actions(&mut intake);
    assert!(says(&told, |message| matches!(message, Message::Greeting(_))));
    assert!(says(&told, |message| matches!(message, Message::Refused(Refusal::Fenced { .. }))));
    assert!(told.contains(&Action::Close { link: 2, reason: "refused".into() }));
    assert_eq!(intake.fed_by(), Some(NodeId::from_bytes([1; 16])));
}

#[test]
fn received_is_said_before_the_sync_and_durable_only_with_its_proof() {
    let primary = Primary::new(1, run(1), 4);
    let (mut intake, now) = streaming(&primary, 1);
    write(&mut intake, now, &primary, 0, 2);
    write(&mut intake, now, &primary, 2, 3);
    let ordered = actions(&mut intake);
    let generation = intake.generation();
    assert!(
        matches!(&ordered[..], [Action::Send { message: Message::Ack(ack), .. }, Action::Sync { .. }]
            if ack.received == primary.tips[3].lsn && ack.durable == Lsn::ZERO),
        "one acknowledgement and one sync for all that was written: {ordered:?}"
    );
    // more arrives during the sync: it is received, and the next sync is ordered when this one is back
    write(&mut intake, now, &primary, 3, 4);
    assert_eq!(acks(&actions(&mut intake)).len(), 1);
    intake.handle_durable(generation, &Synced(primary.tips[3]));
    let ordered = actions(&mut intake);
    assert_eq!(acks(&ordered)[0].durable, primary.tips[3].lsn);
    assert_eq!(acks(&ordered)[0].durable_chain, primary.tips[3].chain);
    assert!(ordered.contains(&Action::Sync { generation }));
}

#[test]
fn a_cut_is_answered_when_it_is_durable_and_a_sync_from_before_counts_for_nothing() {
    let newer = Primary::new(1, run(2), 2);
    let older = Primary::new(4, run(1), 3);
    let now = Instant::now();
    let end = older.tips[4];
    let mut intake = intake(end, 1);
    let stale = intake.generation();
    let own = greeting(2, 1, &end, older.history.clone());
    intake.handle_greeting(now, 1, newer.greeting(1, 2), own.clone());
    intake.handle_term_seen(1, term(2));
    actions(&mut intake);
    let tail = LsnRange::new(Lsn::ZERO, end.lsn);
    let start = Start { session: 5, agreement: Agreement::Cut { to: Lsn::ZERO, tail } };
    intake.handle_message(now, 1, Message::Start(start));
    assert_eq!(actions(&mut intake), [Action::Cut { link: 1, to: Lsn::ZERO }], "not ready before the cut is durable");
    // nobody knows where the log ends until it is done
    intake.handle_greeting(now, 2, newer.greeting(1, 2), own);
    assert!(says(&actions(&mut intake), |message| *message == Message::Refused(Refusal::Busy)));

    intake.handle_cut(1, Tip::empty(stream()));
    assert!(says(
        &actions(&mut intake),
        |message| matches!(message, Message::Ready(ready) if ready.durable == Lsn::ZERO)
    ));
    write(&mut intake, now, &newer, 0, 3);
    intake.handle_durable(stale, &Synced(newer.tips[3]));
    assert!(acks(&actions(&mut intake)).iter().all(|ack| ack.durable == Lsn::ZERO));
}

#[test]
fn entries_that_do_not_continue_the_log_end_the_session() {
    let primary = Primary::new(1, run(1), 4);
    let flipped = |at: usize| {
        let mut bytes = primary.entries(0, 2).to_vec();
        bytes[at] ^= 1;
        bytes
    };
    let whole = primary.entries(0, 2).to_vec();
    let cases: [(&str, usize, Vec<u8>); 5] = [
        ("a gap", 1, primary.entries(1, 2).to_vec()),
        ("another place", 0, primary.entries(1, 2).to_vec()),
        ("a flipped header", 0, flipped(20)),
        ("a flipped payload", 0, flipped(whole.len() - 8)),
        ("half an entry", 0, whole[..whole.len() - 8].to_vec()),
    ];
    for (case, from, bytes) in cases {
        let (mut intake, now) = streaming(&primary, 1);
        assert!(matches!(intake.verify(now, 1, 5, primary.tips[from].lsn, &bytes), Found::Refused), "{case}");
        let ended = actions(&mut intake);
        assert!(ended.iter().any(|action| matches!(action, Action::Close { link: 1, .. })), "{case}");
        assert_eq!((intake.log().tip.lsn, intake.fed_by()), (Lsn::ZERO, None), "{case}");
    }
}

#[test]
fn entries_of_an_ended_session_count_for_nothing() {
    let primary = Primary::new(1, run(1), 4);
    let (mut intake, now) = streaming(&primary, 1);
    assert!(matches!(intake.verify(now, 1, 4, Lsn::ZERO, primary.entries(0, 2)), Found::Nothing));
    intake.handle_disconnected(1);
    assert!(matches!(intake.verify(now, 1, 5, Lsn::ZERO, primary.entries(0, 2)), Found::Nothing));
}

#[test]
fn a_term_that_begins_in_the_entries_is_named_first_and_a_foreign_one_refused() {
    let primary = Primary::new(1, run(1), 2);
    let (mut intake, now) = streaming(&primary, 0);
    match intake.verify(now, 1, 5, Lsn::ZERO, primary.entries(0, 2)) {
        Found::Write { term: named, .. } => assert_eq!(named, Some(term(1))),
        other => panic!("{other:?}"),
    }
    // the same number with another id: two were promoted
    let (mut intake, now) = streaming(&primary, 0);
    intake.log.term = TermSeen { term: Term(1), id: 99 };
    assert!(matches!(intake.verify(now, 1, 5, Lsn::ZERO, primary.entries(0, 2)), Found::Refused));
    assert!(says(&actions(&mut intake), |message| matches!(message, Message::Refused(Refusal::SplitBrain { .. }))));
}

#[test]
fn the_replica_is_bounded_by_what_is_committed_and_durable_here() {
    let primary = Primary::new(1, run(1), 4);
    let (mut intake, now) = streaming(&primary, 1);
    let applies = |intake: &mut Intake| {
        let to = actions(intake).into_iter().filter_map(|action| match action {
            Action::Apply { to } => Some(to),
            _ => None,
        });
        to.collect::<Vec<Lsn>>()
    };
    let announce = |session, committed| Message::Announce(Announce { session, committed, ..Announce::default() });
    intake.handle_message(now, 1, announce(5, primary.tips[4].lsn));
    write(&mut intake, now, &primary, 0, 3);
    assert_eq!(applies(&mut intake), [], "nothing is durable here");
    intake.handle_durable(0, &Synced(primary.tips[2]));
    assert_eq!(applies(&mut intake), [primary.tips[2].lsn]);
    // what was announced beyond the own log is forgotten with the connection
    intake.handle_disconnected(1);
    intake.handle_durable(0, &Synced(primary.tips[3]));
    assert_eq!(applies(&mut intake), [primary.tips[3].lsn]);
    assert_eq!(intake.log().committed, primary.tips[3].lsn);
    intake.handle_message(now, 1, announce(5, Lsn::MAX));
    assert_eq!(applies(&mut intake), [], "an announcement of an ended connection");
}

#[test]
fn doubt_ends_when_the_primarys_end_is_reached_and_before_that_is_acknowledged() {
    let primary = Primary::new(1, run(1), 4);
    let (mut intake, now) = streaming(&primary, 1);
    (intake.log.in_doubt, intake.log.rebuilt) = (true, true);
    write(&mut intake, now, &primary, 0, 3);
    assert!(!actions(&mut intake).contains(&Action::Settle));
    assert!(intake.in_doubt());
    write(&mut intake, now, &primary, 3, 5);
    assert!(matches!(&actions(&mut intake)[..], [Action::Settle, Action::Send { message: Message::Ack(_), .. }]));
    assert!(!intake.in_doubt() && !intake.log.rebuilt);
}

/// It may have forgotten a higher term: a primary at its start gate must not take its answer for "there is none".
#[test]
fn a_rebuilt_receiver_answers_for_no_start_and_follows_who_is_open() {
    let primary = Primary::new(1, run(1), 4);
    let (mut intake, now) = streaming(&primary, 1);
    intake.log.in_doubt = true;
    intake.log.rebuilt = true;
    intake.handle_disconnected(1);
    let own = || greeting(2, 1, &Tip::empty(stream()), History::default());
    intake.handle_greeting(now, 2, Greeting { opened: false, ..primary.greeting(1, 1) }, own());
    let told = actions(&mut intake);
    assert!(says(&told, |message| matches!(message, Message::Refused(Refusal::Unable { .. }))), "{told:?}");
    assert!(!says(&told, |message| matches!(message, Message::Greeting(_))), "a greeting would count: {told:?}");
    intake.handle_greeting(now, 3, primary.greeting(1, 1), own());
    let told = actions(&mut intake);
    assert!(says(&told, |message| matches!(message, Message::Greeting(_))), "{told:?}");
    assert!(intake.log.rebuilt && intake.in_doubt());
    // what a higher term says is believed at once
    intake.handle_greeting(now, 4, Greeting { opened: false, ..primary.greeting(1, 0) }, own());
    assert!(says(&actions(&mut intake), |message| matches!(message, Message::Refused(Refusal::Fenced { .. }))));
}

#[test]
fn nothing_is_acknowledged_after_a_failed_sync() {
    let primary = Primary::new(1, run(1), 4);
    let (mut intake, now) = streaming(&primary, 1);
    write(&mut intake, now, &primary, 0, 3);
    actions(&mut intake);
    intake.handle_sync_failed("the disk is gone");
    assert!(says(&actions(&mut intake), |message| matches!(message, Message::Refused(Refusal::Unable { .. }))));
    intake.handle_durable(0, &Synced(primary.tips[3]));
    let own = greeting(2, 1, &primary.tips[3], primary.history.clone());
    intake.handle_greeting(now, 2, primary.greeting(1, 1), own);
    let told = actions(&mut intake);
    assert_eq!(acks(&told), []);
    assert!(says(&told, |message| matches!(message, Message::Refused(Refusal::Unable { .. }))));
}

#[test]
fn a_reconnect_replaces_the_old_connection_and_a_stranger_waits() {
    let primary = Primary::new(1, run(1), 2);
    let (mut intake, now) = streaming(&primary, 1);
    let own = greeting(2, 1, &Tip::empty(stream()), History::default());
    intake.handle_greeting(now, 2, primary.greeting(3, 1), own.clone());
    assert!(says(&actions(&mut intake), |message| *message == Message::Refused(Refusal::Busy)));
    assert_eq!(intake.link(), Some(1));
    intake.handle_greeting(now, 3, primary.greeting(1, 1), own);
    assert!(actions(&mut intake).iter().any(|action| matches!(action, Action::Close { link: 1, .. })));
    assert_eq!((intake.link(), intake.fed_by()), (Some(3), None));
}

#[test]
fn a_promoted_node_ends_its_session_and_fences_whom_it_followed() {
    let primary = Primary::new(1, run(1), 2);
    let (mut intake, now) = streaming(&primary, 1);
    intake.retire("the primary", term(2));
    let ended = actions(&mut intake);
    assert!(says(&ended, |message| matches!(message, Message::Refused(Refusal::NotReceiver { .. }))));
    assert!(matches!(intake.verify(now, 1, 5, Lsn::ZERO, primary.entries(0, 2)), Found::Nothing));
    let own = greeting(2, 2, &Tip::empty(stream()), History::default());
    intake.handle_greeting(now, 2, primary.greeting(1, 1), own);
    assert!(says(&actions(&mut intake), |message| matches!(message, Message::Refused(Refusal::Fenced { .. }))));
}

#[test]
fn silence_is_death_and_what_was_applied_is_said_at_leisure() {
    let primary = Primary::new(1, run(1), 2);
    let (mut intake, now) = streaming(&primary, 1);
    let options = IntakeOptions::default();
    intake.handle_applied(primary.tips[1].lsn, Lsn::ZERO);
    assert_eq!(acks(&actions(&mut intake)), []);
    let due = intake.poll_timeout().unwrap();
    assert!(due <= now + options.report_every + Duration::from_millis(1));
    intake.handle_timeout(due);
    assert_eq!(acks(&actions(&mut intake))[0].applied, primary.tips[1].lsn);
    intake.handle_timeout(now + options.dead_after);
    assert!(actions(&mut intake).iter().any(|action| matches!(action, Action::Close { link: 1, .. })));
}
