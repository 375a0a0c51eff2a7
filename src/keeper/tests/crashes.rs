//! Crashes, restarts, suspends, reboots, and wall clocks that are set.

use super::world::*;
use crate::record::Absent;
use jiff::SignedDuration;
use std::time::Duration;

const HOUR: Duration = Duration::from_secs(3600);

#[test]
fn a_crash_at_any_boundary_costs_a_slot_at_most() {
    for boundary in 0..14 {
        for (reply, register_fails) in [
            (Reply::Token, false),
            (Reply::Broken, false),
            (Reply::Token, true),
        ] {
            let mut world = World::running(1);
            world.otherwise = reply.clone();
            if register_fails {
                world.fates = [Fate::Served, Fate::Served, Fate::UnknownAndDone].into();
            }
            world.daemons[0].dies_after = Some(boundary);
            world.run(20 * SECOND);
            world.daemons[0].dies_after = None;
            world.kill(0);
            world.start(0);
            world.otherwise = Reply::Token;
            world.run(10 * MINUTE);
            assert!(world.vends(0).is_some(), "boundary {boundary}, {reply:?}");
            assert!(world.arrivals.len() <= 3, "boundary {boundary}, {reply:?}");
        }
    }
}

#[test]
fn a_crash_loop_keeps_the_budget_and_the_back_off() {
    let mut world = World::running(1);
    world.otherwise = Reply::Lost(20 * SECOND);
    for second in 0..4000 {
        world.kill(0);
        world.start(0);
        world.run(Duration::from_millis(500 + second % 7 * 300));
    }
    assert!(world.arrivals.len() <= 30, "{}", world.arrivals.len());
}

#[test]
fn without_a_lasting_record_restarts_keep_the_budget() {
    let mut world = World::new(the_real_account(), 1);
    world.absent = Absent::Forgetful;
    for round in 0..300 {
        world.start(0);
        let life = world.dice.u64(1..700);
        world.otherwise =
            [Reply::Token, Reply::Lost(40 * SECOND), Reply::Broken][round % 3].clone();
        world.run(Duration::from_secs(life));
        world.kill(0);
        world.replace_record(None);
    }
    assert!(world.arrivals.len() > 100);
}

#[test]
fn a_restart_vends_what_the_record_holds_and_mints_nothing() {
    let mut world = World::running(1);
    world.run(MINUTE);
    let token = world.vends(0).cloned();
    world.kill(0);
    world.start(0);
    world.run(SECOND);
    assert_eq!(world.vends(0).cloned(), token);
    world.run(20 * MINUTE);
    assert_eq!(world.arrivals.len(), 1);
}

#[test]
fn a_record_deleted_under_a_live_daemon_is_written_back() {
    let mut world = World::running(1);
    world.run(MINUTE);
    let before = world.cell.clone().unwrap().0;
    world.replace_record(None);
    world.run(SECOND);
    let after = world.cell.clone().unwrap().0;
    assert_eq!(
        (&after.ledger, &after.token),
        (&before.ledger, &before.token)
    );
    assert!(after.not_before.unwrap().boot > world.stamp(0).boot + 20 * SECOND);
}

#[test]
fn a_wall_clock_that_steps_costs_no_token_and_no_budget() {
    for step in [-86_400, -90, 90, 86_400] {
        let mut world = World::running(1);
        world.run(10 * MINUTE);
        world.set_wall(0, SignedDuration::from_secs(step));
        world.run(2 * HOUR);
        assert!(world.vends(0).is_some());
        assert!(
            world.arrivals.len() <= 6,
            "{step}: {}",
            world.arrivals.len()
        );
    }
}

#[test]
fn a_reboot_carries_the_budget_over_even_after_the_wall_clock_was_set() {
    // The clock was an hour behind when the slots were taken, was set right, and then the machine rebooted.
    let mut world = World::new(the_real_account(), 1);
    world.set_wall(0, SignedDuration::from_hours(-1));
    world.start(0);
    world.otherwise = Reply::Broken;
    world.run(40 * MINUTE);
    let taken = world.cell.as_ref().unwrap().0.ledger.len();
    assert!(taken > 5);
    world.set_wall(0, SignedDuration::ZERO);
    world.run(6 * SECOND);
    world.reboot(0, 20 * SECOND, SignedDuration::ZERO);
    world.run(30 * SECOND);
    world.start(0);
    world.run(SECOND);
    let kept = world.cell.as_ref().unwrap().0.ledger.len();
    assert!(kept + 2 >= taken, "of {taken} slots {kept} were kept");
}

#[test]
fn a_reboot_keeps_the_token_unless_the_wall_clock_went_back() {
    for (wall, vended) in [(0, true), (20, true), (-20, true), (-700, false)] {
        let mut world = World::running(1);
        world.run(10 * MINUTE);
        world.reboot(0, 10 * SECOND, SignedDuration::from_secs(wall));
        world.run(11 * SECOND);
        world.otherwise = Reply::Broken;
        world.start(0);
        world.run(SECOND);
        assert_eq!(
            world.vends(0).is_some(),
            vended,
            "the wall moved by {wall} s"
        );
    }
}

#[test]
fn a_suspend_past_the_end_gives_a_new_token_soon_after() {
    let mut world = World::running(1);
    world.run(10 * MINUTE);
    world.freeze(0, 2 * HOUR);
    world.run(2 * HOUR);
    assert!(world.vends(0).is_none());
    world.run(5 * SECOND);
    assert!(world.vends(0).is_some());
}
