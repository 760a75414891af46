//! Whatever fails, everybody who waits gets an answer, and no answer says more than the disk has.

use std::collections::BTreeSet;
use std::pin::pin;
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;
use std::time::{Duration, Instant};

use journal::testing::{Keep, Survivors};
use journal::{Class, Item, Level, Role};

use crate::exhaustive::Told;
use crate::lifecycle::records;
use crate::script::{Op, Scene, payload};

const THREADS: u64 = 6;
const RECORDS: u64 = 6;
/// Far above what any of it takes: only a wait that nobody ends lasts so long.
const HANGS: Duration = Duration::from_secs(120);
const LOOK: Duration = Duration::from_millis(20);

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

pub(crate) fn block_on<T>(future: impl Future<Output = T>) -> T {
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(value) => return value,
            Poll::Pending => std::thread::park(),
        }
    }
}

/// Half of the threads wait for themselves, the others leave syncing to the flush thread. Returns what was acknowledged.
///
/// Where there is no space, whoever waits for himself is told so; the flush thread tries again for the others, so space
/// comes back only when nobody else is left.
fn append_and_wait(scene: &Scene, errno: i32) -> BTreeSet<Vec<u8>> {
    let (answers, answered) = channel();
    let begun = Instant::now();
    for thread in 0..THREADS {
        let (journal, answers) = (scene.journal().clone(), answers.clone());
        let is_blocking = thread % 2 == 0;
        std::thread::spawn(move || {
            for record in 0..RECORDS {
                let said = payload(1 + thread * RECORDS + record, 9_000);
                let ticket = journal.append(Item::record(&[&said]));
                let ticket = ticket.map_err(|error| (error.class(), error.to_string()));
                let answer = ticket.and_then(|ticket| {
                    let ack = if is_blocking { ticket.durable() } else { block_on(ticket.level(Level::Durable)) };
                    ack.map(|_| said).map_err(|error| (error.class(), error.to_string()))
                });
                answers.send((is_blocking, answer)).unwrap();
            }
        });
    }
    let mut acknowledged = BTreeSet::new();
    let mut blocking_left = THREADS * RECORDS / 2;
    for count in 0..THREADS * RECORDS {
        let (is_blocking, answer) = loop {
            match answered.recv_timeout(LOOK) {
                Ok(answer) => break answer,
                Err(RecvTimeoutError::Disconnected) => panic!("a waiter panicked, {count} were answered"),
                Err(RecvTimeoutError::Timeout) if scene.ended().is_none() && blocking_left == 0 => {
                    scene.disk.fail_calls(0..0, errno);
                }
                Err(RecvTimeoutError::Timeout) => {}
            }
            assert!(begun.elapsed() < HANGS, "somebody waits for ever, {count} were answered");
        };
        blocking_left -= u64::from(is_blocking);
        match answer {
            Ok(said) => drop(acknowledged.insert(said)),
            Err((class, text)) => assert!(matches!(class, Class::Io | Class::Full), "{class:?} {text}"),
        }
    }
    acknowledged
}

fn every_waiter_is_answered(errno: i32) {
    let mut all = 0;
    for number in 0..60 {
        let told = Told(format!("error {errno} from call {number} on"));
        let mut scene = Scene::new(Role::Primary);
        scene.act(Op::OpenRun).unwrap();
        let begin = scene.disk.calls() + number;
        scene.disk.fail_calls(begin..u64::MAX, errno);
        scene.journal().spawn_flusher().unwrap();
        let acknowledged = append_and_wait(&scene, errno);
        scene.journal().end(journal::End::Closed);
        let _what_is_left = scene.journal.take().unwrap().close();
        let mut after = scene.after_power_cut(Survivors { names: 0, sectors: Keep::None });
        after.open().unwrap();
        let found: BTreeSet<Vec<u8>> = records(after.journal()).into_iter().collect();
        assert!(acknowledged.is_subset(&found), "{} acknowledged, {} found", acknowledged.len(), found.len());
        all += acknowledged.len();
        told.over();
    }
    println!("{all} acknowledged");
}

#[test]
fn every_waiter_is_answered_when_the_disk_fails() {
    every_waiter_is_answered(5);
}

#[test]
fn every_waiter_is_answered_when_the_disk_is_full() {
    every_waiter_is_answered(28);
}
