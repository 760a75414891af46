//! Primary side: peers, commit rule, link, DR schedule.
//!
//! ```text
//!  Board (written, durable) --Local--> Peer b --Action--> link -> socket
//!                                      Peer c    ...        |
//!  Board.set_remote <-- Gate::update <-- marks of each peer <- acks of the connection that is up
//! ```
//!
//! The cores decide and do nothing else: [`Peer`] for one destination, [`Gate`] for when the stream may start and go
//! on, [`commit`] for what is committed. They take events and `now` and hand out [`Action`]s; the driver does them. A
//! seed reproduces whatever they do.
//!
//! Guarantees: no entry counts for a peer that this very connection hasn't acknowledged; nothing is committed above what
//! every required peer promised; a higher term ends every acknowledgement.

mod batches;
mod commit;
mod error;
mod gate;
mod link;
mod peer;
mod policy;
mod schedule;

pub use batches::{
    AwaitedCut, AwaitsCut, BatchCore, BatchLog, BatchOptions, Batches, Begin, DepotLink, FolderLink, LogView, NodeLink,
    NodeLinkOptions, ShipError, ShipStatus, Stop, Trouble, WaitShipped, next_range,
};
pub use commit::{Marks, Need, Standing, commit};
pub use error::Error;
pub use gate::{Gate, Loss, Member, OnLoss, Verdict};
pub use link::{Event, LinkTrouble, Links, LinksOptions, LinksStatus, OnEvent, PeerStatus, Target};
pub use peer::{Action, Local, Notice, Peer, PeerOptions, PeerState};
pub use policy::{Policy, PolicyError, PolicyMember};
pub use schedule::{Due, Schedule, ScheduleError, Why};
