//! A restore: the records of a log as one file, in a framing, complete or not there at all.

use std::fmt;
use std::fs::{File, Permissions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use journal::{Assembler, Entry, Kind, Lsn, LsnRange, Machine};
use tempfile::NamedTempFile;

use crate::error::{Error, Result};
use crate::frames::{FrameWriter, Frames};

/// Bytes gathered before they are written.
const BUFFER_BYTES: usize = 256 << 10;
/// What a new file is allowed before the umask takes its share, as for any file that a shell creates.
const FILE_MODE: u32 = 0o666;

/// Writes the records of one volume to a file or a stream.
///
/// A file is written beside its target under another name; [`Output::finish`] syncs it and moves it there. Dropped
/// before that, it is gone and the target is as it was. After an error start again: what was written is not known.
#[derive(Debug)]
pub struct Output {
    writer: FrameWriter<BufWriter<Target>>,
    place: Place,
    volume: u16,
    assembler: Assembler,
    applied: Lsn,
    records: u64,
}

/// What [`Output::finish`] left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Written {
    /// Records in the output.
    pub records: u64,
    /// Bytes of the output, framing included.
    pub bytes: u64,
    /// Where the log was left: everything below is in the output.
    pub reached: Lsn,
}

/// Where an output goes in the end.
#[derive(Clone, Debug)]
enum Place {
    File { target: PathBuf, replace: bool },
    Stream,
}

impl Output {
    /// An output to the file `target`, for entries of `volume` from `start` on. [`Error::Exists`] when there is one and
    /// `replace` is false; that is looked at again when it is finished.
    pub fn to_file(target: &Path, replace: bool, frames: Frames, volume: u16, start: Lsn) -> Result<Output> {
        if !replace && target.symlink_metadata().is_ok() {
            return Err(Error::Exists { path: target.to_owned() });
        }
        let name = target.file_name().unwrap_or_default().to_string_lossy();
        let file = tempfile::Builder::new()
            .prefix(&format!(".{name}."))
            .suffix(".part")
            .permissions(Permissions::from_mode(FILE_MODE))
            .tempfile_in(folder_of(target))
            // the cause names the temporary file, which means nothing to anybody: its kind says enough
            .map_err(|cause| Error::io("create a file in", folder_of(target))(cause.kind().into()))?;
        let place = Place::File { target: target.to_owned(), replace };
        Ok(Output::new(Sink::File(file), place, frames, volume, start))
    }

    /// An output to a stream, such as standard output. What was written before an error stays written.
    pub fn to_stream(out: Box<dyn Write + Send>, frames: Frames, volume: u16, start: Lsn) -> Output {
        Output::new(Sink::Stream(out), Place::Stream, frames, volume, start)
    }

    /// Completes the output; a file is synced, then moved to its target, and the move is synced. Blocking.
    pub fn finish(self) -> Result<Written> {
        let Output { writer, place, applied: reached, records, .. } = self;
        let path = place.path().to_owned();
        let buffer = writer.finish().map_err(Error::io("write", &path))?;
        let Target { sink, bytes } =
            buffer.into_inner().map_err(|error| Error::io("write", &path)(error.into_error()))?;
        if let (Sink::File(file), Place::File { target, replace }) = (sink, place) {
            file.as_file().sync_all().map_err(Error::io("sync", &target))?;
            let moved = if replace { file.persist(&target) } else { file.persist_noclobber(&target) };
            match moved {
                Err(failed) if failed.error.kind() == io::ErrorKind::AlreadyExists => {
                    return Err(Error::Exists { path: target });
                }
                moved => moved.map_err(|failed| Error::io("move a finished restore to", &target)(failed.error))?,
            };
            let folder = folder_of(&target);
            File::open(folder).and_then(|folder| folder.sync_all()).map_err(Error::io("sync", folder))?;
        }
        Ok(Written { records, bytes, reached })
    }

    fn new(sink: Sink, place: Place, frames: Frames, volume: u16, start: Lsn) -> Output {
        let buffer = BufWriter::with_capacity(BUFFER_BYTES, Target { sink, bytes: 0 });
        let writer = FrameWriter::new(frames, buffer);
        Output { writer, place, volume, assembler: Assembler::default(), applied: start, records: 0 }
    }
}

impl Machine for Output {
    type Error = Error;

    fn apply(&mut self, range: LsnRange, entries: &mut dyn Iterator<Item = Entry<'_>>) -> Result<()> {
        if range.from > self.applied {
            return Err(Error::Gap { offered: range.from, applied: self.applied });
        }
        for entry in entries {
            let header = &entry.header;
            if header.lsn < self.applied || header.kind != Some(Kind::Data) || header.volume != self.volume {
                continue;
            }
            if let Some(record) = self.assembler.push(&entry) {
                let written = self.writer.write(record.flags, record.payload);
                written.map_err(Error::io("write", self.place.path()))?;
                self.records += 1;
            }
        }
        self.applied = self.applied.max(range.to);
        Ok(())
    }

    fn applied(&self) -> Lsn {
        self.applied
    }

    /// Nothing: an output can't be continued after a restart, only [`Output::finish`] makes it safe.
    fn checkpoint(&mut self) -> Result<Lsn> {
        self.writer.flush().map_err(Error::io("write", self.place.path()))?;
        Ok(self.applied)
    }
}

impl Place {
    fn path(&self) -> &Path {
        match self {
            Place::File { target, .. } => target,
            Place::Stream => Path::new("the output"),
        }
    }
}

fn folder_of(target: &Path) -> &Path {
    target.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// What bytes go to, with their count.
#[derive(Debug)]
struct Target {
    sink: Sink,
    bytes: u64,
}

enum Sink {
    File(NamedTempFile),
    Stream(Box<dyn Write + Send>),
}

impl fmt::Debug for Sink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Sink::File(file) => f.debug_tuple("File").field(&file.path()).finish(),
            Sink::Stream(_) => f.write_str("Stream"),
        }
    }
}

impl Write for Target {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = match &mut self.sink {
            Sink::File(file) => file.write(bytes)?,
            Sink::Stream(out) => out.write(bytes)?,
        };
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        match &mut self.sink {
            Sink::File(file) => file.flush(),
            Sink::Stream(out) => out.flush(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::sync::{Arc, Mutex};

    use journal::{Chain, Class, Epoch, Flags, HEADER_BYTES, Header, Time, crc32c};

    use super::*;

    const WHOLE: Flags = Flags::FIRST.with(Flags::LAST);

    fn entry(at: &mut Lsn, volume: u16, flags: Flags, payload: &'static str) -> Entry<'static> {
        let header = Header {
            length: (HEADER_BYTES + payload.len()) as u32,
            kind: Some(Kind::Data),
            flags,
            lsn: *at,
            epoch: Epoch::default(),
            run_id: 1,
            time: Time::from_nanos(1 + at.get()),
            durable: Lsn::ZERO,
            payload_crc: crc32c(payload.as_bytes()),
            volume,
            producer: 0,
            sequence: 0,
            chain: Chain::default(),
        };
        *at = header.range().to;
        Entry { header, payload: payload.as_bytes() }
    }

    /// Two records of volume 1, the second in two fragments and without its newline, and one of volume 2.
    fn feed(output: &mut Output) -> Lsn {
        let mut at = Lsn::ZERO;
        let entries = [
            entry(&mut at, 1, WHOLE, "one"),
            entry(&mut at, 2, WHOLE, "another volume's"),
            entry(&mut at, 1, Flags::FIRST, "tw"),
            entry(&mut at, 1, Flags::LAST.with(Flags::UNTERMINATED), "o"),
        ];
        for _ in 0..2 {
            output.apply(LsnRange::new(Lsn::ZERO, at), &mut entries.into_iter()).expect("apply");
        }
        at
    }

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<_> = fs::read_dir(folder)
            .expect("list")
            .map(|found| found.expect("a file").file_name().into_string().expect("UTF-8"))
            .collect();
        names.sort();
        names
    }

    #[test]
    fn the_target_appears_whole_and_with_usual_permissions() {
        let dir = tempfile::tempdir().expect("a folder");
        let target = dir.path().join("out.txt");
        let mut output = Output::to_file(&target, false, Frames::Lines, 1, Lsn::ZERO).expect("begin");
        let end = feed(&mut output);
        output.checkpoint().expect("checkpoint");
        assert!(!target.exists());
        assert_eq!(output.finish().expect("finish"), Written { records: 2, bytes: 7, reached: end });
        assert_eq!(fs::read(&target).expect("read"), b"one\ntwo");
        assert_eq!(names(dir.path()), ["out.txt"]);
        let plain = dir.path().join("plain");
        fs::write(&plain, "").expect("write");
        let mode = |path| fs::metadata(path).expect("look").permissions().mode();
        assert_eq!(mode(&target), mode(&plain));
    }

    #[test]
    fn an_existing_target_is_replaced_only_when_asked() {
        let dir = tempfile::tempdir().expect("a folder");
        let target = dir.path().join("out.txt");
        let early = Output::to_file(&target, false, Frames::Len32, 1, Lsn::ZERO).expect("nothing there yet");
        fs::write(&target, "precious").expect("write");
        for refused in
            [early.finish().map(drop), Output::to_file(&target, false, Frames::Len32, 1, Lsn::ZERO).map(drop)]
        {
            assert_eq!(refused.expect_err("it exists").class(), Class::Refused);
            assert_eq!(fs::read(&target).expect("read"), b"precious");
        }
        let mut output = Output::to_file(&target, true, Frames::Len32, 1, Lsn::ZERO).expect("begin");
        feed(&mut output);
        output.finish().expect("finish");
        assert_eq!(fs::read(&target).expect("read"), b"\x03\0\0\0one\x03\0\0\0two");
    }

    #[test]
    fn an_abandoned_restore_leaves_nothing() {
        let dir = tempfile::tempdir().expect("a folder");
        let target = dir.path().join("out.txt");
        let mut output = Output::to_file(&target, true, Frames::Raw, 1, Lsn::ZERO).expect("begin");
        feed(&mut output);
        assert_eq!(names(dir.path()).len(), 1);
        drop(output);
        assert_eq!(names(dir.path()), Vec::<String>::new());
    }

    #[test]
    fn a_stream_gets_the_same_bytes_and_a_full_one_is_an_error() {
        #[derive(Clone, Default)]
        struct Shared(Arc<Mutex<Vec<u8>>>);
        impl Write for Shared {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                self.0.lock().expect("lock").write(bytes)
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let shared = Shared::default();
        let mut output = Output::to_stream(Box::new(shared.clone()), Frames::Raw, 1, Lsn::ZERO);
        feed(&mut output);
        output.finish().expect("finish");
        assert_eq!(*shared.0.lock().expect("lock"), b"onetwo");
        let full = File::options().write(true).open("/dev/full").expect("open /dev/full");
        let mut output = Output::to_stream(Box::new(full), Frames::Raw, 1, Lsn::ZERO);
        feed(&mut output);
        assert_eq!(output.finish().expect_err("full").class(), Class::Full);
    }

    #[test]
    fn a_gap_is_refused() {
        let mut output = Output::to_stream(Box::new(io::sink()), Frames::Lines, 1, Lsn::ZERO);
        let range = LsnRange::new(Lsn::new(8), Lsn::new(16));
        assert!(matches!(output.apply(range, &mut std::iter::empty()), Err(Error::Gap { .. })));
    }
}
