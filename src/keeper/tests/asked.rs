//! Reports are believed once and paced; an operator's refresh is paced and told so.

use super::world::*;
use crate::token::Generation;
use crate::vend::{RefreshOutcome, ReportOutcome};

/// A daemon whose record is older than a period, so that its past is known, and whose token is ten minutes old.
fn settled() -> (World, Generation) {
    let mut world = World::running(1);
    world.run(64 * MINUTE);
    let generation = world.vends(0).expect("a token").generation;
    (world, generation)
}

#[test]
fn a_report_marks_the_token_and_brings_its_successor() {
    let (mut world, current) = settled();
    let before = world.arrivals.len();
    assert_eq!(world.report(0, current), ReportOutcome::Refreshing);
    assert!(world.life(0).vended.as_ref().unwrap().1);
    assert_eq!(world.report(0, current), ReportOutcome::Refreshing);
    world.run(SECOND);
    assert_eq!(world.arrivals.len(), before + 1);
    let (token, suspect) = world.life(0).vended.clone().unwrap();
    assert!(token.generation > current && !suspect);
    assert_eq!(world.report(0, current), ReportOutcome::StaleGeneration);
}

#[test]
fn reports_of_other_generations_and_of_young_tokens_change_nothing() {
    let (mut world, current) = settled();
    for other in [Generation(0), current.next(), Generation(u64::MAX)] {
        assert_eq!(world.report(0, other), ReportOutcome::StaleGeneration);
    }
    world.report(0, current);
    world.run(10 * SECOND);
    let young = world.vends(0).unwrap().generation;
    assert_eq!(world.report(0, young), ReportOutcome::TooYoung);
    assert!(!world.life(0).vended.as_ref().unwrap().1);
}

#[test]
fn a_flood_of_reports_takes_three_slots_a_period_and_keeps_their_distance() {
    let (mut world, _) = settled();
    let before = world.arrivals.len();
    for _ in 0..33 * 60 {
        if let Some(token) = world.vends(0) {
            let generation = token.generation;
            world.report(0, generation);
        }
        world.run(SECOND);
    }
    let minted = world.arrivals.len() - before;
    assert!((3..=4).contains(&minted), "{minted}");
    for pair in world.arrivals[before..].windows(2) {
        assert!(pair[1] - pair[0] > 5 * MINUTE - SECOND);
    }
}

#[test]
fn a_paced_report_is_served_when_it_was_promised() {
    let (mut world, current) = settled();
    world.report(0, current);
    world.run(30 * SECOND);
    let second = world.vends(0).unwrap().generation;
    let ReportOutcome::Paced { until } = world.report(0, second) else {
        panic!("it is paced");
    };
    let before = world.arrivals.len();
    let left = until.left(world.stamp(0));
    assert!(left > 4 * MINUTE && left < 5 * MINUTE);
    world.run(left - SECOND);
    assert_eq!(world.arrivals.len(), before);
    world.run(2 * SECOND);
    assert_eq!(world.arrivals.len(), before + 1);
}

#[test]
fn a_report_while_the_register_is_down_is_paced_to_its_next_trial() {
    let (mut world, current) = settled();
    world.register_down = true;
    world.replace_record(None);
    world.run(SECOND);
    let now = world.stamp(0);
    let ReportOutcome::Paced { until } = world.report(0, current) else {
        panic!("it cannot be served now");
    };
    assert!(until.boot > now.boot);
}

#[test]
fn a_report_moves_on_to_the_next_key_at_once() {
    let (mut world, _) = settled();
    world.set_keys(0, "two", 2);
    world.run(SECOND);
    let current = world.vends(0).unwrap().generation;
    world.replies = [Reply::Refused(true)].into();
    world.report(0, current);
    world.run(2 * SECOND);
    assert_eq!(&world.keys_used[world.keys_used.len() - 2..], [0, 1]);
    assert!(world.vends(0).unwrap().generation > current);
}

#[test]
fn a_refresh_is_done_or_refused_with_a_reason_and_a_moment() {
    let (mut world, current) = settled();
    assert_eq!(world.refresh(0), RefreshOutcome::Refreshing);
    world.run(SECOND);
    assert!(world.vends(0).unwrap().generation > current);
    let RefreshOutcome::Refused { waiting_for, until } = world.refresh(0) else {
        panic!("it is paced");
    };
    assert_eq!(waiting_for, "pace");
    let left = until.unwrap().left(world.stamp(0));
    assert!(left > 118 * SECOND && left <= 120 * SECOND);
    world.run(left);
    assert_eq!(world.refresh(0), RefreshOutcome::Refreshing);
}

#[test]
fn an_operator_cannot_take_the_slots_that_expiry_needs() {
    let (mut world, _) = settled();
    for _ in 0..40 {
        world.refresh(0);
        world.run(30 * SECOND);
    }
    let refused = world.refresh(0);
    assert!(
        matches!(
            refused,
            RefreshOutcome::Refused {
                waiting_for: "budget",
                ..
            }
        ),
        "{refused:?}"
    );
    assert!(world.cell.as_ref().unwrap().0.ledger.len() <= 7);
}

#[test]
fn a_refresh_that_was_promised_survives_a_conflict_and_a_failing_register() {
    for fate in [
        Fate::Unavailable,
        Fate::UnknownAndDone,
        Fate::UnknownAndNotDone,
    ] {
        let (mut world, current) = settled();
        world.fates = [fate].into();
        assert_eq!(world.refresh(0), RefreshOutcome::Refreshing);
        world.run(20 * SECOND);
        assert!(world.vends(0).unwrap().generation > current, "{fate:?}");
    }
    let (mut world, current) = settled();
    let mut record = world.cell.clone().unwrap().0;
    record.revision += 1;
    world.cell = Some((record, 1_000_000));
    assert_eq!(world.refresh(0), RefreshOutcome::Refreshing);
    world.run(SECOND);
    assert!(world.vends(0).unwrap().generation > current, "conflict");
}

#[test]
fn nothing_can_be_asked_before_the_record_is_known() {
    let mut world = World::running(1);
    assert!(matches!(
        world.refresh(0),
        RefreshOutcome::Refused {
            waiting_for: "register",
            ..
        }
    ));
    assert_eq!(
        world.report(0, Generation(5)),
        ReportOutcome::StaleGeneration
    );
}
