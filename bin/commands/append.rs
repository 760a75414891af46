//! `append`: records in, acknowledgements out.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::thread;

use config::value::Span;
use journal::Class;
use node::control::{Acked, Acks, Append, Done, FRAME_BODY_BYTES_MAX, Failure as Answer, Level, Sender};
use volume::frames::{Frames, Splitter};

use super::{level, millis};
use crate::exit::{DEGRADED, DONE, Failure, Outcome, code};
use crate::out::Out;
use crate::whereabouts::Whereabouts;

/// Append records to a stream through its running node.
///
/// Prints how many records were appended, the position behind the last of them, and the level that they have reached.
/// A wait that ends without an answer (exit code 12) means *unknown*: the records may be in the stream or not; ask
/// again with `towline wait STREAM --for durable --lsn N`.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// The stream
    stream: String,
    /// Where records come from; `-` is standard input
    #[arg(default_value = "-")]
    file: PathBuf,
    /// How records are told apart: lines, len32 (u32 little endian before each) or raw
    #[arg(long, default_value_t, value_name = "lines|len32|raw")]
    frames: Frames,
    /// How far a record must have got before it counts: written, durable, received, peer-durable, or committed, which is
    /// what the stream's modes promise
    #[arg(long, default_value = "committed", value_name = "LEVEL", value_parser = level)]
    wait: Level,
    /// Longest wait for an acknowledgement [default: for ever]
    #[arg(long, value_name = "TIME")]
    timeout: Option<Span>,
    /// Print `acked COUNT LSN LEVEL` as acknowledgements arrive, one flushed line a group; COUNT is cumulative
    #[arg(long)]
    acks: bool,
}

pub(crate) fn execute(args: Args, at: &Whereabouts, out: &mut Out) -> Outcome {
    let input = open(&args.file)?;
    let append = Append { stream: args.stream.clone(), wait: args.wait, timeout_ms: args.timeout.map(millis) };
    let (sender, mut acks) = at.connect()?.append(append).map_err(|fault| told(fault.into(), None))?;
    // not joined unless it has ended: it may sit in a read of a terminal when the node is gone already
    let feeder = thread::spawn(move || feed(sender, input, args.frames));
    let ended = follow(&mut acks, args.acks, out);
    if let Ok(Some(acked)) = &ended
        && let Ok(Err(Stop::Input(failure))) = feeder.join()
    {
        return Err(failure.hint(match acked.count {
            0 => "no record before it is in the stream".to_owned(),
            1 => format!("1 record before it is in the stream, up to LSN {}", acked.lsn),
            count => format!("{count} records before it are in the stream, up to LSN {}", acked.lsn),
        }));
    }
    match ended? {
        Some(acked) => {
            out.show(&Done::Done(acked), summary(&acked))?;
            Ok(if acked.alone { DEGRADED } else { DONE })
        }
        None => Err(Failure::new(Class::Unknown, "the node ended the answer without saying how far it got")),
    }
}

fn open(file: &Path) -> Result<Box<dyn Read + Send>, Failure> {
    if file == Path::new("-") {
        return Ok(Box::new(io::stdin()));
    }
    match File::open(file) {
        Ok(file) => Ok(Box::new(file)),
        Err(cause) => Err(Failure::io(format_args!("open {}", file.display()), cause)),
    }
}

/// Prints acknowledgements until the last one, which it gives back.
fn follow(acks: &mut Acks, print: bool, out: &mut Out) -> Result<Option<Acked>, Failure> {
    let mut before = None;
    while let Some(done) = acks.next_group().map_err(|fault| told(fault.into(), before))? {
        match done {
            Done::Acked(acked) => {
                before = Some(acked);
                if print {
                    let text = format_args!("acked {} {} {}", acked.count, acked.lsn, acked.level);
                    out.show(&Done::Acked(acked), text)?;
                    out.flush()?;
                }
            }
            Done::Done(acked) => return Ok(Some(acked)),
            Done::Error(failure) => return Err(told(unknown(failure), before)),
        }
    }
    Ok(None)
}

/// An unknown outcome names the position to ask for.
fn unknown(answer: Answer) -> Failure {
    let lsn = answer.lsn;
    let failure = Failure::from(node::Error::Answer(answer));
    match lsn {
        Some(lsn) if !failure.has_hint() => {
            failure.hint(format!("ask again: towline wait STREAM --for durable --lsn {lsn}"))
        }
        _ => failure,
    }
}

/// A failure that says how far the acknowledgements went, and what is not known.
fn told(failure: Failure, before: Option<Acked>) -> Failure {
    let rest = match failure.code() == code(Class::Unknown) {
        true => ", the rest is unknown: it may be in the stream or not",
        false => "",
    };
    match before {
        Some(acked) => {
            failure.and(format_args!("{} records up to LSN {} were acknowledged{rest}", acked.count, acked.lsn))
        }
        None => failure.and(format_args!("nothing was acknowledged{rest}")),
    }
}

fn summary(acked: &Acked) -> String {
    let alone = if acked.alone { ", alone (going on without a peer)" } else { "" };
    match acked.count {
        0 => "appended 0 records".to_owned(),
        1 => format!("appended 1 record, last LSN {}, {}{alone}", acked.lsn, acked.level),
        count => format!("appended {count} records, last LSN {}, {}{alone}", acked.lsn, acked.level),
    }
}

/// Why feeding ended early.
enum Stop {
    /// The input can't be read or cut into records.
    Input(Failure),
    /// The node takes no more; its acknowledgements say why.
    Node,
}

fn feed(mut sender: Sender, mut input: Box<dyn Read + Send>, frames: Frames) -> Result<(), Stop> {
    let mut splitter = Splitter::new(frames, FRAME_BODY_BYTES_MAX);
    let ended = loop {
        match splitter.fill(&mut input) {
            Ok(bytes) => match pass(&mut splitter, &mut sender) {
                Ok(()) if bytes == 0 => break Ok(()),
                Ok(()) => {}
                Err(stop) => break Err(stop),
            },
            Err(cause) => break Err(Stop::Input(Failure::io("read the input", cause))),
        }
    };
    // whole records before a bad one are in the stream: the node shall say how many
    sender.finish().map_err(|_| Stop::Node)?;
    ended
}

fn pass(splitter: &mut Splitter, sender: &mut Sender) -> Result<(), Stop> {
    while let Some(record) = splitter.next_record().map_err(|fault| Stop::Input(fault.into()))? {
        sender.send(record.payload, record.flags).map_err(|_| Stop::Node)?;
    }
    sender.flush().map_err(|_| Stop::Node)
}
