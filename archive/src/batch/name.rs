//! File names of batches: sorted by term, then by place.

use std::fmt;
use std::str::FromStr;

use journal::{Chain, Lsn, Term};

/// The name of a batch file: `t00000001-0000000000000000-00000000000012a0-9f3c….batch`: term at its end, from, to and
/// chain at its end, in hex. Equal names hold equal entries, however they were packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct BatchName {
    /// The term of its last entry.
    pub term: Term,
    /// Where it begins.
    pub from: Lsn,
    /// Where it ends.
    pub to: Lsn,
    /// Chain at its end.
    pub chain: Chain,
}

impl fmt::Display for BatchName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "t{:08x}-{:016x}-{:016x}-{}.batch", self.term.0, self.from.get(), self.to.get(), self.chain)
    }
}

impl FromStr for BatchName {
    type Err = ();

    /// Reads exactly what `Display` prints: no other spelling of a name is one, so that it can be used as a path.
    fn from_str(text: &str) -> Result<BatchName, ()> {
        let mut parts = text.strip_prefix('t').and_then(|t| t.strip_suffix(".batch")).ok_or(())?.split('-');
        let mut number = || parts.next().and_then(|part| u64::from_str_radix(part, 16).ok()).ok_or(());
        let name = BatchName {
            term: Term(u32::try_from(number()?).map_err(|_| ())?),
            from: Lsn::new(number()?),
            to: Lsn::new(number()?),
            chain: Chain::from_u64(number()?),
        };
        (name.to_string() == text && name.from < name.to).then_some(name).ok_or(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_printed_form_is_a_name() {
        let name = BatchName { term: Term(2), from: Lsn::new(0x40), to: Lsn::new(0x99), chain: Chain::from_u64(7) };
        let text = name.to_string();
        assert_eq!(text, "t00000002-0000000000000040-0000000000000099-0000000000000007.batch");
        assert_eq!(text.parse(), Ok(name));
        for wrong in [
            "",
            "t2-40-99-7.batch",
            "../t00000002-0000000000000040-0000000000000099-0000000000000007.batch",
            "t00000002-0000000000000040-0000000000000099-0000000000000007.batch/x",
            "t00000002-0000000000000040-0000000000000040-0000000000000007.batch",
            "t00000002-0000000000000040-0000000000000099-000000000000000A.batch",
            "t00000002-0000000000000040-0000000000000099-+000000000000007.batch",
            "t00000002-0000000000000040-0000000000000099-0000000000000007-00.batch",
        ] {
            assert_eq!(wrong.parse::<BatchName>(), Err(()), "{wrong}");
        }
    }
}
