//! A ledger that never loses a booking it has confirmed.
//!
//! ```text
//! ledger DIR [HOST:PORT]      bookings as lines on stdin: ACCOUNT AMOUNT
//! ```
//! Each line is answered by `booked LSN LEVEL ACCOUNT BALANCE` once it can't be lost any more: durable here, and, with a
//! peer (`towline receiver --data DIR2 --listen HOST:PORT`), durable there. What was booked is there again after
//! `kill -9`, a power cut, or the loss of the machine.

use std::collections::BTreeMap;
use std::error::Error;
use std::io::{self, BufRead, Write};
use std::path::Path;
use std::time::Duration;

use towline::{Level, OnLoss, Peer, Stream, WaitError};

/// The program.
pub(crate) fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let dir = args.next().ok_or("usage: ledger DIR [HOST:PORT]")?;
    run(Path::new(&dir), args.next(), io::stdin().lock(), io::stdout().lock())
}

/// Books every line of `input` and answers on `output`.
pub(crate) fn run(
    dir: &Path,
    peer: Option<String>,
    input: impl BufRead,
    mut output: impl Write,
) -> Result<(), Box<dyn Error>> {
    let journal = towline::open_or_create(dir, Default::default())?;
    let mut ledger = Ledger::default();
    for record in towline::records(&journal, journal.start())? {
        let booking = String::from_utf8(record?.payload)?;
        ledger.book(&booking).ok_or_else(|| format!("not a booking: {booking}"))?;
    }
    writeln!(output, "replayed {} bookings", ledger.bookings)?;

    let level = if peer.is_some() { Level::PeerDurable } else { Level::Durable };
    let mut builder = Stream::builder(journal).name("ledger");
    if let Some(peer) = peer {
        builder = builder.peer(Peer::at(peer).sync().on_loss(OnLoss::Block));
    }
    let stream = builder.start()?;
    stream.wait_ready(Duration::from_secs(30))?; // nobody else is the primary, and the peer is there

    for line in input.lines() {
        let line = line?;
        // checked first: what is in the stream is replayed for ever
        let Some(booked) = ledger.book(&line) else {
            writeln!(output, "refused {line}")?;
            continue;
        };
        let ticket = stream.append([line.as_bytes()])?;
        match ticket.wait(level, Duration::from_secs(5)) {
            Ok(ack) => writeln!(output, "booked {} {:?} {booked}", ack.lsn, ack.level)?,
            // neither booked nor lost: the customer must ask again, by this number
            Err(WaitError::Unknown { lsn }) => writeln!(output, "unknown {lsn}")?,
            // a higher term exists: this ledger must not answer anybody any more
            Err(error) => return Err(error.into()),
        }
        output.flush()?;
    }
    stream.close()?;
    Ok(())
}

/// Balances by account.
#[derive(Default)]
struct Ledger {
    balances: BTreeMap<String, i64>,
    bookings: u64,
}

impl Ledger {
    /// Applies `ACCOUNT AMOUNT` and returns the account with its new balance; `None` when it is no booking.
    fn book(&mut self, booking: &str) -> Option<String> {
        let (account, amount) = booking.split_once(' ')?;
        let amount: i64 = amount.trim().parse().ok()?;
        let balance = self.balances.get(account).copied().unwrap_or(0).checked_add(amount)?;
        self.balances.insert(account.to_owned(), balance);
        self.bookings += 1;
        Some(format!("{account} {balance}"))
    }
}
