//! What programs and nodes hold of a stream.

use std::ops::Deref;
use std::sync::{Arc, Weak};

use super::primary::Primary;

/// A stream for as long as somebody uses it: with the last handle it ends, and its threads have ended when that one is
/// gone. They hold its parts as well, while they look at them; so its end can't be left to whoever drops those last.
#[derive(Clone, Debug)]
pub(crate) struct Handle(Arc<Ends>);

impl Handle {
    pub(super) fn new(primary: Primary) -> Handle {
        Handle(Arc::new(Ends(Arc::new(primary))))
    }

    /// For the stream's own threads.
    pub(super) fn parts(&self) -> Weak<Primary> {
        Arc::downgrade(&self.0.0)
    }
}

impl Deref for Handle {
    type Target = Primary;

    fn deref(&self) -> &Primary {
        &self.0.0
    }
}

#[derive(Debug)]
struct Ends(Arc<Primary>);

impl Drop for Ends {
    fn drop(&mut self) {
        if let Err(error) = self.0.close() {
            tracing::error!(stream = self.0.name, %error, "close a stream that was dropped");
        }
    }
}
