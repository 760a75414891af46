//! Towline.
