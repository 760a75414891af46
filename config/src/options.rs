//! What a node is told, from its configuration.

use node::{DepotAt, DepotOptions, FirstRole, Options, PeerOptions, StreamOptions};

use crate::file::{AtBudget, Mode, OnLoss};
use crate::resolve::{Config, DepotPlace, Part, Security, StreamConfig};
use crate::value::{Scrub, Span};

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
            at_budget: peer.at_budget.map(Into::into),
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
            at_budget: depot.at_budget.map(Into::into),
        })
        .collect();
    options.budget_bytes = config.budget_bytes;
    options.keep_bytes = config.keep_bytes;
    options.keep_for = config.keep_for.map(Span::duration);
    options.segment_bytes = config.segment_bytes;
    options.record_bytes_max = config.record_bytes_max;
    options.scrub = config.scrub.map(Scrub::policy);
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

impl From<AtBudget> for node::AtBudget {
    fn from(at_budget: AtBudget) -> node::AtBudget {
        match at_budget {
            AtBudget::Block => node::AtBudget::Block,
            AtBudget::Detach => node::AtBudget::Detach,
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

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::time::Duration;

    use journal::scrub::ScrubPolicy;

    use super::*;
    use crate::file::File;
    use crate::resolve::resolve;

    #[test]
    fn every_word_of_the_file_reaches_the_node() {
        let text = r#"Towline(data: "/d", tls: (dir: "/pki"), nodes: {"a": "h:1", "b": "h:2", "c": "h:3"}, streams: {"s": (
            volumes: [Records(name: "s")], starts_on: "a",
            peers: {"b": (mode: SemiSync, on_loss: Fail(after: "3s"), at_budget: Block)},
            depots: {"far": (at: "c", schedule: "every 15m", at_budget: Detach), "near": (at: "/mnt", schedule: "64 MiB")},
            journal: (budget: "1 GiB", keep: "3 MiB", keep_for: "36h", segment: "1 MiB", record_max: "2 MiB", scrub: "3 MB/s every 9h"),
        )}, dead_after: "7s", stop_timeout: "8s")"#;
        let path = Path::new("all.ron");
        let file = File::parse(path, text).unwrap();
        let on = |name: &str| resolve(path, &file, &name.parse().unwrap()).unwrap().options();
        let options = on("a");
        assert_eq!((options.data.as_path(), options.name.as_deref()), (Path::new("/d"), Some("a")));
        assert_eq!((options.listen.as_deref(), &options.security), (Some("h:1"), &node::Security::Tls("/pki".into())));
        assert_eq!((options.dead_after, options.stop_timeout), (Duration::from_secs(7), Duration::from_secs(8)));
        let [stream] = &options.streams[..] else { panic!("one stream") };
        assert_eq!((stream.name.as_str(), stream.first), ("s", FirstRole::Primary));
        let on_loss = shipper::OnLoss::Fail { after: Duration::from_secs(3) };
        let peer = |name: &str, address: &str| PeerOptions {
            name: name.into(),
            address: address.into(),
            tls_name: Some(name.into()),
            mode: wire::Mode::SemiSync,
            on_loss,
            at_budget: Some(node::AtBudget::Block),
        };
        assert_eq!(stream.peers, [peer("b", "h:2")]);
        let far = DepotAt::Node { address: "h:3".into(), tls_name: Some("c".into()) };
        let depot = |name: &str, at, schedule: &str, at_budget| DepotOptions {
            name: name.into(),
            at,
            schedule: schedule.into(),
            at_budget,
        };
        let near = DepotAt::Folder("/mnt".into());
        assert_eq!(
            stream.depots,
            [depot("far", far, "every 15m", Some(node::AtBudget::Detach)), depot("near", near, "64 MiB", None)]
        );
        assert_eq!((stream.budget_bytes, stream.keep_bytes), (Some(1 << 30), Some(3 << 20)));
        assert_eq!(stream.keep_for, Some(Duration::from_secs(36 * 3600)));
        assert_eq!((stream.segment_bytes, stream.record_bytes_max), (Some(1 << 20), Some(2 << 20)));

        let every = Duration::from_secs(9 * 3600);
        assert_eq!(stream.scrub, Some(ScrubPolicy { bytes_per_second: 3_000_000, every }));

        let receiver = on("b").streams.remove(0);
        assert_eq!((receiver.first, &receiver.peers[..]), (FirstRole::Receiver, &[peer("a", "h:1")][..]));
        // a node that keeps batches says nothing of the stream, but it listens
        let keeper = on("c");
        assert_eq!((keeper.streams.len(), keeper.listen.as_deref()), (0, Some("h:3")));
    }
}
