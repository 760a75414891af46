//! The journal through its public door.

mod lifecycle;
mod power;
