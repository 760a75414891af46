//! The core of one peer by itself: what it must do at once, and what must count for nothing.

use journal::{Epoch, Geometry, History, Opening, StreamId, Term, Time};
use wire::{Announce, Mode, NodeInfo, PROTOCOL, Start};

use super::*;

fn lsn(at: u64) -> Lsn {
    Lsn::new(at)
}

/// Chains of the one history in these tests.
fn place(at: u64) -> Place {
    Place { lsn: lsn(at), chain: Chain::from_u64(at * 31 + 7) }
}

fn greeting(node: u8, term: u32, end: u64) -> Greeting {
    let opening = Opening {
        epoch: Epoch { term: Term(1), run: 1 },
        term_id: 11,
        run_id: 12,
        node: NodeId::from_bytes([1; 16]),
        first: Lsn::ZERO,
        chain_in: Chain::from_u64(1),
    };
    let openings = if end > 0 { vec![opening] } else { Vec::new() };
    Greeting {
        protocol: PROTOCOL,
        stream: StreamId::from_bytes([9; 16]),
        stream_name: "log".into(),
        geometry: Geometry::default(),
        node: NodeInfo { id: NodeId::from_bytes([node; 16]), name: format!("n{node}"), start_id: 1, boot_id: [0; 16] },
        mode: Mode::Async,
        term: TermSeen { term: Term(term), id: u64::from(term) + 10 },
        opened: false,
        history: History::from_openings(openings).unwrap(),
        start: Lsn::ZERO,
        end: place(end),
        durable: lsn(end),
        committed: Lsn::ZERO,
        applied: Lsn::ZERO,
        remembers: None,
        clock: Time::ZERO,
    }
}

fn actions(peer: &mut Peer) -> Vec<Action> {
    std::iter::from_fn(|| peer.poll_action()).collect()
}

/// A peer in the middle of the greetings, on connection 1 and session 77.
fn greeted(own_end: u64) -> (Peer, Instant) {
    let now = Instant::now();
    let mut peer = Peer::new(now, PeerOptions { window_bytes: 1000, ..PeerOptions::new("b", Mode::Sync) });
    peer.handle_timeout(now);
    assert_eq!(actions(&mut peer), [Action::Connect { link: 1 }]);
    peer.handle_connected(now, 1, 77, greeting(1, 1, own_end));
    assert!(matches!(&actions(&mut peer)[..], [Action::Send { link: 1, message: Message::Greeting(_) }]));
    (peer, now)
}

/// A peer that streams from `end` on.
fn streaming(own_end: u64, end: u64) -> (Peer, Instant) {
    let (mut peer, now) = greeted(own_end);
    peer.handle_greeting(now, 1, &greeting(2, 1, end), None);
    assert_eq!(actions(&mut peer), [Action::Look { link: 1, at: lsn(end) }]);
    peer.handle_looked(now, 1, lsn(end), Some(place(end).chain));
    assert!(matches!(
        &actions(&mut peer)[..],
        [Action::Send { message: Message::Start(Start { session: 77, .. }), .. }]
    ));
    assert_eq!(peer.marks(), None, "it doesn't count before it is ready");
    peer.handle_local(now, Local { written: lsn(own_end), ..Local::default() });
    peer.handle_message(now, 1, Message::Ready(Ready { session: 77, end: place(end), durable: Lsn::ZERO }));
    assert_eq!(peer.marks().unwrap().received, lsn(end));
    (peer, now)
}

fn ack(session: u64, received: u64, durable: u64) -> Message {
    let durable = place(durable);
    let ack =
        Ack { session, received: lsn(received), durable: durable.lsn, durable_chain: durable.chain, ..Ack::default() };
    Message::Ack(ack)
}

fn closes(actions: &[Action]) -> bool {
    actions.iter().any(|action| matches!(action, Action::Close { .. }))
}

#[test]
fn sends_inside_the_window_and_goes_on_with_acknowledgements() {
    let (mut peer, now) = streaming(5000, 0);
    let range = LsnRange::new(lsn(0), lsn(1000));
    assert_eq!(actions(&mut peer), [Action::SendEntries { link: 1, session: 77, range }]);
    peer.handle_sent(now, 1, lsn(960));
    assert_eq!(actions(&mut peer), [], "a nearly full window is not filled with crumbs");
    peer.handle_message(now, 1, ack(77, 480, 0));
    let range = LsnRange::new(lsn(960), lsn(1480));
    assert_eq!(actions(&mut peer), [Action::SendEntries { link: 1, session: 77, range }]);
    peer.handle_message(now, 1, ack(77, 960, 480));
    assert_eq!(peer.marks().unwrap().durable, lsn(480));
}

#[test]
fn acknowledgements_of_an_ended_session_or_connection_count_for_nothing() {
    let (mut peer, now) = streaming(5000, 0);
    peer.handle_message(now, 1, ack(76, 480, 480));
    assert_eq!(peer.marks().unwrap(), Marks::default());
    peer.handle_disconnected(now, 1, "reset");
    assert_eq!(peer.marks(), None, "marks end with their connection");
    peer.handle_message(now, 1, ack(77, 480, 480));
    assert_eq!(peer.marks(), None);
}

#[test]
fn an_impossible_acknowledgement_ends_the_connection() {
    for impossible in [ack(77, 5008, 0), ack(77, 480, 960)] {
        let (mut peer, now) = streaming(5000, 0);
        peer.handle_message(now, 1, impossible);
        assert!(closes(&actions(&mut peer)));
        assert_eq!(peer.marks(), None);
    }
}

#[test]
fn an_acknowledgement_before_entries_flow_is_not_lost() {
    let (mut peer, now) = greeted(480);
    peer.handle_greeting(now, 1, &greeting(2, 1, 960), None);
    peer.handle_message(now, 1, Message::Ready(Ready { session: 77, end: place(960), durable: lsn(480) }));
    // it takes back the tail; meanwhile the receiver's sync returns, and it has nothing more to say
    peer.handle_message(now, 1, ack(77, 960, 960));
    peer.handle_message(now, 1, Message::Entries { session: 77, at: lsn(480), bytes: vec![0; 480].into() });
    assert!(actions(&mut peer).iter().any(|action| matches!(action, Action::Extend { .. })));
    assert_eq!(peer.marks(), None, "the take-back is not done");
    peer.handle_extended(now, 1, place(960));
    assert_eq!(peer.marks().unwrap().durable, lsn(960));
}

#[test]
fn a_run_that_is_opened_ends_a_take_back() {
    let (mut peer, now) = greeted(480);
    peer.handle_greeting(now, 1, &greeting(2, 1, 960), None);
    actions(&mut peer);
    peer.handle_local(now, Local { opened: true, ..Local::default() });
    assert!(closes(&actions(&mut peer)));
}

#[test]
fn another_history_is_refused_before_anything_flows() {
    let (mut peer, now) = greeted(5000);
    peer.handle_greeting(now, 1, &greeting(2, 1, 480), None);
    actions(&mut peer);
    peer.handle_looked(now, 1, lsn(480), Some(Chain::from_u64(1)));
    let actions = actions(&mut peer);
    let refused =
        |action: &Action| matches!(action, Action::Send { message: Message::Refused(Refusal::Diverged { .. }), .. });
    assert!(actions.iter().any(refused) && closes(&actions), "{actions:?}");
    assert!(matches!(peer.state(), PeerState::Refused(Refusal::Diverged { .. })));
}

#[test]
fn a_higher_term_fences_and_nothing_is_dialled_again() {
    let by = TermSeen { term: Term(2), id: 12 };
    let (mut greeted, now) = greeted(480);
    greeted.handle_greeting(now, 1, &greeting(2, 2, 480), None);
    let (mut told, _) = streaming(480, 480);
    let primary = TermSeen { term: Term(1), id: 11 };
    told.handle_message(now, 1, Message::Refused(Refusal::Fenced { primary, receiver: by }));
    for mut peer in [greeted, told] {
        assert!(actions(&mut peer).contains(&Action::Fence { by }));
        assert_eq!((peer.state(), peer.marks(), peer.poll_timeout()), (PeerState::Fenced { by }, None, None));
    }
}

#[test]
fn a_term_that_is_not_higher_fences_nobody() {
    let (mut peer, now) = streaming(480, 480);
    let same = TermSeen { term: Term(1), id: 11 };
    peer.handle_message(now, 1, Message::Refused(Refusal::Fenced { primary: same, receiver: same }));
    assert!(!actions(&mut peer).iter().any(|action| matches!(action, Action::Fence { .. })));
}

#[test]
fn silence_is_death_and_a_long_sync_is_a_stall() {
    let (mut peer, now) = streaming(480, 480);
    let dead_after = peer.options().dead_after;
    let later = now + dead_after - Duration::from_millis(1);
    peer.handle_message(later, 1, Message::Alive(Alive { sync_ms: 6000, full: false }));
    peer.handle_timeout(now + dead_after);
    assert_eq!(peer.state(), PeerState::Stalled { sync_ms: 6000 });
    peer.handle_message(later, 1, Message::Alive(Alive { sync_ms: 0, full: true }));
    assert_eq!(peer.state(), PeerState::Full);
    actions(&mut peer);
    peer.handle_timeout(later + dead_after);
    assert!(closes(&actions(&mut peer)));
    assert!(matches!(peer.state(), PeerState::Unreachable { .. }));
}

#[test]
fn waits_longer_after_every_failure_up_to_a_bound() {
    let (mut peer, mut now) = greeted(0);
    let mut longest = Duration::ZERO;
    for link in 1..13 {
        peer.handle_disconnected(now, link, "reset");
        let due = peer.poll_timeout().unwrap();
        let waits = due.duration_since(now);
        assert!(waits <= peer.options().retry_max && waits * 4 >= longest * 3, "{waits:?} after {longest:?}");
        longest = longest.max(waits);
        now = due;
        peer.handle_timeout(now);
        assert!(actions(&mut peer).contains(&Action::Connect { link: link + 1 }));
    }
    assert!(longest >= peer.options().retry_max * 3 / 4);
}

#[test]
fn lost_durable_data_is_reported_if_its_chain_stands_in_our_log() {
    let reports = |own_chain: Chain| {
        let (mut peer, now) = greeted(5000);
        peer.handle_greeting(now, 1, &greeting(2, 1, 480), Some(place(960)));
        assert!(actions(&mut peer).contains(&Action::Look { link: 1, at: lsn(960) }));
        peer.handle_looked(now, 1, lsn(960), Some(own_chain));
        let notice = Notice::LostDurable { acknowledged: place(960), end: lsn(480) };
        actions(&mut peer).contains(&Action::Report(notice))
    };
    assert!(reports(place(960).chain));
    assert!(!reports(Chain::from_u64(1)), "our own log was cut since: nothing is owed there");
}

#[test]
fn durable_acknowledgements_are_remembered_only_with_a_matching_chain() {
    let (mut peer, now) = streaming(5000, 0);
    peer.handle_sent(now, 1, lsn(960));
    peer.handle_message(now, 1, ack(77, 960, 960));
    assert!(actions(&mut peer).contains(&Action::Look { link: 1, at: lsn(960) }));
    let mut other = peer.clone();
    peer.handle_looked(now, 1, lsn(960), Some(place(960).chain));
    assert!(
        matches!(&actions(&mut peer)[..], [Action::Remember { place: remembered, .. }] if *remembered == place(960))
    );
    assert_eq!(peer.remembered(), Some(place(960)));
    other.handle_looked(now, 1, lsn(960), None);
    assert!(closes(&actions(&mut other)));
    assert_eq!((other.remembered(), other.marks()), (None, None));
}

#[test]
fn announcements_are_spaced_and_the_last_one_is_not_forgotten() {
    let (mut peer, now) = streaming(480, 480);
    let announced = |peer: &mut Peer| {
        let sent = actions(peer).into_iter().filter_map(|action| match action {
            Action::Send { message: Message::Announce(Announce { committed, .. }), .. } => Some(committed),
            _ => None,
        });
        sent.collect::<Vec<Lsn>>()
    };
    let local = |committed| Local { written: lsn(480), committed: lsn(committed), ..Local::default() };
    peer.handle_local(now, local(96));
    assert_eq!(announced(&mut peer), [lsn(96)]);
    peer.handle_local(now, local(192));
    peer.handle_local(now, local(288));
    assert_eq!(announced(&mut peer), []);
    let due = now + peer.options().announce_every;
    assert_eq!(peer.poll_timeout(), Some(due));
    peer.handle_timeout(due);
    assert_eq!(announced(&mut peer), [lsn(288)]);
}
