//! Real sockets on loopback: TLS of both sides, strangers, mixed-up ports.

use std::net::SocketAddr;
use std::path::Path;

use journal::Class;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::error::{Error, Result};
use crate::message::Message;
use crate::{Link, Reader, Security, Tls, Writer, pki};

/// A folder with a CA in it, and nodes issued by it.
struct Authority(TempDir);

impl Authority {
    fn new() -> Authority {
        let dir = tempfile::tempdir().unwrap();
        pki::init(&dir.path().join("ca")).unwrap();
        Authority(dir)
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn issue(&self, name: &str, addresses: &[&str]) -> Security {
        let addresses: Vec<String> = addresses.iter().map(|address| address.to_string()).collect();
        let out = self.path().join(name);
        pki::issue(&self.path().join("ca"), name, &addresses, &out).unwrap();
        Security::Tls(Tls::from_dir(&out).unwrap())
    }
}

const PLAIN: Security = Security::Plaintext { anywhere: false };

fn hello() -> Message {
    Message::Bye { reason: "hello".into() }
}

/// Connects, says hello, waits for one. What each side met.
async fn meet(
    server: &Security,
    client: &Security,
    expect: Option<&str>,
) -> (Result<Vec<String>>, Result<Vec<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let serve = async {
        let (stream, _) = listener.accept().await.unwrap();
        talk(Link::accept(server, stream).await?).await
    };
    let dial = async { talk(Link::connect(client, &address.to_string(), expect).await?).await };
    tokio::join!(serve, dial)
}

async fn talk(mut link: Link) -> Result<Vec<String>> {
    let names = link.peer_names().to_vec();
    let sent = Writer::<_>::new(&mut link).send(&hello()).await;
    // the other side's reason, if it sent one, is worth more than a broken pipe
    let read = Reader::new(&mut link).message().await;
    link.close().await;
    assert_eq!(read?, hello());
    sent.map(|()| names)
}

fn refused(side: Result<Vec<String>>) -> String {
    let error = side.unwrap_err();
    assert_eq!(error.class(), Class::Refused, "{error}");
    error.to_string()
}

#[tokio::test]
async fn both_sides_know_each_other_by_name() {
    let ca = Authority::new();
    let (a, b) = (ca.issue("a", &[]), ca.issue("b", &["10.9.8.7", "b.example"]));
    let (server, client) = meet(&a, &b, None).await;
    assert_eq!(server.unwrap(), ["b", "10.9.8.7", "b.example"]);
    assert_eq!(client.unwrap(), ["a", "localhost", "127.0.0.1", "::1"]);
}

#[tokio::test]
async fn a_node_may_be_expected_by_name_whatever_its_address() {
    let ca = Authority::new();
    let (a, b) = (ca.issue("a", &["192.0.2.1"]), ca.issue("b", &[]));
    assert!(meet(&a, &b, Some("a")).await.1.is_ok());
    let (server, client) = meet(&a, &b, None).await;
    assert!(refused(client).contains("not who was dialled"));
    assert!(refused(server).contains("does not accept this node's certificate"));
    assert!(refused(meet(&a, &b, Some("c")).await.1).contains("not who was dialled"));
}

#[tokio::test]
async fn a_stranger_is_refused_on_both_sides() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    let (server, stranger) = (ours.issue("a", &[]), theirs.issue("b", &[]));
    let (server_met, stranger_met) = meet(&server, &stranger, None).await;
    assert!(refused(stranger_met).contains("a stranger"), "the one who connects looks first");
    assert!(refused(server_met).contains("does not accept"));
}

/// The stranger trusts the server but has a certificate of its own making: only the server can object.
#[tokio::test]
async fn a_stranger_with_the_right_ca_file_is_refused_on_both_sides() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    let server = ours.issue("a", &[]);
    theirs.issue("b", &[]);
    ours.issue("b", &[]);
    let mixed = theirs.path().join("b");
    let honest = Tls::from_dir(&ours.path().join("b")).unwrap();
    let stranger = Security::Tls(Tls::from_dir(&mixed).unwrap().with_trust_of(&honest));
    let (server_met, stranger_met) = meet(&server, &stranger, None).await;
    assert!(refused(server_met).contains("a stranger"));
    assert!(refused(stranger_met).contains("does not accept this node's certificate"));
}

#[tokio::test]
async fn tls_and_plaintext_name_each_other() {
    let ca = Authority::new();
    let tls = ca.issue("a", &[]);
    let (server, client) = meet(&tls, &PLAIN, None).await;
    assert!(server.unwrap_err().to_string().contains("does not speak TLS"));
    assert!(client.unwrap_err().to_string().contains("TLS alert. Give this side --tls DIR too"));
    let (server, client) = meet(&PLAIN, &tls, None).await;
    assert!(server.unwrap_err().to_string().contains("began with a TLS handshake"));
    assert!(client.is_err());
}

#[tokio::test]
async fn garbage_before_tls_is_an_error() {
    let ca = Authority::new();
    let tls = ca.issue("a", &[]);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    client.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    let (stream, _) = listener.accept().await.unwrap();
    let mut rest = Vec::new();
    let (server, _) = tokio::join!(Link::accept(&tls, stream), async move { client.read_to_end(&mut rest).await });
    let error = server.unwrap_err();
    assert!(matches!(error, Error::NotTowline { .. }), "{error}");
}

/// One that drips bytes holds its place only until the limit: the runtime's clock is the test's own.
#[tokio::test(start_paused = true)]
async fn a_handshake_that_never_ends_is_ended() {
    let ca = Authority::new();
    let tls = ca.issue("a", &[]);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    client.write_all(&[0x16, 0x03, 0x01, 0x02, 0x00, 0x01]).await.unwrap();
    let (stream, _) = listener.accept().await.unwrap();
    let error = Link::accept(&tls, stream).await.unwrap_err();
    assert!(matches!(error, Error::Timeout { .. }), "{error}");
    assert_eq!(error.class(), Class::Unknown);
}

#[test]
fn plaintext_leaves_the_machine_only_by_the_word() {
    let anywhere = Security::Plaintext { anywhere: true };
    for (address, loopback) in [
        ("127.0.0.1:1", true),
        ("[::1]:1", true),
        ("[::ffff:127.0.0.1]:1", true),
        ("10.0.0.1:1", false),
        ("0.0.0.0:1", false),
        ("[::]:1", false),
    ] {
        let address: SocketAddr = address.parse().unwrap();
        assert_eq!(PLAIN.check(address).is_ok(), loopback, "{address}");
        assert!(anywhere.check(address).is_ok());
    }
    let error = PLAIN.check("10.0.0.1:7400".parse().unwrap()).unwrap_err();
    assert_eq!(error.class(), Class::Config);
    assert!(error.to_string().contains("--plaintext"));
}

#[tokio::test]
async fn plaintext_off_loopback_is_refused_before_a_byte_is_sent() {
    let error = Link::connect(&PLAIN, "192.0.2.1:7400", None).await.unwrap_err();
    assert!(matches!(error, Error::PlaintextOffLoopback { .. }), "{error}");
}

#[tokio::test]
async fn nobody_there_is_said_so() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    drop(listener);
    let error = Link::connect(&PLAIN, &address, None).await.unwrap_err();
    assert!(matches!(error, Error::Io { doing: "connect", .. }), "{error}");
}

#[test]
fn pki_never_overwrites_and_keeps_keys_private() {
    use std::os::unix::fs::PermissionsExt;
    let ca = Authority::new();
    ca.issue("a", &[]);
    let mode = |path: &str| std::fs::metadata(ca.path().join(path)).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode("ca/ca-key.pem"), mode("a/key.pem")), (0o600, 0o600));
    let key = std::fs::read(ca.path().join("a/key.pem")).unwrap();
    let again = pki::issue(&ca.path().join("ca"), "a", &[], &ca.path().join("a")).unwrap_err();
    assert!(matches!(again, Error::Exists { .. }), "{again}");
    assert_eq!(std::fs::read(ca.path().join("a/key.pem")).unwrap(), key);
    assert!(matches!(pki::init(&ca.path().join("ca")), Err(Error::Exists { .. })));
}

#[test]
fn pki_says_what_is_wrong() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    let issue = |name: &str, addresses: &[&str], out: &str| {
        let addresses: Vec<String> = addresses.iter().map(|address| address.to_string()).collect();
        let out = ours.path().join(out);
        let error = pki::issue(&ours.path().join("ca"), name, &addresses, &out).unwrap_err();
        assert!(!out.exists(), "nothing is written");
        error
    };
    assert!(matches!(issue("no name", &[], "x"), Error::Name { .. }));
    assert!(matches!(issue("a", &["no host!"], "x"), Error::Name { .. }));
    std::fs::copy(theirs.path().join("ca/ca-key.pem"), ours.path().join("ca/ca-key.pem")).unwrap();
    let error = issue("a", &[], "x");
    assert!(error.to_string().contains("not the key of ca.pem"), "{error}");
    std::fs::remove_file(ours.path().join("ca/ca-key.pem")).unwrap();
    assert_eq!(issue("a", &[], "x").class(), Class::Config);
}

#[test]
fn a_mixed_up_folder_is_found_at_home() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    ours.issue("a", &[]);
    theirs.issue("a", &[]);
    let (dir, other) = (ours.path().join("a"), theirs.path().join("a"));
    let wrong = |file: &str, expected: &str| {
        let before = std::fs::read(dir.join(file)).unwrap();
        std::fs::copy(other.join(file), dir.join(file)).unwrap();
        let error = Tls::from_dir(&dir).unwrap_err();
        assert!(error.to_string().contains(expected), "{file}: {error}");
        std::fs::write(dir.join(file), b"no pem").unwrap();
        let error = Tls::from_dir(&dir).unwrap_err();
        assert!(error.to_string().contains(file), "{file}: {error}");
        std::fs::remove_file(dir.join(file)).unwrap();
        assert_eq!(Tls::from_dir(&dir).unwrap_err().class(), Class::Config);
        std::fs::write(dir.join(file), before).unwrap();
        Tls::from_dir(&dir).unwrap();
    };
    wrong("ca.pem", "not usable with ca.pem");
    wrong("cert.pem", "not usable with ca.pem");
    wrong("key.pem", "not the key of cert.pem");
}
