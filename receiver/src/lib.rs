//! Other side: intake, server, replica, depot intake.
//!
//! ```text
//!  socket -> Intake: verify -> extend the log -> Ack received -> sync -> Ack durable -> socket
//!                                   |                              |
//!                                   +--- min(announced committed, own durable) ---> Apply -> replica
//! ```
//!
//! [`Intake`] decides and does nothing else; the driver around it reads, writes and syncs. Guarantees: bytes that no
//! cursor verified never reach the log; nothing is acknowledged as durable without a sync's proof; what is told to the
//! replica is committed and durable here.

mod depot;
mod feed;
mod heartbeat;
mod intake;
mod outlet;
mod server;
mod stream;

pub use depot::{DepotError, DepotIntake, serve_depot};
pub use heartbeat::ALIVE_EVERY;
pub use intake::{Action, Found, Intake, IntakeOptions, Log, Notice, Proof};
pub use server::{CONNECTIONS_MAX, Copies, Depots, HANDSHAKES_MAX, HELLO_TIME_MAX, Origin, Rooms, Server, Streams};
pub use stream::{Keeper, ReceiverOptions, ReceiverStatus, ReceiverStream};
