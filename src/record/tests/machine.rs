//! Runs state machines against their models, and counts what the runs came across.

use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use proptest_state_machine::{ReferenceStateMachine, StateMachineTest};
use std::collections::HashMap;
use std::hash::Hash;
use std::ops::Range;
use std::sync::{LazyLock, Mutex};

/// One in so many of proptest's number of cases (256, or `PROPTEST_CASES`). A failure prints its smallest history, and nothing is
/// written down: what was found becomes a test with a name.
pub(super) fn histories(one_in: u32) -> ProptestConfig {
    let default = ProptestConfig::default();
    ProptestConfig {
        cases: (default.cases / one_in).max(1),
        failure_persistence: None,
        // Histories are drawn step by step, and a step that does not fit is drawn again.
        max_local_rejects: u32::MAX,
        ..default
    }
}

/// True unless fewer cases than usual were asked for: then a run may miss what is rare.
pub(super) fn is_a_whole_run() -> bool {
    ProptestConfig::default().cases >= 256
}

/// Runs random histories of these lengths; stops at the first that the model does not agree with.
pub(super) fn run<T: StateMachineTest>(config: &ProptestConfig, length: Range<usize>) {
    let strategy = <T::Reference as ReferenceStateMachine>::sequential_strategy(length);
    let ran = TestRunner::new(config.clone()).run(&strategy, |(model, steps, seen)| {
        T::test_sequential(config.clone(), model, steps, seen);
        Ok(())
    });
    if let Err(failure) = ran {
        panic!("{failure}");
    }
}

/// How often what was seen.
pub(in crate::record) struct Seen<T: 'static>(LazyLock<Mutex<HashMap<T, u64>>>);

impl<T: Eq + Hash> Seen<T> {
    pub(in crate::record) const fn new() -> Self {
        Self(LazyLock::new(Mutex::default))
    }

    pub(super) fn count(&self, what: T) {
        *self.0.lock().unwrap().entry(what).or_default() += 1;
    }

    pub(super) fn times(&self, what: &T) -> u64 {
        self.0.lock().unwrap().get(what).copied().unwrap_or(0)
    }
}
