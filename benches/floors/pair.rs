//! The least pair: bytes go out on a bare TCP connection and to the own disk at the same time; the other side writes
//! them, syncs if asked, and answers with a count.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::thread::JoinHandle;
use std::time::Instant;

use crate::floor::Recycled;
use crate::group::{self, Commit};
use crate::local::{self, TIME};
use crate::table::Sample;

/// Read from a socket at once.
const READ_BYTES: usize = 1 << 20;

/// When the other side answers.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    /// As soon as the bytes are in its page cache.
    Received,
    /// When its sync has returned.
    Durable,
}

/// `writers` threads over one connection, each waiting for both sides.
pub(crate) fn both_sides(dir: &Path, writers: usize, answer: Answer) -> Sample {
    let (out, remote) = connect(Recycled::new(dir, "remote"), answer);
    let pair = Pair { local: Recycled::new(dir, "local"), out, sent: 0, answered: 0 };
    let sample = group::run(pair, writers, &local::entry(local::RECORD_BYTES), TIME);
    remote.join().expect("the other side");
    sample
}

/// A file of `bytes` goes over one connection into new files, which are synced once, at the end.
pub(crate) fn bulk(dir: &Path, bytes: u64) -> Sample {
    let mut kept = Recycled::new(dir, "local");
    let (mut out, remote) = connect(Recycled::rolling(dir, "remote"), Answer::Received);
    let mut buffer = vec![0; READ_BYTES];
    let begun = Instant::now();
    let mut answers = out.try_clone().expect("a second handle");
    let reader = std::thread::spawn(move || {
        let mut answered = 0;
        while answered < bytes {
            answered = next_answer(&mut answers);
        }
    });
    let mut left = bytes;
    while left > 0 {
        let piece = &mut buffer[..READ_BYTES.min(left as usize)];
        kept.read(piece);
        out.write_all(piece).expect("send");
        left -= piece.len() as u64;
    }
    reader.join().expect("every answer");
    drop(out);
    remote.join().expect("the other side");
    Sample::whole(bytes, begun.elapsed())
}

struct Pair {
    local: Recycled,
    out: TcpStream,
    sent: u64,
    answered: u64,
}

impl Commit for Pair {
    fn commit(&mut self, bytes: &[u8]) {
        self.out.write_all(bytes).expect("send");
        self.sent += bytes.len() as u64;
        self.local.write(bytes);
        self.local.sync();
        while self.answered < self.sent {
            self.answered = next_answer(&mut self.out);
        }
    }
}

/// Connects to a thread that writes what arrives into `file` until the connection ends, and then syncs.
fn connect(mut file: Recycled, answer: Answer) -> (TcpStream, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("listen");
    let address = listener.local_addr().expect("an address");
    let remote = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a connection");
        stream.set_nodelay(true).expect("no delay");
        let mut buffer = vec![0; READ_BYTES];
        let mut received = 0u64;
        loop {
            let read = stream.read(&mut buffer).expect("receive");
            if read == 0 {
                break file.sync();
            }
            file.write(&buffer[..read]);
            if answer == Answer::Durable {
                file.sync();
            }
            received += read as u64;
            stream.write_all(&received.to_le_bytes()).expect("answer");
        }
    });
    let out = TcpStream::connect(address).expect("connect");
    out.set_nodelay(true).expect("no delay");
    (out, remote)
}

fn next_answer(stream: &mut TcpStream) -> u64 {
    let mut answer = [0; 8];
    stream.read_exact(&mut answer).expect("an answer");
    u64::from_le_bytes(answer)
}
