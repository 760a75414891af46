//! One side never comes back, or a promotion has made it the old one: what the other holds, what it says of itself, and
//! what its answers are worth when its own power goes.

use journal::{Role, Term};

use super::drives::Fate;
use super::each_seed;
use super::pair::{Pair, Side};
use crate::kills::Dice;
use crate::support::{run, run_with};

use Side::{Primary, Receiver};

pub(super) const SEEDS: u64 = 3;
/// Writes and flushes of a receiver that becomes the primary.
const STEPS_OF_A_PROMOTION: u64 = 40;
/// `append` when it went on alone.
const ALONE: i32 = 5;
const REFUSED: i32 = 13;

/// Plays a scene on new machines, with one line acknowledged.
pub(super) fn play<F: Fn()>(
    test: F,
    mode: &'static str,
    level: &'static str,
    scene: impl Fn(&mut Pair<'_>, &mut Dice),
) {
    each_seed(test, SEEDS, |room, kind, dice| {
        let mut pair = Pair::start(room, kind, mode, level);
        append(&mut pair, Primary, 0);
        scene(&mut pair, dice);
    });
}

/// One line, which is committed.
fn append(pair: &mut Pair<'_>, side: Side, code: i32) {
    let line = pair.checker.next_line() + "\n";
    run_with(["append", "log", "--timeout", "60s", "--data", &pair.data(side)], line.as_bytes()).expect(code);
    pair.checker.acknowledge(pair.checker.len() - 1, 1);
}

/// Every record that a running node shows.
fn judge(pair: &Pair<'_>, side: Side) {
    let shown = run(["tail", "log", "--from", "start", "--data", &pair.data(side)]).expect(0).stdout;
    pair.checker.judge(&format!("{side:?}"), &shown);
}

/// It says that it is in doubt, and isn't promoted without the word.
fn is_in_doubt(pair: &Pair<'_>) {
    assert_eq!(pair.status(Receiver)["in_doubt"], true);
    run(["status", "--data", &pair.data(Receiver)]).expect(0).prints("in doubt");
    run(["promote", "log", "--data", &pair.data(Receiver)]).expect(REFUSED).says("may be lost").says("--accept-loss");
    assert_eq!(pair.status(Receiver)["role"], "receiver");
}

#[test]
fn what_is_peer_durable_outlives_its_primary_and_a_power_cut_of_the_receiver() {
    let test = what_is_peer_durable_outlives_its_primary_and_a_power_cut_of_the_receiver;
    play(test, "sync", "peer-durable", |pair, dice| {
        let feed = pair.cut_under_load(&[Primary, Receiver], dice);
        pair.finish(feed);
        pair.reboot(Receiver, Fate::any(dice), dice);
        pair.judge_cold(Receiver, true);
        pair.switch_on(Receiver);
        is_in_doubt(pair);
        run(["promote", "log", "--accept-loss", "--data", &pair.data(Receiver)]).expect(0).prints("in doubt");
        append(pair, Receiver, ALONE);
        judge(pair, Receiver);
    });
}

#[test]
fn what_is_received_outlives_its_primary_and_a_fenced_one_stays_so() {
    let test = what_is_received_outlives_its_primary_and_a_fenced_one_stays_so;
    play(test, "semi-sync", "received", |pair, dice| {
        let feed = pair.cut_under_load(&[Primary], dice);
        pair.finish(feed);
        run(["promote", "log", "--data", &pair.data(Receiver)]).expect(0).prints("lost 0");
        judge(pair, Receiver);
        append(pair, Receiver, ALONE);
        // the old one comes back, learns of it, and loses its power at once
        pair.reboot(Primary, Fate::any(dice), dice);
        pair.switch_on(Primary);
        pair.wait_role(Primary, "fenced");
        pair.cut(&[Primary]);
        pair.reboot(Primary, Fate::any(dice), dice);
        assert_eq!((pair.cold_log(Primary).role(), pair.cold_log(Primary).term_seen().term), (Role::Fenced, Term(2)));
        pair.cut(&[Receiver]);
        pair.switch_on(Primary);
        assert_eq!(pair.status(Primary)["role"], "fenced", "with nobody there to tell it again");
        // the new one has opened its term and acknowledged: that doesn't go either
        pair.reboot(Receiver, Fate::any(dice), dice);
        pair.judge_cold(Receiver, true);
        pair.switch_on(Receiver);
        append(pair, Receiver, ALONE);
        judge(pair, Receiver);
    });
}

/// What `async` gives away, and what not: the receiver is away, the primary acknowledges on its own disk and is gone.
#[test]
fn what_was_not_received_is_lost_with_the_primary_and_nothing_else() {
    let test = what_was_not_received_is_lost_with_the_primary_and_nothing_else;
    play(test, "async", "durable", |pair, dice| {
        pair.wait("in-sync");
        run(["wait", "log", "--for", "durable", "--data", &pair.data(Receiver)]).expect(0);
        let power_cut = dice.below(2) == 0;
        match power_cut {
            true => pair.cut(&[Receiver]),
            false => pair.kill(Receiver),
        }
        run_with(["append", "log", "--data", &pair.data(Primary)], b"acknowledged here alone\n").expect(0);
        pair.cut(&[Primary]);
        if power_cut {
            pair.reboot(Receiver, Fate::any(dice), dice);
        }
        pair.switch_on(Receiver);
        let promote = ["promote", "log", "--data", &pair.data(Receiver)].map(str::to_owned);
        let word = power_cut.then(|| "--accept-loss".to_owned());
        run(promote.into_iter().chain(word)).expect(0).prints("is unknown");
        judge(pair, Receiver); // a line that the checker doesn't know would be called invented
        pair.reboot(Primary, Fate::any(dice), dice);
        assert!(pair.restored(Primary).ends_with("acknowledged here alone\n"), "its own disk has it");
    });
}

#[test]
fn a_receiver_is_in_doubt_after_a_power_cut_until_it_has_met_its_primary() {
    let test = a_receiver_is_in_doubt_after_a_power_cut_until_it_has_met_its_primary;
    play(test, "semi-sync", "received", |pair, dice| {
        let feed = pair.cut_under_load(&[Receiver], dice);
        pair.reboot(Receiver, Fate::any(dice), dice);
        pair.judge_cold(Receiver, false);
        // a start alone settles nothing, nor does a stop in good order
        for _ in 0..2 {
            pair.switch_on_elsewhere();
            is_in_doubt(pair);
            pair.stop(Receiver);
        }
        pair.switch_on(Receiver);
        assert_eq!(pair.finish(feed).1, 0, "a receiver that comes back loses nothing");
        pair.wait("in-sync");
        assert_eq!(pair.status(Receiver)["in_doubt"], false);
        // so it may be promoted, even after another power cut that it has survived in good order
        pair.cut(&[Primary]);
        pair.stop(Receiver);
        pair.cut(&[Receiver]);
        pair.reboot(Receiver, Fate::any(dice), dice);
        pair.switch_on(Receiver);
        assert_eq!(pair.status(Receiver)["in_doubt"], false);
        run(["promote", "log", "--data", &pair.data(Receiver)]).expect(0).prints("lost 0");
        judge(pair, Receiver);
    });
}

/// The power goes while a receiver is promoted, or right after it has answered. Answered, it is the primary for good.
#[test]
fn a_promotion_that_was_answered_survives_the_power_cut() {
    let test = a_promotion_that_was_answered_survives_the_power_cut;
    play(test, "sync", "peer-durable", |pair, dice| {
        let feed = pair.cut_under_load(&[Primary], dice);
        pair.finish(feed);
        let promoted = pair.cut_during(Receiver, dice.below(STEPS_OF_A_PROMOTION), |data| {
            run(["promote", "log", "--data", data]).code == 0
        });
        pair.reboot(Receiver, Fate::any(dice), dice);
        pair.judge_cold(Receiver, true);
        let log = pair.cold_log(Receiver);
        println!("  answered: {promoted}, then {:?} of term {}", log.role(), log.term_seen().term);
        if promoted {
            assert_eq!((log.role(), log.term_seen().term), (Role::Primary, Term(2)));
        }
        pair.switch_on(Receiver);
        // not answered it may be either; it is asked again unless it is done
        if log.role() == Role::Receiver {
            run(["promote", "log", "--accept-loss", "--data", &pair.data(Receiver)]).expect(0);
        }
        append(pair, Receiver, ALONE);
        judge(pair, Receiver);
        pair.reboot(Primary, Fate::any(dice), dice);
        pair.switch_on(Primary);
        pair.wait_role(Primary, "fenced");
    });
}
