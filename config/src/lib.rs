//! RON text to option values, in two steps: [`mod@file`] mirrors the text, [`resolve`] yields what one node does.
//!
//! ```text
//!  towline.ron --File::load--> File --resolve(node)--> Config --> node::Options
//!                  line:column of a bad key or value       key path of a contradiction
//! ```
//! Unknown keys are errors, and so is everything that the grammar has a place for but this version does not do: nothing
//! is ignored. Start reading at [`file::File`].

mod error;
pub mod file;
mod options;
pub mod resolve;
pub mod samples;
pub mod value;

pub use error::Error;
