//! From the file to what one node does: names become addresses, defaults are filled in, contradictions end here.

use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::error::Error;
use crate::file::{AtBudget, File, Mode, OnLoss, Stream};
use crate::value::{Address, Name, Place, Schedule, Scrub, Span};

/// What one node does, finished.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Config {
    /// The node.
    pub name: Name,
    /// Its data folder.
    pub data: PathBuf,
    /// How its links are protected.
    pub security: Security,
    /// Where it listens: `None` when no other node sends it anything.
    pub listen: Option<Address>,
    /// A peer that says nothing for so long is dead.
    pub dead_after: Option<Span>,
    /// How long it may drain when told to stop.
    pub stop_timeout: Option<Span>,
    /// Its streams, by name.
    pub streams: Vec<StreamConfig>,
}

/// How links are protected.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Security {
    /// TLS 1.3, both sides with certificates of this folder.
    Tls(PathBuf),
    /// Unencrypted, said explicitly.
    Plaintext,
    /// Nothing was said: loopback only.
    Loopback,
}

/// One stream on this node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct StreamConfig {
    /// Its name.
    pub name: Name,
    /// What this node is at the very first start.
    pub part: Part,
    /// The members but this one, as they are when this node is the primary.
    pub peers: Vec<PeerConfig>,
    /// Its depots.
    pub depots: Vec<DepotConfig>,
    /// Most bytes on disk.
    pub budget_bytes: Option<u64>,
    /// What is kept of the log though nobody needs it.
    pub keep_bytes: Option<u64>,
    /// Its age.
    pub keep_for: Option<Span>,
    /// Body of one segment.
    pub segment_bytes: Option<u32>,
    /// Largest record.
    pub record_bytes_max: Option<usize>,
    /// How rot is looked for in its log.
    pub scrub: Option<Scrub>,
}

/// What a node is for a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Part {
    /// The first primary.
    Primary,
    /// A member that receives.
    Receiver,
    /// No member: it keeps the stream's batches for others.
    Depot,
}

/// Another member.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PeerConfig {
    /// Its name.
    pub name: Name,
    /// Where it is reached.
    pub address: Address,
    /// What is asked of it.
    pub mode: Mode,
    /// What happens when it is lost.
    pub on_loss: OnLoss,
    /// What happens at the budget; `None`: it is detached, unless it is the last one.
    pub at_budget: Option<AtBudget>,
}

/// A place for batches.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DepotConfig {
    /// Its name.
    pub name: Name,
    /// Where it is.
    pub at: DepotPlace,
    /// When a batch is cut.
    pub schedule: Schedule,
    /// As in [`PeerConfig`].
    pub at_budget: Option<AtBudget>,
}

/// Where a depot is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum DepotPlace {
    /// A folder on the primary's machine.
    Folder(PathBuf),
    /// A node that keeps depots.
    Node(Name, Address),
}

/// Decides what node `name` does. `path` is for the error.
pub fn resolve(path: &Path, file: &File, name: &Name) -> Result<Config, Error> {
    let address = file.nodes.get(name).ok_or_else(|| {
        let known = file.nodes.keys().map(|name| format!("\"{name}\"")).collect::<Vec<_>>().join(", ");
        Error::key(
            path,
            "nodes",
            format!("there is no node \"{name}\" here, only {known}. Say which one this is: --node NAME"),
        )
    })?;
    check(path, file)?;
    let mut streams = Vec::new();
    let mut listens = false;
    for (stream_name, stream) in file.streams.iter() {
        let part = match stream.part_of(name) {
            Some(part) => part,
            None => continue,
        };
        // a primary with peers listens too: after a promotion elsewhere it is the one that receives
        listens |= part != Part::Primary || !stream.peers.is_empty();
        streams.push(StreamConfig {
            name: stream_name.clone(),
            part,
            peers: peers(file, stream, name),
            depots: depots(file, stream),
            budget_bytes: stream.journal.budget.map(|size| size.bytes()),
            keep_bytes: stream.journal.keep.map(|size| size.bytes()),
            keep_for: stream.journal.keep_for,
            segment_bytes: stream.journal.segment.map(|size| size.bytes()),
            record_bytes_max: stream.journal.record_max.map(|size| size.bytes()),
            scrub: stream.journal.scrub,
        });
    }
    Ok(Config {
        name: name.clone(),
        data: file.data.clone(),
        security: file.security(),
        listen: listens.then(|| address.clone()),
        dead_after: file.dead_after,
        stop_timeout: file.stop_timeout,
        streams,
    })
}

impl File {
    /// How links are protected.
    pub fn security(&self) -> Security {
        match (&self.tls, self.plaintext) {
            (Some(tls), _) => Security::Tls(tls.dir.clone()),
            (None, true) => Security::Plaintext,
            (None, false) => Security::Loopback,
        }
    }
}

impl Stream {
    fn part_of(&self, name: &Name) -> Option<Part> {
        let keeps_batches = self.depots.values().any(|depot| depot.at == Place::Word(name.to_string()));
        match () {
            () if self.starts_on == *name => Some(Part::Primary),
            () if self.peers.contains_key(name) => Some(Part::Receiver),
            () if keeps_batches => Some(Part::Depot),
            () => None,
        }
    }
}

/// The other members as `me` sees them. A pair's mode belongs to the pair: a promoted peer asks of the old primary what
/// was asked of it.
fn peers(file: &File, stream: &Stream, me: &Name) -> Vec<PeerConfig> {
    let mine = stream.peers.get(me);
    let others = stream.peers.iter().filter(|(name, _)| *name != me);
    let first = mine.map(|peer| (&stream.starts_on, peer));
    let others = first.into_iter().chain(others);
    let known = others.filter_map(|(name, peer)| file.nodes.get(name).map(|address| (name, address, peer)));
    known
        .map(|(name, address, peer)| PeerConfig {
            name: name.clone(),
            address: address.clone(),
            mode: peer.mode,
            on_loss: peer.on_loss.unwrap_or(OnLoss::Block),
            at_budget: peer.at_budget,
        })
        .collect()
}

fn depots(file: &File, stream: &Stream) -> Vec<DepotConfig> {
    let place = |at: &Place| match at {
        Place::Folder(folder) => Some(DepotPlace::Folder(folder.clone())),
        Place::Word(word) => file
            .nodes
            .iter()
            .find(|(name, _)| name.as_str() == word)
            .map(|(name, address)| DepotPlace::Node(name.clone(), address.clone())),
    };
    let depots = stream.depots.iter();
    depots
        .filter_map(|(name, depot)| {
            let (schedule, at_budget) = (depot.schedule.clone(), depot.at_budget);
            Some(DepotConfig { name: name.clone(), at: place(&depot.at)?, schedule, at_budget })
        })
        .collect()
}

/// What no key can tell by itself.
fn check(path: &Path, file: &File) -> Result<(), Error> {
    let bad = |key: String, what: String| Err(Error::key(path, key, what));
    if file.tls.is_some() && file.plaintext {
        return bad("plaintext".into(), "`tls` is there too; say one of them".into());
    }
    if file.data.is_relative() {
        return bad(
            "data".into(),
            format!("\"{}\" depends on where a program is started; write a full path", file.data.display()),
        );
    }
    if file.tls.is_none()
        && !file.plaintext
        && let Some((name, address)) = file.nodes.iter().find(|(_, address)| !address.is_loopback())
    {
        let what = format!(
            "{address} is not loopback. Say `tls: (dir: \"…\")`, with a folder made by `towline pki issue`, or `plaintext: true`"
        );
        return bad(format!("nodes.\"{name}\""), what);
    }
    let mut nodes = file.nodes.iter();
    while let Some((name, address)) = nodes.next() {
        if address.port() == 0 {
            return bad(format!("nodes.\"{name}\""), "port 0 can't be dialled; write the port".into());
        }
        if let Some((other, _)) = nodes.clone().find(|(_, other)| *other == address) {
            return bad(format!("nodes.\"{other}\""), format!("{address} is the address of \"{name}\" already"));
        }
    }
    for (name, stream) in file.streams.iter() {
        check_stream(path, file, &format!("streams.\"{name}\""), stream)?;
    }
    Ok(())
}

fn check_stream(path: &Path, file: &File, at: &str, stream: &Stream) -> Result<(), Error> {
    let bad = |key: String, what: String| Err(Error::key(path, key, what));
    let no_node = |name: &dyn std::fmt::Display| format!("there is no node \"{name}\" under `nodes`");
    if stream.volumes.len() != 1 {
        return bad(
            format!("{at}.volumes"),
            format!("a stream has exactly one volume in this version, here are {}", stream.volumes.len()),
        );
    }
    if !file.nodes.contains_key(&stream.starts_on) {
        return bad(format!("{at}.starts_on"), no_node(&stream.starts_on));
    }
    for (name, peer) in stream.peers.iter() {
        let at = format!("{at}.peers.\"{name}\"");
        if !file.nodes.contains_key(name) {
            return bad(at, no_node(name));
        }
        if *name == stream.starts_on {
            return bad(at, format!("\"{name}\" is the node that the stream starts on; a peer is another node"));
        }
        if peer.mode == Mode::Async && peer.on_loss.is_some_and(|on_loss| on_loss != OnLoss::Block) {
            return bad(
                format!("{at}.on_loss"),
                "nothing waits for an `Async` peer, so its loss changes nothing. Remove it".into(),
            );
        }
        if peer.mode != Mode::Async && peer.at_budget == Some(AtBudget::Detach) {
            return bad(
                format!("{at}.at_budget"),
                "writes wait for this peer, so it can't be detached: `on_loss` decides what happens without it".into(),
            );
        }
    }
    for (name, depot) in stream.depots.iter() {
        let at = format!("{at}.depots.\"{name}\".at");
        let Place::Word(word) = &depot.at else { continue };
        if !file.nodes.keys().any(|name| name.as_str() == word) {
            return bad(at, format!("{} (a folder contains a slash)", no_node(word)));
        }
    }
    Ok(())
}
