//! Clocks that are stepped, or are another's: what a step costs, and how far mints stay apart.

use super::world::*;
use crate::record::{Record, Rules, Wanted};
use jiff::SignedDuration;
use std::num::NonZeroU32;
use std::time::Duration;

const STEPS: [i64; 8] = [-18_000, -31, -29, -1, 1, 29, 31, 18_000];

fn frees(world: &World) -> Vec<Duration> {
    let record: &Record = &world.cell.as_ref().unwrap().0;
    record
        .ledger
        .iter()
        .map(|slot| slot.frees_at.boot)
        .collect()
}

/// A daemon that has run for a while: a token of 28 minutes' age is due, and two slots are taken.
fn settled() -> World {
    let mut world = World::running(1);
    world.run(20 * MINUTE);
    world.refresh(0);
    world.run(5 * MINUTE);
    world
}

#[test]
fn a_step_that_a_running_process_sees_moves_no_slot_and_costs_a_mint_at_most() {
    for step in STEPS {
        let mut world = settled();
        let (before, mints) = (frees(&world), world.arrivals.len());
        let vended = world.vends(0).cloned().unwrap();
        world.set_wall(0, SignedDuration::from_secs(step));
        world.run(10 * SECOND);
        let after = frees(&world);
        assert_eq!(after[..before.len()], before[..], "{step}");
        let more = world.arrivals.len() - mints;
        if step < 0 {
            assert_eq!(
                world.vends(0),
                Some(&vended),
                "{step}: a step back costs no token"
            );
            assert_eq!(more, 0, "{step}");
        } else {
            assert!(more <= 1, "{step}: {more} mints");
            assert!(world.vends(0).is_some());
        }
    }
}

#[test]
fn a_step_across_a_restart_costs_no_token_back_and_a_mint_at_most_forward() {
    for step in STEPS {
        let mut world = settled();
        let (before, mints) = (frees(&world), world.arrivals.len());
        let vended = world.vends(0).cloned().unwrap();
        world.kill(0);
        world.set_wall(0, SignedDuration::from_secs(step));
        world.start(0);
        world.run(10 * SECOND);
        let period = world.stamp(0).boot + world.rules.budget.period();
        let after = frees(&world);
        for (was, is) in before.iter().zip(&after) {
            assert!(
                is >= was && *is <= period,
                "{step}: no slot frees sooner, none counts for ever"
            );
        }
        let more = world.arrivals.len() - mints;
        if step < 0 {
            let vends = world.vends(0).unwrap();
            assert_eq!(vends.generation, vended.generation, "{step}");
            assert_eq!(more, 0, "{step}");
        } else {
            assert!(more <= 1, "{step}: {more} mints");
            assert!(world.vends(0).is_some(), "{step}");
        }
        // Once: another restart moves nothing more.
        world.kill(0);
        world.start(0);
        world.run(10 * SECOND);
        assert_eq!(frees(&world)[..after.len()], after[..], "{step}");
        assert_eq!(world.arrivals.len(), mints + more);
    }
}

#[test]
fn mints_keep_the_distance_that_is_asked_for_whatever_calls_for_them() {
    let spacing = 90 * SECOND;
    let mut wanted = Wanted::new(60 * MINUTE, 30 * MINUTE, NonZeroU32::new(10).unwrap());
    wanted.spacing = Some(spacing);
    let rules = Rules::new(&wanted);
    for otherwise in [
        Reply::Refused(true),
        Reply::Broken,
        Reply::Throttled(Some(SECOND)),
        Reply::Lost(SECOND),
        Reply::Token,
    ] {
        let mut world = World::new(rules.clone(), 2);
        for daemon in 0..2 {
            world.daemons[daemon].keys = ("keys-1".into(), 3);
            world.start(daemon);
        }
        world.otherwise = otherwise.clone();
        for round in 0..40 {
            world.run(20 * SECOND);
            // Whatever asks for a mint at once: a new token, new keys, another process.
            world.refresh(0);
            world.set_keys(1, &format!("keys-{round}"), 3);
            world.kill(round % 2);
            world.start(round % 2);
        }
        assert!(world.arrivals.len() >= 2, "{otherwise:?}");
        for pair in world.arrivals.windows(2) {
            assert!(
                pair[1] - pair[0] + SECOND / 10 >= spacing,
                "{otherwise:?}: {pair:?}"
            );
        }
    }
}
