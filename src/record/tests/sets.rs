//! Sets of keys and address: which are parked, which were tried, and what that means for others.

use super::*;

fn with(record: &Record, set: &str, trigger: Trigger, second: u64) -> (Record, Attempt) {
    let asked = Reservation {
        keys: set,
        ..reservation(Class::Routine, trigger)
    };
    record.begin(&asked, at(second), &rules())
}

fn refused(record: &Record, set: &str, keys: u32, second: u64) -> Record {
    let (record, attempt) = with(record, set, Trigger::Schedule, second);
    let failure = Failure::Refused {
        key_at_fault: true,
        keys,
        reason: format!("{set} is refused"),
    };
    record.abort(&attempt, &failure, at(second), &rules())
}

fn names(record: &Record) -> Vec<&str> {
    let refused = record.refused.iter();
    refused.map(|it| it.fingerprint.as_str()).collect()
}

#[test]
fn each_set_is_parked_by_itself_and_what_an_older_build_reads_is_the_last_ones() {
    let record = refused(&refused(&known(), "a", 1, 0), "b", 1, 10);
    assert_eq!(names(&record), ["a", "b"]);
    for (set, since) in [("a", 0), ("b", 10)] {
        let refusal = record.refusal_of(set).unwrap();
        assert_eq!(
            (refusal.since, refusal.retry_at),
            (at(since), at(since + 900))
        );
        assert_eq!(refusal.reason, format!("{set} is refused"));
    }
    assert_eq!(record.refusal_of("c"), None);
    assert_eq!(record.parked.as_ref().unwrap().reason, "b is refused");
    // A third set begins, unparked, and the others stay so.
    let (record, _) = with(&record, "c", Trigger::Schedule, 20);
    assert_eq!(
        (record.parked.as_ref(), names(&record)),
        (None, vec!["a", "b"])
    );
    // The rare attempt of one puts off its own next one alone.
    let (record, _) = with(&record, "a", Trigger::Parked, 900);
    assert_eq!(record.refusal_of("a").unwrap().retry_at, at(1800));
    assert_eq!(record.refusal_of("a").unwrap().since, at(0));
    assert_eq!(record.refusal_of("b").unwrap().retry_at, at(910));
    assert_eq!(record.parked.as_ref().unwrap().reason, "a is refused");
}

#[test]
fn a_set_is_freed_by_its_token_and_by_an_operator_and_when_a_ninth_is_refused() {
    let both = refused(&refused(&known(), "a", 1, 0), "b", 1, 10);
    let (begun, attempt) = with(&both, "a", Trigger::Parked, 900);
    let minted = begun.commit(&attempt, &token(&attempt, 900), at(901), at(901), &rules());
    assert_eq!(names(&minted), ["b"]);
    let (asked, _) = with(&both, "a", Trigger::Operator, 20);
    assert_eq!((names(&asked), &asked.parked), (vec!["b"], &None));
    let unparked = both.unparked().unwrap();
    assert_eq!((names(&unparked), &unparked.parked), (vec![], &None));
    // Not the last one alone: a process of an earlier set may wait, too.
    let (others, _) = with(&both, "c", Trigger::Schedule, 30);
    assert!(others.parked.is_none() && names(&others.unparked().unwrap()).is_empty());
    let mut many = known();
    for (second, set) in ["a", "b", "c", "d", "e", "f", "g", "h", "i"]
        .iter()
        .enumerate()
    {
        many = refused(&many, set, 1, second as u64);
    }
    assert_eq!(names(&many), ["b", "c", "d", "e", "f", "g", "h", "i"]);
}

#[test]
fn a_parked_set_goes_on_with_the_key_that_was_not_tried_whoever_came_between() {
    let once = refused(&known(), "a", 3, 0);
    assert!(once.parked.is_none(), "two keys are left");
    let twice = refused(&once, "a", 3, 1);
    let parked = refused(&twice, "a", 3, 2);
    let tried = refused(&parked, "a", 3, 902);
    let between = refused(&tried, "b", 1, 910);
    let (_, attempt) = with(&between, "a", Trigger::Parked, 1802);
    assert_eq!(attempt.key, 1);
}

#[test]
fn what_format_1_0_parked_is_remembered_when_another_set_begins() {
    let newer = refused(&known(), "a", 1, 0);
    let older = Record {
        refused: Vec::new(),
        tried: Vec::new(),
        ..newer
    };
    assert!(older.refusal_of("a").is_some() && older.refusal_of("b").is_none());
    assert!(!older.is_untried("a"), "the set that was tried last");
    let (record, _) = with(&older, "b", Trigger::Schedule, 10);
    assert_eq!((record.parked.as_ref(), names(&record)), (None, vec!["a"]));
    assert_eq!(record.refusal_of("a").unwrap().retry_at, at(900));
}

#[test]
fn a_set_that_an_older_build_has_freed_is_free() {
    // It minted, or was unparked, by a build that keeps the list as it is.
    let freed = Record {
        parked: None,
        ..refused(&known(), "a", 1, 0)
    };
    assert_eq!(names(&freed), ["a"]);
    assert_eq!(freed.refusal_of("a"), None);
}

#[test]
fn a_set_may_be_tried_at_once_one_time_until_a_token() {
    let mut record = known();
    assert!(record.is_untried("a"));
    record = refused(&record, "a", 2, 0);
    assert!(!record.is_untried("a") && record.is_untried("b"));
    record = refused(&record, "b", 2, 10);
    assert!(!record.is_untried("a") && !record.is_untried("b"));
    let (begun, attempt) = with(&record, "b", Trigger::Schedule, 20);
    let minted = begun.commit(&attempt, &token(&attempt, 20), at(21), at(21), &rules());
    assert!(
        !minted.is_untried("b"),
        "nothing went wrong since, of which it should be free"
    );
    assert!(minted.is_untried("a"));
    // What is due at birth is no success: it must not let sets take turns.
    let due = Token {
        refresh_at: at(20),
        ..token(&attempt, 20)
    };
    let minted = begun.commit(&attempt, &due, at(21), at(21), &rules());
    assert!(!minted.is_untried("a"));
    // A refused set is free of nothing, even if it was not tried since the last token.
    let parked = refused(&known(), "a", 1, 0);
    let (begun, attempt) = with(&parked, "b", Trigger::Schedule, 10);
    let minted = begun.commit(&attempt, &token(&attempt, 10), at(11), at(11), &rules());
    assert!(minted.tried.is_empty() && !minted.is_untried("a"));
}

#[test]
fn after_eight_sets_none_is_free_until_a_token() {
    let mut record = known();
    for set in ["a", "b", "c", "d", "e", "f", "g", "h"] {
        assert!(record.is_untried(set));
        let (begun, attempt) = with(&record, set, Trigger::Schedule, 0);
        record = begun.abort(&attempt, &Failure::Lost { answered: true }, at(0), &rules());
    }
    assert!(!record.is_untried("i"));
    let (begun, attempt) = with(&record, "i", Trigger::Schedule, 500);
    assert!(!attempt.taken.first_of_set);
    assert_eq!(begun.tried, record.tried);
    let minted = begun.commit(&attempt, &token(&attempt, 500), at(501), at(501), &rules());
    assert!(minted.is_untried("j"));
}

#[test]
fn a_request_that_did_not_leave_gives_everything_back_but_its_own_wait() {
    let (record, attempt) = with(&known(), "a", Trigger::Schedule, 0);
    let lost = record.abort(&attempt, &Failure::Lost { answered: true }, at(0), &rules());
    let (begun, attempt) = with(&lost, "b", Trigger::Schedule, 2);
    assert!(!begun.is_untried("b"));
    let record = begun.abort(&attempt, &Failure::NotSent, at(2), &rules());
    assert!(record.is_untried("b"));
    assert_eq!(record.keys.retry_at, Some(at(3)), "its own wait");
    assert_eq!(
        record.not_before, lost.not_before,
        "the wait that it passed holds for others"
    );
    // With another set at once, and without that wait.
    let (begun, _) = with(&record, "c", Trigger::Schedule, 2);
    assert_eq!(begun.keys.retry_at, None);
}

#[test]
fn the_distance_of_the_settings_holds_for_every_set_from_the_end_on() {
    let rules = Rules {
        spacing: 60 * SECOND,
        ..rules()
    };
    let asked = Reservation {
        keys: "a",
        ..reservation(Class::Urgent, Trigger::Expiry)
    };
    let (record, attempt) = known().begin(&asked, at(0), &rules);
    let lost = Failure::Lost { answered: true };
    let record = record.abort(&attempt, &lost, at(9), &rules);
    assert!(record.is_untried("b"));
    assert_eq!(record.held_until(), Some(at(69)));
    let (record, _) = record.begin(&asked, at(100), &rules);
    assert_eq!(record.hold_until, None, "it is over");
}

/// The record after an attempt that an intermediary answered.
fn misled(record: &Record, second: u64) -> Record {
    let (begun, attempt) = with(record, "a", Trigger::Schedule, second);
    begun.abort(&attempt, &Failure::Intermediary, at(second + 1), &rules())
}

#[test]
fn an_intermediarys_slot_counts_for_a_whole_period_and_backs_off_like_any_other() {
    let mut record = known();
    let mut waits = Vec::new();
    for second in [0, 1000, 2000, 3000, 4000] {
        record = misled(&record, second);
        let slot = record.ledger.last().unwrap();
        assert_eq!(
            (slot.frees_at, slot.outcome),
            (at(second + 33 * 60), Outcome::Intermediary)
        );
        let left = record.not_before.unwrap().boot - at(second + 1).boot;
        waits.push(left.as_secs());
    }
    assert_eq!(waits, [30, 60, 120, 225, 225]);
}

#[test]
fn a_row_of_intermediaries_takes_half_of_the_slots_and_is_spread_if_it_is_long() {
    let mut record = known();
    let mut begun = Vec::new();
    let mut second = 0;
    for _ in 0..12 {
        let allowed = record.intermediaries_allow(at(second).boot, &rules());
        second += (allowed - at(second).boot).as_secs();
        begun.push(second);
        record = misled(&record, second);
        // As fast as the row itself allows.
        second += 1;
    }
    // Four are not held up, the fifth comes in the middle of the wait for the first slot, and then
    // it is one each 396 s.
    assert_eq!(begun[..4], [0, 1, 2, 3]);
    assert_eq!(begun[4], 3 + (1980 - 3) / 2);
    assert_eq!(begun[5..], [1980, 2376, 2772, 3168, 3564, 3960, 4356]);
}

#[test]
fn an_answer_of_another_kind_ends_a_row() {
    let mut record = known();
    for second in 0..5 {
        record = misled(&record, second);
    }
    let (begun, attempt) = with(&record, "a", Trigger::Schedule, 700);
    let allowed = |record: &Record| record.intermediaries_allow(at(800).boot, &rules());
    assert!(
        allowed(&begun) > at(1900).boot,
        "nothing is known of that one"
    );
    let failure = Failure::Lost { answered: true };
    let other = begun.abort(&attempt, &failure, at(701), &rules());
    assert_eq!(allowed(&other), at(800).boot);
}

#[test]
fn a_live_tokens_time_is_shared_out_among_the_slots_that_intermediaries_may_take() {
    let (record, first) = begin(&known(), 0);
    let mut record = record.commit(&first, &token(&first, 0), at(0), at(0), &rules());
    let mut second = 27 * 60;
    let mut waits = Vec::new();
    for _ in 0..5 {
        let (begun, attempt) = with(&record, KEYS, Trigger::Schedule, second);
        record = begun.abort(&attempt, &Failure::Intermediary, at(second), &rules());
        let wait = record.not_before.unwrap().boot - at(second).boot;
        waits.push(wait.as_secs());
        second += wait.as_secs();
    }
    // 33 minutes, five slots: the last attempt comes at the very end.
    assert_eq!(waits, [396, 396, 396, 396, 396]);
}

#[test]
fn a_copy_that_is_merged_forgets_no_refusal_and_no_trial() {
    let found = refused(&refused(&known(), "a", 1, 0), "b", 1, 10);
    let held = refused(&refused(&known(), "b", 1, 100), "c", 1, 110);
    let merged = found.merged_with(&held, at(200), &rules());
    assert_eq!(names(&merged), ["a", "b", "c"]);
    assert_eq!(merged.refusal_of("b").unwrap().retry_at, at(1000));
    assert_eq!(merged.parked.as_ref().unwrap().reason, "c is refused");
    assert_eq!(merged.tried, ["a", "b", "c"]);
}

#[test]
fn a_record_that_never_held_a_token_may_become_another_accounts() {
    let lost = refused(&known(), "a", 1, 0);
    let adopted = lost.adopted_by("another").unwrap();
    assert_eq!(
        (&adopted.account[..], &adopted.ledger),
        ("another", &lost.ledger)
    );
    assert_eq!(lived().adopted_by("another"), None);
    let without = Record {
        token: None,
        ..lived()
    };
    assert_eq!(
        without.adopted_by("another"),
        None,
        "a slot says that it did"
    );
}

#[test]
fn an_emptied_record_waits_for_nothing_but_what_is_refused() {
    let mut record = refused(&refused(&known(), "a", 1, 0), "b", 1, 10);
    record.hold_until = Some(at(500));
    record.keys.retry_at = Some(at(500));
    let emptied = record.emptied();
    assert_eq!((emptied.hold_until, emptied.keys.retry_at), (None, None));
    assert!(emptied.tried.is_empty());
    assert_eq!(names(&emptied), ["a", "b"]);
}
