use super::*;

fn wait(record: &Record, second: u64) -> Duration {
    record
        .not_before
        .unwrap()
        .boot
        .saturating_sub(at(second).boot)
}

fn lost(record: &Record, second: u64) -> Record {
    let (record, attempt) = begin(record, second);
    record.abort(
        &attempt,
        &Failure::Lost { answered: false },
        at(second),
        &rules(),
    )
}

fn refused(key_at_fault: bool, keys: u32) -> Failure {
    Failure::Refused {
        key_at_fault,
        keys,
        reason: "no".into(),
    }
}

#[test]
fn an_attempt_is_begun_as_if_it_were_lost_already() {
    let (begun, attempt) = begin(&known(), 10);
    let (aborted, _) = begin(&known(), 10);
    let aborted = aborted.abort(
        &attempt,
        &Failure::Lost { answered: false },
        at(10),
        &rules(),
    );
    assert_eq!(begun.not_before, aborted.not_before);
    assert_eq!(
        (begun.streak, begun.ledger[0].frees_at),
        (aborted.streak, at(10 + 33 * 60))
    );
    let claim = begun.claim.unwrap();
    assert_eq!((claim.attempt, claim.until), (attempt.generation, at(32)));
}

#[test]
fn generations_rise_above_the_record_and_above_what_the_process_has_seen() {
    let (first, attempt) = begin(&known(), 0);
    assert_eq!(attempt.generation, known().generation.next());
    let asked = Reservation {
        at_least: Generation(2_000_000_000),
        ..reservation(Class::Urgent, Trigger::Expiry)
    };
    let (second, attempt) = first.begin(&asked, at(1), &rules());
    assert_eq!(
        (attempt.generation.0, second.generation.0),
        (2_000_000_000, 2_000_000_000)
    );
}

#[test]
fn a_slot_leaves_the_ledger_when_it_frees_and_not_a_nanosecond_before() {
    let (record, _) = begin(&known(), 0);
    let mut before = at(33 * 60);
    before.boot -= Duration::from_nanos(1);
    let asked = reservation(Class::Routine, Trigger::Schedule);
    assert_eq!(record.begin(&asked, before, &rules()).0.ledger.len(), 2);
    assert_eq!(
        record.begin(&asked, at(33 * 60), &rules()).0.ledger.len(),
        1
    );
}

#[test]
fn a_commit_frees_its_slot_a_window_and_a_margin_after_the_answer() {
    let (record, attempt) = begin(&known(), 0);
    let done = record.commit(&attempt, &token(&attempt, 1), at(2), at(2), &rules());
    assert_eq!(done.ledger[0].frees_at, at(2 + 32 * 60));
    assert_eq!(done.ledger[0].outcome, Outcome::Minted);
    assert_eq!(
        (&done.claim, done.streak.clone(), wait(&done, 2)),
        (&None, Streak::default(), Duration::ZERO)
    );
    assert_eq!(done.token.unwrap().generation, attempt.generation);
}

#[test]
fn an_answer_that_took_too_long_never_makes_a_slot_count_longer() {
    let (record, attempt) = begin(&known(), 0);
    let done = record.commit(&attempt, &token(&attempt, 1), at(500), at(500), &rules());
    assert_eq!(done.ledger[0].frees_at, at(33 * 60));
}

#[test]
fn a_token_due_at_birth_keeps_the_back_off_growing() {
    let record = lost(&lost(&known(), 0), 100);
    let (record, attempt) = begin(&record, 300);
    let mut due = token(&attempt, 300);
    due.refresh_at = at(300);
    let done = record.commit(&attempt, &due, at(301), at(301), &rules());
    assert_eq!((done.streak.lost, wait(&done, 301)), (3, 120 * SECOND));
}

#[test]
fn a_late_commit_replaces_no_newer_token_and_takes_nothing_from_a_later_attempt() {
    let (record, early) = begin(&known(), 0);
    let (record, late) = begin(&record, 60);
    let newer = record.commit(&late, &token(&late, 60), at(61), at(61), &rules());
    let (newer, third) = begin(&newer, 400);
    let after = newer.commit(&early, &token(&early, 0), at(401), at(401), &rules());
    assert_eq!(after.token, newer.token);
    assert_eq!(
        (after.claim, after.not_before),
        (newer.claim, newer.not_before)
    );
    assert_eq!(
        (after.generation, after.streak),
        (third.generation, newer.streak)
    );
    assert_eq!(after.ledger[0].outcome, Outcome::Minted);
}

#[test]
fn a_late_abort_shortens_no_wait_and_neither_parks_nor_gives_back_what_is_not_its_own() {
    let (record, early) = begin(&known(), 0);
    let (record, late) = begin(&record, 60);
    let failures = [
        Failure::NotSent,
        Failure::Lost { answered: true },
        Failure::Throttled {
            retry_after: Some(SECOND),
        },
        refused(true, 1),
        refused(false, 1),
    ];
    for failure in failures {
        let after = record.abort(&early, &failure, at(61), &rules());
        assert_eq!(after.claim, record.claim, "{failure:?}");
        assert!(wait(&after, 61) >= wait(&record, 61), "{failure:?}");
        assert_eq!(
            (&after.parked, &after.keys),
            (&record.parked, &record.keys),
            "{failure:?}"
        );
        assert!(
            after
                .ledger
                .iter()
                .any(|slot| slot.attempt == late.generation)
        );
    }
}

#[test]
fn what_was_not_sent_gives_its_slot_back_and_waits_1_2_4_8_15_seconds() {
    let mut record = lost(&known(), 0);
    let mut waits = Vec::new();
    for round in 0..6 {
        let (begun, attempt) = begin(&record, 100 + round);
        record = begun.abort(&attempt, &Failure::NotSent, at(100 + round), &rules());
        waits.push(wait(&record, 100 + round).as_secs());
        assert_eq!((record.ledger.len(), record.streak.lost), (1, 1));
    }
    assert_eq!(waits, [1, 2, 4, 8, 15, 15]);
}

#[test]
fn an_attempt_that_is_not_in_the_record_gives_nothing_back() {
    let before = lost(&known(), 0);
    let (_, never_written) = begin(&before, 100);
    let (mut other, theirs) = begin(&before, 100);
    other.ledger[1].holder = "other".into();
    other.claim.as_mut().unwrap().holder = "other".into();
    assert_eq!(never_written.generation, theirs.generation);
    let after = other.abort(&never_written, &Failure::NotSent, at(101), &rules());
    assert_eq!(after, other);
}

#[test]
fn an_end_that_is_written_twice_counts_once() {
    let failures = [
        Failure::NotSent,
        Failure::Lost { answered: true },
        refused(true, 3),
        refused(false, 3),
    ];
    for failure in failures {
        let (record, attempt) = begin(&lost(&known(), 0), 100);
        let once = record.abort(&attempt, &failure, at(101), &rules());
        assert_eq!(
            once.abort(&attempt, &failure, at(101), &rules()),
            once,
            "{failure:?}"
        );
    }
}

#[test]
fn losses_in_a_row_wait_30_to_225_seconds() {
    let mut record = known();
    let mut waits = Vec::new();
    for round in 0..6 {
        record = lost(&record, 2000 * round);
        waits.push(wait(&record, 2000 * round).as_secs());
    }
    assert_eq!(waits, [30, 60, 120, 225, 225, 225]);
}

#[test]
fn a_loss_shares_the_time_left_out_among_the_slots_left() {
    let (record, first) = begin(&known(), 0);
    let record = record.commit(&first, &token(&first, 0), at(0), at(0), &rules());
    // 33 minutes left, and 10 slots until then less the one that is lost now: the first one's frees itself in 6 minutes.
    let record = lost(&record, 27 * 60);
    assert_eq!(wait(&record, 27 * 60), 33 * MINUTE / 10);
    let asked = Reservation {
        jitter: 1200,
        ..reservation(Class::Routine, Trigger::Schedule)
    };
    let (record, _) = record.begin(&asked, at(31 * 60), &rules());
    assert_eq!(wait(&record, 31 * 60), 29 * MINUTE / 9 * 1200 / 1000);
}

#[test]
fn a_loss_with_no_slot_left_waits_for_the_slots_that_free_before_the_end_and_not_for_the_end() {
    let mut record = known();
    for minute in 16..26 {
        // Ten operators' mints, answered at once, free themselves between 48 and 57 minutes.
        let (begun, attempt) = begin(&record, minute * 60);
        let now = at(minute * 60);
        record = begun.commit(&attempt, &token(&attempt, 0), now, now, &rules());
    }
    record.ledger.remove(0);
    let record = lost(&record, 27 * 60);
    assert_eq!(wait(&record, 27 * 60), 33 * MINUTE / 10);
}

#[test]
fn no_wait_is_longer_than_a_period() {
    let mut record = lived();
    record.token.as_mut().unwrap().expires_at = at(100_000_000);
    for round in 0..10 {
        record = lost(&record, 300 + round);
    }
    assert!(wait(&record, 309) <= 33 * MINUTE);
}

#[test]
fn an_answer_tightens_a_lost_slot_and_silence_does_not() {
    for (answered, frees) in [(true, 5 + 32 * 60), (false, 33 * 60)] {
        let (record, attempt) = begin(&known(), 0);
        let after = record.abort(&attempt, &Failure::Lost { answered }, at(5), &rules());
        assert_eq!(after.ledger[0].frees_at, at(frees));
    }
}

#[test]
fn a_throttle_waits_as_told_between_a_second_and_a_period() {
    for (told, waits) in [(0, 1), (1, 1), (600, 600), (1980, 1980), (1_000_000, 1980)] {
        let (record, attempt) = begin(&known(), 0);
        let told = Some(Duration::from_secs(told));
        let after = record.abort(
            &attempt,
            &Failure::Throttled { retry_after: told },
            at(1),
            &rules(),
        );
        assert_eq!(wait(&after, 1), Duration::from_secs(waits));
    }
}

#[test]
fn a_throttle_without_a_word_waits_until_the_oldest_slot_frees() {
    let throttled = Failure::Throttled { retry_after: None };
    let (record, _) = begin(&known(), 0);
    let (record, _) = begin(&record, 600);
    let (mut record, attempt) = begin(&record, 33 * 60 - 1);
    record.token = Some(token(&attempt, 600));
    // The first has freed between the request and its answer; the second is the oldest that has not.
    let after = record.abort(&attempt, &throttled, at(33 * 60 + 1), &rules());
    assert_eq!(wait(&after, 33 * 60 + 1), 599 * SECOND);
}

#[test]
fn a_throttle_without_a_word_waits_a_quarter_of_the_window_where_no_token_is_left() {
    let throttled = Failure::Throttled { retry_after: None };
    let quarter = Duration::from_secs(450);
    let (mut record, attempt) = begin(&known(), 3000);
    let after = record.abort(&attempt, &throttled, at(3001), &rules());
    assert_eq!(wait(&after, 3001), quarter);
    // A token with ten minutes left, and one that a caller reported.
    record.token = Some(token(&attempt, 1));
    let after = record.abort(&attempt, &throttled, at(3001), &rules());
    assert_eq!(wait(&after, 3001), 600 * SECOND);
    let reported = Attempt {
        class: Class::Reported,
        ..attempt
    };
    let after = record.abort(&reported, &throttled, at(3001), &rules());
    assert_eq!(wait(&after, 3001), quarter);
    // The oldest slot frees sooner.
    let (earlier, _) = begin(&known(), 1080);
    let (record, attempt) = begin(&earlier, 3000);
    let after = record.abort(&attempt, &throttled, at(3001), &rules());
    assert_eq!(wait(&after, 3001), 59 * SECOND);
}

#[test]
fn each_key_is_tried_once_and_then_they_are_parked() {
    let mut record = known();
    for (round, key) in [0, 1, 2].into_iter().enumerate() {
        assert!(record.parked.is_none());
        let (begun, attempt) = begin(&record, round as u64);
        assert_eq!(attempt.key, key);
        record = begun.abort(&attempt, &refused(true, 3), at(round as u64), &rules());
        assert_eq!(
            record.not_before,
            Some(at(round as u64)),
            "the next is tried at once"
        );
    }
    let parked = record.parked.clone().unwrap();
    assert_eq!((parked.retry_at, parked.since), (at(2 + 15 * 60), at(2)));
    assert_eq!((record.ledger.len(), record.streak.lost), (3, 0));
    // The rare attempt goes on with the next key, and keeps the date.
    let asked = reservation(Class::Routine, Trigger::Parked);
    let (begun, attempt) = record.begin(&asked, at(1000), &rules());
    assert_eq!(
        (attempt.key, begun.parked.as_ref().unwrap().retry_at),
        (0, at(1900))
    );
    let after = begun.abort(&attempt, &refused(true, 3), at(1001), &rules());
    assert_eq!((after.keys.cursor, after.parked.unwrap().since), (1, at(2)));
}

#[test]
fn a_refusal_that_no_key_can_mend_parks_at_once() {
    let (record, attempt) = begin(&known(), 0);
    let record = record.abort(&attempt, &refused(false, 5), at(0), &rules());
    assert_eq!(record.parked.unwrap().reason, "no");
}

#[test]
fn a_changed_key_set_or_an_operator_or_a_token_unparks() {
    let (record, attempt) = begin(&known(), 0);
    let parked = record.abort(&attempt, &refused(true, 1), at(0), &rules());
    let asked = Reservation {
        keys: "others",
        ..reservation(Class::Routine, Trigger::Schedule)
    };
    let (changed, attempt) = parked.begin(&asked, at(60), &rules());
    assert_eq!(
        (changed.parked, attempt.key, changed.keys.refused),
        (None, 0, 0)
    );
    let (asked, _) = parked.begin(
        &reservation(Class::Routine, Trigger::Operator),
        at(60),
        &rules(),
    );
    assert_eq!(asked.parked, None);
    let (tried, attempt) = parked.begin(
        &reservation(Class::Routine, Trigger::Parked),
        at(900),
        &rules(),
    );
    assert!(tried.parked.is_some());
    let minted = tried.commit(&attempt, &token(&attempt, 900), at(901), at(901), &rules());
    assert_eq!((minted.parked, minted.keys.refused), (None, 0));
}

#[test]
fn an_unknown_past_is_paced_for_a_period_and_one_without_memory_for_ever() {
    let rules = rules();
    let new = |absent| Record::new("account", "l".into(), absent, writer(0), &rules);
    let allowed =
        |record: &Record, second: u64| record.probation_allows(false, at(second).boot, &rules);

    let fresh = new(Absent::New);
    assert_eq!((fresh.not_before, allowed(&fresh, 5)), (None, at(5).boot));
    let paced = Record {
        probation: fresh
            .probation
            .clone()
            .map(|it| Probation { at_once: 0, ..it }),
        ..fresh.clone()
    };
    let (begun, _) = begin(&paced, 5);
    assert_eq!(allowed(&begun, 6), at(5).boot + rules.budget.blind_pace());
    let (late, _) = begin(&paced, 33 * 60 - 10);
    assert_eq!(
        allowed(&late, 33 * 60 - 9),
        at(33 * 60).boot,
        "no longer than the period"
    );
    assert!(begin(&late, 33 * 60).0.probation.is_none());
    assert!(begin(&fresh, 33 * 60 - 1).0.probation.is_some());

    assert_eq!(new(Absent::Wait).not_before, Some(at(33 * 60)));

    let forgetful = new(Absent::Forgetful);
    assert_eq!(
        forgetful.not_before,
        Some(at(0).plus(rules.budget.blind_pace()))
    );
    let (begun, _) = begin(&forgetful, 100_000);
    assert_eq!(
        allowed(&begun, 100_001),
        at(100_000).boot + rules.budget.blind_pace()
    );
    assert!(begun.probation.is_some());
}
