//! Which boot of the machine is settled for a receiver.
//!
//! What was only received lies in the page cache: it survives the process, not the machine. So a receiver that comes up
//! under another boot id than the settled one is *in doubt* until it has reached the end of its primary's log again.

use std::fs;
use std::io;
use std::path::PathBuf;

use crate::data::write_whole;
use crate::error::{Error, Result};

/// Where Linux says which boot this is.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";
/// Written by a clean stop: everything received was synced, so no reboot can take it.
const CLEAN: &str = "clean";
/// Written when the page cache is not to be believed in this very boot: a sync has failed.
const DOUBT: &str = "doubt";

/// This machine's boot id; all zero where there is none to be had.
pub(crate) fn boot_id() -> [u8; 16] {
    let text = fs::read_to_string(BOOT_ID).unwrap_or_default();
    // any 16 bytes will do; these have the form of an identity
    journal::NodeId::parse(text.trim()).unwrap_or_default().as_bytes().to_owned()
}

/// The file that says which boot is settled.
#[derive(Clone, Debug)]
pub(crate) struct Settled {
    path: PathBuf,
}

impl Settled {
    /// The file in the folder of a stream.
    pub(crate) fn at(path: PathBuf) -> Settled {
        Settled { path }
    }

    /// Looks what the last process left, and settles this boot unless there is doubt. True: in doubt.
    ///
    /// `holds`: the log holds entries. One that holds none may have lost all of them; only where no boot was ever settled
    /// nothing was received, because that comes before the first connection. `poisoned`: a sync had failed, so that what
    /// was only received may be gone from the page cache too.
    pub(crate) fn begin(&self, boot: &[u8; 16], holds: bool, poisoned: bool) -> Result<bool> {
        let left = match fs::read_to_string(&self.path) {
            Ok(text) => Some(text),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(Error::io("read", &self.path)(error)),
        };
        let received = holds || left.is_some();
        if received && poisoned {
            self.write(DOUBT)?;
            return Ok(true);
        }
        let known = left.is_some_and(|text| text.trim() == CLEAN || text.trim() == word(boot));
        if received && !known {
            return Ok(true);
        }
        self.settle(boot)?;
        Ok(false)
    }

    /// From now on this boot is settled. Durable when it returns.
    pub(crate) fn settle(&self, boot: &[u8; 16]) -> Result<()> {
        self.write(&word(boot))
    }

    /// Everything received is durable: no reboot can take it. Durable when it returns.
    pub(crate) fn clean(&self) -> Result<()> {
        self.write(CLEAN)
    }

    fn write(&self, word: &str) -> Result<()> {
        write_whole(&self.path, format!("{word}\n").as_bytes())
    }
}

fn word(boot: &[u8; 16]) -> String {
    journal::NodeId::from_bytes(*boot).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_boot_is_in_doubt_until_it_is_settled() {
        let folder = tempfile::tempdir().expect("a folder");
        let settled = Settled::at(folder.path().join("settled"));
        let (first, second, third) = ([1; 16], [2; 16], [3; 16]);
        assert!(!settled.begin(&first, false, false).expect("begins"), "nothing was ever received");
        assert!(!settled.begin(&first, true, false).expect("begins"), "the same boot: the page cache is still there");
        assert!(settled.begin(&second, true, false).expect("begins"), "another boot");
        assert!(settled.begin(&second, true, false).expect("begins"), "looking again settles nothing");
        assert!(settled.begin(&second, false, false).expect("begins"), "what an empty log held may be lost");
        settled.settle(&second).expect("settled");
        assert!(!settled.begin(&second, true, false).expect("begins"));
        settled.clean().expect("clean");
        assert!(!settled.begin(&third, true, false).expect("begins"), "a clean stop leaves nothing to lose");
        assert!(settled.begin(&first, true, false).expect("begins"), "and settles the boot after it");
    }

    #[test]
    fn a_log_without_the_file_is_in_doubt() {
        let folder = tempfile::tempdir().expect("a folder");
        assert!(Settled::at(folder.path().join("settled")).begin(&[1; 16], true, false).expect("begins"));
    }

    /// A restart without having met the primary must not forget the doubt.
    #[test]
    fn a_failed_sync_leaves_a_doubt_that_a_restart_keeps() {
        let folder = tempfile::tempdir().expect("a folder");
        let settled = Settled::at(folder.path().join("settled"));
        let boot = [1; 16];
        assert!(!settled.begin(&boot, false, true).expect("begins"), "nothing was ever received");
        assert!(settled.begin(&boot, true, true).expect("begins"));
        assert!(settled.begin(&boot, true, false).expect("begins"));
        settled.settle(&boot).expect("settled");
        assert!(settled.begin(&boot, false, true).expect("begins"), "what an empty log held may be lost");
        settled.settle(&boot).expect("settled");
        assert!(!settled.begin(&boot, true, false).expect("begins"));
    }

    #[test]
    fn this_machine_says_which_boot_it_is() {
        assert_ne!(boot_id(), [0; 16]);
    }
}
