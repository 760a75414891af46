//! The judge. It knows what it handed in and what was acknowledged to it; it knows nothing of journals.

use std::fmt;
use std::io::{self, BufRead};

/// One appender's records are numbered from 0; each can be told from every other and from any altered form of itself.
pub(super) fn record(seed: u64, appender: usize, number: u64, out: &mut Vec<u8>) {
    let mix = mix(seed ^ mix(appender as u64) ^ mix(number).rotate_left(17));
    // lengths vary, so that entries end anywhere
    let tail = &"the quick brown fox jumps over the lazy dog"[..(mix % 44) as usize];
    out.extend_from_slice(format!("{appender} {number} {mix:016x} {tail}").as_bytes());
}

/// Finalizer of SplitMix64 (Steele, Lea, Flood: Fast splittable pseudorandom number generators, 2014).
fn mix(value: u64) -> u64 {
    let value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

/// What must be there, and what may be: records of one appender, in order from number 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Bounds {
    /// Acknowledged: none of these may be missing.
    pub(super) acked: u64,
    /// Handed in: none beyond these may appear.
    pub(super) sent: u64,
}

/// What a restored file was found to be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Finding {
    /// Records in it.
    pub(super) records: u64,
    /// Acknowledged to the appenders, all of them.
    pub(super) acked: u64,
    /// The first things that are wrong; empty when nothing is.
    pub(super) faults: Vec<String>,
}

/// Faults that are worth printing.
const FAULTS_MAX: usize = 5;

impl Finding {
    /// True when every acknowledged record is there, once, unaltered, in order, and nothing else.
    pub(super) fn is_good(&self) -> bool {
        self.faults.is_empty()
    }

    fn fault(&mut self, fault: fmt::Arguments<'_>) {
        if self.faults.len() < FAULTS_MAX {
            self.faults.push(fault.to_string());
        }
    }
}

/// Reads a restored file and judges it against what each appender knows.
pub(super) fn judge(restored: impl BufRead, seed: u64, bounds: &[Bounds]) -> io::Result<Finding> {
    let mut finding = Finding { acked: bounds.iter().map(|bounds| bounds.acked).sum(), ..Finding::default() };
    let mut next = vec![0u64; bounds.len()];
    let mut expected = Vec::new();
    for line in restored.split(b'\n') {
        let line = line?;
        let at = finding.records;
        finding.records += 1;
        let Some((appender, number)) = names(&line).filter(|(appender, _)| *appender < bounds.len()) else {
            finding.fault(format_args!("record {at}: nobody wrote {:?}", String::from_utf8_lossy(&line)));
            continue;
        };
        expected.clear();
        record(seed, appender, number, &mut expected);
        if line != expected {
            finding.fault(format_args!("record {at}: altered: {:?}", String::from_utf8_lossy(&line)));
        }
        if number != next[appender] {
            let kind = if number < next[appender] { "doubled or out of order" } else { "missing before it" };
            let wanted = next[appender];
            finding.fault(format_args!(
                "record {at}: appender {appender}: number {number} where {wanted} belongs: {kind}"
            ));
        }
        next[appender] = number + 1;
    }
    for (appender, (next, bounds)) in next.iter().zip(bounds).enumerate() {
        if *next < bounds.acked {
            let acked = bounds.acked;
            finding
                .fault(format_args!("appender {appender}: {acked} records were acknowledged, it ends behind {next}"));
        }
        if *next > bounds.sent {
            finding.fault(format_args!("appender {appender}: {} records were handed in, it has {next}", bounds.sent));
        }
    }
    Ok(finding)
}

/// Who wrote a line, and its number.
fn names(line: &[u8]) -> Option<(usize, u64)> {
    let mut words = std::str::from_utf8(line).ok()?.split(' ');
    Some((words.next()?.parse().ok()?, words.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEED: u64 = 7;
    const BOUNDS: [Bounds; 2] = [Bounds { acked: 2, sent: 4 }, Bounds { acked: 1, sent: 1 }];

    fn text(records: &[(usize, u64)]) -> Vec<u8> {
        let mut out = Vec::new();
        for (appender, number) in records {
            record(SEED, *appender, *number, &mut out);
            out.push(b'\n');
        }
        out
    }

    fn good(bytes: &[u8]) -> bool {
        judge(bytes, SEED, &BOUNDS).unwrap().is_good()
    }

    #[test]
    fn all_that_was_acknowledged_and_perhaps_more_is_good() {
        assert!(good(&text(&[(0, 0), (1, 0), (0, 1)])));
        assert!(good(&text(&[(0, 0), (0, 1), (0, 2), (0, 3), (1, 0)])));
        assert_eq!(judge(&text(&[(0, 0), (1, 0), (0, 1)])[..], SEED, &BOUNDS).unwrap().acked, 3);
    }

    #[test]
    fn every_other_shape_is_not() {
        let shapes: [(&str, &[(usize, u64)]); 7] = [
            ("one acknowledged is missing at the end", &[(0, 0), (1, 0)]),
            ("one is missing in the middle", &[(0, 0), (0, 2), (1, 0)]),
            ("doubled", &[(0, 0), (0, 0), (0, 1), (1, 0)]),
            ("reordered", &[(0, 1), (0, 0), (1, 0)]),
            ("never handed in", &[(0, 0), (0, 1), (0, 2), (0, 3), (0, 4), (1, 0)]),
            ("nobody's", &[(0, 0), (0, 1), (1, 0), (2, 0)]),
            ("empty", &[]),
        ];
        for (shape, records) in shapes {
            assert!(!good(&text(records)), "{shape}");
        }
    }

    #[test]
    fn every_altered_byte_is_found() {
        let whole = text(&[(0, 0), (1, 0), (0, 1)]);
        for at in 0..whole.len() {
            let mut bytes = whole.clone();
            bytes[at] ^= 1;
            assert!(!good(&bytes), "byte {at}");
        }
        assert!(!good(&whole[..whole.len() - 2]), "cut short");
    }
}
