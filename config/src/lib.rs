//! RON text to option values.
