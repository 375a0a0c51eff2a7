//! Thousands of years of the real keeper, record and budget, driven by an event heap in the place of a runtime.
//!
//! Many nodes, an issuer that keeps the true log, a register, a disk and clocks that can all fail, processes that die between any two
//! outputs. Every law is asserted at every event, by [`laws`], which knows the truth and asks the product nothing.
//!
//! `BEARERD_SEED=<n>` replays one world with its trace; `BEARERD_YEARS=<n>` simulates as many years of nodes as one likes, from the
//! world `BEARERD_FROM=<n>` on. `tests/run simulation` has flags for them. Where a rule is broken on purpose, `BEARERD_LAW=<law>`
//! takes nothing but a breach of that law for one.
#![allow(
    clippy::unwrap_used,
    reason = "a test says that it failed by panicking"
)]
#![allow(unreachable_pub, reason = "nothing outside can reach a test")]
#![allow(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "numbers for people, and dice"
)]

mod availability;
mod clairvoyant;
mod clocks;
mod coverage;
mod edges;
mod faults;
mod laws;
mod node;
mod register;
mod runs;
mod setting;
mod upstream;
mod world;

use setting::{Edge, Mix};

/// Each pair of crash boundary and kind of fault is hit so often in the default run: the fault at work, or over for less than a window.
const HITS: u64 = 100;

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(
        text.parse()
            .unwrap_or_else(|_| panic!("{name} must be a number, and is {text:?}")),
    )
}

#[test]
fn every_law_holds_for_thousands_of_years() {
    runs::hush();
    if let Some(seed) = number("BEARERD_SEED") {
        return replay(seed);
    }
    let years = number("BEARERD_YEARS").map_or(runs::YEARS, |years| years as f64);
    let began = tokio::time::Instant::now();
    let seeds = runs::seeds(number("BEARERD_FROM").unwrap_or(0), years, Mix::Everything);
    let law = std::env::var("BEARERD_LAW").ok();
    let such = |broken: &str| law.as_ref().is_none_or(|law| law == broken);
    let (sum, broken) = runs::run_until(seeds, Mix::Everything, Edge::Sound, such);
    if let (Some((history, told)), Some(_)) = (&broken, &law) {
        panic!("that law is broken\nseed {}: {told}", history.seed);
    }
    if let Some((history, law)) = broken {
        panic!("a law is broken\n{}", history.explain(&law));
    }
    let took = began.elapsed();
    println!("{}", sum.coverage.table());
    println!(
        "{:.0} years of nodes, {:.0} of them at the real account's pace, in {} worlds of {:.1} nodes, {:.0} a second; {} requests arrived, at most {} in a window of the real \
         limit; {} crashes, {:.1} faults a day, {} steps, {} reads",
        sum.years,
        sum.real_years,
        sum.worlds,
        sum.nodes(),
        sum.years / took.as_secs_f64(),
        sum.attempts,
        sum.worst,
        sum.coverage.crashes,
        sum.faults_a_day(),
        sum.steps,
        sum.reads,
    );
    assert!(
        sum.nodes() >= 3.0 && sum.faults_a_day() >= 20.0,
        "too little goes on"
    );
    if years >= runs::YEARS {
        assert!(sum.attempts >= 1_000_000, "too few requests");
        let (times, boundary, kind) = sum.coverage.least();
        assert!(
            times >= HITS,
            "{boundary:?} with {kind:?} was hit only {times} times"
        );
    }
}

fn replay(seed: u64) {
    let history = runs::History::of(seed, Mix::Everything, Edge::Sound);
    let (world, law) = history.run(true);
    match law {
        Some(law) => panic!("a law is broken\n{}", history.explain(&law)),
        None => {
            for line in world.trace() {
                println!("{line}");
            }
            println!("seed {seed}: every law holds in {:?}", world.setting);
        }
    }
}
