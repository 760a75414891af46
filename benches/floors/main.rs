//! How far are we from the least code that keeps the same promise? Each row runs beside its floor, in turns, on the
//! same disk and in the same run; the ratio is what counts, the absolute figures belong to the machine.
//!
//! ```text
//! cargo bench                       every row
//! cargo bench -- durable sync       rows whose name contains one of the words
//! cargo bench -- --rounds 9         more turns (default 5); --dir DIR puts the files on another disk
//! cargo bench -- --large            a journal of 10 GiB instead: opening, walking, private memory
//! ```
//! What bounds a row: `append` the memory and one copy into the page cache; `durable` the disk's flushes; `scan` the
//! memory's bandwidth; a pair both disks' flushes and the wake-ups of two sleeping ends.

mod floor;
mod group;
mod large;
mod local;
mod nodes;
mod pair;
mod replay;
mod table;

use std::path::PathBuf;

use table::{Options, Row, Table};

fn main() {
    let options = options();
    std::fs::create_dir_all(&options.dir).expect("create the folder for the benches");
    if options.large {
        return large::measure(&options.dir);
    }
    let mut table = Table::new(&options);
    for row in rows() {
        table.measure(&row);
    }
    table.finish();
}

fn rows() -> Vec<Row> {
    let mut rows = local::rows();
    rows.extend(replay::rows());
    rows.extend(nodes::rows());
    rows
}

fn options() -> Options {
    let mut options =
        Options { dir: PathBuf::from(env!("CARGO_TARGET_TMPDIR")), rounds: 5, only: Vec::new(), large: false };
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--bench" => {} // cargo says so
            "--dir" => options.dir = arguments.next().expect("--dir DIR").into(),
            "--rounds" => options.rounds = arguments.next().and_then(|text| text.parse().ok()).expect("--rounds N"),
            "--large" => options.large = true,
            word => options.only.push(word.to_owned()),
        }
    }
    options
}
