//! Towline for programs: an append log whose acknowledgement says how far a record got.
//!
//! ```text
//!  append -> ticket: written -> durable -> received, peer durable -> committed
//! ```
//! A program that must not lose records opens a [`Journal`], puts a [`Stream`] around it, and believes an
//! acknowledgement and nothing else. Everything here blocks and needs no runtime; a ticket can be awaited as well.
//!
//! ```
//! use std::time::Duration;
//! use towline::{Level, Stream, WaitError};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let folder = tempfile::tempdir()?;
//! # let folder = folder.path().join("ledger");
//! let journal = towline::open_or_create(&folder, Default::default())?;
//! for record in towline::records(&journal, journal.start())? {
//!     println!("replay {:?}", record?.payload);
//! }
//! let stream = Stream::builder(journal)
//!     // .peer(towline::Peer::at("10.0.0.2:7400").sync().on_loss(towline::OnLoss::Block))
//!     // .security(towline::Security::Tls("/etc/ledger/pki".into()))
//!     // .depot(towline::Depot::folder("/mnt/dr").schedule("every 15m"))
//!     .start()?;
//! stream.wait_ready(Duration::from_secs(30))?; // the start gate
//!
//! let ticket = stream.append([&b"header "[..], b"body"])?;
//! match ticket.wait(Level::Durable, Duration::from_secs(5)) {
//!     Ok(ack) => println!("{} in {} is {:?}", ack.lsn, ack.epoch, ack.level),
//!     Err(WaitError::Unknown { lsn }) => println!("ask again: is stream.reached(level) at {lsn}?"),
//!     Err(WaitError::Fenced { by }) => println!("another node is the primary since term {by}"),
//!     Err(error) => return Err(error.into()),
//! }
//! stream.close()?;
//! # Ok(())
//! # }
//! ```
//! `docs/examples/ledger.rs` is a whole program.

pub use journal::{
    Ack, Class, Epoch, Geometry, Journal, Level, Lsn, NodeId, Options, Retain, Role, StreamId, Term, Time, WaitError,
};
pub use node::{
    AtBudget, DepotAt, DepotOptions as Depot, Error, OwnedRecord, PeerOptions as Peer, Records, Result, Security,
    Stream, StreamBuilder, Ticket, open_or_create, records,
};
pub use shipper::{Need, OnLoss};
pub use wire::Mode;

/// The examples of the README compile.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
