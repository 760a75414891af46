//! `tail` on the node's side.

use std::io::{self, Write};
use std::os::unix::net::UnixStream;

use journal::{Flags, Lsn, Time};

use super::frame::{FRAME_HEAD_BYTES, FrameHead, FrameKind, RECORD_HEAD_BYTES};
use super::service::{Patience, Tailer};

/// Sends records until there are no more. A client that doesn't read blocks this thread and nothing else.
pub(super) fn run(mut stream: &UnixStream, mut tailer: Box<dyn Tailer>, patience: &Patience<'_>) -> io::Result<()> {
    let mut out = Vec::new();
    loop {
        out.clear();
        let more = match tailer.fill(&mut out, patience) {
            Ok(more) => more,
            Err(failure) => {
                let body = serde_json::to_vec(&failure).unwrap_or_default();
                push(&mut out, FrameKind::Failure, Flags::NONE, &[&body]);
                return stream.write_all(&out);
            }
        };
        if !more {
            push(&mut out, FrameKind::End, Flags::NONE, &[]);
        }
        stream.write_all(&out)?;
        if !more {
            return Ok(());
        }
    }
}

/// Appends the frame of one record to `out`.
pub(crate) fn push_record(out: &mut Vec<u8>, first: Lsn, end: Lsn, time: Time, flags: Flags, payload: &[u8]) {
    let mut head = [0; RECORD_HEAD_BYTES];
    head[..8].copy_from_slice(&first.get().to_le_bytes());
    head[8..16].copy_from_slice(&end.get().to_le_bytes());
    head[16..].copy_from_slice(&time.as_nanos().to_le_bytes());
    push(out, FrameKind::Record, flags, &[&head, payload]);
}

fn push(out: &mut Vec<u8>, kind: FrameKind, flags: Flags, parts: &[&[u8]]) {
    let body_bytes = parts.iter().map(|part| part.len()).sum();
    out.reserve(FRAME_HEAD_BYTES + body_bytes);
    out.extend_from_slice(&FrameHead { kind, flags, body_bytes }.encode());
    for part in parts {
        out.extend_from_slice(part);
    }
}
