//! Planted faults. They live in the simulated driver, so that the program carries no switch for them.

use journal::{Cursor, Draft, Geometry, HEADER_BYTES, Kind, Lsn, Tip, crc32c, entry_bytes};

/// What is wrong with the driver.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Mutant {
    #[default]
    None,
    /// The receiver says durable when it has only written.
    EarlyAck,
    /// The receiver believes bytes without checksum, chain and place.
    ChainSkipped,
    /// The primary resumes where it thinks it stopped, not where the receiver ends, and the receiver takes it.
    GapOnReconnect,
    /// An acknowledgement of an ended session counts for the one that is up.
    EndedSessionCounted,
    /// A primary starts without having met its required peers.
    GateSkipped,
    /// A start raises the term, not the run.
    RestartRaisesTerm,
    /// What was received and not synced is cut by a promotion.
    PromotionForgetsTail,
    /// What was received isn't synced before the term of a promotion is.
    PromotionUnsynced,
    /// A fenced node keeps the term and not the role: it starts as a primary again.
    FencedForgets,
    /// A receiver that comes up after a power cut trusts what it has.
    NeverInDoubt,
    /// The peer's word is enough: the own disk isn't asked.
    OwnDiskForgotten,
    /// What was committed alone is announced like what everybody keeps.
    AnnouncedAlone,
    /// A sync that began before a cut counts for what stands there now.
    CutSyncCounted,
}

impl Mutant {
    pub(crate) fn trusts_bytes(self) -> bool {
        matches!(self, Mutant::ChainSkipped | Mutant::GapOnReconnect)
    }
}

/// Makes any bytes that look like entries pass for the next ones behind `tip`: what a receiver would store that checks
/// nothing.
pub(crate) fn forge(mut tip: Tip, mut bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    while let Some(header) = bytes.get(..HEADER_BYTES) {
        let number =
            |at: usize, len: usize| header[at..at + len].iter().rev().fold(0, |all, &byte| all << 8 | u64::from(byte));
        let length = (number(0, 4) as usize).clamp(HEADER_BYTES, bytes.len());
        let payload = &bytes[HEADER_BYTES..length];
        let kind = match number(4, 1) {
            2 if journal::EpochEntry::decode(payload).is_some() => Kind::Epoch,
            _ => Kind::Data,
        };
        if kind == Kind::Epoch {
            let epoch = journal::Epoch { term: journal::Term(number(16, 4) as u32), run: number(20, 4) as u32 };
            if epoch <= tip.epoch {
                return out;
            }
            tip = Tip { epoch, run_id: number(24, 8), ..tip };
        }
        let parts = [payload];
        let draft = Draft {
            kind,
            flags: journal::Flags(number(6, 2) as u16 & 0x03ff),
            volume: 0,
            producer: 0,
            sequence: 0,
            parts: &parts,
            payload_crc: crc32c(payload),
        };
        draft.lay(&mut tip, journal::Time::from_nanos(number(32, 8)), Lsn::new(number(40, 8)), &mut out);
        bytes = bytes.get(entry_bytes(length - HEADER_BYTES) as usize..).unwrap_or_default();
    }
    out
}

#[test]
fn forging_true_entries_behind_their_tip_changes_nothing() {
    let stream = journal::StreamId::from_bytes([7; 16]);
    let mut tip = Tip::empty(stream);
    let mut bytes = Vec::new();
    for payload in [&b"one"[..], b"", b"three"] {
        let parts = [payload];
        let flags = journal::Flags::FIRST.with(journal::Flags::LAST);
        let payload_crc = crc32c(payload);
        let draft = Draft { kind: Kind::Data, flags, volume: 0, producer: 0, sequence: 0, parts: &parts, payload_crc };
        draft.lay(&mut tip, journal::Time::from_nanos(1), Lsn::ZERO, &mut bytes);
    }
    assert_eq!(forge(Tip::empty(stream), &bytes), bytes);
    assert!(Cursor::new(Geometry::default(), Tip::empty(stream)).verify(&bytes).is_ok());
}
