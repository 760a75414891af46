//! A stream on a node that keeps a copy of it.

mod replica;
mod settled;

pub(crate) use replica::Replica;
pub(crate) use settled::{Settled, boot_id};
