//! Commented configurations to begin with: what `towline config init` prints.

/// Two servers that keep one stream of records.
pub const TWO_NODES: &str = include_str!("../samples/two-nodes.ron");
/// One server and depots elsewhere.
pub const DR: &str = include_str!("../samples/dr.ron");

/// Every sample parses; every file under `samples/invalid` fails with exactly the message beside it.
#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::{Path, PathBuf};

    use crate::file::File;
    use crate::resolve::{Part, resolve};
    use crate::value::Name;

    fn samples(folder: &str) -> Vec<PathBuf> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
        let mut files: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
        files.retain(|path| path.extension().is_some_and(|ext| ext == "ron"));
        files.sort();
        files
    }

    #[test]
    fn every_sample_resolves_on_every_node() {
        let files = samples("samples");
        assert!(files.len() >= 2);
        for path in files {
            let file = File::load(&path).unwrap();
            for name in file.nodes.keys() {
                let config = resolve(&path, &file, name).unwrap();
                assert!(!config.streams.is_empty(), "{}: {name} has nothing to do", path.display());
            }
        }
    }

    /// `UPDATE=1 cargo test -p towline-config` writes the messages anew; read the difference before it is committed.
    #[test]
    fn every_invalid_sample_fails_with_its_message() {
        let files = samples("samples/invalid");
        assert!(files.len() >= 20);
        for path in files {
            let name = Path::new(path.file_name().unwrap());
            let text = fs::read_to_string(&path).unwrap();
            let node: Name = "a".parse().unwrap();
            let fault = File::parse(name, &text).and_then(|file| resolve(name, &file, &node)).unwrap_err();
            let expected = path.with_extension("txt");
            if std::env::var_os("UPDATE").is_some() {
                fs::write(&expected, format!("{fault}\n")).unwrap();
            }
            assert_eq!(format!("{fault}\n"), fs::read_to_string(&expected).unwrap(), "{}", expected.display());
        }
    }

    #[test]
    fn a_node_sees_the_stream_from_its_side() {
        let path = Path::new("pair.ron");
        let text = r#"Towline(data: "/d", plaintext: true, nodes: {"a": "h:1", "b": "h:2", "c": "h:3"}, streams: {"s": (
            volumes: [Records(name: "s")], starts_on: "a",
            peers: {"b": (mode: Sync, on_loss: Alone(after: "5s")), "c": (mode: Async)},
            depots: {"d": (at: "c", schedule: "every 1m"), "e": (at: "./here", schedule: "every 1m")},
        )})"#;
        let file = File::parse(path, text).unwrap();
        let on = |name: &str| resolve(path, &file, &name.parse().unwrap()).unwrap().streams.remove(0);
        let members = |name: &str| {
            let peers = on(name).peers.into_iter();
            peers.map(|peer| format!("{}@{} {:?}", peer.name, peer.address, peer.mode)).collect::<Vec<_>>()
        };
        assert_eq!((on("a").part, on("b").part, on("c").part), (Part::Primary, Part::Receiver, Part::Receiver));
        assert_eq!(members("a"), ["b@h:2 Sync", "c@h:3 Async"]);
        assert_eq!(members("b"), ["a@h:1 Sync", "c@h:3 Async"]);
        assert_eq!(on("a").depots.len(), 2);
        assert!(resolve(path, &file, &"x".parse().unwrap()).is_err());
    }
}
