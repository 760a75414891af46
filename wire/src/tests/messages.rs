//! Any message: a strategy that makes every kind with every field.

use bytes::Bytes;
use journal::{Chain, Epoch, Geometry, History, Lsn, LsnRange, NodeId, Opening, StreamId, Term, TermSeen, Time, Tip};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

use crate::message::*;

pub(crate) fn lsn() -> impl Strategy<Value = Lsn> {
    any::<u64>().prop_map(Lsn::new)
}

fn chain() -> impl Strategy<Value = Chain> {
    any::<u64>().prop_map(Chain::from_u64)
}

fn place() -> impl Strategy<Value = Place> {
    (lsn(), chain()).prop_map(|(lsn, chain)| Place { lsn, chain })
}

fn term() -> impl Strategy<Value = TermSeen> {
    any::<(u32, u64)>().prop_map(|(term, id)| TermSeen { term: Term(term), id })
}

fn stream() -> impl Strategy<Value = StreamId> {
    any::<[u8; 16]>().prop_map(StreamId::from_bytes)
}

fn node_id() -> impl Strategy<Value = NodeId> {
    any::<[u8; 16]>().prop_map(NodeId::from_bytes)
}

fn geometry() -> impl Strategy<Value = Geometry> {
    (16..31u32).prop_map(|power| Geometry::new(1 << power).expect("a power of two in bounds"))
}

fn name() -> impl Strategy<Value = String> {
    "[a-zäß€]{0,60}"
}

fn node() -> impl Strategy<Value = NodeInfo> {
    (node_id(), name(), any::<u64>(), any::<[u8; 16]>()).prop_map(|(id, name, start_id, boot_id)| NodeInfo {
        id,
        name,
        start_id,
        boot_id,
    })
}

fn history() -> impl Strategy<Value = History> {
    vec((any::<(u64, u64)>(), node_id(), chain(), 1..1000u64), 0..6).prop_map(|runs| {
        let mut first = 0;
        let openings = runs.into_iter().zip(1..).map(|(((term_id, run_id), node, chain_in, bytes), run)| {
            first += bytes;
            let epoch = Epoch { term: Term(run / 2 + 1), run };
            Opening { epoch, term_id, run_id, node, first: Lsn::new(first), chain_in }
        });
        History::from_openings(openings.collect()).expect("in order")
    })
}

fn greeting() -> impl Strategy<Value = Greeting> {
    let who =
        (stream(), name(), geometry(), node(), prop::sample::select(vec![Mode::Async, Mode::SemiSync, Mode::Sync]));
    let log = (term(), any::<bool>(), history(), lsn(), place());
    let marks = (lsn(), lsn(), lsn(), option::of(place()), any::<u64>());
    (who, log, marks).prop_map(|(who, log, marks)| Greeting {
        protocol: PROTOCOL,
        stream: who.0,
        stream_name: who.1,
        geometry: who.2,
        node: who.3,
        mode: who.4,
        term: log.0,
        opened: log.1,
        history: log.2,
        start: log.3,
        end: log.4,
        durable: marks.0,
        committed: marks.1,
        applied: marks.2,
        remembers: marks.3,
        clock: Time::from_nanos(marks.4),
    })
}

fn refusal() -> impl Strategy<Value = Refusal> {
    prop_oneof![
        any::<(u16, u16)>().prop_map(|(primary, receiver)| Refusal::Protocol { primary, receiver }),
        (stream(), stream()).prop_map(|(primary, receiver)| Refusal::Stream { primary, receiver }),
        any::<(u64, u64)>().prop_map(|(primary, receiver)| Refusal::Geometry { primary, receiver }),
        (term(), term()).prop_map(|(primary, receiver)| Refusal::Fenced { primary, receiver }),
        (term(), term()).prop_map(|(primary, receiver)| Refusal::SplitBrain { primary, receiver }),
        any::<(u64, u64)>().prop_map(|(primary, receiver)| Refusal::CopiedFolder { primary, receiver }),
        node_id().prop_map(|node| Refusal::SameNode { node }),
        (lsn(), option::of(chain()), option::of(chain())).prop_map(|(at, primary, receiver)| Refusal::Diverged {
            at,
            primary,
            receiver
        }),
        (lsn(), lsn()).prop_map(|(to, committed)| Refusal::CutBelowCommitted { to, committed }),
        (lsn(), lsn()).prop_map(|(primary_end, receiver_start)| Refusal::Pruned { primary_end, receiver_start }),
        name().prop_map(|role| Refusal::NotReceiver { role }),
        Just(Refusal::Busy),
        Just(Refusal::Disagree),
        name().prop_map(|reason| Refusal::Unable { reason }),
    ]
}

fn agreement() -> impl Strategy<Value = Agreement> {
    prop_oneof![
        place().prop_map(|from| Agreement::Stream { from }),
        (lsn(), lsn(), lsn()).prop_map(|(to, from, end)| Agreement::Cut { to, tail: LsnRange::new(from, end) }),
        (place(), lsn()).prop_map(|(from, to)| Agreement::TakeBack { from, to }),
        (lsn(), lsn()).prop_map(|(receiver_end, primary_start)| Agreement::Base { receiver_end, primary_start }),
        refusal().prop_map(Agreement::Refused),
    ]
}

fn holding() -> impl Strategy<Value = Holding> {
    prop_oneof![
        geometry().prop_map(|geometry| Holding::Journal { geometry }),
        (geometry(), lsn()).prop_map(|(geometry, end)| Holding::Line { geometry, end }),
    ]
}

fn tip() -> impl Strategy<Value = Tip> {
    (place(), any::<(u64, u32, u32, u64)>()).prop_map(|(Place { lsn, chain }, (time, term, run, run_id))| Tip {
        lsn,
        chain,
        time: Time::from_nanos(time),
        epoch: Epoch { term: Term(term), run },
        run_id,
    })
}

fn batch_name() -> impl Strategy<Value = String> {
    "[a-z0-9.-]{1,80}"
}

fn bytes(bytes_max: usize) -> impl Strategy<Value = Bytes> {
    vec(any::<u8>(), 1..bytes_max).prop_map(Bytes::from)
}

/// Every kind of message.
pub(crate) fn message() -> impl Strategy<Value = Message> {
    prop_oneof![
        greeting().prop_map(|greeting| Message::Greeting(Box::new(greeting))),
        refusal().prop_map(Message::Refused),
        (any::<u64>(), agreement()).prop_map(|(session, agreement)| Message::Start(Start { session, agreement })),
        (any::<u64>(), place(), lsn()).prop_map(|(session, end, durable)| Message::Ready(Ready {
            session,
            end,
            durable
        })),
        (any::<u64>(), lsn(), bytes(600)).prop_map(|(session, at, bytes)| Message::Entries { session, at, bytes }),
        (any::<u64>(), lsn(), lsn(), chain(), lsn(), lsn()).prop_map(
            |(session, received, durable, durable_chain, applied, checkpoint)| {
                Message::Ack(Ack { session, received, durable, durable_chain, applied, checkpoint })
            }
        ),
        (any::<u64>(), lsn(), lsn(), lsn(), any::<bool>()).prop_map(|(session, committed, durable, floor, alone)| {
            Message::Announce(Announce { session, committed, durable, floor, alone })
        }),
        any::<(u32, bool)>().prop_map(|(sync_ms, full)| Message::Alive(Alive { sync_ms, full })),
        name().prop_map(|reason| Message::Bye { reason }),
        (stream(), name(), geometry(), node(), term()).prop_map(|(stream, stream_name, geometry, node, term)| {
            Message::DepotHello(DepotHello { protocol: PROTOCOL, stream, stream_name, geometry, node, term })
        }),
        (option::of(place()), term()).prop_map(|(end, term)| Message::DepotState(DepotState { end, term })),
        (batch_name(), any::<u64>(), any::<[u8; 32]>())
            .prop_map(|(name, bytes, hash)| Message::BatchOffer(BatchOffer { name, bytes, hash })),
        any::<u64>().prop_map(|offset| Message::BatchHave { offset }),
        (any::<u64>(), bytes(600)).prop_map(|(offset, bytes)| Message::BatchPart { offset, bytes }),
        (batch_name(), place()).prop_map(|(name, end)| Message::BatchStored { name, end }),
        stream().prop_map(|stream| Message::CopyHello(CopyHello { protocol: PROTOCOL, stream })),
        vec(holding(), 0..6).prop_map(|holdings| Message::CopyState(CopyState { holdings })),
        (any::<u16>(), tip()).prop_map(|(holding, from)| Message::CopyAsk(CopyAsk { holding, from })),
        name().prop_map(|why| Message::CopyLacks { why }),
    ]
}
