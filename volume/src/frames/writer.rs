//! Records in, bytes out.

use std::io::{self, Write};

use journal::Flags;

use super::Frames;

/// Writes records to `out` in one framing. Does no buffering of its own.
#[derive(Debug)]
pub struct FrameWriter<W> {
    frames: Frames,
    out: W,
    /// The line before had no newline; it gets one as soon as something follows it.
    owed: bool,
}

impl<W: Write> FrameWriter<W> {
    /// A writer at the beginning of an output.
    pub fn new(frames: Frames, out: W) -> FrameWriter<W> {
        FrameWriter { frames, out, owed: false }
    }

    /// Writes one record; `flags` are those of its last entry. After an error the output may end inside the record.
    pub fn write(&mut self, flags: Flags, payload: &[u8]) -> io::Result<()> {
        match self.frames {
            Frames::Lines => {
                if self.owed {
                    self.out.write_all(b"\n")?;
                    self.owed = false;
                }
                self.out.write_all(payload)?;
                if flags.has(Flags::UNTERMINATED) {
                    self.owed = true;
                    return Ok(());
                }
                self.out.write_all(b"\n")
            }
            Frames::Len32 => {
                let bytes = u32::try_from(payload.len()).map_err(|_| {
                    io::Error::new(io::ErrorKind::InvalidInput, "a record of 4 GiB or more has no len32 framing")
                })?;
                self.out.write_all(&bytes.to_le_bytes())?;
                self.out.write_all(payload)
            }
            Frames::Raw => self.out.write_all(payload),
        }
    }

    /// Hands everything on to the reader of the output, as a `tail -f` must after each group.
    pub fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }

    /// Flushes and gives the output back.
    pub fn finish(mut self) -> io::Result<W> {
        self.out.flush()?;
        Ok(self.out)
    }

    /// The output itself.
    pub fn get_ref(&self) -> &W {
        &self.out
    }
}
