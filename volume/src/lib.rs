//! What entries mean: records, and their doors.
