//! What entries mean: records, and their doors.
//!
//! ```text
//!  text, bytes -> frames::Splitter -> (log) -> records::Records        the live record file of a replica
//!                                           -> Output -> frames::FrameWriter -> a restored file
//! ```

mod error;
pub mod frames;
mod output;
pub mod records;

pub use error::{Error, Result};
pub use output::{Output, Written};
