//! The body of a greeting, and the node in it and in other hellos.

use journal::{Epoch, History, Opening, Term};

use super::Field;
use crate::fields::{Put, Take};
use crate::frame::{NAME_BYTES_MAX, OPENING_BYTES};
use crate::message::{Greeting, Mode, NodeInfo};

pub(super) fn put_greeting(put: &mut Put<'_>, greeting: &Greeting) {
    put.u16(greeting.protocol);
    put.bytes(greeting.stream.as_bytes());
    put.text(&greeting.stream_name, NAME_BYTES_MAX);
    put.u32(greeting.geometry.body_bytes() as u32);
    put_node(put, &greeting.node);
    put.u8(match greeting.mode {
        Mode::Async => 0,
        Mode::SemiSync => 1,
        Mode::Sync => 2,
    });
    put.term(greeting.term);
    put.flag(greeting.opened);
    put.lsn(greeting.start);
    put.place(greeting.end);
    put.lsn(greeting.durable);
    put.lsn(greeting.committed);
    put.lsn(greeting.applied);
    put.optional_place(greeting.remembers);
    put.u64(greeting.clock.as_nanos());
    put.u32(greeting.history.openings().len() as u32);
    for opening in greeting.history.openings() {
        put.u32(opening.epoch.term.0);
        put.u32(opening.epoch.run);
        put.u64(opening.term_id);
        put.u64(opening.run_id);
        put.lsn(opening.first);
        put.u64(opening.chain_in.get());
        put.bytes(opening.node.as_bytes());
    }
}

pub(super) fn take_greeting(take: &mut Take<'_>) -> Field<Greeting> {
    Ok(Greeting {
        protocol: take.u16("version")?,
        stream: take.stream("stream")?,
        stream_name: take.name("stream name")?,
        geometry: take.geometry("geometry")?,
        node: take_node(take)?,
        mode: match take.u8("mode")? {
            0 => Mode::Async,
            1 => Mode::SemiSync,
            2 => Mode::Sync,
            _ => return Err("mode"),
        },
        term: take.term("term")?,
        opened: take.flag("flag")?,
        start: take.lsn("start")?,
        end: take.place("end")?,
        durable: take.lsn("durable position")?,
        committed: take.lsn("commit point")?,
        applied: take.lsn("applied position")?,
        remembers: take.optional_place("memory")?,
        clock: take.time("clock")?,
        history: take_history(take)?,
    })
}

fn take_history(take: &mut Take<'_>) -> Field<History> {
    let count = take.u32("history")? as usize;
    // the count is believed only as far as its bytes have arrived
    let mut bytes = Take(take.bytes(count.checked_mul(OPENING_BYTES).ok_or("history")?, "history")?);
    let mut openings = Vec::with_capacity(count);
    for _ in 0..count {
        openings.push(Opening {
            epoch: Epoch { term: Term(bytes.u32("history")?), run: bytes.u32("history")? },
            term_id: bytes.u64("history")?,
            run_id: bytes.u64("history")?,
            first: bytes.lsn("history")?,
            chain_in: bytes.chain("history")?,
            node: bytes.node("history")?,
        });
    }
    History::from_openings(openings).ok_or("order of its history")
}

pub(super) fn put_node(put: &mut Put<'_>, node: &NodeInfo) {
    put.bytes(node.id.as_bytes());
    put.text(&node.name, NAME_BYTES_MAX);
    put.u64(node.start_id);
    put.bytes(&node.boot_id);
}

pub(super) fn take_node(take: &mut Take<'_>) -> Field<NodeInfo> {
    Ok(NodeInfo {
        id: take.node("node")?,
        name: take.name("node name")?,
        start_id: take.u64("start")?,
        boot_id: take.array("boot")?,
    })
}
