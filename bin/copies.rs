//! Other copies of a stream's log, as the command line names them: `towline://HOST:PORT[,name=NAME]`, `towline://NAME`, or a
//! path.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use archive::DepotLine;
use config::value::{Address, BadValue, Name};
use journal::repair::{JournalCopy, RangeSource};
use journal::{Class, StreamId};
use node::NodeCopy;

use crate::exit::{Failure, chain, eprint};
use crate::links::Links;
use crate::place::{Place, depots_in, streams};
use crate::whereabouts::Whereabouts;

/// Where a copy is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Copy {
    /// Files of this machine.
    Files(PathBuf),
    /// A node that runs.
    Node(Node),
}

/// How a node was named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Node {
    /// Where it listens, and what its certificate is issued for, if not for that host.
    Address(Address, Option<Name>),
    /// As the configuration calls it.
    Name(Name),
}

const SCHEME: &str = "towline://";

impl FromStr for Copy {
    type Err = BadValue;

    fn from_str(text: &str) -> Result<Copy, BadValue> {
        Ok(match text.strip_prefix(SCHEME) {
            None => Copy::Files(text.into()),
            Some(rest) if rest.contains(':') => {
                let (address, name) = match rest.split_once(",name=") {
                    Some((address, name)) => (address, Some(name.parse()?)),
                    None => (rest, None),
                };
                Copy::Node(Node::Address(address.parse()?, name))
            }
            Some(rest) => Copy::Node(Node::Name(rest.parse()?)),
        })
    }
}

impl fmt::Display for Copy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Copy::Files(path) => path.display().fmt(f),
            Copy::Node(Node::Address(address, _)) => write!(f, "{SCHEME}{address}"),
            Copy::Node(Node::Name(name)) => write!(f, "{SCHEME}{name}"),
        }
    }
}

/// What these have of `stream`, in that order. A node that can't be asked doesn't keep the others from helping.
pub(crate) fn sources(
    copies: &[Copy],
    links: &Links,
    at: &Whereabouts,
    stream: StreamId,
) -> Result<Vec<Box<dyn RangeSource>>, Failure> {
    let mut sources: Vec<Box<dyn RangeSource>> = Vec::new();
    let mut unasked: Option<Failure> = None;
    for copy in copies {
        let before = sources.len();
        match copy {
            Copy::Files(path) => find(path, stream, &mut sources)?,
            Copy::Node(node) => match ask(node, links, at, stream) {
                Ok(copies) => sources.extend(copies.into_iter().map(|copy| Box::new(copy) as _)),
                Err(failure) => {
                    if let Some(before) = unasked.replace(failure) {
                        eprint(&format!("towline: {}\n", before.text()));
                    }
                    continue;
                }
            },
        }
        if sources.len() == before {
            eprint(&format!("towline: {copy} has nothing of stream {stream} that can be used\n"));
        }
    }
    match unasked {
        // the last one that couldn't be asked: why there is nothing at all
        Some(failure) if sources.is_empty() => Err(failure),
        unasked => {
            if let Some(failure) = unasked {
                eprint(&format!("towline: {}\n", failure.text()));
            }
            Ok(sources)
        }
    }
}

/// What a node that runs has.
fn ask(node: &Node, links: &Links, at: &Whereabouts, stream: StreamId) -> Result<Vec<NodeCopy>, Failure> {
    let said = links.said();
    // where everything was said, a broken configuration doesn't matter
    let file = match node {
        Node::Address(..) if said.is_some() => None,
        _ => at.file()?,
    };
    let security = said.or_else(|| file.as_ref().map(|file| file.security().into()));
    let (address, name) = match node {
        Node::Address(address, name) => (address, name.as_ref()),
        Node::Name(name) => {
            let Some(file) = &file else {
                let failure = Failure::usage(format_args!("{SCHEME}{name}: no configuration says where that node is"));
                return Err(failure.hint(format!("say -c FILE, or write {SCHEME}HOST:PORT")));
            };
            (at.address_in(file, name)?, Some(name))
        }
    };
    let found = NodeCopy::find(&security.unwrap_or_default(), &address.to_string(), name.map(Name::as_str), stream);
    found.map_err(|error| {
        let class = match error.class() {
            Class::Io => Class::Unknown,
            class => class,
        };
        Failure::new(class, format_args!("ask {address} for a copy: {}", chain(&error)))
    })
}

/// What files have: journals first, they are read faster than batches.
fn find(path: &Path, stream: StreamId, sources: &mut Vec<Box<dyn RangeSource>>) -> Result<(), Failure> {
    match Place::find(path)? {
        Place::Journal(journal) => add_journal(&journal, stream, sources),
        Place::Node(data) => {
            for name in streams(&data)? {
                add_journal(&data.join("streams").join(name).join("journal"), stream, sources);
            }
            if let Some(depots) = depots_in(&data) {
                add_depot(&depots, stream, sources)?;
            }
        }
        Place::Depot(depot) => add_depot(&depot, stream, sources)?,
        Place::Batch(batch) => {
            let text = format_args!("{} is one batch; name the depot that it lies in", batch.display());
            return Err(Failure::usage(text));
        }
    }
    Ok(())
}

fn add_journal(path: &Path, stream: StreamId, sources: &mut Vec<Box<dyn RangeSource>>) {
    match JournalCopy::open(path) {
        Ok(copy) if copy.stream() == stream => sources.push(Box::new(copy)),
        Ok(_) => {}
        // one that can't be used doesn't keep the others from helping
        Err(error) => eprint(&format!("towline: {error}\n")),
    }
}

fn add_depot(path: &Path, stream: StreamId, sources: &mut Vec<Box<dyn RangeSource>>) -> Result<(), Failure> {
    let (lines, unread) = DepotLine::find(path, stream)?;
    sources.extend(lines.into_iter().map(|line| Box::new(line) as _));
    unread.iter().for_each(|error| eprint(&format!("towline: {error}\n")));
    Ok(())
}
