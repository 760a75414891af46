//! The policy of a stream, as the first entry of every epoch carries it: so a promoted receiver has it too.

use serde::{Deserialize, Serialize};
use wire::Mode;

use crate::commit::Need;

/// Version of the policy's text. 1: the first.
const VERSION: u32 = 1;

/// Who keeps a stream, and what a commit waits for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// The peers in the order of the configuration.
    pub members: Vec<PolicyMember>,
    /// How many required peers a commit waits for.
    pub need: Need,
    /// Names of the depots that are fed.
    pub depots: Vec<String>,
}

/// One peer in a [`Policy`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyMember {
    /// Its name.
    pub name: String,
    /// Where it was dialled.
    pub address: String,
    /// What is asked of it. A peer in [`Mode::Async`] is not required.
    pub mode: Mode,
}

/// Why a policy can't be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PolicyError {
    /// It isn't the text of a policy.
    #[error("the policy in an epoch's first entry can't be read: {0}")]
    Text(#[from] serde_json::Error),
    /// A later version wrote it.
    #[error("the policy in an epoch's first entry has version {found}, this program knows {VERSION}: use a newer one")]
    Version {
        /// The version that was found.
        found: u32,
    },
    /// The quorum is impossible.
    #[error("the policy waits for {k} of {required} required peers: name between 1 and {required}")]
    Quorum {
        /// Asked.
        k: usize,
        /// There are.
        required: usize,
    },
}

impl PolicyError {
    /// Who must act.
    pub fn class(&self) -> journal::Class {
        match self {
            PolicyError::Text(_) => journal::Class::Corrupt,
            PolicyError::Version { .. } => journal::Class::Incompatible,
            PolicyError::Quorum { .. } => journal::Class::Config,
        }
    }
}

impl Policy {
    /// Peers that a commit may wait for.
    pub fn required(&self) -> usize {
        self.members.iter().filter(|member| member.mode != Mode::Async).count()
    }

    /// An error for a quorum that can't be met or that waits for nobody.
    pub fn check(&self) -> Result<(), PolicyError> {
        match self.need {
            Need::Quorum(k) if k == 0 || k > self.required() => {
                Err(PolicyError::Quorum { k, required: self.required() })
            }
            _ => Ok(()),
        }
    }

    /// The bytes for the epoch's first entry: JSON with a version.
    pub fn encode(&self) -> Vec<u8> {
        let text = Text {
            version: VERSION,
            members: self.members.iter().map(MemberText::from).collect(),
            quorum: match self.need {
                Need::All => None,
                Need::Quorum(k) => Some(k),
            },
            depots: self.depots.clone(),
        };
        // strings and numbers always have a text: writing to memory can't fail
        serde_json::to_vec(&text).unwrap_or_default()
    }

    /// Reads [`Policy::encode`]'s bytes.
    pub fn decode(bytes: &[u8]) -> Result<Policy, PolicyError> {
        // the version first: a later one may have other fields
        let Version { version } = serde_json::from_slice(bytes)?;
        if version != VERSION {
            return Err(PolicyError::Version { found: version });
        }
        let text: Text = serde_json::from_slice(bytes)?;
        let policy = Policy {
            members: text.members.into_iter().map(PolicyMember::from).collect(),
            need: text.quorum.map_or(Need::All, Need::Quorum),
            depots: text.depots,
        };
        policy.check()?;
        Ok(policy)
    }
}

#[derive(Deserialize)]
struct Version {
    version: u32,
}

#[derive(Serialize, Deserialize)]
struct Text {
    version: u32,
    members: Vec<MemberText>,
    #[serde(skip_serializing_if = "Option::is_none")]
    quorum: Option<usize>,
    depots: Vec<String>,
}

#[derive(Serialize, Deserialize)]
struct MemberText {
    name: String,
    address: String,
    mode: ModeText,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum ModeText {
    Async,
    SemiSync,
    Sync,
}

impl From<&PolicyMember> for MemberText {
    fn from(member: &PolicyMember) -> MemberText {
        let mode = match member.mode {
            Mode::Async => ModeText::Async,
            Mode::SemiSync => ModeText::SemiSync,
            Mode::Sync => ModeText::Sync,
        };
        MemberText { name: member.name.clone(), address: member.address.clone(), mode }
    }
}

impl From<MemberText> for PolicyMember {
    fn from(member: MemberText) -> PolicyMember {
        let mode = match member.mode {
            ModeText::Async => Mode::Async,
            ModeText::SemiSync => Mode::SemiSync,
            ModeText::Sync => Mode::Sync,
        };
        PolicyMember { name: member.name, address: member.address, mode }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy() -> Policy {
        let member = |name: &str, mode| PolicyMember { name: name.into(), address: format!("{name}:7400"), mode };
        Policy {
            members: vec![member("b", Mode::Sync), member("c", Mode::SemiSync), member("d", Mode::Async)],
            need: Need::Quorum(1),
            depots: vec!["night".into()],
        }
    }

    #[test]
    fn comes_back_as_it_was() {
        for need in [Need::All, Need::Quorum(2)] {
            let policy = Policy { need, ..policy() };
            assert_eq!(Policy::decode(&policy.encode()).unwrap(), policy);
        }
    }

    /// Version 1 as it was first released: logs that carry it stay readable.
    #[test]
    fn version_one_stays_readable() {
        let text = br#"{"version":1,"members":[{"name":"b","address":"b:7400","mode":"sync"},{"name":"c","address":"c:7400","mode":"semi-sync"},{"name":"d","address":"d:7400","mode":"async"}],"quorum":1,"depots":["night"]}"#;
        assert_eq!(Policy::decode(text).unwrap(), policy());
        assert_eq!(policy().encode(), text);
    }

    #[test]
    fn a_later_version_an_impossible_quorum_and_noise_are_refused() {
        use journal::Class;
        let cases: &[(&[u8], Class)] = &[
            (br#"{"version":2,"peers":[]}"#, Class::Incompatible),
            (br#"{"version":1,"members":[],"quorum":1,"depots":[]}"#, Class::Config),
            (
                br#"{"version":1,"members":[{"name":"b","address":"","mode":"sync"}],"quorum":0,"depots":[]}"#,
                Class::Config,
            ),
            (br#"{"version":1,"members":[{"name":"b","address":"","mode":"maybe"}],"depots":[]}"#, Class::Corrupt),
            (b"", Class::Corrupt),
        ];
        for (text, class) in cases {
            assert_eq!(Policy::decode(text).unwrap_err().class(), *class, "{}", String::from_utf8_lossy(text));
        }
    }
}
