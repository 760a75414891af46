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

mod intake;

pub use intake::{Action, Found, Intake, IntakeOptions, Log, Notice, Proof};
