//! One daemon through everything that may happen to it. The world asserts the laws; these say what else must come of it.

use super::world::*;
use crate::record::{Absent, Outcome};
use crate::vend::RefreshOutcome;
use std::time::Duration;

const HOUR: Duration = Duration::from_secs(3600);

#[test]
fn the_first_token_comes_at_once_and_its_successors_when_they_are_due() {
    let mut world = World::running(1);
    world.run(5 * SECOND);
    let first = world.vends(0).expect("a token").clone();
    world.run(27 * MINUTE - 10 * SECOND);
    assert_eq!(world.arrivals.len(), 1);
    world.run(10 * SECOND);
    assert_eq!(world.arrivals.len(), 2);
    assert!(world.vends(0).unwrap().generation > first.generation);
    assert!(first.expires_at.boot - first.refresh_at.boot == 33 * MINUTE);
}

#[test]
fn days_go_by_at_two_mints_an_hour_and_always_with_a_token() {
    let mut world = World::running(1);
    world.run(5 * SECOND);
    for _ in 0..3 * 24 * 6 {
        world.run(10 * MINUTE);
        assert!(world.vends(0).is_some());
    }
    // One per 27 minutes.
    assert_eq!(world.arrivals.len(), 1 + 72 * 60 / 27);
    assert!(world.steps < 72 * 60);
}

#[test]
fn an_outage_longer_than_the_lead_is_outlived_and_its_end_is_noticed_soon() {
    let mut world = World::running(1);
    world.run(26 * MINUTE);
    world.otherwise = Reply::Broken;
    world.run(33 * MINUTE);
    assert!(world.vends(0).is_some(), "until its end it is vended");
    world.run(3 * HOUR);
    assert!(world.vends(0).is_none());
    world.otherwise = Reply::Token;
    world.run(5 * MINUTE);
    assert!(world.vends(0).is_some());
}

#[test]
fn lost_answers_leave_a_slot_for_the_moment_before_the_end() {
    let mut world = World::running(1);
    world.run(26 * MINUTE);
    world.otherwise = Reply::Lost(5 * SECOND);
    world.run(33 * MINUTE);
    let tried = world.arrivals.len() - 1;
    assert!((8..=10).contains(&tried), "{tried} attempts");
    let last = *world.arrivals.last().unwrap();
    assert!(last + 8 * MINUTE > world.now, "the slots were shared out");
}

#[test]
fn what_surely_was_not_sent_is_tried_again_within_seconds_and_costs_no_slot() {
    let mut world = World::running(1);
    world.otherwise = Reply::NotSent;
    world.run(2 * MINUTE);
    assert!(world.arrivals.is_empty());
    let tries = world.keys_used.len();
    assert!((10..=14).contains(&tries), "1, 2, 4, 8, 15, 15 …: {tries}");
    assert!(world.cell.as_ref().unwrap().0.ledger.is_empty());
    world.otherwise = Reply::Token;
    world.run(16 * SECOND);
    assert!(world.vends(0).is_some());
}

#[test]
fn a_throttled_attempt_waits_as_long_as_it_was_told() {
    let mut world = World::running(1);
    world.replies = [Reply::Throttled(Some(7 * MINUTE)), Reply::Throttled(None)].into();
    world.run(7 * MINUTE - SECOND);
    assert_eq!(world.arrivals.len(), 1);
    world.run(2 * SECOND);
    assert_eq!(world.arrivals.len(), 2);
    // Without a wish, and without a token: after a quarter of the window.
    world.run(7 * MINUTE);
    assert_eq!(world.arrivals.len(), 2);
    world.run(MINUTE);
    assert_eq!(world.arrivals.len(), 3);
}

#[test]
fn refused_keys_are_tried_in_turn_then_rarely_until_they_change() {
    let mut world = World::new(the_real_account(), 1);
    world.absent = Absent::Wait;
    world.daemons[0].keys = ("three".into(), 3);
    world.start(0);
    world.otherwise = Reply::Refused(true);
    world.run(33 * MINUTE + 30 * SECOND);
    assert_eq!(world.keys_used, [0, 1, 2], "each key once, at once");
    let parked = world.cell.as_ref().unwrap().0.parked.clone().unwrap();
    assert_eq!(parked.reason, "as the script says");
    world.run(45 * MINUTE);
    assert_eq!(world.keys_used, [0, 1, 2, 0, 1, 2], "one per 15 minutes");
    world.otherwise = Reply::Token;
    world.set_keys(0, "new", 1);
    world.run(31 * SECOND);
    assert!(world.vends(0).is_some());
    assert!(world.cell.as_ref().unwrap().0.parked.is_none());
}

#[test]
fn a_crash_loop_does_not_make_parked_attempts_more_frequent() {
    let mut world = World::running(1);
    world.replies = [Reply::Refused(false)].into();
    world.otherwise = Reply::Lost(SECOND);
    world.run(10 * SECOND);
    assert_eq!(world.arrivals.len(), 1);
    for _ in 0..120 {
        world.kill(0);
        world.start(0);
        world.run(30 * SECOND);
    }
    assert!(world.arrivals.len() <= 1 + 4, "{}", world.arrivals.len());
}

#[test]
fn an_operator_unparks() {
    let mut world = World::running(1);
    world.replies = [Reply::Refused(false)].into();
    world.run(MINUTE);
    assert!(world.vends(0).is_none());
    let paced = world.refresh(0);
    assert!(
        matches!(
            paced,
            RefreshOutcome::Refused {
                waiting_for: "pace",
                ..
            }
        ),
        "{paced:?}"
    );
    world.run(61 * SECOND);
    assert_eq!(world.refresh(0), RefreshOutcome::Refreshing);
    world.run(SECOND);
    assert!(world.vends(0).is_some());
}

#[test]
fn a_register_that_is_down_stops_mints_and_not_vending() {
    let mut world = World::running(1);
    world.run(26 * MINUTE);
    world.register_down = true;
    world.run(33 * MINUTE);
    assert_eq!(world.arrivals.len(), 1);
    assert!(world.vends(0).is_some());
    world.register_down = false;
    world.run(16 * SECOND);
    assert_eq!(world.arrivals.len(), 2);
}

#[test]
fn a_token_that_cannot_be_committed_is_vended_after_250_ms_and_committed_later() {
    let mut world = World::running(1);
    world.latency = SECOND;
    world.run(SECOND);
    world.register_down = true;
    world.run(SECOND + 240 * MINUTE / 60_000);
    assert!(world.vends(0).is_none());
    world.run(30 * MINUTE / 1000);
    world.run(250 * SECOND / 1000);
    assert!(world.vends(0).is_some());
    assert!(world.cell.as_ref().unwrap().0.token.is_none());
    world.run(5 * MINUTE);
    world.register_down = false;
    world.run(16 * SECOND);
    assert!(world.cell.as_ref().unwrap().0.token.is_some());
    world.run(20 * MINUTE);
    assert_eq!(world.arrivals.len(), 1);
}

#[test]
fn no_request_leaves_on_a_slot_that_is_not_known_to_be_durable() {
    for fate in [
        Fate::Unavailable,
        Fate::UnknownAndDone,
        Fate::UnknownAndNotDone,
    ] {
        let mut world = World::running(1);
        world.fates = [Fate::Served, fate].into();
        world.run(500 * SECOND / 1000);
        assert!(world.keys_used.is_empty(), "{fate:?}");
        world.run(20 * SECOND);
        assert!(world.vends(0).is_some(), "{fate:?}");
        assert_eq!(world.arrivals.len(), 1, "{fate:?}");
        let record = &world.cell.as_ref().unwrap().0;
        assert_eq!(record.ledger.len(), 1, "{fate:?}: the slot was given back");
    }
}

#[test]
fn a_first_record_whose_write_is_unknown_is_written_again() {
    for fate in [
        Fate::Unavailable,
        Fate::UnknownAndDone,
        Fate::UnknownAndNotDone,
    ] {
        let mut world = World::running(1);
        world.fates = [fate].into();
        world.run(20 * SECOND);
        assert!(world.vends(0).is_some(), "{fate:?}");
    }
}

#[test]
fn a_commit_whose_write_is_unknown_is_written_once() {
    for fate in [
        Fate::Unavailable,
        Fate::UnknownAndDone,
        Fate::UnknownAndNotDone,
    ] {
        let mut world = World::running(1);
        world.fates = [Fate::Served, Fate::Served, fate].into();
        world.run(20 * SECOND);
        let record = &world.cell.as_ref().unwrap().0;
        assert_eq!(record.token.as_ref(), world.vends(0), "{fate:?}");
        assert_eq!(record.ledger[0].outcome, Outcome::Minted, "{fate:?}");
        assert!(record.claim.is_none(), "{fate:?}");
    }
}

#[test]
fn a_register_that_flickers_does_not_make_lost_attempts_forgotten() {
    let mut world = World::running(1);
    world.absent = Absent::New;
    world.otherwise = Reply::Broken;
    world.run(30 * MINUTE);
    let before = world.cell.as_ref().unwrap().0.streak.lost;
    assert!(before > 2);
    let tried = world.arrivals.len();
    world.fates = [Fate::UnknownAndNotDone; 8].into();
    while world.arrivals.len() == tried {
        world.run(SECOND);
    }
    world.run(SECOND);
    let after = world.cell.as_ref().unwrap().0.streak.lost;
    assert!(after > before, "{before} losses became {after}");
}

#[test]
fn the_same_token_again_is_no_new_token() {
    let mut world = World::running(1);
    world.run(MINUTE);
    let held = world.vends(0).cloned();
    world.replies = [Reply::Repeated].into();
    world.run(27 * MINUTE);
    assert_eq!(world.vends(0).cloned(), held);
    world.run(10 * MINUTE);
    assert_ne!(world.vends(0).cloned(), held);
}

#[test]
fn a_token_that_is_dead_on_arrival_replaces_nothing() {
    let mut world = World::running(1);
    world.run(MINUTE);
    let held = world.vends(0).cloned();
    world.replies = [Reply::Aged(60 * MINUTE)].into();
    world.run(27 * MINUTE);
    assert_eq!(world.arrivals.len(), 2);
    assert_eq!(world.vends(0).cloned(), held);
}

#[test]
fn tokens_that_are_due_at_birth_keep_the_back_off() {
    let mut world = World::running(1);
    world.otherwise = Reply::Aged(50 * MINUTE);
    world.run(3 * HOUR);
    assert!(world.arrivals.len() <= 60, "{}", world.arrivals.len());
}
