//! Rules that are broken on purpose, at the edges that this simulation models itself: each must turn it red.
//!
//! The rules in the middle are broken by the patches of `tests/mutations`.

use crate::runs;
use crate::setting::{Edge, Mix};

/// Breaks a rule, and returns what the simulation says of it.
fn broken_by(edge: Edge, mix: Mix) -> String {
    runs::hush();
    let (sum, broken) = runs::run_all(0..2000, mix, edge);
    let (history, law) =
        broken.unwrap_or_else(|| panic!("{edge:?} survives {} worlds", sum.worlds));
    println!(
        "{edge:?}: after {} worlds, at seed {}: {law}",
        sum.worlds, history.seed
    );
    law
}

#[test]
fn a_request_before_its_slot_is_written_is_seen() {
    assert!(broken_by(Edge::PostBeforeSlot, Mix::Everything).starts_with("law 2"));
}

#[test]
fn a_write_that_is_not_synced_is_seen() {
    let law = broken_by(Edge::NoSync, Mix::Everything);
    assert!(
        law.starts_with("law 1") || law.starts_with("law 3"),
        "{law}"
    );
}

#[test]
fn a_boot_clock_that_is_only_a_wall_clock_is_seen() {
    let law = broken_by(Edge::WallClockOnly, Mix::Everything);
    assert!(law.starts_with("law "), "{law}");
}

#[test]
fn a_lost_record_that_nobody_brings_back_is_seen() {
    let law = broken_by(Edge::NoMerge, Mix::Everything);
    assert!(
        law.starts_with("law 1") || law.starts_with("single flight"),
        "{law}"
    );
}

#[test]
fn a_lead_shorter_than_the_window_is_seen_when_processes_die_in_loops() {
    assert!(broken_by(Edge::ShortLead, Mix::Burning).starts_with("law 7"));
}
