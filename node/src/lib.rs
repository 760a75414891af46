//! Puts a stream together and changes its role; control socket and status.
