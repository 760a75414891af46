//! What a node is told, from its configuration.

use node::{DepotAt, DepotOptions, FirstRole, Options, PeerOptions, StreamOptions};

use crate::file::{Mode, OnLoss};
use crate::resolve::{Config, DepotPlace, Part, Security, StreamConfig};

impl Config {
    /// The options to run this node with. A peer's certificate must be issued for the peer's name here.
    pub fn options(&self) -> Options {
        let mut options = Options::new(&self.data);
        options.name = Some(self.name.to_string());
        options.listen = self.listen.as_ref().map(ToString::to_string);
        options.security = self.security.clone().into();
        options.dead_after = self.dead_after.map_or(options.dead_after, |span| span.duration());
        options.stop_timeout = self.stop_timeout.map_or(options.stop_timeout, |span| span.duration());
        options.streams = self.streams.iter().filter_map(stream).collect();
        options
    }
}

fn stream(config: &StreamConfig) -> Option<StreamOptions> {
    let first = match config.part {
        Part::Primary => FirstRole::Primary,
        Part::Receiver => FirstRole::Receiver,
        // whoever listens takes batches: nothing is to be said about the stream
        Part::Depot => return None,
    };
    let mut options = StreamOptions::new(config.name.to_string(), first);
    options.peers = config
        .peers
        .iter()
        .map(|peer| PeerOptions {
            name: peer.name.to_string(),
            address: peer.address.to_string(),
            tls_name: Some(peer.name.to_string()),
            mode: peer.mode.into(),
            on_loss: peer.on_loss.into(),
        })
        .collect();
    options.depots = config
        .depots
        .iter()
        .map(|depot| DepotOptions {
            name: depot.name.to_string(),
            at: match &depot.at {
                DepotPlace::Folder(folder) => DepotAt::Folder(folder.clone()),
                DepotPlace::Node(name, address) => {
                    DepotAt::Node { address: address.to_string(), tls_name: Some(name.to_string()) }
                }
            },
            schedule: depot.schedule.to_string(),
        })
        .collect();
    options.budget_bytes = config.budget_bytes;
    options.segment_bytes = config.segment_bytes;
    options.record_bytes_max = config.record_bytes_max;
    Some(options)
}

impl From<Security> for node::Security {
    fn from(security: Security) -> node::Security {
        match security {
            Security::Tls(dir) => node::Security::Tls(dir),
            Security::Plaintext => node::Security::Plaintext,
            Security::Loopback => node::Security::Loopback,
        }
    }
}

impl From<Mode> for wire::Mode {
    fn from(mode: Mode) -> wire::Mode {
        match mode {
            Mode::Async => wire::Mode::Async,
            Mode::SemiSync => wire::Mode::SemiSync,
            Mode::Sync => wire::Mode::Sync,
        }
    }
}

impl From<OnLoss> for shipper::OnLoss {
    fn from(on_loss: OnLoss) -> shipper::OnLoss {
        match on_loss {
            OnLoss::Block => shipper::OnLoss::Block,
            OnLoss::Fail { after } => shipper::OnLoss::Fail { after: after.duration() },
            OnLoss::Alone { after } => shipper::OnLoss::Alone { after: after.duration() },
        }
    }
}
