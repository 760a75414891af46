//! The data folder of a node.
//!
//! ```text
//! DATA/node           who this node is: minted once, never changed
//!      lock           held while a node runs; names its process
//!      control.sock
//!      streams/NAME/  journal/ (journal), records/ and settled (replica), spool/ (batches on their way),
//!                 scrub (what the last look for rot found)
//!      depots/        batches of other nodes' streams
//! ```

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use journal::NodeId;
use rustix::fs::{FlockOperation, flock};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// Name of the file that says who the node is.
const NODE: &str = "node";
const LOCK: &str = "lock";
const STREAMS: &str = "streams";
const DEPOTS: &str = "depots";
/// Prefix of what is still being made; removed at the next start.
const ASIDE: &str = ".new-";
/// Nobody writes more than a few hundred bytes there.
const NODE_BYTES_MAX: u64 = 64 << 10;
/// Longest stream or node name, in bytes.
pub(crate) const NAME_BYTES_MAX: usize = 64;

/// A node's data folder, locked for as long as this value lives.
#[derive(Debug)]
pub struct Data {
    path: PathBuf,
    node: NodeFile,
    _lock: File,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct NodeFile {
    format: u32,
    id: String,
    name: String,
    #[serde(skip)]
    node: NodeId,
}

/// Version of the `node` file. 1: the first.
const FORMAT: u32 = 1;

impl Data {
    /// Opens the data folder at `path`, or makes it: a new folder mints a node identity.
    ///
    /// `name` names a new node; an existing one keeps its name unless `name` differs, then that is an error of class
    /// `Config`, because two nodes under one folder are a mistake. `None` takes the name it has (the host's for a new
    /// one).
    ///
    /// Errors: `Locked` when another process holds it, `Refused` when the folder is something else's, `Corrupt` or
    /// `Incompatible` when its `node` file can't be used.
    pub fn open(path: &Path, name: Option<&str>) -> Result<Data> {
        if let Some(name) = name {
            check_name("node", name)?;
        }
        let fresh = !path.join(NODE).exists();
        if fresh {
            refuse_foreign(path)?;
            DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(Error::io("create", path))?;
        }
        let lock = lock(&path.join(LOCK))?;
        // only now: two first starts at once must not mint two identities
        let node = match read_node(&path.join(NODE))? {
            Some(node) => node,
            None => mint(path, name)?,
        };
        if let Some(name) = name
            && name != node.name
        {
            return Err(Error::OtherNode { path: path.to_owned(), is: node.name, asked: name.into() });
        }
        let streams = path.join(STREAMS);
        DirBuilder::new().recursive(true).mode(0o700).create(&streams).map_err(Error::io("create", &streams))?;
        sync_folder(path)?;
        let data = Data { path: path.to_owned(), node, _lock: lock };
        data.sweep()?;
        Ok(data)
    }

    /// Who the node of the data folder at `path` is, without opening it.
    pub fn identity(path: &Path) -> Result<NodeId> {
        let file = path.join(NODE);
        let node = read_node(&file)?.map(|node| node.node);
        node.ok_or_else(|| Error::Damaged { path: file, what: "is missing: put it back from a backup first".into() })
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The node's identity.
    pub fn node(&self) -> NodeId {
        self.node.node
    }

    /// Where it keeps the batches of others.
    pub(crate) fn depots(&self) -> PathBuf {
        self.path.join(DEPOTS)
    }

    /// The node's name.
    pub fn name(&self) -> &str {
        &self.node.name
    }

    /// Names of the streams that the folder keeps, sorted.
    pub fn streams(&self) -> Result<Vec<String>> {
        let folder = self.path.join(STREAMS);
        let mut names = Vec::new();
        for item in fs::read_dir(&folder).map_err(Error::io("list", &folder))? {
            let item = item.map_err(Error::io("list", &folder))?;
            let name = item.file_name().to_string_lossy().into_owned();
            if check_name("stream", &name).is_err() || !item.path().is_dir() {
                return Err(Error::Foreign { path: item.path(), what: "is no stream of this folder".into() });
            }
            names.push(name);
        }
        names.sort();
        Ok(names)
    }

    /// Where the stream of this name is kept, if it is.
    pub fn stream(&self, name: &str) -> StreamFolder {
        StreamFolder { path: self.path.join(STREAMS).join(name) }
    }

    /// Makes the folder of a new stream: `fill` makes what belongs inside, in a folder aside; it appears under its name
    /// complete and durable, or not at all.
    pub fn create_stream(&self, name: &str, fill: impl FnOnce(&StreamFolder) -> Result<()>) -> Result<StreamFolder> {
        check_name("stream", name)?;
        let streams = self.path.join(STREAMS);
        let aside = StreamFolder { path: streams.join(format!("{ASIDE}{name}")) };
        remove(&aside.path)?;
        DirBuilder::new().mode(0o700).create(&aside.path).map_err(Error::io("create", &aside.path))?;
        if let Err(error) = fill(&aside) {
            // the cause is what the caller needs; what is left is swept at the next start
            let _ = remove(&aside.path);
            return Err(error);
        }
        sync_folder(&aside.path)?;
        let place = self.stream(name);
        fs::rename(&aside.path, &place.path).map_err(Error::io("rename", &aside.path))?;
        sync_folder(&streams)?;
        Ok(place)
    }

    /// Removes what a crash left half made.
    fn sweep(&self) -> Result<()> {
        let folder = self.path.join(STREAMS);
        for item in fs::read_dir(&folder).map_err(Error::io("list", &folder))? {
            let item = item.map_err(Error::io("list", &folder))?;
            if item.file_name().to_string_lossy().starts_with(ASIDE) {
                remove(&item.path())?;
            }
        }
        Ok(())
    }
}

/// The folder of one stream.
#[derive(Clone, Debug)]
pub struct StreamFolder {
    path: PathBuf,
}

impl StreamFolder {
    /// True when the stream is kept here.
    pub fn exists(&self) -> bool {
        self.path.is_dir()
    }

    /// Its log.
    pub fn journal(&self) -> PathBuf {
        self.path.join("journal")
    }

    /// Batches on their way to a depot.
    pub(crate) fn spool(&self) -> PathBuf {
        self.path.join("spool")
    }

    /// What the last look for rot in the log found.
    pub(crate) fn scrub(&self) -> PathBuf {
        self.path.join("scrub")
    }

    /// Which boot of the machine is settled, on a receiver.
    pub(crate) fn settled(&self) -> PathBuf {
        self.path.join("settled")
    }

    /// The replica of its records.
    pub fn records(&self) -> PathBuf {
        self.path.join("records")
    }
}

/// Refuses what can't be the name of a stream or a node: 1 to 64 of `A-Z a-z 0-9 . _ -`, beginning with a letter or a
/// digit. So a name is a file name, a word in a command and a label as it stands.
pub fn check_name(of: &'static str, name: &str) -> Result<()> {
    let first = name.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric());
    let rest = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte));
    if first && rest && name.len() <= NAME_BYTES_MAX {
        return Ok(());
    }
    Err(Error::Name { of, name: name.chars().take(NAME_BYTES_MAX + 1).collect() })
}

/// A folder that somebody else uses is not ours to fill. Empty ones are, and those where a first start was cut short.
fn refuse_foreign(path: &Path) -> Result<()> {
    let items = match fs::read_dir(path) {
        Ok(items) => items,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => {
            return Err(Error::Foreign { path: path.to_owned(), what: "is a file, not a folder".into() });
        }
        Err(error) => return Err(Error::io("list", path)(error)),
    };
    for item in items {
        let name = item.map_err(Error::io("list", path))?.file_name();
        let name = name.to_string_lossy();
        if name == STREAMS {
            return Err(Error::Damaged {
                path: path.join(NODE),
                what:
                    "is missing, but there are streams: put it back from a backup, or start this node in a new folder \
                       and let it copy them from its primary"
                        .into(),
            });
        }
        let ours = name == LOCK || name == "lost+found" || name.starts_with(ASIDE);
        if !ours {
            return Err(Error::Foreign {
                path: path.to_owned(),
                what: format!("is no data folder of towline and not empty (it holds {name})"),
            });
        }
    }
    Ok(())
}

fn lock(path: &Path) -> Result<File> {
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
        .map_err(Error::io("open", path))?;
    if let Err(error) = flock(&file, FlockOperation::NonBlockingLockExclusive) {
        if error != rustix::io::Errno::WOULDBLOCK {
            return Err(Error::io("lock", path)(error.into()));
        }
        let mut pid = String::new();
        // only to name the other process: without it the message is shorter
        let _ = (&mut file).take(32).read_to_string(&mut pid);
        return Err(Error::Locked { path: path.to_owned(), pid: pid.trim().parse().ok() });
    }
    file.set_len(0).map_err(Error::io("empty", path))?;
    writeln!(file, "{}", std::process::id()).map_err(Error::io("write", path))?;
    Ok(file)
}

fn read_node(path: &Path) -> Result<Option<NodeFile>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Error::io("open", path)(error)),
    };
    let mut text = String::new();
    let damaged = |what: String| Error::Damaged { path: path.to_owned(), what };
    match file.take(NODE_BYTES_MAX).read_to_string(&mut text) {
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::InvalidData => return Err(damaged("is not text".into())),
        Err(error) => return Err(Error::io("read", path)(error)),
    }
    let mut node: NodeFile = serde_json::from_str(&text).map_err(|cause| {
        damaged(format!("does not say who this node is ({cause}): put it back from a backup; do not make it up"))
    })?;
    if node.format != FORMAT {
        return Err(Error::Version { path: path.to_owned(), found: node.format, known: FORMAT });
    }
    node.node = NodeId::parse(&node.id).ok_or_else(|| damaged(format!("names no node identity: {:?}", node.id)))?;
    Ok(Some(node))
}

/// Reads what [`write_note`] wrote; `None` when it is not there. One that is of no use is said, with what happens `instead`,
/// and is as if it were not there: nothing rests on a note alone.
pub(crate) fn read_note<T: DeserializeOwned>(
    path: &Path,
    format_of: impl Fn(&T) -> u32,
    format: u32,
    instead: &str,
) -> Option<T> {
    let read = match fs::read(path) {
        Ok(text) => serde_json::from_slice(&text).map_err(|error| error.to_string()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
        Err(error) => Err(error.to_string()),
    };
    let error = match read {
        Ok(note) if format_of(&note) == format => return Some(note),
        Ok(note) => format!("this version doesn't know its format {}", format_of(&note)),
        Err(error) => error,
    };
    tracing::warn!(path = %path.display(), error, "read a note: {instead}");
    None
}

/// Writes a note for the next start, whole or not at all.
pub(crate) fn write_note(path: &Path, note: &impl Serialize) -> Result<()> {
    let mut text = serde_json::to_vec(note).map_err(io::Error::from).map_err(Error::io("write", path))?;
    text.push(b'\n');
    write_whole(path, &text)
}

/// Writes a file whole or not at all; durable when it returns.
pub(crate) fn write_whole(path: &Path, bytes: &[u8]) -> Result<()> {
    let aside = path.with_extension("new");
    let mut file = File::create(&aside).map_err(Error::io("create", &aside))?;
    file.write_all(bytes).map_err(Error::io("write", &aside))?;
    file.sync_all().map_err(Error::io("sync", &aside))?;
    fs::rename(&aside, path).map_err(Error::io("rename", &aside))?;
    sync_folder(path.parent().unwrap_or(Path::new(".")))
}

fn mint(folder: &Path, name: Option<&str>) -> Result<NodeFile> {
    let node = NodeId::random();
    let name = name.map(str::to_owned).unwrap_or_else(host_name);
    let file = NodeFile { format: FORMAT, id: node.to_string(), name, node };
    let path = folder.join(NODE);
    let aside = folder.join(format!("{ASIDE}{NODE}"));
    let mut text = serde_json::to_vec_pretty(&file).unwrap_or_default();
    text.push(b'\n');
    let mut out = File::create(&aside).map_err(Error::io("create", &aside))?;
    out.write_all(&text).map_err(Error::io("write", &aside))?;
    out.sync_all().map_err(Error::io("sync", &aside))?;
    fs::rename(&aside, &path).map_err(Error::io("rename", &aside))?;
    sync_folder(folder)?;
    if let Some(above) = folder.parent().filter(|above| !above.as_os_str().is_empty()) {
        sync_folder(above)?;
    }
    Ok(file)
}

/// The host's name as far as it may be a node's.
fn host_name() -> String {
    let uname = rustix::system::uname();
    let host = uname.nodename().to_string_lossy();
    let short = host.split('.').next().unwrap_or_default();
    if check_name("node", short).is_ok() { short.to_owned() } else { "node".into() }
}

fn remove(path: &Path) -> Result<()> {
    match fs::remove_dir_all(path) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(Error::io("remove", path)(error)),
    }
}

fn sync_folder(path: &Path) -> Result<()> {
    File::open(path).and_then(|folder| folder.sync_all()).map_err(Error::io("sync", path))
}

#[cfg(test)]
mod tests {
    use journal::Class;

    use super::*;

    fn class(result: Result<Data>) -> Option<Class> {
        result.err().map(|error| error.class())
    }

    #[test]
    fn a_new_folder_mints_an_identity_and_keeps_it() {
        let root = tempfile::tempdir().expect("a folder");
        let path = root.path().join("a/b");
        let first = Data::open(&path, Some("a")).expect("a new folder");
        let id = first.node();
        drop(first);
        let again = Data::open(&path, None).expect("the same folder");
        assert_eq!((again.node(), again.name()), (id, "a"));
        drop(again);
        assert_eq!(class(Data::open(&path, Some("b"))), Some(Class::Config));
        let other = Data::open(&root.path().join("c"), Some("a")).expect("another folder");
        assert_ne!(other.node(), id);
    }

    #[test]
    fn a_second_process_finds_it_locked() {
        let root = tempfile::tempdir().expect("a folder");
        let held = Data::open(root.path(), Some("a")).expect("a new folder");
        let error = Data::open(root.path(), None).expect_err("it is held");
        assert_eq!(error.class(), Class::Locked);
        assert!(error.to_string().contains(&std::process::id().to_string()), "{error}");
        drop(held);
        Data::open(root.path(), None).expect("it is free");
    }

    #[test]
    fn what_is_no_data_folder_is_refused_and_left_alone() {
        let root = tempfile::tempdir().expect("a folder");
        fs::write(root.path().join("letter.txt"), "dear").expect("a file");
        assert_eq!(class(Data::open(root.path(), None)), Some(Class::Refused));
        assert_eq!(fs::read_dir(root.path()).expect("list").count(), 1);
        assert_eq!(class(Data::open(&root.path().join("letter.txt"), None)), Some(Class::Refused));
    }

    #[test]
    fn a_damaged_node_file_is_not_replaced() {
        let cases: [(&str, Class); 5] = [
            ("", Class::Corrupt),
            ("{", Class::Corrupt),
            (r#"{"format":1,"id":"nobody","name":"a"}"#, Class::Corrupt),
            (r#"{"format":1,"id":"00000000-0000-0000-0000-000000000001","name":"a","more":1}"#, Class::Corrupt),
            (r#"{"format":2,"id":"00000000-0000-0000-0000-000000000001","name":"a"}"#, Class::Incompatible),
        ];
        for (text, expected) in cases {
            let root = tempfile::tempdir().expect("a folder");
            fs::write(root.path().join(NODE), text).expect("a file");
            assert_eq!(class(Data::open(root.path(), None)), Some(expected), "{text}");
            assert_eq!(fs::read_to_string(root.path().join(NODE)).expect("read"), text);
        }
    }

    #[test]
    fn streams_without_a_node_file_are_not_adopted() {
        let root = tempfile::tempdir().expect("a folder");
        drop(Data::open(root.path(), Some("a")).expect("a new folder"));
        fs::remove_file(root.path().join(NODE)).expect("remove");
        assert_eq!(class(Data::open(root.path(), None)), Some(Class::Corrupt));
    }

    #[test]
    fn a_stream_appears_whole_or_not_at_all() {
        let root = tempfile::tempdir().expect("a folder");
        let data = Data::open(root.path(), Some("a")).expect("a new folder");
        let fail = |folder: &StreamFolder| {
            fs::create_dir(folder.journal()).expect("a folder inside");
            Err(Error::Name { of: "stream", name: "made up".into() })
        };
        data.create_stream("log", fail).expect_err("it failed inside");
        assert_eq!(data.streams().expect("list"), Vec::<String>::new());
        // what a crash leaves
        fs::create_dir_all(root.path().join("streams/.new-log/journal")).expect("folders");
        drop(data);
        let data = Data::open(root.path(), None).expect("again");
        let made = data.create_stream("log", |folder| {
            fs::create_dir(folder.journal()).map_err(Error::io("create", &folder.journal()))
        });
        assert!(made.expect("made").journal().is_dir());
        assert_eq!(data.streams().expect("list"), ["log"]);
    }

    #[test]
    fn names_are_words() {
        for name in ["a", "log-1", "x.y_z", "9"] {
            check_name("stream", name).expect(name);
        }
        for name in ["", ".", "..", "-x", ".new-a", "a/b", "a b", "ä", &"x".repeat(65)] {
            check_name("stream", name).expect_err(name);
        }
    }
}
