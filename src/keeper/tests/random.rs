//! Random histories of everything at once. A failing seed prints itself; `BEARERD_SEED=<seed>` replays it, and `BEARERD_SEEDS=<n>`
//! tries more of them.

use super::world::*;
use crate::keeper::Input;
use crate::record::{Absent, Rules, Wanted};
use jiff::SignedDuration;
use std::num::NonZeroU32;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::time::Duration;

const SEEDS: u64 = 1500;
const DEEDS: u32 = 40;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

#[test]
fn whatever_happens_in_whatever_order_the_laws_hold() {
    let seeds = match number("BEARERD_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("BEARERD_SEEDS").unwrap_or(SEEDS),
    };
    for seed in seeds {
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| history(seed))) {
            eprintln!("BEARERD_SEED={seed} replays this");
            resume_unwind(panic);
        }
    }
}

fn random_rules(dice: &mut fastrand::Rng) -> Rules {
    if dice.bool() {
        return the_real_account();
    }
    let window = Duration::from_secs(dice.u64(60..3600));
    let limit = NonZeroU32::new(dice.u32(1..13)).unwrap();
    let period = window + window / 10;
    let mut wanted = Wanted::new(period * dice.u32(11..40) / 10, window, limit);
    wanted.reserve = Some(dice.u32(0..6));
    wanted.revokes_previous = dice.u8(0..4) == 0;
    Rules::new(&wanted)
}

/// Between nothing and most of a period, with a liking for the short.
fn gap(world: &mut World) -> Duration {
    let period = world.rules.budget.period();
    let part = match world.dice.u8(0..4) {
        0 => period / 2000,
        1 => period / 200,
        2 => period / 20,
        _ => period / 2,
    };
    part.mul_f64(world.dice.f64())
}

fn random_reply(world: &mut World) -> Reply {
    let late = world.rules.budget.in_flight.mul_f64(world.dice.f64() * 0.6);
    let asked = world.rules.budget.window.mul_f64(world.dice.f64());
    match world.dice.u8(0..12) {
        0..4 => Reply::Token,
        4 => Reply::Aged(world.rules.lifetime.mul_f64(world.dice.f64() * 1.1)),
        5 => Reply::Repeated,
        6 => Reply::Broken,
        7 => Reply::NotSent,
        8 => Reply::Throttled(world.dice.bool().then_some(asked)),
        9 => Reply::Refused(world.dice.bool()),
        _ => Reply::Lost(late),
    }
}

fn history(seed: u64) {
    let mut dice = fastrand::Rng::with_seed(seed);
    let daemons = dice.usize(1..4);
    let mut world = World::new(random_rules(&mut dice), daemons);
    world.dice = dice;
    world.latency = world.rules.timeout.mul_f64(world.dice.f64() * 0.4);
    world.absent = if daemons == 1 && world.dice.u8(0..4) == 0 {
        Absent::Forgetful
    } else if world.dice.bool() {
        Absent::New
    } else {
        Absent::Wait
    };
    let shared_machine = world.dice.bool();
    for daemon in 1..daemons {
        if !shared_machine {
            let skew = world.rules.skew.as_secs_f64();
            let ahead = skew * (world.dice.f64() - 0.5);
            world.own_machine(daemon, SignedDuration::from_secs_f64(ahead));
        }
    }
    (0..daemons).for_each(|daemon| world.start(daemon));
    for _ in 0..DEEDS {
        deed(&mut world);
        let pause = gap(&mut world);
        world.run(pause);
    }
    heal(&mut world);
}

/// Everything is well again: then every daemon must come to a token.
fn heal(world: &mut World) {
    world.register_down = false;
    world.fates.clear();
    world.replies.clear();
    world.otherwise = Reply::Token;
    for daemon in 0..world.daemons.len() {
        world.daemons[daemon].dies_after = None;
        ensure_alive(world, daemon);
        world.set_keys(daemon, "good", 1);
    }
    let longest = world.rules.budget.period() * 3;
    world.run(longest);
    for daemon in 0..world.daemons.len() {
        assert!(
            world.vends(daemon).is_some(),
            "daemon {daemon} never comes to a token: {:#?}",
            world.life(daemon).keeper
        );
    }
}

fn ensure_alive(world: &mut World, daemon: usize) {
    if world.daemons[daemon].life.is_none() {
        if world.absent == Absent::Forgetful {
            world.replace_record(None);
        }
        world.run(Duration::from_millis(20));
        world.start(daemon);
    }
}

fn deed(world: &mut World) {
    let daemon = world.dice.usize(0..world.daemons.len());
    let machine = world.daemons[daemon].machine;
    match world.dice.u8(0..16) {
        0 => world.kill(daemon),
        1 => world.daemons[daemon].dies_after = Some(world.dice.u32(0..12)),
        2 | 3 => {
            if let Some(token) = world.vends(daemon) {
                let generation = token.generation;
                world.give(daemon, Input::Report(generation));
            }
        }
        4 => world.give(daemon, Input::Refresh),
        5 => {
            let name = format!("keys-{}", world.dice.u8(0..3));
            let count = world.dice.u32(1..6);
            world.set_keys(daemon, &name, count);
        }
        6 => world.register_down = !world.register_down,
        7 | 8 => {
            let fates = [
                Fate::Unavailable,
                Fate::UnknownAndDone,
                Fate::UnknownAndNotDone,
                Fate::Served,
            ];
            let fate = fates[world.dice.usize(0..4)];
            world.fates.push_back(fate);
        }
        9 | 10 => world.otherwise = random_reply(world),
        11 => {
            let reply = random_reply(world);
            world.replies.push_back(reply);
        }
        12 => {
            let length = gap(world);
            world.freeze(machine, length);
        }
        13 => step_or_reboot(world, machine),
        14 if world.absent != Absent::Forgetful => lose_the_record(world),
        _ => ensure_alive(world, daemon),
    }
}

fn step_or_reboot(world: &mut World, machine: usize) {
    let days = SignedDuration::from_secs(world.dice.i64(-200_000..200_000));
    // A clock that is set between a reboot and the first look at the record is one that disagrees across the reboot.
    let boot = world.boot_id(machine);
    let looked = world
        .cell
        .as_ref()
        .is_none_or(|it| it.0.written.boot_id == boot);
    if world.machines.len() == 1 && world.dice.bool() {
        if looked {
            world.set_wall(0, days);
        }
        return;
    }
    // The clock of the new boot agrees with the last write within the skew, or is far behind it.
    let mut ahead = world.machines[machine].wall_ahead();
    if world.machines.len() == 1 {
        let skew = world.rules.skew.as_secs_f64();
        let off = SignedDuration::from_secs_f64(skew * (world.dice.f64() * 1.9 - 0.95));
        let far_behind = SignedDuration::from_hours(-24 * 30);
        let off = if world.dice.u8(0..4) == 0 {
            far_behind
        } else {
            off
        };
        ahead = world.wall_ahead_when_written + off;
    }
    let down_for = gap(world) + SECOND;
    world.reboot(machine, down_for, ahead);
    world.run(down_for);
}

/// The record is deleted, or an older copy comes back, while all who hold it live and go on living for a while.
fn lose_the_record(world: &mut World) {
    let lives = |world: &World| {
        world
            .daemons
            .iter()
            .all(|it| it.life.is_some() && it.dies_after.is_none())
    };
    if world.register_down || !lives(world) {
        return;
    }
    let older = world.cell.clone().map(|it| it.0);
    let quiet = world.rules.claim() * 2 + SECOND * 3;
    world.fates.clear();
    // Nobody is frozen any more, and all have seen the last write.
    let pause = gap(world) + world.rules.budget.period();
    world.run(pause);
    if !lives(world) {
        return;
    }
    let older = older.filter(|_| world.dice.bool());
    world.replace_record(older);
    world.run(quiet);
}
