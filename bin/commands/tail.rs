//! `tail`: records out, from any point on.

use archive::Point;
use jiff::Zoned;
use journal::Flags;
use node::control::{From, Tail, TailFrom, TailRecord};
use serde::Serialize;
use volume::frames::{FrameWriter, Frames};

use crate::exit::{DONE, Failure, Outcome};
use crate::out::Out;
use crate::point::utc;
use crate::whereabouts::Whereabouts;

/// Print records of a stream, from any point on.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// The stream
    stream: String,
    /// Where to begin: start, end, an LSN (123), or a time (2026-11-17T09:41:59Z, "2026-11-17 09:41" in local time, -15m)
    #[arg(long, default_value = "start", value_name = "POINT", allow_hyphen_values = true, value_parser = from)]
    from: From,
    /// Go on when the end is reached
    #[arg(short, long)]
    follow: bool,
    /// How records are told apart: lines, len32 (u32 little endian before each) or raw
    #[arg(long, default_value_t, value_name = "lines|len32|raw")]
    frames: Frames,
}

fn from(text: &str) -> Result<From, String> {
    match text {
        "start" => return Ok(From::Start),
        "end" => return Ok(From::End),
        _ => {}
    }
    match Point::parse(text, &Zoned::now()).map_err(|fault| fault.to_string())? {
        Point::Latest => Ok(From::End),
        Point::Lsn(lsn) => Ok(From::Lsn(lsn.get())),
        Point::Time(time) => Ok(From::Time(time.as_nanos())),
        Point::Mark(_) => {
            Err("a tail begins at start, end, an LSN or a time; `restore --dry-run` finds a mark's LSN".into())
        }
    }
}

/// A record as JSON. Payloads that are no UTF-8 come as hexadecimal digits.
#[derive(Serialize)]
struct Shown<'a> {
    first: u64,
    end: u64,
    time: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    payload: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    payload_hex: Option<String>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    unterminated: bool,
}

pub(crate) fn execute(args: Args, at: &Whereabouts, out: &mut Out) -> Outcome {
    let mut tail = at.connect()?.tail(TailFrom { stream: args.stream, from: args.from, follow: args.follow })?;
    let said = |cause| Failure::io("write to standard output", cause);
    if out.json {
        while let Some(record) = next(&mut tail, || out.flush())? {
            out.json(&shown(&record))?;
        }
        return Ok(DONE);
    }
    let mut writer = FrameWriter::new(args.frames, out);
    while let Some(record) = next(&mut tail, || writer.flush().map_err(said))? {
        writer.write(record.flags, record.payload).map_err(said)?;
    }
    Ok(DONE)
}

/// The next record; what was printed is handed on before a wait for it.
fn next(tail: &mut Tail, flush: impl FnOnce() -> Result<(), Failure>) -> Result<Option<TailRecord<'_>>, Failure> {
    if tail.is_drained() {
        flush()?;
    }
    Ok(tail.next_record()?)
}

fn shown<'a>(record: &TailRecord<'a>) -> Shown<'a> {
    let text = std::str::from_utf8(record.payload).ok();
    let hex = || record.payload.iter().map(|byte| format!("{byte:02x}")).collect();
    Shown {
        first: record.first.get(),
        end: record.end.get(),
        time: utc(record.time),
        payload: text,
        payload_hex: if text.is_none() { Some(hex()) } else { None },
        unterminated: record.flags.has(Flags::UNTERMINATED),
    }
}
