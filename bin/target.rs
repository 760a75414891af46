//! The grammar of destinations on the command line: `--to b:7400,mode=sync`, `--to ./depot,every=15m`.

use std::path::PathBuf;
use std::str::FromStr;

use config::file::{AtBudget, Mode, OnLoss};
use config::value::{Address, BadValue, Name, Place, Schedule};

/// A destination as it was written; defaults of other flags are not in it yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    /// What to call it.
    pub(crate) name: Option<Name>,
    /// Where it is.
    pub(crate) at: At,
    /// What was said about the promise; never for a depot.
    pub(crate) mode: Option<Mode>,
    /// What was said about its loss; never for a depot.
    pub(crate) on_loss: Option<OnLoss>,
    /// What was said about the budget.
    pub(crate) at_budget: Option<AtBudget>,
    /// When batches are cut; only for a depot.
    pub(crate) schedule: Option<Schedule>,
}

/// Where a destination is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum At {
    /// A node that keeps the journal.
    Peer(Address),
    /// A node that keeps batches.
    RemoteDepot(Address),
    /// A folder of this machine for batches.
    Folder(PathBuf),
}

impl Target {
    /// True for a place of batches.
    pub(crate) fn is_depot(&self) -> bool {
        !matches!(self.at, At::Peer(_))
    }
}

impl FromStr for Target {
    type Err = BadValue;

    fn from_str(text: &str) -> Result<Target, BadValue> {
        let (place, mut rest) = text.split_once(',').unwrap_or((text, ""));
        let mut target =
            Target { name: None, at: place_of(place)?, mode: None, on_loss: None, at_budget: None, schedule: None };
        while !rest.is_empty() {
            // a cron schedule may contain commas, so it takes all that follows
            let (word, after) = match rest.starts_with("schedule=") {
                true => (rest, ""),
                false => rest.split_once(',').unwrap_or((rest, "")),
            };
            target.set(word)?;
            rest = after;
        }
        target.check(text)?;
        Ok(target)
    }
}

impl Target {
    fn set(&mut self, word: &str) -> Result<(), BadValue> {
        let (key, value) = word.split_once('=').unwrap_or((word, ""));
        match (key, value) {
            ("depot", "") => match &self.at {
                At::Peer(address) => self.at = At::RemoteDepot(address.clone()),
                _ => return Err(BadValue::new("`depot` belongs to an address: a folder is a depot anyway")),
            },
            ("name", name) => once(&mut self.name, key, name.parse()?)?,
            ("mode", mode) => once(&mut self.mode, key, parse_mode(mode)?)?,
            ("on-loss", on_loss) => once(&mut self.on_loss, key, parse_on_loss(on_loss)?)?,
            ("at-budget", at_budget) => once(&mut self.at_budget, key, parse_at_budget(at_budget)?)?,
            ("every", every) => once(&mut self.schedule, key, format!("every {every}").parse()?)?,
            ("schedule", schedule) => once(&mut self.schedule, key, schedule.parse()?)?,
            _ => {
                return Err(BadValue::new(format!(
                    "`{word}` is not known here: a peer takes name=, mode=, on-loss=, at-budget=, depot; a depot takes name=, at-budget=, every=, schedule="
                )));
            }
        }
        Ok(())
    }

    fn check(&self, text: &str) -> Result<(), BadValue> {
        match self.is_depot() {
            true if self.mode.is_some_and(|mode| mode != Mode::Async) || self.on_loss.is_some() => {
                Err(BadValue::new(format!("`{text}`: no write waits for a depot, so it has no mode and no on-loss")))
            }
            false if self.schedule.is_some() => Err(BadValue::new(format!(
                "`{text}`: a peer has no schedule. A folder contains a slash (./depot); a depot on another node is `ADDRESS,depot`"
            ))),
            _ => Ok(()),
        }
    }
}

fn once<T>(slot: &mut Option<T>, key: &str, value: T) -> Result<(), BadValue> {
    match slot.replace(value) {
        None => Ok(()),
        Some(_) => Err(BadValue::new(format!("`{key}` says something that was said before"))),
    }
}

fn place_of(place: &str) -> Result<At, BadValue> {
    match Place::of(place) {
        Place::Folder(folder) => Ok(At::Folder(folder)),
        Place::Word(word) if !word.contains(':') => Err(BadValue::new(format!(
            "`{word}` is neither an address (HOST:PORT) nor a folder (a folder contains a slash: ./{word})"
        ))),
        Place::Word(word) => {
            let address: Address = word.parse()?;
            match address.port() {
                0 => Err(BadValue::new(format!("`{word}`: port 0 can't be dialled"))),
                _ => Ok(At::Peer(address)),
            }
        }
    }
}

/// Reads `async`, `semi-sync` or `sync`.
pub(crate) fn parse_mode(text: &str) -> Result<Mode, BadValue> {
    match text {
        "async" => Ok(Mode::Async),
        "semi-sync" | "semisync" => Ok(Mode::SemiSync),
        "sync" => Ok(Mode::Sync),
        _ => Err(BadValue::new(format!("`{text}` is not a mode: write async, semi-sync or sync"))),
    }
}

/// Reads `block`, `fail:10s` or `alone:5s`.
pub(crate) fn parse_on_loss(text: &str) -> Result<OnLoss, BadValue> {
    let (word, after) = text.split_once(':').unwrap_or((text, ""));
    match word {
        "block" if text == "block" => Ok(OnLoss::Block),
        "fail" => Ok(OnLoss::Fail { after: after.parse()? }),
        "alone" => Ok(OnLoss::Alone { after: after.parse()? }),
        _ => Err(BadValue::new(format!("`{text}` is not known: write block, fail:10s or alone:5s"))),
    }
}

/// Reads `block` or `detach`.
fn parse_at_budget(text: &str) -> Result<AtBudget, BadValue> {
    match text {
        "block" => Ok(AtBudget::Block),
        "detach" => Ok(AtBudget::Detach),
        _ => Err(BadValue::new(format!("`{text}` is not known: write block or detach"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_contains_a_slash() {
        let at = |text: &str| text.parse::<Target>().unwrap().at;
        assert_eq!(at("10.0.0.2:7400"), At::Peer("10.0.0.2:7400".parse().unwrap()));
        assert_eq!(at("./depot"), At::Folder("./depot".into()));
        assert_eq!(at("/mnt/dr,name=far"), At::Folder("/mnt/dr".into()));
        assert_eq!(at("dr:7400,depot,every=1m"), At::RemoteDepot("dr:7400".parse().unwrap()));
    }

    #[test]
    fn every_word_counts() {
        let peer: Target = "b:7400,mode=semi-sync,on-loss=alone:5s,name=b".parse().unwrap();
        assert_eq!(peer.name, Some("b".parse().unwrap()));
        assert_eq!(peer.mode, Some(Mode::SemiSync));
        assert_eq!(peer.on_loss, Some(OnLoss::Alone { after: "5s".parse().unwrap() }));
        let depot: Target = "./d,name=n,schedule=0,30 * * * * Europe/Paris".parse().unwrap();
        assert_eq!(depot.at_budget, None);
        assert_eq!("c:7400,mode=async,at-budget=block".parse::<Target>().unwrap().at_budget, Some(AtBudget::Block));
        assert_eq!("./d,at-budget=detach,every=1m".parse::<Target>().unwrap().at_budget, Some(AtBudget::Detach));
        assert_eq!(depot.schedule, Some("0,30 * * * * Europe/Paris".parse().unwrap()));
        assert_eq!("./d,every=15m".parse::<Target>().unwrap().schedule, Some("every 15m".parse().unwrap()));
    }

    #[test]
    fn what_is_no_destination() {
        let table = [
            ("depot", "a folder contains a slash"),
            ("", "a folder contains a slash"),
            ("b:7400,mode=fast", "not a mode"),
            ("b:7400,fast", "not known here"),
            ("b:0", "port 0"),
            ("b:7400,every=15m", "a peer has no schedule"),
            ("./d,mode=sync", "no write waits"),
            ("./d,depot", "a folder is a depot anyway"),
            ("b:7400,mode=sync,mode=async", "said before"),
            ("b:7400,on-loss=block:5s", "not known"),
            ("b:7400,on-loss=alone", "not a duration"),
            ("./d,every=5", "is no schedule"),
            ("./d,at-budget=wait", "write block or detach"),
        ];
        for (text, part) in table {
            let said = text.parse::<Target>().unwrap_err().to_string();
            assert!(said.contains(part), "{text}: {said}");
        }
    }
}
