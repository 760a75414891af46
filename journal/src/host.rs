//! The machine around a journal: disk, clock and randomness, each replaceable so that a seed reproduces a run.

use std::fmt::Debug;
use std::sync::Arc;

use crate::id::StreamId;
use crate::storage::{Disk, Storage};
use crate::time::Time;

/// A wall clock.
pub trait Clock: Send + Sync + Debug {
    /// Now. May be stepped; the journal's own time never decreases.
    fn now(&self) -> Time;
}

/// A source of random numbers for ids.
pub trait Ids: Send + Sync + Debug {
    /// A fresh random number, never zero.
    fn random(&self) -> u64;
}

/// What a journal needs of its machine. The default is the real one.
#[derive(Clone, Debug)]
pub struct Host {
    /// The disk.
    pub storage: Arc<dyn Storage>,
    /// The wall clock.
    pub clock: Arc<dyn Clock>,
    /// Randomness.
    pub ids: Arc<dyn Ids>,
}

impl Default for Host {
    fn default() -> Host {
        Host { storage: Arc::new(Disk), clock: Arc::new(WallClock), ids: Arc::new(SystemIds) }
    }
}

#[derive(Debug)]
struct WallClock;

impl Clock for WallClock {
    fn now(&self) -> Time {
        Time::now()
    }
}

#[derive(Debug)]
struct SystemIds;

impl Ids for SystemIds {
    fn random(&self) -> u64 {
        let (bytes, _) = StreamId::random()
            .as_bytes()
            .split_first_chunk::<8>()
            .map(|(head, tail)| (*head, tail))
            .unwrap_or_default();
        u64::from_le_bytes(bytes) | 1
    }
}
