//! A node that keeps batches for others: `DATA/depots`.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Instant;

use journal::StreamId;
use receiver::{Depots, Origin, serve_depot};
use wire::{DepotHello, Dialogue, Repeats};

/// The depots of a node, in one folder.
#[derive(Debug)]
pub(super) struct DepotRoom {
    pub(super) root: PathBuf,
    /// Who is refused tries again and again, and is news once.
    pub(super) refusals: Repeats<(StreamId, IpAddr)>,
}

impl Depots for DepotRoom {
    fn serve(&self, hello: DepotHello, from: &Origin, dialogue: Dialogue) {
        let Err(error) = serve_depot(&self.root, &hello, dialogue) else { return };
        let source = (hello.stream, from.address.ip());
        let (stream, address) = (hello.stream_name.as_str(), from.address);
        match self.refusals.is_news(source, &error.to_string(), Instant::now()) {
            true => tracing::warn!(stream, %address, %error, "take batches"),
            false => tracing::debug!(stream, %address, %error, "take batches again"),
        }
    }
}
