//! Identities. A name is no identity: two folders may carry one name, never one id.

use std::fmt;

use uuid::Uuid;

macro_rules! identity {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        pub struct $name([u8; 16]);

        impl $name {
            /// The identity with these 16 bytes.
            pub const fn from_bytes(bytes: [u8; 16]) -> $name {
                $name(bytes)
            }

            /// The 16 bytes as they stand in every format.
            pub const fn as_bytes(&self) -> &[u8; 16] {
                &self.0
            }

            /// A fresh random identity.
            pub fn random() -> $name {
                $name(*Uuid::new_v4().as_bytes())
            }

            /// Reads the form that `Display` prints.
            pub fn parse(text: &str) -> Option<$name> {
                Uuid::try_parse(text).ok().map(|id| $name(*id.as_bytes()))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&Uuid::from_bytes(self.0), f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }
    };
}

identity! {
    /// A stream: minted with a new data folder, the same on every node that keeps the stream.
    StreamId
}
identity! {
    /// A node: minted with a node's data folder. All zero means "none".
    NodeId
}
