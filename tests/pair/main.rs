//! Two nodes as real processes: what was acknowledged is there, on both sides, whoever is killed when.

#[path = "../support/nodes.rs"]
mod nodes;
#[path = "../support/mod.rs"]
mod support;

mod checker;
mod kills;
mod network;
mod power;
mod proxy;
mod syncs;
