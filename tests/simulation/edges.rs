//! Rules that are broken on purpose, at the edges that this simulation models itself: each must turn it red.
//!
//! The rules in the middle are broken by the patches of `tests/mutations`.

use crate::runs::{self, History};
use crate::setting::{Edge, Mix};

/// A broken rule that so many worlds do not show is not seen.
const WORLDS: u64 = 1000;

/// Breaks a rule. The simulation must say that one of these laws is broken.
fn broken(edge: Edge, mix: Mix, laws: &[&str]) {
    runs::hush();
    // A lost record breaks a law only where nearly all slots are taken: the first such world is far out.
    let first = if edge == Edge::NoMerge { 950 } else { 0 };
    for seed in first..first + WORLDS {
        let law = History::of(seed, mix, edge)
            .run(false)
            .1
            .unwrap_or_default();
        if laws.iter().any(|wanted| law.starts_with(wanted)) {
            println!("{edge:?}: at world {seed}: {law}");
            return;
        }
    }
    panic!("{edge:?} survives {WORLDS} worlds");
}

#[test]
fn a_request_before_its_slot_is_written_is_seen() {
    broken(Edge::PostBeforeSlot, Mix::Everything, &["law 2"]);
}

#[test]
fn a_write_that_is_not_synced_is_seen() {
    broken(Edge::NoSync, Mix::Everything, &["law 1"]);
}

#[test]
fn a_boot_clock_that_is_only_a_wall_clock_is_seen() {
    broken(Edge::WallClockOnly, Mix::Everything, &["law 1", "law 4"]);
}

#[test]
fn a_lost_record_that_nobody_brings_back_is_seen() {
    broken(Edge::NoMerge, Mix::Everything, &["law 1"]);
}

#[test]
fn a_lead_shorter_than_the_window_is_seen_where_slots_are_burnt() {
    broken(Edge::ShortLead, Mix::Burning, &["law 7"]);
}

#[test]
fn with_a_whole_lead_burnt_slots_let_no_token_expire() {
    runs::hush();
    let (sum, broken) = runs::run_all(0..400, Mix::Burning, Edge::SmallBudget);
    if let Some((history, law)) = broken {
        panic!("a law is broken\n{}", history.explain(&law));
    }
    println!(
        "{} requests in {:.0} years of nodes burnt slots, and no token expired for it",
        sum.attempts, sum.years
    );
}
