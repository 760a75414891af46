//! Histories for tests, laid out by hand from docs/FORMAT.md: a second pair of eyes on the format.

use journal::{
    Chain, Cursor, Epoch, EpochEntry, Flags, Geometry, HEADER_BYTES, Kind, Lsn, Next, NodeId, Opening, Reason,
    StreamId, Term, Time, Tip, crc32c, entry_bytes,
};

pub(crate) const STREAM: StreamId = StreamId::from_bytes([7; 16]);

/// A log in memory.
#[derive(Clone, Debug)]
pub(crate) struct Forge {
    pub(crate) geometry: Geometry,
    pub(crate) bytes: Vec<u8>,
    pub(crate) tip: Tip,
    pub(crate) openings: Vec<Opening>,
    now: u64,
}

impl Forge {
    pub(crate) fn new() -> Forge {
        Forge::sized(64 << 10)
    }

    pub(crate) fn sized(body_bytes: u32) -> Forge {
        let geometry = Geometry::new(body_bytes).expect("a power of two");
        Forge { geometry, bytes: Vec::new(), tip: Tip::empty(STREAM), openings: Vec::new(), now: 1_000 }
    }

    /// A log of one run with these records.
    pub(crate) fn with(records: &[&[u8]]) -> Forge {
        let mut forge = Forge::new();
        forge.open(1, 1);
        for record in records {
            forge.data(record);
        }
        forge
    }

    pub(crate) fn open(&mut self, term: u32, run: u32) -> &mut Forge {
        let epoch = Epoch { term: Term(term), run };
        let entry = EpochEntry {
            term_id: 100 + u64::from(term),
            node: NodeId::from_bytes([term as u8; 16]),
            reason: Reason::Started,
            policy: Vec::new(),
        };
        let payload = entry.encode(self.geometry.room(self.tip.lsn));
        let chain_in = self.tip.chain;
        let first = self.tip.lsn;
        self.tip.epoch = epoch;
        self.tip.run_id = u64::from(term) * 1000 + u64::from(run);
        self.put(Kind::Epoch, Flags::NONE, &payload);
        let (term_id, run_id, node) = (entry.term_id, self.tip.run_id, entry.node);
        self.openings.push(Opening { epoch, term_id, run_id, node, first, chain_in });
        self
    }

    pub(crate) fn data(&mut self, payload: &[u8]) -> &mut Forge {
        self.fit(payload.len());
        self.put(Kind::Data, Flags::FIRST.with(Flags::LAST), payload);
        self
    }

    pub(crate) fn mark(&mut self, name: &str) -> &mut Forge {
        self.fit(name.len());
        self.put(Kind::Mark, Flags::NONE, name.as_bytes());
        self
    }

    /// The next entry's time.
    pub(crate) fn at(&mut self, nanos: u64) -> &mut Forge {
        self.now = nanos;
        self
    }

    pub(crate) fn end(&self) -> Lsn {
        self.tip.lsn
    }

    /// Every entry boundary, the beginning and the end among them.
    pub(crate) fn tips(&self) -> Vec<Tip> {
        let mut cursor = Cursor::new(self.geometry, Tip::empty(STREAM));
        let mut tips = vec![*cursor.tip()];
        while cursor.tip().lsn < self.tip.lsn {
            let rest = &self.bytes[cursor.tip().lsn.get() as usize..];
            assert!(matches!(cursor.next(rest), Ok(Next::Entry(_))), "a forged history verifies");
            tips.push(*cursor.tip());
        }
        tips
    }

    pub(crate) fn opening_before(&self, lsn: Lsn) -> Option<Opening> {
        self.openings.iter().rev().find(|opening| opening.first < lsn).copied()
    }

    fn fit(&mut self, payload_bytes: usize) {
        assert!(payload_bytes <= self.geometry.payload_bytes_max());
        let room = self.geometry.room(self.tip.lsn);
        if !self.geometry.fits(self.tip.lsn, entry_bytes(payload_bytes)) {
            self.put(Kind::Pad, Flags::NONE, &vec![0; room as usize - HEADER_BYTES]);
        }
    }

    fn put(&mut self, kind: Kind, flags: Flags, payload: &[u8]) {
        let tip = self.tip;
        let time = self.now.max(tip.time.as_nanos() + 1);
        let mut raw = Vec::new();
        raw.extend_from_slice(&((HEADER_BYTES + payload.len()) as u32).to_le_bytes());
        raw.extend_from_slice(&[kind as u8, 0]);
        raw.extend_from_slice(&flags.0.to_le_bytes());
        raw.extend_from_slice(&tip.lsn.get().to_le_bytes());
        raw.extend_from_slice(&tip.epoch.term.0.to_le_bytes());
        raw.extend_from_slice(&tip.epoch.run.to_le_bytes());
        raw.extend_from_slice(&tip.run_id.to_le_bytes());
        raw.extend_from_slice(&time.to_le_bytes());
        raw.extend_from_slice(&0u64.to_le_bytes());
        raw.extend_from_slice(&crc32c(payload).to_le_bytes());
        raw.extend_from_slice(&[0; 28]);
        let chain: Chain = tip.chain.link(&raw);
        raw.extend_from_slice(&chain.get().to_le_bytes());
        raw.extend_from_slice(payload);
        raw.resize(entry_bytes(payload.len()) as usize, 0);
        self.tip = Tip { lsn: tip.lsn.advance(raw.len() as u64), chain, time: Time::from_nanos(time), ..tip };
        self.bytes.extend_from_slice(&raw);
    }
}
