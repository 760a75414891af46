//! The journal through its public door.

mod corpus;
mod device;
mod full;
mod hold;
mod lifecycle;
mod offline;
mod power;
mod rebuild;
mod rebuild_power;
mod repair;
mod scrub;
