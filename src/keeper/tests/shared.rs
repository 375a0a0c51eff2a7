//! Several daemons on one register: one token, one budget, one mint at a time.

use super::world::*;
use crate::record::Outcome;
use crate::vend::RefreshOutcome;
use jiff::SignedDuration;
use std::time::Duration;

#[test]
fn daemons_that_share_a_record_share_a_token_and_mint_once() {
    for daemons in [2, 3] {
        let mut world = World::running(daemons);
        world.run(5 * SECOND);
        assert_eq!(world.arrivals.len(), 1);
        for _ in 0..24 {
            world.run(10 * MINUTE);
            let first = world.vends(0).cloned();
            assert!(first.is_some());
            assert!((1..daemons).all(|daemon| world.vends(daemon).cloned() == first));
        }
        assert_eq!(world.arrivals.len(), 1 + 240 / 27);
    }
}

#[test]
fn one_daemon_waits_while_another_mints_and_takes_over_when_it_died() {
    let mut world = World::running(2);
    world.latency = 3 * SECOND;
    world.run(SECOND);
    assert_eq!(world.keys_used.len(), 1);
    let minter = usize::from(world.life(0).keeper.attempt_under_way());
    world.kill(1 - minter);
    world.run(20 * SECOND);
    assert_eq!(world.arrivals.len(), 1, "the claim and the back-off hold");
    world.run(4 * MINUTE);
    assert_eq!(world.arrivals.len(), 2);
    assert!(world.vends(minter).is_some());
}

#[test]
fn a_slot_of_the_same_number_that_another_daemon_took_is_not_given_back() {
    // The first daemon's reservation may have failed; the second takes the same number for its own.
    let mut world = World::running(2);
    world.run(64 * MINUTE);
    world.otherwise = Reply::Lost(SECOND);
    world.fates = [Fate::UnknownAndNotDone].into();
    world.refresh(0);
    world.run(100 * SECOND / 1000);
    world.refresh(1);
    world.run(5 * SECOND);
    let record = &world.cell.as_ref().unwrap().0;
    let taken = record
        .ledger
        .iter()
        .filter(|slot| slot.outcome == Outcome::Begun)
        .count();
    assert_eq!(world.keys_used.len(), 4);
    assert_eq!(taken, 1, "{:?}", record.ledger);
    assert!(record.claim.is_some(), "nor is its claim");
}

#[test]
fn what_a_frozen_daemon_took_just_before_the_record_was_lost_is_brought_back() {
    let mut world = World::new(the_real_account(), 2);
    world.own_machine(1, SignedDuration::ZERO);
    world.start(0);
    world.run(64 * MINUTE);
    world.start(1);
    world.run(5 * SECOND);
    // The first daemon does not see what the second one writes; then the record is gone, and the second is frozen.
    world.freeze(0, 10 * SECOND);
    world.refresh(1);
    world.run(5 * SECOND);
    let held = world
        .cell
        .as_ref()
        .unwrap()
        .0
        .ledger
        .last()
        .unwrap()
        .clone();
    assert_eq!(held.outcome, Outcome::Minted);
    world.replace_record(None);
    world.freeze(1, 20 * MINUTE);
    for _ in 0..2 {
        world.run(8 * MINUTE);
        assert_eq!(world.refresh(0), RefreshOutcome::Refreshing);
    }
    world.run(5 * MINUTE);
    let record = &world.cell.as_ref().unwrap().0;
    let mut ledger = record.ledger.iter();
    assert!(
        ledger.any(|slot| slot.attempt == held.attempt),
        "{:?}",
        record.ledger
    );
}

#[test]
fn an_older_copy_of_the_record_brings_no_slot_back_into_the_budget() {
    let mut world = World::running(3);
    world.run(64 * MINUTE);
    let older = world.cell.clone().unwrap().0;
    for _ in 0..3 {
        world.run(3 * MINUTE);
        world.refresh(1);
    }
    world.run(3 * MINUTE);
    world.refresh(2);
    world.run(Duration::from_millis(10));
    let newest = world.cell.clone().unwrap().0;
    world.replace_record(Some(older));
    world.run(30 * SECOND);
    let record = &world.cell.as_ref().unwrap().0;
    for slot in &newest.ledger {
        assert!(
            record.ledger.iter().any(|it| it.attempt == slot.attempt),
            "{slot:?} is missing"
        );
    }
}

#[test]
fn a_frozen_daemon_that_wakes_up_late_takes_nothing_from_its_successor() {
    let mut world = World::running(2);
    world.own_machine(1, SignedDuration::ZERO);
    world.kill(1);
    world.start(1);
    world.run(64 * MINUTE);
    world.latency = 5 * SECOND;
    world.refresh(0);
    world.run(SECOND);
    world.freeze(0, 10 * MINUTE);
    world.run(8 * MINUTE);
    world.refresh(1);
    world.run(2 * MINUTE);
    let newest = world.vends(1).unwrap().clone();
    world.run(20 * SECOND);
    assert_eq!(
        world
            .cell
            .as_ref()
            .unwrap()
            .0
            .token
            .as_ref()
            .map(|it| it.generation),
        Some(newest.generation)
    );
    assert_eq!(
        world.vends(0).map(|it| it.generation),
        Some(newest.generation)
    );
}

#[test]
fn machines_whose_clocks_differ_a_little_share_a_record_in_peace() {
    let mut world = World::new(the_real_account(), 2);
    world.own_machine(1, SignedDuration::from_secs(-25));
    world.start(0);
    world.run(20 * MINUTE);
    world.start(1);
    world.run(2 * SECOND);
    assert!(world.vends(0).is_some() && world.vends(1).is_some());
    let before = world.steps;
    world.run(4 * 60 * MINUTE);
    assert!(world.vends(0).is_some() && world.vends(1).is_some());
    assert!(
        world.steps - before < 1000,
        "{} steps",
        world.steps - before
    );
    assert!(world.arrivals.len() < 13, "{}", world.arrivals.len());
}

#[test]
fn a_refresh_that_another_daemon_served_is_not_made_twice() {
    let mut world = World::running(2);
    world.run(64 * MINUTE);
    let before = world.arrivals.len();
    world.refresh(0);
    world.refresh(1);
    world.run(10 * MINUTE);
    assert_eq!(world.arrivals.len(), before + 1);
}

#[test]
fn daemons_of_one_boot_that_see_different_wall_clocks_do_not_write_in_turns() {
    let mut world = World::running(2);
    world.own_wall(1, SignedDuration::from_hours(5));
    world.kill(1);
    world.start(1);
    // The one ahead takes the other's token for expired, and mints one that both believe.
    world.run(5 * MINUTE);
    let revision = world.cell.as_ref().unwrap().0.revision;
    world.run(15 * MINUTE);
    assert_eq!(world.cell.as_ref().unwrap().0.revision, revision);
}

#[test]
fn a_register_that_can_be_read_but_not_written_is_down_and_is_asked_ever_more_rarely() {
    let mut world = World::running(1);
    world.run(64 * MINUTE);
    let token = world.vends(0).cloned();
    world.fates = vec![Fate::Unavailable; 1000].into();
    world.refresh(0);
    world.run(MINUTE);
    let tried = 1000 - world.fates.len();
    assert!(
        (5..=9).contains(&tried),
        "1 s, doubling to 15 s: {tried} writes in a minute"
    );
    let status = world.life(0).keeper.status(world.stamp(0), "file");
    assert!(!status.register.up && status.register.detail.is_some());
    assert_eq!(world.vends(0).cloned(), token);
    world.fates.clear();
    world.run(20 * SECOND);
    assert!(
        world
            .life(0)
            .keeper
            .status(world.stamp(0), "file")
            .register
            .up
    );
}

#[test]
fn the_quarantine_of_a_lost_record_begins_when_it_can_be_written_back() {
    let mut world = World::running(2);
    world.run(26 * MINUTE);
    let before = world.arrivals.len();
    // The record is gone, and for some minutes nobody can write: nobody can bring back what they hold. Meanwhile the token falls due.
    world.fates = vec![Fate::Unavailable; 200].into();
    world.replace_record(None);
    world.run(3 * MINUTE);
    assert!(world.cell.is_none());
    world.fates.clear();
    while world.cell.is_none() {
        world.run(SECOND / 10);
    }
    world.run(world.rules.claim() - SECOND);
    assert_eq!(
        world.arrivals.len(),
        before,
        "others had no time to bring back what they hold"
    );
    world.run(30 * SECOND);
    assert_eq!(world.arrivals.len(), before + 1);
}

#[test]
fn the_quarantine_begins_with_the_write_of_an_attempts_end_too() {
    let mut world = World::running(1);
    world.latency = 2 * SECOND;
    world.run(27 * MINUTE);
    while world.arrivals.len() < 2 {
        world.run(SECOND / 10);
    }
    // The record is lost while the answer is on its way, and the end of the attempt cannot be written for minutes.
    world.fates = vec![Fate::Unavailable; 200].into();
    world.replace_record(None);
    world.run(5 * MINUTE);
    assert!(world.cell.is_none());
    world.fates.clear();
    while world.cell.is_none() {
        world.run(SECOND / 10);
    }
    let (record, _) = world.cell.clone().unwrap();
    let written = record.written.at;
    let quarantine = record.not_before.expect("nothing may begin at once").boot;
    assert!(quarantine >= written.boot + world.rules.claim());
}
