//! An authenticated byte stream to another node.

use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use rustix::net::sockopt;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::{TlsAcceptor, TlsConnector, TlsStream};

use crate::error::{Error, Result};
use crate::tls::{Security, names};

/// How long connecting to one address may take.
pub const CONNECT_TIME_MAX: Duration = Duration::from_secs(5);
/// How long a handshake may take: one that drips bytes holds its place no longer than this.
pub const HANDSHAKE_TIME_MAX: Duration = Duration::from_secs(5);
/// How long, and for how many bytes, a refused connection is still listened to, so that the other side reads why.
const LINGER_TIME_MAX: Duration = Duration::from_secs(1);
const LINGER_BYTES_MAX: usize = 64 << 10;
/// The system gives up on unacknowledged bytes after this. Heartbeats notice a dead peer earlier; this ends a write
/// that nobody waits for.
const USER_TIMEOUT_MS: u32 = 20_000;
/// Probes on an idle connection: first after, then every, then at most.
const KEEPALIVE: (Duration, Duration, u32) = (Duration::from_secs(10), Duration::from_secs(5), 3);

/// A connection to another node, authenticated if [`Security`] says so.
#[derive(Debug)]
pub struct Link {
    io: Io,
    peer: SocketAddr,
    peer_names: Vec<String>,
}

#[derive(Debug)]
enum Io {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Link {
    /// Connects to `address` (`HOST:PORT`, tried at every IP address that HOST has) and authenticates.
    ///
    /// The other side's certificate must be for `expect_name`, or without one for HOST. In TLS 1.3 the other side
    /// judges our certificate only after this returns: its refusal comes with the first read, as `Untrusted`.
    /// Errors: `Timeout`, `Io`, `Untrusted`, `PlaintextOffLoopback`, `Name` for a HOST or name no certificate can have.
    pub async fn connect(security: &Security, address: &str, expect_name: Option<&str>) -> Result<Link> {
        let (stream, peer) = dial(security, address).await?;
        let Security::Tls(tls) = security else { return Ok(Link { io: Io::Plain(stream), peer, peer_names: vec![] }) };
        let name = expect_name.unwrap_or_else(|| host(address));
        let server = ServerName::try_from(name.to_owned())
            .map_err(|_| Error::Name { name: name.to_owned(), what: "it is neither a host name nor an IP address" })?;
        let handshake = TlsConnector::from(tls.client.clone()).connect(server, stream);
        let stream = in_time("TLS handshake", HANDSHAKE_TIME_MAX, handshake).await?.map_err(handshake_error)?;
        Ok(Link::tls(TlsStream::Client(stream), peer))
    }

    /// Authenticates a connection that was accepted. Takes at most [`HANDSHAKE_TIME_MAX`] and a little to say why not.
    ///
    /// Errors: as [`Link::connect`]; the other side has been told, as far as TLS allows.
    pub async fn accept(security: &Security, stream: TcpStream) -> Result<Link> {
        let peer = stream.peer_addr().map_err(Error::io("accept a connection"))?;
        tune(&stream)?;
        security.check(peer)?;
        let Security::Tls(tls) = security else { return Ok(Link { io: Io::Plain(stream), peer, peer_names: vec![] }) };
        let handshake = TlsAcceptor::from(tls.server.clone()).accept(stream).into_fallible();
        match in_time("TLS handshake", HANDSHAKE_TIME_MAX, handshake).await? {
            Ok(stream) => Ok(Link::tls(TlsStream::Server(stream), peer)),
            Err((error, mut stream)) => {
                linger(&mut stream).await;
                Err(handshake_error(error))
            }
        }
    }

    /// Who is on the other side.
    pub fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// The names in the other side's certificate, the common name first; empty without TLS.
    pub fn peer_names(&self) -> &[String] {
        &self.peer_names
    }

    /// Ends the connection after a last message, so that the other side can read it: a connection that is closed with
    /// unread bytes takes what was sent with it. Waits for the other side to close, but not long.
    pub async fn close(mut self) {
        linger(&mut self).await;
    }

    fn tls(stream: TlsStream<TcpStream>, peer: SocketAddr) -> Link {
        let certificate = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
        let peer_names = certificate.map(names).unwrap_or_default();
        Link { io: Io::Tls(Box::new(stream)), peer, peer_names }
    }
}

async fn dial(security: &Security, address: &str) -> Result<(TcpStream, SocketAddr)> {
    let found = tokio::net::lookup_host(address);
    let found =
        in_time("look up the address", CONNECT_TIME_MAX, found).await?.map_err(Error::io("look up the address"))?;
    let mut last = Error::Io { doing: "look up the address", source: io::ErrorKind::NotFound.into() };
    for peer in found {
        let connected = match security.check(peer) {
            Ok(()) => in_time("connect", CONNECT_TIME_MAX, TcpStream::connect(peer)).await,
            Err(error) => Err(error),
        };
        match connected {
            Ok(Ok(stream)) => {
                tune(&stream)?;
                return Ok((stream, peer));
            }
            Ok(Err(source)) => last = Error::Io { doing: "connect", source },
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// `HOST` of `HOST:PORT`; an IPv6 address without its brackets.
fn host(address: &str) -> &str {
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host)
}

/// Small messages leave at once; a peer that vanished without a word is noticed by the system too.
fn tune(stream: &TcpStream) -> Result<()> {
    let (first, every, count) = KEEPALIVE;
    let fd = stream.as_fd();
    let tuned = sockopt::set_tcp_nodelay(fd, true)
        .and_then(|()| sockopt::set_socket_keepalive(fd, true))
        .and_then(|()| sockopt::set_tcp_keepidle(fd, first))
        .and_then(|()| sockopt::set_tcp_keepintvl(fd, every))
        .and_then(|()| sockopt::set_tcp_keepcnt(fd, count))
        .and_then(|()| sockopt::set_tcp_user_timeout(fd, USER_TIMEOUT_MS));
    tuned.map_err(|errno| Error::Io { doing: "set up a connection", source: errno.into() })
}

async fn in_time<F: Future>(doing: &'static str, after: Duration, work: F) -> Result<F::Output> {
    timeout(after, work).await.map_err(|_| Error::Timeout { doing, after })
}

fn handshake_error(error: io::Error) -> Error {
    Error::io("TLS handshake (does the other side have --tls too?)")(error)
}

/// Says that nothing more comes, then reads and drops until the other side has closed.
async fn linger<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S) {
    let work = async {
        stream.shutdown().await?;
        let mut dropped = 0;
        let mut buffer = [0; 4096];
        while dropped < LINGER_BYTES_MAX {
            match stream.read(&mut buffer).await? {
                0 => break,
                bytes => dropped += bytes,
            }
        }
        io::Result::Ok(())
    };
    // the connection ends either way; whether its last words arrived can't be known
    let _ = timeout(LINGER_TIME_MAX, work).await;
}

impl AsyncRead for Link {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match &mut self.io {
            Io::Plain(stream) => Pin::new(stream).poll_read(cx, buffer),
            Io::Tls(stream) => Pin::new(stream).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Link {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.io {
            Io::Plain(stream) => Pin::new(stream).poll_write(cx, bytes),
            Io::Tls(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut self.io {
            Io::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
            Io::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.io {
            Io::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Io::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.io {
            Io::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Io::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
