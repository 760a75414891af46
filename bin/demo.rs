//! `demo`: the whole line once, on this machine, judged by somebody who wasn't there.
//!
//! ```text
//!  appenders --append --acks--> primary ==sync==> receiver          kill -9 both under load; start them again
//!      |                           '--every 1s--> depot
//!      '--> checker <-- restore from the receiver, the primary, the depot, and to an instant in the middle
//! ```
//! Every box is a process of this same program. The checker knows what was handed in and what `--acks` printed.

mod cast;
mod checker;
mod load;
mod table;

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use jiff::Timestamp;

use self::cast::{Node, run};
use self::checker::{Bounds, Finding, judge};
use self::load::Load;
use self::table::{Row, Table};
use crate::exit::{DATA, DONE, Failure, Outcome, eprint};
use crate::out::Out;

/// The demo's stream.
const STREAM: &str = "demo";
/// Appenders at once.
const APPENDERS: usize = 4;
/// How long the appenders go as fast as they can before the kill.
const FLOOD: Duration = Duration::from_millis(150);
/// Between two looks at what was acknowledged.
const LOOK: Duration = Duration::from_millis(10);

/// Show the whole line at work: two copies, kill -9, a depot, restores; a checker judges.
///
/// Starts a primary, a receiver and a depot as processes on loopback, in a temporary folder. Appends to them, kills
/// primary and receiver under load, starts them again, and restores from every copy and to an instant in the middle.
/// The checker knows only what was handed in and which acknowledgements were printed: none of these may be missing,
/// altered, doubled or out of order. Ends with a table of what was proved, and with 4 when something wasn't.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// Keep everything in this folder, which must not exist
    #[arg(long, value_name = "DIR")]
    keep: Option<PathBuf>,
    /// What is asked of the receiver
    #[arg(long, default_value = "sync", value_name = "sync|semi-sync|async")]
    mode: DemoMode,
    /// How long to append before the kill; as long again after it, at most two seconds
    #[arg(long, default_value_t = 4, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=3600))]
    seconds: u64,
    /// Spoil one restored file, to see that the checker sees it
    #[arg(long, hide = true, value_name = "lose-one")]
    plant: Option<Plant>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum DemoMode {
    Sync,
    SemiSync,
    Async,
}

impl DemoMode {
    fn name(self) -> &'static str {
        match self {
            DemoMode::Sync => "sync",
            DemoMode::SemiSync => "semi-sync",
            DemoMode::Async => "async",
        }
    }

    /// The level whose acknowledgements are counted: the strongest that the mode promises.
    fn level(self) -> &'static str {
        match self {
            DemoMode::Sync => "peer-durable",
            DemoMode::SemiSync => "received",
            DemoMode::Async => "durable",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Plant {
    LoseOne,
}

pub(crate) fn execute(args: &Args, out: &mut Out) -> Outcome {
    let began = Instant::now();
    let folder = Folder::new(args.keep.as_deref())?;
    say(format_args!("everything happens in {}", folder.path().display()));
    let mut demo = Demo { args, folder: folder.path(), seed: seed(), table: Table::default() };
    demo.play()?;
    let table = demo.table;
    for row in &table.rows {
        out.show(row, row)?;
    }
    out.flush()?;
    let good = table.is_good();
    let verdict = if good { "everything held" } else { "SOMETHING DID NOT HOLD" };
    say(format_args!("{verdict}, in {:.1} s", began.elapsed().as_secs_f64()));
    folder.done();
    Ok(if good { DONE } else { DATA })
}

/// One performance.
struct Demo<'a> {
    args: &'a Args,
    folder: &'a Path,
    seed: u64,
    table: Table,
}

/// An instant in the middle of the load: what was acknowledged before it, and what was handed in by then.
#[derive(Debug)]
struct Middle {
    at: Timestamp,
    bounds: Vec<Bounds>,
}

impl Demo<'_> {
    fn play(&mut self) -> Result<(), Failure> {
        let depot = self.start_depot()?;
        let depot_address = depot.hear("listens on ")?;
        let receiver = self.start_receiver("127.0.0.1:0")?;
        let address = receiver.hear("listens on ")?;
        let primary = self.start_primary(&address, &depot_address)?;
        self.wait("connected", primary.data())?;

        say(format_args!("{APPENDERS} appenders for {} s, mode {}", self.args.seconds, self.args.mode.name()));
        let level = self.args.mode.level();
        let mut load = Load::start(primary.data(), STREAM, level, self.seed, 0..APPENDERS)?;
        let half = Duration::from_secs(self.args.seconds) / 2;
        thread::sleep(half);
        // on a busy machine nothing may be in the log yet, and then there is no instant to go back to
        while load.acked().iter().sum::<u64>() == 0 && load.is_alive() {
            thread::sleep(LOOK);
        }
        let middle = middle(&load);
        thread::sleep(half);
        load.flood();
        thread::sleep(FLOOD);
        if !load.is_alive() {
            return Err(Failure::new(journal::Class::Io, "every appender ended under load; nothing was killed yet"));
        }
        say(format_args!("kill -9 of the primary and the receiver, under load"));
        let (receiver_data, primary_data) = (receiver.data().to_owned(), primary.data().to_owned());
        primary.kill()?;
        receiver.kill()?;
        let before = load.finish()?;
        self.acknowledged("acknowledgements at the level asked for", before.levels_right, &before.bounds);

        // an asynchronous peer was promised nothing: what the primary alone acknowledged is looked for on the primary
        if self.args.mode != DemoMode::Async {
            self.check("the receiver's copy, after the kill", &[&receiver_data], "latest", &before.bounds)?;
        }
        self.check("the primary's own copy, after the kill", &[&primary_data], "latest", &before.bounds)?;

        say(format_args!("start both again and go on"));
        let receiver = self.start_receiver(&address)?;
        receiver.hear("listens on ")?;
        let primary = self.start_primary(&address, &depot_address)?;
        self.wait("connected", primary.data())?;
        let load = Load::start(primary.data(), STREAM, level, self.seed, APPENDERS..2 * APPENDERS)?;
        thread::sleep(Duration::from_secs(self.args.seconds.min(2)));
        let after = load.finish()?;
        self.acknowledged("acknowledgements after the restart", after.levels_right, &after.bounds);
        let all = [before.bounds.as_slice(), after.bounds.as_slice()].concat();

        self.wait("in-sync", primary.data())?;
        self.wait("shipped", primary.data())?;
        say(format_args!("stop the primary and the receiver; the depot alone must do"));
        run([OsString::from("stop"), "--data".into(), primary.data().into()])?;
        run([OsString::from("stop"), "--data".into(), receiver.data().into()])?;
        run([OsString::from("stop"), "--data".into(), depot.data().into()])?;

        let depots = self.depot_folder();
        self.check("the receiver's copy, in the end", &[&receiver_data], "latest", &all)?;
        self.check("the depot alone", &[&depots], "latest", &all)?;
        let instant = middle.at.to_string();
        let mut bounds = middle.bounds;
        bounds.resize(all.len(), Bounds::default());
        self.check(&format!("back to {instant}, from the depot"), &[&depots], &instant, &bounds)?;
        self.check(&format!("back to {instant}, from the receiver"), &[&receiver_data], &instant, &bounds)?;
        for (what, path) in [("the receiver", &receiver_data), ("the primary", &primary_data), ("the depot", &depots)] {
            run([OsString::from("verify"), path.into()])?;
            self.table.rows.push(Row::new(format!("verify {what}"), "every checksum and the whole chain", true));
        }
        Ok(())
    }

    fn start_receiver(&self, listen: &str) -> Result<Node, Failure> {
        Node::start("receiver", &self.folder.join("receiver"), ["receiver", "--listen", listen])
    }

    fn start_depot(&self) -> Result<Node, Failure> {
        let data = self.folder.join("depot");
        Node::start("depot", &data, ["receiver", "--name", "depot", "--listen", "127.0.0.1:0"])
    }

    fn depot_folder(&self) -> PathBuf {
        self.folder.join("depot")
    }

    fn start_primary(&self, receiver: &str, depot: &str) -> Result<Node, Failure> {
        let peer = format!("{receiver},mode={}", self.args.mode.name());
        let depot = format!("{depot},depot,every=1s");
        let args = ["primary", "--stream", STREAM, "--to", &peer, "--to", &depot];
        let primary = Node::start("primary", &self.folder.join("primary"), args)?;
        primary.hear("next: ")?;
        Ok(primary)
    }

    fn wait(&self, until: &str, data: &Path) -> Result<(), Failure> {
        let words = ["wait", STREAM, "--for", until, "--timeout", "20s", "--data"];
        run(words.map(OsString::from).into_iter().chain([data.into()])).map(drop)
    }

    fn acknowledged(&mut self, what: &str, right: bool, bounds: &[Bounds]) {
        let acked: u64 = bounds.iter().map(|bounds| bounds.acked).sum();
        let text = format!("{acked} records at `{}`", self.args.mode.level());
        // a demo in which nothing was acknowledged has shown nothing
        self.table.rows.push(Row::new(what, text, right && acked > 0));
    }

    /// Restores, and lets the checker look at it.
    fn check(&mut self, what: &str, from: &[&Path], at: &str, bounds: &[Bounds]) -> Result<(), Failure> {
        let out = self.folder.join(format!("restored-{}.txt", self.table.rows.len()));
        let mut words: Vec<OsString> = ["restore", STREAM, "--at", at, "--to"].map(OsString::from).into();
        words.push((&out).into());
        words.extend(from.iter().flat_map(|from| [OsString::from("--from"), (*from).into()]));
        run(words)?;
        if self.args.plant == Some(Plant::LoseOne) {
            lose_one(&out)?;
        }
        let failed = |cause| Failure::io(format_args!("read {}", out.display()), cause);
        let finding = judge(BufReader::new(File::open(&out).map_err(failed)?), self.seed, bounds).map_err(failed)?;
        for fault in &finding.faults {
            say(format_args!("{what}: {fault}"));
        }
        self.table.rows.push(row(what, &finding));
        Ok(())
    }
}

fn row(what: &str, finding: &Finding) -> Row {
    let Finding { records, acked, faults } = finding;
    let text = match finding.is_good() {
        true => {
            format!("{records} records; {acked} acknowledged, 0 missing, 0 altered, 0 doubled, 0 reordered, 0 invented")
        }
        false => faults.join("; "),
    };
    Row::new(what, text, finding.is_good())
}

/// Whatever was acknowledged before the instant must be there; nothing handed in after it may.
fn middle(load: &Load) -> Middle {
    let acked = load.acked();
    let at = Timestamp::now();
    let sent = load.sent();
    Middle { at, bounds: acked.into_iter().zip(sent).map(|(acked, sent)| Bounds { acked, sent }).collect() }
}

/// Takes the first record out of a restored file.
fn lose_one(path: &Path) -> Result<(), Failure> {
    let failed = |cause| Failure::io(format_args!("spoil {}", path.display()), cause);
    let text = fs::read(path).map_err(failed)?;
    let rest = text.iter().position(|byte| *byte == b'\n').map_or(&text[..0], |at| &text[at + 1..]);
    fs::write(path, rest).map_err(failed)
}

/// A number that this demo's records are made of.
fn seed() -> u64 {
    u64::from_le_bytes(journal::NodeId::random().as_bytes()[..8].try_into().unwrap_or_default())
}

fn say(text: std::fmt::Arguments<'_>) {
    eprint(&format!("demo: {text}\n"));
}

/// Where it happens: removed in the end, unless it is to be kept.
struct Folder {
    path: PathBuf,
    temporary: Option<tempfile::TempDir>,
}

impl Folder {
    fn new(keep: Option<&Path>) -> Result<Folder, Failure> {
        match keep {
            Some(keep) => {
                let failed = |cause| Failure::io(format_args!("create {}", keep.display()), cause);
                fs::create_dir(keep).map_err(failed)?;
                Ok(Folder { path: std::path::absolute(keep).map_err(failed)?, temporary: None })
            }
            None => {
                let made = tempfile::Builder::new().prefix("towline-demo-").tempdir();
                let folder = made.map_err(|cause| Failure::io("create a temporary folder", cause))?;
                Ok(Folder { path: folder.path().to_owned(), temporary: Some(folder) })
            }
        }
    }

    fn path(&self) -> &Path {
        &self.path
    }

    fn done(self) {
        if self.temporary.is_none() {
            say(format_args!("everything is kept in {}", self.path.display()));
        }
    }
}
