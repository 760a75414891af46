//! Records as bytes outside: how a text or a binary input is cut into records, and how records become a file again.
//!
//! ```text
//!  lines   abc\n | def\n | gh        a record is a line without its newline; the last one may lack it
//!  len32   u32 LE length | bytes     any bytes, empty records too
//!  raw     whatever arrives          boundaries mean nothing; the records in a row are the input
//! ```
//! Whatever goes in through one framing comes out of the same framing byte for byte.

mod splitter;
mod writer;

use std::fmt;
use std::str::FromStr;

pub use splitter::{Split, Splitter};
pub use writer::FrameWriter;

/// Largest record that [`Frames::Raw`] makes: small enough to be one entry, large enough to be cheap.
pub const RAW_RECORD_BYTES_MAX: usize = 64 << 10;
/// Bytes of a length prefix in [`Frames::Len32`].
pub const LEN32_PREFIX_BYTES: usize = 4;

/// How records are told apart outside of the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Frames {
    /// A record is a line without its newline. Carriage returns belong to the line. A record that holds a newline
    /// itself (from another door) comes out as two lines.
    #[default]
    Lines,
    /// A record is preceded by its length in bytes, an unsigned 32-bit integer, little endian like everything here.
    Len32,
    /// Records are pieces of a byte stream, at most [`RAW_RECORD_BYTES_MAX`] each.
    Raw,
}

impl Frames {
    /// Every framing, in the order of the documentation.
    pub const ALL: [Frames; 3] = [Frames::Lines, Frames::Len32, Frames::Raw];

    /// Its name on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Frames::Lines => "lines",
            Frames::Len32 => "len32",
            Frames::Raw => "raw",
        }
    }
}

impl fmt::Display for Frames {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The name of a framing that doesn't exist.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no framing {0:?}; choose lines, len32 or raw")]
pub struct UnknownFrames(String);

impl FromStr for Frames {
    type Err = UnknownFrames;

    fn from_str(name: &str) -> Result<Frames, UnknownFrames> {
        Frames::ALL.into_iter().find(|frames| frames.name() == name).ok_or_else(|| UnknownFrames(name.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::Error;

    /// Splits `input`, handed over in pieces of `piece` bytes.
    fn split(frames: Frames, input: &[u8], piece: usize, bytes_max: usize) -> Result<Vec<(bool, Vec<u8>)>, Error> {
        let mut splitter = Splitter::new(frames, bytes_max);
        let mut records = Vec::new();
        let mut pieces = input.chunks(piece.max(1));
        loop {
            let piece = pieces.next();
            match piece {
                Some(piece) => splitter.push(piece),
                None => splitter.end(),
            }
            while let Some(record) = splitter.next_record()? {
                records.push((record.flags.has(journal::Flags::UNTERMINATED), record.payload.to_vec()));
            }
            if piece.is_none() {
                return Ok(records);
            }
        }
    }

    fn join(frames: Frames, records: &[(bool, Vec<u8>)]) -> Vec<u8> {
        let mut writer = FrameWriter::new(frames, Vec::new());
        for (unterminated, payload) in records {
            let flags = if *unterminated { journal::Flags::UNTERMINATED } else { journal::Flags::NONE };
            writer.write(flags, payload).expect("a Vec takes everything");
        }
        writer.finish().expect("a Vec takes everything")
    }

    fn plain(records: &[(bool, Vec<u8>)]) -> Vec<&[u8]> {
        records.iter().map(|(_, payload)| payload.as_slice()).collect()
    }

    #[test]
    fn lines_by_shape() {
        let cases: [(&str, &[(bool, &str)]); 7] = [
            ("", &[]),
            ("\n", &[(false, "")]),
            ("a", &[(true, "a")]),
            ("a\n", &[(false, "a")]),
            ("a\n\nb", &[(false, "a"), (false, ""), (true, "b")]),
            ("a\r\n", &[(false, "a\r")]),
            ("\n\n", &[(false, ""), (false, "")]),
        ];
        for (input, expected) in cases {
            for piece in 1..4 {
                let records = split(Frames::Lines, input.as_bytes(), piece, 100).expect("it fits");
                let expected: Vec<_> = expected.iter().map(|(open, text)| (*open, text.as_bytes().to_vec())).collect();
                assert_eq!(records, expected, "{input:?}");
            }
        }
    }

    #[test]
    fn a_line_without_newline_gets_one_when_another_record_follows() {
        let records = [(true, b"a".to_vec()), (false, b"b".to_vec())];
        assert_eq!(join(Frames::Lines, &records), b"a\nb\n");
        assert_eq!(join(Frames::Lines, &records[..1]), b"a");
    }

    #[test]
    fn len32_keeps_empty_records() {
        let input = [2, 0, 0, 0, b'a', b'b', 0, 0, 0, 0, 1, 0, 0, 0, b'\n'];
        let records = split(Frames::Len32, &input, 1, 2).expect("it fits");
        assert_eq!(plain(&records), [&b"ab"[..], b"", b"\n"]);
        assert_eq!(join(Frames::Len32, &records), input);
    }

    #[test]
    fn len32_that_ends_inside_a_record_is_an_error_with_its_place() {
        for (input, present, needed) in
            [(&[1, 0, 0, 0, 7, 9, 0, 0][..], 3, 4), (&[1, 0, 0, 0, 7, 9, 0, 0, 0, 1], 5, 13)]
        {
            match split(Frames::Len32, input, 100, 100) {
                Err(Error::CutShort { record: 1, offset: 5, present: p, needed: n }) => {
                    assert_eq!((p, n), (present, needed));
                }
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn a_record_at_the_limit_passes_and_one_above_is_an_error_with_its_place() {
        for piece in [1, 3, 100] {
            let lines = split(Frames::Lines, b"abc\nabc", piece, 3).expect("at the limit");
            assert_eq!(plain(&lines), [b"abc", b"abc"]);
            for input in [&b"abc\nabcd"[..], b"abc\nabcd\n"] {
                let error = split(Frames::Lines, input, piece, 3).expect_err("above the limit");
                assert!(matches!(error, Error::TooLarge { record: 1, offset: 4, bytes_max: 3 }), "{error:?}");
            }
            let error = split(Frames::Len32, &[0, 0, 0, 0, 4, 0, 0, 0], piece, 3).expect_err("above the limit");
            assert!(matches!(error, Error::TooLarge { record: 1, offset: 4, bytes_max: 3 }), "{error:?}");
        }
    }

    #[test]
    fn raw_never_exceeds_its_limits() {
        let input = vec![7; 3 * RAW_RECORD_BYTES_MAX + 1];
        let records = split(Frames::Raw, &input, input.len(), usize::MAX).expect("raw takes everything");
        assert_eq!(plain(&records).iter().map(|record| record.len()).max(), Some(RAW_RECORD_BYTES_MAX));
        let records = split(Frames::Raw, &input[..100], 100, 30).expect("raw takes everything");
        assert_eq!(plain(&records).iter().map(|record| record.len()).collect::<Vec<_>>(), [30, 30, 30, 10]);
    }

    #[test]
    fn names_read_back() {
        for frames in Frames::ALL {
            assert_eq!(frames.to_string().parse(), Ok(frames));
        }
        assert_eq!(
            "Lines".parse::<Frames>().unwrap_err().to_string(),
            "there is no framing \"Lines\"; choose lines, len32 or raw"
        );
    }

    proptest! {
        #[test]
        fn what_goes_in_comes_out(
            input in proptest::collection::vec(prop_oneof![Just(b'\n'), any::<u8>()], 0..300),
            piece in 1usize..40,
        ) {
            for frames in [Frames::Lines, Frames::Raw] {
                let records = split(frames, &input, piece, 1000).expect("it fits");
                prop_assert_eq!(join(frames, &records), input.clone());
            }
        }

        #[test]
        fn any_records_pass_len32(
            records in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..50), 0..20),
            piece in 1usize..40,
        ) {
            let records: Vec<_> = records.into_iter().map(|record| (false, record)).collect();
            let bytes = join(Frames::Len32, &records);
            prop_assert_eq!(split(Frames::Len32, &bytes, piece, 50).expect("it fits"), records);
        }
    }
}
