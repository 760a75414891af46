//! The journal through its public door.

mod corpus;
mod device;
mod door;
mod exhaustive;
mod failures;
mod flips;
mod full;
mod golden;
mod hold;
mod hooks;
mod host;
mod lifecycle;
mod model;
mod newer;
mod offered;
mod offline;
mod power;
mod rebuild;
mod rebuild_power;
mod repair;
mod runs;
mod script;
mod scripts;
mod scrub;
mod twin;
mod waiters;
