//! A depot as a source for the repair of a journal: batches hold the log's bytes as they are.

use std::path::{Path, PathBuf};

use journal::repair::{RangeSource, SourceFault};
use journal::{Geometry, Lsn, StreamId, Tip};

use crate::batch::{Batch, BatchName};
use crate::catalogue::{Catalogue, Line};
use crate::depot::Depot;
use crate::error::{Error, Result};

/// One line of a depot. A journal followed one of them; which one is proven by the repair.
#[derive(Debug)]
pub struct DepotLine {
    name: String,
    stream: StreamId,
    geometry: Geometry,
    /// The batches in order, each with what the line takes of it.
    steps: Vec<Part>,
    /// What lies in the depot and can't be used, by what it should hold.
    bad: Vec<(BatchName, String)>,
    open: Option<Batch>,
}

#[derive(Debug)]
struct Part {
    path: PathBuf,
    from: Lsn,
    upto: Lsn,
}

impl DepotLine {
    /// Every line of a depot, the newest first; none of an empty one.
    pub fn all(catalogue: &Catalogue) -> Vec<DepotLine> {
        let (Some(stream), Some(geometry)) = (catalogue.stream(), catalogue.geometry()) else { return Vec::new() };
        let lines = catalogue.lines();
        let folder = catalogue.folder().display();
        let several = lines.len() > 1;
        let bad = catalogue.bad_named();
        let line = |line: &Line| {
            let steps = line.steps.iter().filter_map(|step| {
                let (path, info) = catalogue.batches().get(step.batch)?;
                Some(Part { path: path.clone(), from: info.first.lsn, upto: step.upto })
            });
            let steps: Vec<Part> = steps.collect();
            let end = steps.last().map_or(Lsn::ZERO, |part| part.upto);
            let name = match several {
                true => format!("{folder} (the line up to LSN {end})"),
                false => folder.to_string(),
            };
            DepotLine { name, stream, geometry, steps, bad: bad.clone(), open: None }
        };
        lines.iter().map(line).collect()
    }

    /// Every line of `stream` at `path`, a depot or one stream's folder in it, and why others there can't be read.
    pub fn find(path: &Path, stream: StreamId) -> Result<(Vec<DepotLine>, Vec<Error>)> {
        let depots = match Depot::open(path) {
            Ok(depot) => vec![depot],
            Err(_) => Depot::list(path)?.iter().map(|listed| Depot::open(&listed.folder)).collect::<Result<_>>()?,
        };
        let (mut lines, mut unread) = (Vec::new(), Vec::new());
        for depot in depots {
            match depot.catalogue() {
                Ok(catalogue) if catalogue.stream() == Some(stream) => lines.extend(DepotLine::all(&catalogue)),
                Ok(_) => {}
                Err(error) => unread.push(error),
            }
        }
        Ok((lines, unread))
    }

    /// Where it ends.
    pub fn end(&self) -> Lsn {
        self.steps.last().map_or(Lsn::ZERO, |part| part.upto)
    }

    fn read(&mut self, at: Lsn) -> Result<Option<Vec<u8>>> {
        let Some(part) = self.steps.iter().find(|part| part.from <= at && at < part.upto) else { return Ok(None) };
        let batch = match self.open.take() {
            Some(batch) if batch.path() == part.path => batch,
            _ => Batch::open(&part.path)?,
        };
        let mut raw = Vec::new();
        if let Some(frame) = batch.frame(batch.frame_holding(at)) {
            batch.unpack(frame, &mut raw)?;
            raw.truncate(part.upto.bytes_since(frame.first.lsn) as usize);
            raw.drain(..raw.len().min(at.bytes_since(frame.first.lsn) as usize));
        }
        self.open = Some(batch);
        Ok(Some(raw).filter(|raw| !raw.is_empty()))
    }
}

impl RangeSource for DepotLine {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn stream(&self) -> StreamId {
        self.stream
    }

    fn geometry(&self) -> Geometry {
        self.geometry
    }

    fn fetch(&mut self, from: &Tip) -> std::result::Result<Option<Vec<u8>>, SourceFault> {
        let at = from.lsn;
        if let Some(bytes) = self.read(at)? {
            return Ok(Some(bytes));
        }
        match self.bad.iter().find(|(name, _)| name.from <= at && at < name.to) {
            Some((_, why)) => Err(why.clone().into()),
            None => Ok(None),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use journal::{Cursor, Next};
    use tempfile::TempDir;

    use super::*;
    use crate::batch::{Cut, Writer};
    use crate::forge::{Forge, STREAM};

    fn ship(dir: &TempDir, depot: &Depot, forge: &Forge, from: Tip, upto: Lsn) -> PathBuf {
        let opening = forge.opening_before(from.lsn);
        let cut = Cut { stream: STREAM, geometry: forge.geometry, first: from, opening, upto, level: 1 };
        let mut writer = Writer::create(&dir.path().join("cutting"), cut).expect("creates");
        writer.push(&forge.bytes[from.lsn.get() as usize..]).expect("verifies");
        let done = writer.finish().expect("has entries");
        let path = dir.path().join(done.info.name().to_string());
        fs::rename(&done.path, &path).expect("renames");
        depot.store(&path, done.info.file_bytes, done.file_hash).expect("stored").path
    }

    /// Follows a line as a repair does, entry by entry.
    fn follow(line: &mut DepotLine, from: Tip) -> (Vec<u8>, Tip, Option<String>) {
        let mut cursor = Cursor::new(line.geometry(), from);
        let mut all = Vec::new();
        loop {
            let piece = match line.fetch(cursor.tip()) {
                Ok(Some(piece)) => piece,
                Ok(None) => return (all, *cursor.tip(), None),
                Err(fault) => return (all, *cursor.tip(), Some(fault.to_string())),
            };
            let Ok(Next::Entry(entry)) = cursor.next(&piece) else { panic!("it begins with a whole entry") };
            all.extend_from_slice(&piece[..entry.header.range().bytes() as usize]);
        }
    }

    #[test]
    fn a_line_gives_the_logs_own_bytes_from_any_entry_on() {
        let dir = TempDir::new().expect("temp");
        let depot = Depot::create(&dir.path().join("depot"), "log", STREAM).expect("makes folders");
        let forge = Forge::with(&[b"one", b"two", &[9; 3000], b"four"]);
        let tips = forge.tips();
        ship(&dir, &depot, &forge, tips[0], tips[3].lsn);
        let second = ship(&dir, &depot, &forge, tips[3], Lsn::MAX);
        let mut lines = DepotLine::all(&depot.catalogue().expect("reads"));
        assert_eq!(lines.len(), 1);
        for tip in &tips {
            let (bytes, end, why) = follow(&mut lines[0], *tip);
            assert_eq!((end, why), (forge.tip, None));
            assert!(bytes == forge.bytes[tip.lsn.get() as usize..], "from {}", tip.lsn);
        }
        // a batch that can't be used is named instead of passed over
        fs::write(&second, b"gone").expect("spoils it");
        let mut lines = DepotLine::all(&depot.catalogue().expect("reads"));
        let (_, end, why) = follow(&mut lines[0], tips[0]);
        assert_eq!(end, tips[3]);
        assert!(why.is_some_and(|why| why.contains(&second.display().to_string())));
    }

    #[test]
    fn each_side_of_a_fork_is_a_line_of_its_own() {
        let dir = TempDir::new().expect("temp");
        let depot = Depot::create(&dir.path().join("depot"), "log", STREAM).expect("makes folders");
        let mut old = Forge::with(&[b"one", b"two"]);
        let mut new = old.clone();
        let fork = old.tip;
        old.data(b"old").data(b"older");
        new.open(2, 1).data(b"new");
        ship(&dir, &depot, &old, Tip::empty(STREAM), Lsn::MAX);
        ship(&dir, &depot, &new, fork, Lsn::MAX);
        let mut lines = DepotLine::all(&depot.catalogue().expect("reads"));
        let ends: Vec<Tip> = lines.iter_mut().map(|line| follow(line, Tip::empty(STREAM)).1).collect();
        assert_eq!(ends, [new.tip, old.tip]);
        assert_ne!(lines[0].name(), lines[1].name());
    }
}
