//! Tests of bytes in flight as a whole; those of one decision stand beside it.

mod frames;
mod links;
mod messages;
