//! What an unknown history may cost: three requests, each for a reason, and then the blind pace.

use super::*;

fn new(absent: Absent) -> Record {
    Record::new("account", "l".into(), absent, writer(0), &rules())
}

/// Begins an attempt with this set.
fn with(record: &Record, set: &str, second: u64) -> (Record, Attempt) {
    let asked = Reservation {
        keys: set,
        ..reservation(Class::Urgent, Trigger::FirstToken)
    };
    record.begin(&asked, at(second), &rules())
}

fn lost(record: &Record, set: &str, second: u64) -> Record {
    let (record, attempt) = with(record, set, second);
    let failure = Failure::Lost { answered: true };
    record.abort(&attempt, &failure, at(second), &rules())
}

/// How long after `second` a request with this set may be made, as far as the history goes.
fn wait(record: &Record, set: &str, second: u64) -> u64 {
    let untried = record.is_untried(set);
    let allowed = record.probation_allows(untried, at(second).boot, &rules());
    (allowed - at(second).boot).as_secs()
}

fn at_once(record: &Record) -> u32 {
    record.probation.as_ref().unwrap().at_once
}

#[test]
fn one_first_one_retry_and_one_mend_and_then_the_blind_pace() {
    let record = new(Absent::New);
    assert_eq!((at_once(&record), wait(&record, "a", 0)), (3, 0));
    let record = lost(&record, "a", 0);
    assert_eq!((at_once(&record), wait(&record, "a", 1)), (2, 0));
    assert_eq!(record.not_before, Some(at(5)), "some seconds after");
    let record = lost(&record, "a", 5);
    assert_eq!((at_once(&record), wait(&record, "a", 6)), (1, 197));
    assert_eq!(wait(&record, "b", 6), 0, "a mend");
    assert_eq!(
        record.not_before,
        Some(at(65)),
        "the back-off of two losses"
    );
    let record = lost(&record, "b", 6);
    for set in ["a", "b", "c"] {
        assert_eq!((at_once(&record), wait(&record, set, 7)), (0, 197), "{set}");
    }
}

#[test]
fn two_mends_leave_no_retry() {
    let record = lost(&lost(&new(Absent::New), "a", 0), "b", 2);
    assert_eq!(wait(&record, "b", 3), 197, "two requests were made");
    let record = lost(&record, "c", 4);
    assert_eq!((at_once(&record), wait(&record, "d", 5)), (0, 197));
}

#[test]
fn whoever_dies_before_an_answer_finds_the_count_in_the_record() {
    let mut record = new(Absent::New);
    for (second, left) in [(0, 2), (30, 1), (300, 1), (600, 1)] {
        // Begun, and never heard of again.
        record = with(&record, "a", second).0;
        record = Record::parse(&record.to_text()).unwrap();
        assert_eq!(at_once(&record), left, "{second}");
    }
}

#[test]
fn what_is_slower_than_the_blind_pace_counts_for_nothing() {
    let record = lost(&new(Absent::New), "a", 0);
    let record = lost(&record, "a", 198 + 1);
    assert_eq!(at_once(&record), 2);
    // But the retry is of the first request alone.
    assert_eq!(wait(&record, "a", 205), 192);
    assert_eq!(wait(&record, "b", 205), 0);
}

#[test]
fn what_did_not_leave_is_not_counted() {
    let mut record = new(Absent::New);
    for second in 0..20 {
        let (begun, attempt) = with(&record, "a", second * 20);
        assert_eq!(at_once(&begun), 2);
        record = begun.abort(&attempt, &Failure::NotSent, at(second * 20), &rules());
        assert_eq!(at_once(&record), 3);
    }
    // After a merge there is nothing to give back to.
    let (begun, attempt) = with(&record, "a", 500);
    let merged = begun.merged_with(&begun, at(501), &rules());
    let given_back = merged.abort(&attempt, &Failure::NotSent, at(502), &rules());
    assert_eq!(at_once(&given_back), 0);
}

#[test]
fn nothing_is_made_at_once_where_the_past_may_be_full() {
    let merged = new(Absent::New).merged_with(&lived(), at(300), &rules());
    let mut quarantined = new(Absent::New);
    quarantined.quarantine(at(0), &rules());
    for record in [
        new(Absent::Wait),
        new(Absent::Forgetful),
        merged,
        quarantined,
    ] {
        assert_eq!(at_once(&record), 0);
        let record = lost(&record, "a", 3000);
        assert_eq!(wait(&record, "a", 3001), wait(&record, "b", 3001));
        assert!(record.not_before.unwrap().boot >= at(3030).boot);
    }
    // A build of format 1.0 wrote no count.
    let mut older = lost(&new(Absent::New), "a", 0);
    older.probation.as_mut().unwrap().at_once = 0;
    assert_eq!(wait(&older, "b", 1), 197);
}

#[test]
fn no_set_passes_the_wait_of_a_record_that_waits() {
    for (absent, until) in [
        (Absent::Wait, at(33 * 60)),
        (Absent::Forgetful, {
            at(0).plus(rules().budget.blind_pace())
        }),
    ] {
        let record = new(absent);
        assert!(record.is_untried("a"));
        assert_eq!(record.held_until(), Some(until));
    }
    // Format 1.0 has no such field.
    let older = Record {
        hold_until: None,
        ..new(Absent::Wait)
    };
    assert_eq!(older.held_until(), Some(at(33 * 60)));
    let losing = lost(&new(Absent::New), "a", 0);
    assert_eq!(losing.held_until(), None);
}

#[test]
fn a_token_ends_what_may_be_made_at_once() {
    let (record, attempt) = with(&new(Absent::New), "a", 0);
    let record = record.commit(&attempt, &token(&attempt, 0), at(1), at(1), &rules());
    assert_eq!((at_once(&record), wait(&record, "a", 2)), (0, 196));
    assert_eq!(wait(&record, "b", 2), 196);
}
