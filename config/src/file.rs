//! The file as it is written: every key once, nothing decided yet. `resolve` decides.

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;
use std::ops::Deref;
use std::path::{Path, PathBuf};

use ron::extensions::Extensions;
use serde::de::{self, Deserializer, MapAccess, Visitor};
use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::value::{Address, Name, Place, RecordSize, Schedule, Scrub, SegmentSize, Size, Span};

/// The whole file.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename = "Towline")]
pub struct File {
    /// Where a node keeps its data; the same path on every node.
    pub data: PathBuf,
    /// Certificates; without them every address must be loopback, or `plaintext` be said.
    pub tls: Option<Tls>,
    /// The explicit word for unencrypted links off loopback.
    #[serde(default)]
    pub plaintext: bool,
    /// Every node's name and the address where the others reach it.
    pub nodes: Map<Name, Address>,
    /// Every stream.
    pub streams: Map<Name, Stream>,
    /// A peer that says nothing for so long is dead.
    pub dead_after: Option<Span>,
    /// How long a daemon that was told to stop may drain.
    pub stop_timeout: Option<Span>,
}

/// Where certificates lie.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tls {
    /// A folder with ca.pem, cert.pem and key.pem, as `towline pki issue` makes it.
    pub dir: PathBuf,
}

/// One stream.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stream {
    /// What its entries mean.
    pub volumes: Vec<Volume>,
    /// The node that is primary at the very first start; later the role in its control file counts.
    pub starts_on: Name,
    /// The other members.
    #[serde(default)]
    pub peers: Map<Name, Peer>,
    /// Where batches are shipped to.
    #[serde(default)]
    pub depots: Map<Name, Depot>,
    /// Its log.
    #[serde(default)]
    pub journal: Journal,
}

/// What entries mean.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub enum Volume {
    /// Opaque records.
    Records {
        /// Its name.
        name: Name,
    },
}

/// A node that keeps a copy of the log.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Peer {
    /// What is asked of it.
    pub mode: Mode,
    /// What happens when it is lost while required.
    pub on_loss: Option<OnLoss>,
    /// What happens at the budget when it lacks what would be given up, while not required.
    pub at_budget: Option<AtBudget>,
}

/// The promise asked of a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub enum Mode {
    /// Committed when durable here.
    Async,
    /// … and received there.
    SemiSync,
    /// … and durable there.
    Sync,
}

/// What happens when a required peer is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub enum OnLoss {
    /// Wait for it.
    Block,
    /// Answer with an error.
    Fail {
        /// After so long.
        after: Span,
    },
    /// Go on alone.
    Alone {
        /// After so long.
        after: Span,
    },
}

impl fmt::Display for OnLoss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            OnLoss::Block => f.write_str("Block"),
            OnLoss::Fail { after } => write!(f, "Fail after {after}"),
            OnLoss::Alone { after } => write!(f, "Alone after {after}"),
        }
    }
}

/// What happens when the budget is used up, or the disk is full, because of what a destination lacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub enum AtBudget {
    /// Writes get an error.
    Block,
    /// Nothing is kept for it any more.
    Detach,
}

/// A place for batches.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Depot {
    /// A node's name, or a folder of the primary (a folder contains a slash).
    pub at: Place,
    /// When a batch is cut.
    pub schedule: Schedule,
    /// What happens at the budget when it lacks what would be given up.
    pub at_budget: Option<AtBudget>,
}

/// Options of a stream's log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Journal {
    /// Most bytes that everything of the stream in the data folder may take.
    pub budget: Option<Size>,
    /// At least so much log is kept though nobody needs it [default: half of the budget, without `keep_for`].
    pub keep: Option<Size>,
    /// Log that is younger is kept though nobody needs it, as far as the budget goes.
    pub keep_for: Option<Span>,
    /// Body of one segment; fixed when the stream is created.
    pub segment: Option<SegmentSize>,
    /// Largest record.
    pub record_max: Option<RecordSize>,
    /// How rot is looked for in it.
    pub scrub: Option<Scrub>,
}

impl File {
    /// Reads a file.
    pub fn load(path: &Path) -> Result<File, Error> {
        let text = std::fs::read_to_string(path).map_err(|cause| Error::unreadable(path, cause))?;
        File::parse(path, &text)
    }

    /// Reads `text`; `path` is for the error.
    pub fn parse(path: &Path, text: &str) -> Result<File, Error> {
        let options = ron::Options::default().with_default_extension(Extensions::IMPLICIT_SOME);
        options.from_str(text).map_err(|fault| Error::syntax(path, text, fault))
    }
}

/// A map that refuses to hold a key twice, where others keep the last one silently.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Map<K, V>(BTreeMap<K, V>);

impl<K, V> Default for Map<K, V> {
    fn default() -> Map<K, V> {
        Map(BTreeMap::new())
    }
}

impl<K, V> Deref for Map<K, V> {
    type Target = BTreeMap<K, V>;

    fn deref(&self) -> &BTreeMap<K, V> {
        &self.0
    }
}

impl<'de, K: Deserialize<'de> + Ord + fmt::Display, V: Deserialize<'de>> Deserialize<'de> for Map<K, V> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Map<K, V>, D::Error> {
        struct Once<K, V>(PhantomData<(K, V)>);

        impl<'de, K: Deserialize<'de> + Ord + fmt::Display, V: Deserialize<'de>> Visitor<'de> for Once<K, V> {
            type Value = Map<K, V>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map: { \"name\": …, }")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Map<K, V>, A::Error> {
                let mut map = BTreeMap::new();
                while let Some(key) = access.next_key::<K>()? {
                    if map.contains_key(&key) {
                        return Err(de::Error::custom(format_args!("\"{key}\" stands here twice")));
                    }
                    map.insert(key, access.next_value()?);
                }
                Ok(Map(map))
            }
        }

        from.deserialize_map(Once(PhantomData))
    }
}
