//! Bodies of messages: one `encode` and one `decode`, kept side by side. docs/FORMAT.md, "Wire", has the bytes.
//!
//! Bodies belong to a protocol version; only `Refused` and the first two bytes of the three hellos never change, so that
//! any two versions can tell each other why not. A body must end where its fields end.

mod agreement;
mod greeting;

use journal::{Epoch, Term, Tip};

use self::agreement::{put_agreement, put_refusal, take_agreement, take_refusal};
use self::greeting::{put_greeting, put_node, take_greeting, take_node};
use crate::error::{Error, Result};
use crate::fields::{Put, Take};
use crate::frame::{GREETING_OPENINGS_MAX, HOLDINGS_MAX, NAME_BYTES_MAX, OPENING_BYTES, TEXT_BYTES_MAX, Type};
use crate::message::{
    Ack, Alive, Announce, BatchOffer, CopyAsk, CopyHello, CopyState, DepotHello, DepotState, Holding, Message,
    PROTOCOL, Ready, Start,
};

type Field<T> = std::result::Result<T, &'static str>;

/// Appends the body of `message` to `out`; of `Entries` and `BatchPart` only the fixed fields in front of the bytes.
///
/// Errors: `TooLong` for a name or a history that no frame takes; `out` is then as it was.
pub(crate) fn encode(message: &Message, out: &mut Vec<u8>) -> Result<()> {
    check_sizes(message)?;
    let mut put = Put(out);
    match message {
        Message::Greeting(greeting) => put_greeting(&mut put, greeting),
        Message::Refused(refusal) => put_refusal(&mut put, refusal),
        Message::Start(start) => {
            put.u64(start.session);
            put_agreement(&mut put, &start.agreement);
        }
        Message::Ready(ready) => {
            put.u64(ready.session);
            put.place(ready.end);
            put.lsn(ready.durable);
        }
        Message::Entries { session, at, .. } => {
            put.u64(*session);
            put.lsn(*at);
        }
        Message::Ack(ack) => {
            put.u64(ack.session);
            put.lsn(ack.received);
            put.lsn(ack.durable);
            put.u64(ack.durable_chain.get());
            put.lsn(ack.applied);
            put.lsn(ack.checkpoint);
        }
        Message::Announce(announce) => {
            put.u64(announce.session);
            put.lsn(announce.committed);
            put.lsn(announce.durable);
            put.lsn(announce.floor);
            put.flag(announce.alone);
        }
        Message::Alive(alive) => {
            put.u32(alive.sync_ms);
            put.flag(alive.full);
        }
        Message::Bye { reason } => put.text(reason, TEXT_BYTES_MAX),
        Message::DepotHello(hello) => {
            put.u16(hello.protocol);
            put.bytes(hello.stream.as_bytes());
            put.text(&hello.stream_name, NAME_BYTES_MAX);
            put.u32(hello.geometry.body_bytes() as u32);
            put_node(&mut put, &hello.node);
            put.term(hello.term);
        }
        Message::DepotState(state) => {
            put.optional_place(state.end);
            put.term(state.term);
        }
        Message::BatchOffer(offer) => {
            put.text(&offer.name, NAME_BYTES_MAX);
            put.u64(offer.bytes);
            put.bytes(&offer.hash);
        }
        Message::BatchHave { offset } | Message::BatchPart { offset, .. } => put.u64(*offset),
        Message::BatchStored { name, end } => {
            put.text(name, NAME_BYTES_MAX);
            put.place(*end);
        }
        Message::CopyHello(hello) => {
            put.u16(hello.protocol);
            put.bytes(hello.stream.as_bytes());
        }
        Message::CopyState(state) => {
            put.u16(state.holdings.len() as u16);
            state.holdings.iter().for_each(|holding| put_holding(&mut put, holding));
        }
        Message::CopyAsk(ask) => {
            put.u16(ask.holding);
            put_tip(&mut put, &ask.from);
        }
        Message::CopyLacks { why } => put.text(why, TEXT_BYTES_MAX),
    }
    Ok(())
}

/// Reads a whole control body. `Entries` and `BatchPart` are read where their bytes lie, not here.
pub(crate) fn decode(kind: Type, body: &[u8]) -> Result<Message> {
    if matches!(kind, Type::Greeting | Type::DepotHello | Type::CopyHello)
        && let Some(&theirs) = body.first_chunk::<2>()
        && u16::from_le_bytes(theirs) != PROTOCOL
    {
        return Err(Error::Protocol { ours: PROTOCOL, theirs: u16::from_le_bytes(theirs) });
    }
    take(kind, Take(body)).map_err(|what| Error::Malformed { kind: kind.name(), what })
}

fn take(kind: Type, mut take: Take<'_>) -> Field<Message> {
    let message = match kind {
        Type::Greeting => Message::Greeting(Box::new(take_greeting(&mut take)?)),
        Type::Refused => return take_refusal(take).map(Message::Refused),
        Type::Start => Message::Start(Start { session: take.u64("session")?, agreement: take_agreement(&mut take)? }),
        Type::Ready => Message::Ready(Ready {
            session: take.u64("session")?,
            end: take.place("end")?,
            durable: take.lsn("durable position")?,
        }),
        Type::Ack => Message::Ack(Ack {
            session: take.u64("session")?,
            received: take.lsn("received position")?,
            durable: take.lsn("durable position")?,
            durable_chain: take.chain("chain")?,
            applied: take.lsn("applied position")?,
            checkpoint: take.lsn("checkpoint")?,
        }),
        Type::Announce => Message::Announce(Announce {
            session: take.u64("session")?,
            committed: take.lsn("commit point")?,
            durable: take.lsn("durable position")?,
            floor: take.lsn("floor")?,
            alone: take.flag("flag")?,
        }),
        Type::Alive => Message::Alive(Alive { sync_ms: take.u32("time")?, full: take.flag("flag")? }),
        Type::Bye => Message::Bye { reason: take.text("text")? },
        Type::DepotHello => Message::DepotHello(DepotHello {
            protocol: take.u16("version")?,
            stream: take.stream("stream")?,
            stream_name: take.name("stream name")?,
            geometry: take.geometry("geometry")?,
            node: take_node(&mut take)?,
            term: take.term("term")?,
        }),
        Type::DepotState => {
            Message::DepotState(DepotState { end: take.optional_place("end")?, term: take.term("term")? })
        }
        Type::BatchOffer => Message::BatchOffer(BatchOffer {
            name: take.name("name")?,
            bytes: take.u64("size")?,
            hash: take.array("hash")?,
        }),
        Type::BatchHave => Message::BatchHave { offset: take.u64("offset")? },
        Type::BatchStored => Message::BatchStored { name: take.name("name")?, end: take.place("end")? },
        Type::CopyHello => {
            Message::CopyHello(CopyHello { protocol: take.u16("version")?, stream: take.stream("stream")? })
        }
        Type::CopyState => {
            let count = usize::from(take.u16("count")?);
            if count > HOLDINGS_MAX {
                return Err("count");
            }
            let holdings = (0..count).map(|_| take_holding(&mut take)).collect::<Field<_>>()?;
            Message::CopyState(CopyState { holdings })
        }
        Type::CopyAsk => Message::CopyAsk(CopyAsk { holding: take.u16("number")?, from: take_tip(&mut take)? }),
        Type::CopyLacks => Message::CopyLacks { why: take.text("text")? },
        Type::Entries | Type::BatchPart => return Err("length"),
    };
    take.end()?;
    Ok(message)
}

/// Names are identities of a kind: cutting one would make another of it.
fn check_sizes(message: &Message) -> Result<()> {
    let name = |kind: Type, name: &str| {
        let (kind, bytes) = (kind.name(), name.len() as u64);
        if name.len() > NAME_BYTES_MAX {
            return Err(Error::TooLong { kind, bytes, bytes_max: NAME_BYTES_MAX });
        }
        Ok(())
    };
    let kind = Type::of(message);
    match message {
        Message::Greeting(greeting) => {
            let openings = greeting.history.openings().len();
            if openings > GREETING_OPENINGS_MAX {
                let (bytes, bytes_max) = ((openings * OPENING_BYTES) as u64, GREETING_OPENINGS_MAX * OPENING_BYTES);
                return Err(Error::TooLong { kind: kind.name(), bytes, bytes_max });
            }
            name(kind, &greeting.stream_name).and_then(|()| name(kind, &greeting.node.name))
        }
        Message::DepotHello(hello) => name(kind, &hello.stream_name).and_then(|()| name(kind, &hello.node.name)),
        Message::BatchOffer(offer) => name(kind, &offer.name),
        Message::BatchStored { name: stored, .. } => name(kind, stored),
        Message::CopyState(state) if state.holdings.len() > HOLDINGS_MAX => {
            Err(Error::TooLong { kind: kind.name(), bytes: state.holdings.len() as u64, bytes_max: HOLDINGS_MAX })
        }
        _ => Ok(()),
    }
}

fn put_holding(put: &mut Put<'_>, holding: &Holding) {
    match holding {
        Holding::Journal { geometry } => {
            put.u8(0);
            put.u32(geometry.body_bytes() as u32);
        }
        Holding::Line { geometry, end } => {
            put.u8(1);
            put.u32(geometry.body_bytes() as u32);
            put.lsn(*end);
        }
    }
}

fn take_holding(take: &mut Take<'_>) -> Field<Holding> {
    Ok(match take.u8("holding")? {
        0 => Holding::Journal { geometry: take.geometry("geometry")? },
        1 => Holding::Line { geometry: take.geometry("geometry")?, end: take.lsn("end")? },
        _ => return Err("holding"),
    })
}

fn put_tip(put: &mut Put<'_>, tip: &Tip) {
    put.lsn(tip.lsn);
    put.u64(tip.chain.get());
    put.u64(tip.time.as_nanos());
    put.u32(tip.epoch.term.0);
    put.u32(tip.epoch.run);
    put.u64(tip.run_id);
}

fn take_tip(take: &mut Take<'_>) -> Field<Tip> {
    Ok(Tip {
        lsn: take.lsn("place")?,
        chain: take.chain("chain")?,
        time: take.time("time")?,
        epoch: Epoch { term: Term(take.u32("epoch")?), run: take.u32("epoch")? },
        run_id: take.u64("run")?,
    })
}
