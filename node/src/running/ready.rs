//! The first and the last lines of a daemon.

use std::fmt;
use std::path::PathBuf;

use super::Node;
use crate::control::socket_path;
use crate::status::RoleName;

/// What a node says once it is ready.
#[derive(Clone, Debug)]
pub struct Ready {
    /// Its name.
    pub node: String,
    /// Its data folder.
    pub data: PathBuf,
    /// Its control socket.
    pub socket: PathBuf,
    /// Where it takes connections: the address with the port that was really bound.
    pub listen: Option<String>,
    /// Its streams: name, role, and where they ship to.
    pub streams: Vec<ReadyStream>,
}

/// A stream of a node that is ready.
#[derive(Clone, Debug)]
pub struct ReadyStream {
    /// Its name.
    pub name: String,
    /// What this node is for it.
    pub role: RoleName,
    /// Peers and depots, with what is asked of them.
    pub to: Vec<String>,
    /// The options make this node its primary, and the control file says otherwise: that decides.
    pub overruled: bool,
}

/// How a node ended.
#[derive(Clone, Debug, Default)]
pub struct Stopped {
    /// Why.
    pub why: String,
    /// What is not known to have met its stream's promise, one line a stream.
    pub unknown: Vec<String>,
    /// What went wrong on the way, one line each.
    pub troubles: Vec<String>,
}

impl Node {
    pub(super) fn ready(&self) -> Ready {
        let streams = self.places().values().map(|place| place.ready(self)).collect();
        Ready {
            node: self.data.name().to_owned(),
            data: self.data.path().to_owned(),
            socket: socket_path(self.data.path()),
            listen: self.listen.get().map(ToString::to_string),
            streams,
        }
    }
}

impl fmt::Display for Ready {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let data = self.data.display();
        writeln!(
            f,
            "node {}, pid {}, data {data}, control socket {}",
            self.node,
            std::process::id(),
            self.socket.display()
        )?;
        if let Some(listen) = &self.listen {
            writeln!(f, "listens on {listen}")?;
        }
        for stream in &self.streams {
            let to = if stream.to.is_empty() { String::new() } else { format!(", to {}", stream.to.join(", ")) };
            writeln!(f, "{}: {}{to}", stream.name, stream.role)?;
            if stream.overruled {
                writeln!(
                    f,
                    "{}: it was to start as the primary, but this node is not; see: towline promote",
                    stream.name
                )?;
            }
        }
        let primary = self.streams.iter().find(|stream| stream.role == RoleName::Primary);
        match (primary, &self.listen) {
            (Some(stream), _) => write!(f, "next: towline append {} FILE --data {data}", stream.name),
            (None, Some(listen)) if self.streams.is_empty() => {
                write!(f, "next, on the primary: towline primary --data DIR --stream NAME --to {listen},mode=sync")
            }
            _ => write!(f, "next: towline status --data {data}"),
        }
    }
}

impl fmt::Display for Stopped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "stopped: {}", self.why)?;
        for line in self.unknown.iter().chain(&self.troubles) {
            write!(f, "\n{line}")?;
        }
        Ok(())
    }
}
