//! The scripts that power cuts and failing calls are tried on.

use journal::Role;

use crate::script::Op::{self, *};

/// A script has a name, the role of its journal, and what is done to it.
pub(crate) type Script = (&'static str, Role, &'static [Op]);

/// Three to ten operations each; together every way into the journal that changes a disk.
pub(crate) const SCRIPTS: [&[Script]; 3] = [APPENDING, CUTTING, RECEIVING];

pub(crate) const APPENDING: &[Script] = &[
    (
        "appends of every kind",
        Role::Primary,
        &[OpenRun, Append(100), Many(&[10, 2_000, 10]), Append(40_000), Sync, Mark, Append(500), Write, Durable(200)],
    ),
    (
        "across segments",
        Role::Primary,
        &[OpenRun, Append(40_000), Durable(16_000), Append(16_000), Append(90_000), Write, Alone, Sync, Durable(50)],
    ),
    (
        "closed and opened again",
        Role::Primary,
        &[OpenRun, Durable(20_000), Close, OpenRun, Append(60_000), Write, Reopen, OpenRun, Durable(10)],
    ),
    (
        "a clock that is stepped back",
        Role::Primary,
        &[OpenRun, Append(8), StepBack(3_600), Append(70_000), Sync, Mark, Close],
    ),
    (
        "pruned and recycled",
        Role::Primary,
        &[OpenRun, Append(90_000), Append(60_000), Sync, Prune, Append(90_000), Sync, Prune, Durable(70_000)],
    ),
    (
        "pruned under a reader",
        Role::Primary,
        &[OpenRun, Append(60_000), Append(60_000), Sync, Pin, Prune, Append(60_000), Sync, Unpin, Durable(60_000)],
    ),
];

pub(crate) const CUTTING: &[Script] = &[
    (
        "cut inside a segment",
        Role::Primary,
        &[OpenRun, Append(30_000), Durable(9_000), Append(70_000), Append(8), Cut(2), OpenRun, Durable(8), Close],
    ),
    (
        "cut where a segment begins",
        Role::Primary,
        &[OpenRun, Append(16_000), Append(100_000), Append(9), Sync, CutSegment, OpenRun, Durable(20_000)],
    ),
    ("cut to the beginning", Role::Primary, &[OpenRun, Durable(70_000), CutAll, OpenRun, Durable(9), Reopen]),
    (
        "cut twice",
        Role::Primary,
        &[OpenRun, Append(50_000), Append(9), Append(9), Cut(1), OpenRun, Append(20_000), Cut(2), OpenRun, Durable(9)],
    ),
    (
        "pruned, then cut",
        Role::Primary,
        &[OpenRun, Append(90_000), Append(50_000), Sync, Prune, Append(8), Append(30_000), Cut(1), Reopen],
    ),
];

pub(crate) const RECEIVING: &[Script] = &[
    (
        "received",
        Role::Receiver,
        &[Extend(30_000), Sync, Extend(60_000), Write, Extend(100_000), Peer, Sync, Committed, Close],
    ),
    (
        "received, cut and received again",
        Role::Receiver,
        &[Extend(90_000), Sync, Extend(60_000), Cut(3), Extend(90_000), Sync, Checkpoint, Prune],
    ),
    (
        "received, then promoted",
        Role::Receiver,
        &[Extend(50_000), Sync, Extend(50_000), Promote(7), BeginRun, Sync, Append(60_000), Durable(9)],
    ),
    (
        "facts",
        Role::Primary,
        &[SetRole(Role::Receiver), See(5), OpenRun, Durable(30), Checkpoint, Peer, Committed, Close, Fence(9), Reopen],
    ),
    ("fenced and promoted", Role::Primary, &[OpenRun, Durable(9), Append(9), Fence(4), Reopen, Promote(5), Durable(9)]),
];

/// Of a journal that was started very often: its slots can't take the next run. Not among the others, because each of
/// these runs makes calls: the power goes behind them.
pub(crate) const RESTARTED: &[Script] = &[
    (
        "more runs than the slots take",
        Role::Primary,
        &[Runs(127), OpenRun, Durable(9), OpenRun, Append(8), OpenRun, Durable(8), Reopen],
    ),
    ("cut back behind all of them", Role::Primary, &[Runs(140), Append(9), CutAll, OpenRun, Durable(9), Reopen]),
];
