//! The folder of a batch that is on its way: kept across restarts, so that an upload goes on with the same bytes.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use crate::batch::{BatchName, Finished, verify_file};
use crate::disk::{make_dir, remove_if_there};
use crate::error::{Error, Result};

/// A folder with at most one finished batch. It belongs to its owner alone: everything else in it is removed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outbox {
    folder: PathBuf,
}

impl Outbox {
    /// The outbox in `folder`, which is made when it is first needed.
    pub fn new(folder: impl Into<PathBuf>) -> Outbox {
        Outbox { folder: folder.into() }
    }

    /// Where it is.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Where a batch is to be cut.
    pub fn cutting(&self) -> PathBuf {
        self.folder.join("cutting")
    }

    /// Gives a finished batch its name here; a batch of an earlier run under that name is replaced.
    pub fn keep(&self, batch: Finished) -> Result<Finished> {
        let path = batch.clone().publish(&self.folder)?;
        Ok(Finished { path, ..batch })
    }

    /// The batch that lies here, read whole and verified; `None` when there is none, or it is damaged.
    pub fn find(&self) -> Result<Option<Finished>> {
        let Ok(entries) = fs::read_dir(&self.folder) else { return Ok(None) };
        for entry in entries {
            let path = entry.map_err(Error::io("list", &self.folder))?.path();
            let named = path.file_name().and_then(|name| name.to_str()).is_some_and(|n| n.parse::<BatchName>().is_ok());
            let looked = named.then(|| verify_file(&path)).and_then(Result::ok);
            if let Some(info) = looked.and_then(|verdict| verdict.into_result().ok()) {
                let mut hasher = blake3::Hasher::new();
                let file = File::open(&path).map_err(Error::io("open batch", &path))?;
                hasher.update_reader(file).map_err(Error::io("read batch", &path))?;
                return Ok(Some(Finished { path, info, file_hash: *hasher.finalize().as_bytes() }));
            }
        }
        Ok(None)
    }

    /// Removes what lies here, and makes the folder if it is missing.
    pub fn clear(&self) -> Result<()> {
        make_dir(&self.folder)?;
        for entry in fs::read_dir(&self.folder).map_err(Error::io("list", &self.folder))? {
            remove_if_there(&entry.map_err(Error::io("list", &self.folder))?.path())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use journal::Lsn;
    use tempfile::TempDir;

    use super::*;
    use crate::batch::{Cut, Writer};
    use crate::forge::{Forge, STREAM};

    #[test]
    fn a_kept_batch_is_found_again_unless_it_is_damaged() {
        let dir = TempDir::new().expect("temp");
        let outbox = Outbox::new(dir.path().join("a/b"));
        assert_eq!(outbox.find().expect("no folder"), None);
        outbox.clear().expect("makes it");
        let forge = Forge::with(&[b"one", b"two"]);
        let first = forge.tips()[0];
        let cut = Cut { stream: STREAM, geometry: forge.geometry, first, opening: None, upto: Lsn::MAX, level: 1 };
        let mut writer = Writer::create(&outbox.cutting(), cut).expect("creates");
        writer.push(&forge.bytes).expect("verifies");
        let kept = outbox.keep(writer.finish().expect("has entries")).expect("renames");
        assert_eq!(outbox.find().expect("reads"), Some(kept.clone()));
        let mut bytes = fs::read(&kept.path).expect("there");
        bytes[150] ^= 1;
        fs::write(&kept.path, bytes).expect("writes");
        assert_eq!(outbox.find().expect("reads"), None);
        outbox.clear().expect("clears");
        assert_eq!(fs::read_dir(outbox.folder()).expect("there").count(), 0);
    }
}
