//! Numbers and texts of message bodies: little endian, texts with their length in front.

use journal::{Chain, Geometry, Lsn, NodeId, StreamId, Term, TermSeen, Time};

use crate::frame::{NAME_BYTES_MAX, TEXT_BYTES_MAX};
use crate::message::Place;

/// Appends fields to a body.
#[derive(Debug)]
pub(crate) struct Put<'a>(pub(crate) &'a mut Vec<u8>);

impl Put<'_> {
    pub(crate) fn bytes(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    pub(crate) fn u8(&mut self, value: u8) {
        self.0.push(value);
    }

    pub(crate) fn u16(&mut self, value: u16) {
        self.bytes(&value.to_le_bytes());
    }

    pub(crate) fn u32(&mut self, value: u32) {
        self.bytes(&value.to_le_bytes());
    }

    pub(crate) fn u64(&mut self, value: u64) {
        self.bytes(&value.to_le_bytes());
    }

    pub(crate) fn flag(&mut self, value: bool) {
        self.u8(value.into());
    }

    pub(crate) fn lsn(&mut self, lsn: Lsn) {
        self.u64(lsn.get());
    }

    pub(crate) fn place(&mut self, place: Place) {
        self.lsn(place.lsn);
        self.u64(place.chain.get());
    }

    pub(crate) fn term(&mut self, term: TermSeen) {
        self.u32(term.term.0);
        self.u64(term.id);
    }

    /// One byte that says whether there is one, then the value or as many zeros.
    pub(crate) fn optional_place(&mut self, place: Option<Place>) {
        self.flag(place.is_some());
        self.place(place.unwrap_or_default());
    }

    pub(crate) fn optional_chain(&mut self, chain: Option<Chain>) {
        self.flag(chain.is_some());
        self.u64(chain.unwrap_or_default().get());
    }

    /// A text of at most `bytes_max`, cut at a character when it is longer.
    pub(crate) fn text(&mut self, text: &str, bytes_max: usize) {
        let mut bytes = text.len().min(bytes_max);
        while !text.is_char_boundary(bytes) {
            bytes -= 1;
        }
        let text = &text[..bytes];
        self.u16(text.len() as u16);
        self.bytes(text.as_bytes());
    }
}

/// Takes fields from a body. `Err` names the field that isn't there or isn't right.
#[derive(Debug)]
pub(crate) struct Take<'a>(pub(crate) &'a [u8]);

type Field<T> = Result<T, &'static str>;

impl<'a> Take<'a> {
    pub(crate) fn bytes(&mut self, count: usize, what: &'static str) -> Field<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or(what)?;
        self.0 = rest;
        Ok(taken)
    }

    pub(crate) fn array<const N: usize>(&mut self, what: &'static str) -> Field<[u8; N]> {
        let (taken, rest) = self.0.split_first_chunk().ok_or(what)?;
        self.0 = rest;
        Ok(*taken)
    }

    pub(crate) fn u8(&mut self, what: &'static str) -> Field<u8> {
        self.array(what).map(u8::from_le_bytes)
    }

    pub(crate) fn u16(&mut self, what: &'static str) -> Field<u16> {
        self.array(what).map(u16::from_le_bytes)
    }

    pub(crate) fn u32(&mut self, what: &'static str) -> Field<u32> {
        self.array(what).map(u32::from_le_bytes)
    }

    pub(crate) fn u64(&mut self, what: &'static str) -> Field<u64> {
        self.array(what).map(u64::from_le_bytes)
    }

    pub(crate) fn flag(&mut self, what: &'static str) -> Field<bool> {
        match self.u8(what)? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(what),
        }
    }

    pub(crate) fn lsn(&mut self, what: &'static str) -> Field<Lsn> {
        self.u64(what).map(Lsn::new)
    }

    pub(crate) fn chain(&mut self, what: &'static str) -> Field<Chain> {
        self.u64(what).map(Chain::from_u64)
    }

    pub(crate) fn place(&mut self, what: &'static str) -> Field<Place> {
        Ok(Place { lsn: self.lsn(what)?, chain: self.chain(what)? })
    }

    pub(crate) fn term(&mut self, what: &'static str) -> Field<TermSeen> {
        Ok(TermSeen { term: Term(self.u32(what)?), id: self.u64(what)? })
    }

    pub(crate) fn time(&mut self, what: &'static str) -> Field<Time> {
        self.u64(what).map(Time::from_nanos)
    }

    pub(crate) fn stream(&mut self, what: &'static str) -> Field<StreamId> {
        self.array(what).map(StreamId::from_bytes)
    }

    pub(crate) fn node(&mut self, what: &'static str) -> Field<NodeId> {
        self.array(what).map(NodeId::from_bytes)
    }

    pub(crate) fn geometry(&mut self, what: &'static str) -> Field<Geometry> {
        Geometry::new(self.u32(what)?).ok_or(what)
    }

    pub(crate) fn optional_place(&mut self, what: &'static str) -> Field<Option<Place>> {
        let there = self.flag(what)?;
        let place = self.place(what)?;
        Ok(there.then_some(place))
    }

    pub(crate) fn optional_chain(&mut self, what: &'static str) -> Field<Option<Chain>> {
        let there = self.flag(what)?;
        let chain = self.chain(what)?;
        Ok(there.then_some(chain))
    }

    pub(crate) fn name(&mut self, what: &'static str) -> Field<String> {
        self.string(NAME_BYTES_MAX, what)
    }

    pub(crate) fn text(&mut self, what: &'static str) -> Field<String> {
        self.string(TEXT_BYTES_MAX, what)
    }

    /// Nothing may be left.
    pub(crate) fn end(self) -> Field<()> {
        if self.0.is_empty() { Ok(()) } else { Err("length") }
    }

    fn string(&mut self, bytes_max: usize, what: &'static str) -> Field<String> {
        let count = usize::from(self.u16(what)?);
        if count > bytes_max {
            return Err(what);
        }
        let bytes = self.bytes(count, what)?;
        str::from_utf8(bytes).map(str::to_owned).map_err(|_| what)
    }
}
