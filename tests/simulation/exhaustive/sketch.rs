//! A state as a row of tokens, without what can't make a difference: equal rows go on alike.
//!
//! Identities (chains, ids of terms, runs and sessions, numbers of connections) are compared with nothing but each
//! other, for equality: they are numbered in the order in which they stand here. Numbers of runs are compared by size,
//! and a new one is above all of its term: their order is kept, the gaps between them are closed. Texts are for people.

use std::fmt::{self, Debug, Write};
use std::ops::Range;

use journal::Chain;
use wire::Place;
use xxhash_rust::xxh3::xxh3_128;

/// Identities that aren't chains begin here. No position and no count in the model comes near.
pub(super) const IDENTITIES: u64 = 1 << 48;

/// Fields that make no difference, by the type in whose text they stand.
const LEFT_OUT: &[(&str, &[&str])] = &[
    // time stands still, and what is asked of a node is the same on every path
    ("Peer", &["options", "retry_delay", "dice", "link", "trouble"]),
    ("Waiting", &["until"]),
    (LINKED, &["heard", "alive_due", "alive"]),
    ("Flow", &["announce_due", "prove_due", "caught_up"]),
    ("Intake", &["options", "generation", "syncing"]),
    ("Session", &["heard", "acked_at", "report_every"]),
    ("Gate", &["need", "updated"]),
    ("Member", &["mode", "on_loss"]),
    ("Lost", &["since"]),
    ("Cursor", &["geometry"]),
    ("Log", &["geometry", "instead"]),
    // a later entry's is above it, whatever it is
    ("Tip", &["time"]),
    // only people look at it
    ("Local", &["floor", "alone", "sync_ms", "full"]),
    ("Announce", &["durable", "floor", "alone"]),
    ("Ack", &["applied", "checkpoint"]),
    ("Marks", &["applied", "checkpoint"]),
    ("NodeInfo", &["name", "start_id", "boot_id"]),
    ("Greeting", &["protocol", "stream", "geometry", "mode", "start", "durable", "clock"]),
    // of the greeting that an intake keeps, who it was, its term and its end count once it is answered
    (
        THEIRS,
        &[
            "protocol",
            "stream",
            "geometry",
            "mode",
            "opened",
            "history",
            "start",
            "durable",
            "committed",
            "applied",
            "remembers",
            "clock",
        ],
    ),
    (EPOCH, &[]),
];
const LINKED: &str = "Linked";
const THEIRS: &str = "Greeting as theirs";
const EPOCH: &str = "Epoch";

/// Kind in the two highest bits, value in the rest: no number needs more, and of a hash 62 bits are as good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Token(u64);

const KINDS: u64 = 3 << 62;
const WORD: u64 = 0;
const NUMBER: u64 = 1 << 62;
const IDENTITY: u64 = 2 << 62;
const RUN: u64 = 3 << 62;

/// The row.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sketch {
    tokens: Vec<Token>,
}

impl Sketch {
    pub(super) fn is_empty(&self) -> bool {
        self.tokens.is_empty()
    }

    /// Gives back room: many are kept.
    pub(super) fn shrink(&mut self) {
        self.tokens.shrink_to_fit();
    }

    pub(super) fn append(&mut self, other: &Sketch) {
        self.tokens.extend_from_slice(&other.tokens);
    }

    pub(crate) fn word(&mut self, word: &str) {
        // FNV-1a: some hundred words, the same in every run
        let mix = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        self.push(WORD, word.as_bytes().iter().fold(0xcbf2_9ce4_8422_2325, mix));
    }

    pub(crate) fn number(&mut self, number: u64) {
        self.push(NUMBER, number);
    }

    pub(crate) fn flag(&mut self, flag: bool) {
        self.number(flag.into());
    }

    pub(crate) fn identity(&mut self, identity: u64) {
        self.push(if identity < IDENTITIES { NUMBER } else { IDENTITY }, identity);
    }

    pub(crate) fn chain(&mut self, chain: Chain) {
        self.push(IDENTITY, chain.get());
    }

    pub(crate) fn place(&mut self, place: Place) {
        self.number(place.lsn.get());
        self.chain(place.chain);
    }

    pub(crate) fn run(&mut self, run: u64) {
        self.push(RUN, run);
    }

    /// Everything that a value says of itself, but what is left out.
    pub(crate) fn debug(&mut self, value: &impl Debug) {
        let mut reader = Reader::new(self);
        write!(reader, "{value:?}").expect("reading takes any text");
        reader.end_word();
    }

    /// Equal for states that go on alike. Of ten million states, two that differ are taken for one with a probability
    /// of 10^14 / 2^129, which is 2 in 10^25.
    pub(crate) fn fingerprint(&self) -> u128 {
        let (mut identities, mut runs) = (Vec::new(), vec![RUN]);
        for &Token(token) in &self.tokens {
            let known = match token & KINDS {
                IDENTITY => &mut identities,
                RUN => &mut runs,
                _ => continue,
            };
            if !known.contains(&token) {
                known.push(token);
            }
        }
        runs.sort_unstable();
        let place = |all: &[u64], token| all.iter().position(|other| *other == token).expect("collected above") as u64;
        let mut row: Vec<u8> = Vec::with_capacity(self.tokens.len() * 8);
        for &Token(token) in &self.tokens {
            let token = match token & KINDS {
                IDENTITY => IDENTITY | place(&identities, token),
                RUN => RUN | place(&runs, token),
                _ => token,
            };
            row.extend_from_slice(&token.to_le_bytes());
        }
        xxh3_128(&row)
    }

    fn push(&mut self, kind: u64, value: u64) {
        self.tokens.push(Token(kind | value & !KINDS));
    }
}

/// Reads the text that a value writes of itself.
struct Reader<'a> {
    sketch: &'a mut Sketch,
    word: String,
    in_text: bool,
    escaped: bool,
    /// For each open bracket its type's place in [`LEFT_OUT`].
    types: Vec<Option<usize>>,
    /// Name of the field that began last.
    field: String,
    /// How many brackets were open where the field began that is left out.
    left_out: Option<usize>,
    /// The own greeting of a connection: it counts until theirs is here.
    own: Range<usize>,
}

impl<'a> Reader<'a> {
    fn new(sketch: &'a mut Sketch) -> Reader<'a> {
        Reader {
            sketch,
            word: String::new(),
            in_text: false,
            escaped: false,
            types: Vec::new(),
            field: String::new(),
            left_out: None,
            own: 0..0,
        }
    }

    fn read(&mut self, letter: u8) {
        match letter {
            _ if self.in_text => {
                self.in_text = self.escaped || letter != b'"';
                self.escaped = !self.escaped && letter == b'\\';
            }
            b'"' => self.in_text = true,
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' | b'-' => self.word.push(letter.into()),
            b':' => self.begin_field(),
            b'{' | b'(' | b'[' => self.open(letter),
            b'}' | b')' | b']' => self.close(letter),
            b',' => {
                self.end_word();
                self.left_out = self.left_out.filter(|depth| *depth != self.types.len());
            }
            _ => {}
        }
    }

    fn is_in(&self, name: &str) -> bool {
        self.types.last().copied().flatten().is_some_and(|at| LEFT_OUT[at].0 == name)
    }

    fn begin_field(&mut self) {
        std::mem::swap(&mut self.word, &mut self.field);
        self.word.clear();
        if self.left_out.is_some() {
            return;
        }
        let Some(at) = self.types.last().copied().flatten() else { return };
        if LEFT_OUT[at].1.contains(&self.field.as_str()) {
            self.left_out = Some(self.types.len());
        }
        if self.is_in(LINKED) {
            let now = self.sketch.tokens.len();
            self.own = match self.field.as_str() {
                "own" => now..now,
                "heard" => self.own.start..now,
                _ => self.own.clone(),
            };
        }
    }

    fn open(&mut self, bracket: u8) {
        let name = match self.word.as_str() {
            "Greeting" if self.field == "theirs" => THEIRS,
            name => name,
        };
        let known = !name.is_empty() && self.left_out.is_none();
        let at = if known { LEFT_OUT.iter().position(|(of, _)| *of == name) } else { None };
        self.end_word();
        self.types.push(at);
        if self.left_out.is_none() && bracket == b'[' {
            self.sketch.word("[");
        }
    }

    fn close(&mut self, bracket: u8) {
        self.end_word();
        self.left_out = self.left_out.filter(|depth| *depth != self.types.len());
        self.types.pop();
        if self.left_out.is_none() && bracket == b']' {
            self.sketch.word("]");
        }
    }

    fn end_word(&mut self) {
        if self.left_out.is_none() && !self.word.is_empty() {
            if self.is_in(LINKED) && self.field == "phase" && self.word != "Greeting" {
                self.sketch.tokens.drain(self.own.clone());
            }
            match self.word.as_str() {
                word if word.len() == 16 && word.bytes().all(|letter| letter.is_ascii_hexdigit()) => {
                    let chain = u64::from_str_radix(word, 16).expect("sixteen digits");
                    self.sketch.chain(Chain::from_u64(chain));
                }
                word => match word.parse::<u64>() {
                    Ok(run) if self.field == "run" && self.is_in(EPOCH) => self.sketch.run(run),
                    Ok(number) => self.sketch.identity(number),
                    Err(_) => self.sketch.word(word),
                },
            }
        }
        self.word.clear();
    }
}

impl Write for Reader<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let in_word = |letter: u8| letter.is_ascii_alphanumeric() || letter == b'_' || letter == b'-';
        match text.bytes().all(in_word) && !self.in_text {
            // most pieces are whole words, and of what is left out only the brackets count
            true if self.left_out.is_some() => {}
            true => self.word.push_str(text),
            false => text.bytes().for_each(|letter| self.read(letter)),
        }
        Ok(())
    }
}
