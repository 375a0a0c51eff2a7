use super::*;

fn here() -> BootId {
    BootId::new("here")
}

fn there() -> BootId {
    BootId::new("there")
}

/// Another boot, whose clock began anew: `boot` seconds after it, `wall` seconds after the start.
fn now(wall: i64, boot: u64) -> Stamp {
    Stamp {
        wall: at(0).wall + SignedDuration::from_secs(wall),
        boot: Duration::from_secs(boot),
    }
}

fn left(at: Stamp, now: Stamp) -> u64 {
    at.boot.saturating_sub(now.boot).as_secs()
}

/// Slots reserved at 0 (frees at 1921) and 200 (frees at 2180), a token until 3600, written at 210.
fn written() -> Record {
    Record {
        written: writer(210),
        ..lived()
    }
}

#[test]
fn a_record_of_this_boot_is_left_as_it_is() {
    assert_eq!(
        written().on_boot(&BootId::new("here"), at(300), &rules()),
        None
    );
}

#[test]
fn slots_count_for_the_skew_longer_and_the_token_for_the_skew_shorter() {
    let now = now(310, 40);
    let moved = written().on_boot(&there(), now, &rules()).unwrap();
    let frees: Vec<u64> = moved
        .ledger
        .iter()
        .map(|slot| left(slot.frees_at, now))
        .collect();
    assert_eq!(frees, [1921 - 310 + 30, 2180 - 310 + 30]);
    let token = moved.token.unwrap();
    assert_eq!(left(token.expires_at, now), 3600 - 310 - 30);
    assert_eq!(token.expires_at.left(now).as_secs(), 3600 - 310 - 30);
    assert_eq!(left(token.refresh_at, now), 27 * 60 - 310 - 30);
    // The boot began after the slots were reserved; its clock cannot go below zero.
    assert_eq!(moved.ledger[0].reserved_at.boot, Duration::ZERO);
}

#[test]
fn a_slot_is_never_taken_for_older_than_it_surely_is() {
    let now = now(310, 5000);
    let moved = written().on_boot(&there(), now, &rules()).unwrap();
    let ages: Vec<u64> = moved
        .ledger
        .iter()
        .map(|slot| slot.reserved_at.age(now).as_secs())
        .collect();
    assert_eq!(ages, [310 - 30, 110 - 30]);
}

#[test]
fn what_ended_long_ago_is_gone() {
    let now = now(100_000, 40);
    let moved = written().on_boot(&there(), now, &rules()).unwrap();
    assert!(moved.ledger.is_empty());
    assert!(moved.token.unwrap().expired(now));
}

#[test]
fn a_wall_clock_within_the_skew_is_believed_and_one_before_it_is_not() {
    for (wall, believed) in [
        (210, true),
        (181, true),
        (180, true),
        (179, false),
        (-100_000, false),
    ] {
        let now = now(wall, 40);
        let moved = written().on_boot(&there(), now, &rules()).unwrap();
        assert_eq!(moved.token.unwrap().expired(now), !believed, "{wall}");
        let frees: Vec<u64> = moved
            .ledger
            .iter()
            .map(|slot| left(slot.frees_at, now))
            .collect();
        let expected = if believed {
            [1921 - 210 + 30, 1980]
        } else {
            [1980, 1980]
        };
        assert_eq!(frees, expected, "{wall}");
        assert!(left(moved.not_before.unwrap(), now) <= 1980);
    }
}

#[test]
fn a_foreign_claim_runs_out_by_our_own_clock() {
    let (begun, _) = begin(&written(), 500);
    let begun = Record {
        written: writer(500),
        ..begun
    };
    let now = now(90_000, 40);
    let moved = begun.on_boot(&there(), now, &rules()).unwrap();
    assert_eq!(left(moved.claim.unwrap().until, now), 22);
}

#[test]
fn waits_and_probation_are_carried_over() {
    let mut record = written();
    record.not_before = Some(at(810));
    record.probation = Some(Probation {
        until: Some(at(1210)),
        period: None,
        at_once: 0,
        newer: BTreeMap::new(),
    });
    record.parked = Some(Parked {
        since: at(0),
        retry_at: at(910),
        reason: "no".into(),
        newer: BTreeMap::new(),
    });
    record.hold_until = Some(at(710));
    record.keys.retry_at = Some(at(610));
    record.refused = vec![refused_set(1010)];
    let now = now(310, 40);
    let moved = record.on_boot(&there(), now, &rules()).unwrap();
    assert_eq!(left(moved.not_before.unwrap(), now), 530);
    assert_eq!(
        left(moved.probation.as_ref().unwrap().until.unwrap(), now),
        930
    );
    assert_eq!(left(moved.parked.as_ref().unwrap().retry_at, now), 630);
    assert_eq!(left(moved.hold_until.unwrap(), now), 430);
    assert_eq!(left(moved.keys.retry_at.unwrap(), now), 330);
    assert_eq!(left(moved.refused[0].retry_at, now), 730);
    // The skew is in each of them once, however often they are carried on.
    let moved = Record {
        written: Writer {
            boot_id: there(),
            at: now,
            ..writer(0)
        },
        ..moved
    };
    let again = moved.on_boot(&here(), at(320), &rules()).unwrap();
    assert_eq!(left(again.hold_until.unwrap(), at(320)), 420);
    assert_eq!(left(again.keys.retry_at.unwrap(), at(320)), 320);
    assert_eq!(left(again.refused[0].retry_at, at(320)), 720);
}

fn refused_set(retry_at: u64) -> RefusedSet {
    RefusedSet {
        fingerprint: "set".into(),
        since: at(0),
        retry_at: at(retry_at),
        reason: "no".into(),
        cursor: 0,
        newer: BTreeMap::new(),
    }
}

#[test]
fn a_wait_gets_no_longer_by_a_wall_clock_that_is_not_believed() {
    let mut record = written();
    record.not_before = Some(at(240));
    record.probation = Some(Probation {
        until: Some(at(1210)),
        period: None,
        at_once: 0,
        newer: BTreeMap::new(),
    });
    record.parked = Some(Parked {
        since: at(0),
        retry_at: at(910),
        reason: "no".into(),
        newer: BTreeMap::new(),
    });
    for wall in [200, -100_000] {
        let now = now(wall, 40);
        let moved = record.on_boot(&there(), now, &rules()).unwrap();
        assert_eq!(left(moved.not_before.unwrap(), now), 30);
        assert_eq!(left(moved.probation.unwrap().until.unwrap(), now), 1000);
        assert_eq!(left(moved.parked.unwrap().retry_at, now), 700);
    }
}

#[test]
fn absurd_times_are_clamped_to_a_period_and_a_lifetime() {
    let mut record = written();
    let absurd = Stamp {
        wall: Timestamp::MAX,
        boot: Duration::from_nanos(u64::MAX),
    };
    for slot in &mut record.ledger {
        (slot.frees_at, slot.reserved_at) = (absurd, absurd);
    }
    record.not_before = Some(absurd);
    record.probation = Some(Probation {
        until: Some(absurd),
        period: None,
        at_once: 0,
        newer: BTreeMap::new(),
    });
    record.claim = Some(Claim {
        attempt: Generation(1),
        holder: "x".into(),
        until: absurd,
        newer: BTreeMap::new(),
    });
    record.parked = Some(Parked {
        since: absurd,
        retry_at: absurd,
        reason: "x".into(),
        newer: BTreeMap::new(),
    });
    record.hold_until = Some(absurd);
    record.keys.retry_at = Some(absurd);
    record.refused = vec![
        RefusedSet {
            since: absurd,
            retry_at: absurd,
            ..refused_set(0)
        };
        20
    ];
    record.tried = vec!["x".into(); 20];
    let token = record.token.as_mut().unwrap();
    (token.refresh_at, token.expires_at) = (absurd, absurd);
    record.streak = Streak {
        lost: u32::MAX,
        unsent: u32::MAX,
        newer: BTreeMap::new(),
    };
    record.keys.cursor = u32::MAX;
    record.keys.refused = u32::MAX;
    let elsewhere = record.on_boot(&there(), now(310, 40), &rules()).unwrap();
    for (record, now) in [(record, at(300)), (elsewhere, now(310, 40))] {
        let record = record.clamped(now, &rules()).unwrap_or(record);
        let period = now.plus(33 * MINUTE);
        assert!(
            record
                .ledger
                .iter()
                .all(|slot| slot.frees_at.boot <= period.boot)
        );
        assert!(
            record
                .ledger
                .iter()
                .all(|slot| slot.reserved_at.boot <= now.boot)
        );
        let stamps = [
            record.not_before.unwrap(),
            record.claim.as_ref().unwrap().until,
            record.parked.as_ref().unwrap().retry_at,
            record.probation.as_ref().unwrap().until.unwrap(),
            record.hold_until.unwrap(),
            record.keys.retry_at.unwrap(),
            record.refused[0].retry_at,
        ];
        assert_eq!((record.refused.len(), record.tried.len()), (8, 8));
        assert!(stamps.iter().all(|at| at.boot <= period.boot), "{stamps:?}");
        assert!(record.token.as_ref().unwrap().expires_at.left(now) <= 60 * MINUTE);
        assert_eq!(record.clamped(now, &rules()), None);
        // Nothing that may be done to it panics.
        let asked = reservation(Class::Urgent, Trigger::Expiry);
        let (begun, attempt) = record.begin(&asked, now, &rules());
        for failure in [Failure::NotSent, Failure::Lost { answered: true }] {
            let _ = begun.abort(&attempt, &failure, now, &rules());
        }
        let refused = Failure::Refused {
            key_at_fault: true,
            keys: 2,
            reason: "x".into(),
        };
        let _ = begun.abort(&attempt, &refused, now, &rules());
    }
}

#[test]
fn a_ledger_of_a_hundred_thousand_slots_is_cut_to_those_that_matter() {
    let mut record = written();
    let slot = record.ledger[1].clone();
    record.ledger = (0..100_000)
        .map(|number| Slot {
            attempt: Generation(number),
            frees_at: at(2000 + number % 100),
            ..slot.clone()
        })
        .collect();
    let cut = record.clamped(at(300), &rules()).unwrap();
    assert!(cut.ledger.len() <= 1000);
    assert_eq!(
        cut.ledger
            .iter()
            .map(|slot| slot.frees_at)
            .max_by_key(|at| at.boot),
        Some(at(2099))
    );
    let merged = cut.merged_with(&cut, at(300), &rules());
    assert_eq!(merged.ledger.len(), cut.ledger.len());
}

#[test]
fn what_was_lost_is_merged_back_with_the_later_time_and_a_quarantine() {
    let held = written();
    let mut found = Record::new(
        "account",
        "other".into(),
        Absent::New,
        writer(400),
        &rules(),
    );
    let (begun, theirs) = begin(&found, 401);
    found = begun;
    let merged = found.merged_with(&held, at(410), &rules());
    let attempts: Vec<Generation> = merged.ledger.iter().map(|slot| slot.attempt).collect();
    assert_eq!(
        attempts,
        [
            held.ledger[0].attempt,
            held.ledger[1].attempt,
            theirs.generation
        ]
    );
    assert_eq!(merged.token, held.token);
    assert_eq!(
        (&merged.lineage[..], merged.revision),
        ("other", found.revision)
    );
    assert!(merged.generation > held.generation && merged.generation > found.generation);
    // Others may have allotted numbers that neither knows, beginning at a Unix second.
    let born = at(410).wall + SignedDuration::try_from(rules().skew).unwrap();
    assert!(merged.generation.0 > u64::try_from(born.as_second()).unwrap());
    assert!(left(merged.not_before.unwrap(), at(410)) >= 22);
    let until = |record: &Record| record.probation.as_ref().unwrap().until;
    assert_eq!(until(&merged), until(&found), "the longer probation holds");
    assert_eq!(merged.probation.as_ref().unwrap().at_once, 0);
    assert_eq!(left(merged.hold_until.unwrap(), at(410)), 22);
    assert_eq!((merged.claim, merged.streak.lost), (found.claim, 1));
}

#[test]
fn the_keys_that_were_tried_last_are_the_ones_that_stay_refused() {
    let parked = |fingerprint: &str, generation| Record {
        generation: Generation(generation),
        keys: KeyTrial {
            fingerprint: fingerprint.into(),
            cursor: 0,
            refused: 2,
            retry_at: None,
            newer: BTreeMap::new(),
        },
        parked: Some(Parked {
            since: at(300),
            retry_at: at(1200),
            reason: "refused".into(),
            newer: BTreeMap::new(),
        }),
        ..written()
    };
    let merged = |found: &Record, held: &Record| {
        let merged = found.merged_with(held, at(410), &rules());
        merged.keys.fingerprint
    };
    let (older, newer) = (parked("older", 20), parked("newer", 30));
    assert_eq!(
        merged(&newer, &older),
        "newer",
        "a process that stood still for long knows older keys"
    );
    assert_eq!(merged(&older, &newer), "newer");
    // Where the wall clock was set back, a new record's generations begin below those of the lost one.
    let mut parked_since = parked("new", 10);
    parked_since.parked.as_mut().unwrap().retry_at = at(1300);
    assert_eq!(merged(&parked_since, &newer), "new");
    assert_eq!(merged(&newer, &parked_since), "new");
    // A record that was just made has tried none, and its generation is the present second.
    let untried = parked("", 40);
    assert_eq!(merged(&untried, &newer), "newer");
}

#[test]
fn the_same_slot_counts_as_long_as_the_later_of_the_two_says() {
    let held = written();
    let mut found = held.clone();
    found.ledger[0].frees_at = at(1900);
    found.ledger[1].frees_at = at(2190);
    let merged = found.merged_with(&held, at(410), &rules());
    let frees: Vec<Stamp> = merged.ledger.iter().map(|slot| slot.frees_at).collect();
    assert_eq!(frees, [at(1921), at(2190)]);
}

#[test]
fn slots_of_one_number_and_two_holders_both_count() {
    let held = written();
    let mut found = held.clone();
    found.ledger[0].holder = "somebody else".into();
    assert_eq!(found.merged_with(&held, at(410), &rules()).ledger.len(), 3);
}

#[test]
fn an_older_copy_or_another_lineage_does_not_follow() {
    let held = Record {
        revision: 5,
        ..written()
    };
    let of = |revision, lineage: &str| Record {
        revision,
        lineage: lineage.into(),
        ..written()
    };
    let follows = |it: Record| it.follows(&held, &here(), at(400), &rules());
    assert!(follows(of(5, "lineage")) && follows(of(6, "lineage")));
    assert!(!follows(of(4, "lineage")) && !follows(of(9, "other")));
    assert_eq!(
        of(4, "lineage")
            .merged_with(&held, at(400), &rules())
            .revision,
        5
    );
}

#[test]
fn an_older_copy_that_caught_up_does_not_follow() {
    let held = written();
    let (older, _) = begin(&known(), 0);
    let (other, theirs) = begin(&held, 1000);
    let caught_up = [
        Record {
            revision: 9,
            ..older
        },
        Record {
            token: None,
            ..held.clone()
        },
        Record {
            ledger: held.ledger[..1].to_vec(),
            ..held.clone()
        },
        Record {
            generation: Generation(held.generation.0 - 1),
            ..held.clone()
        },
    ];
    for found in caught_up {
        assert!(
            !found.follows(&held, &here(), at(1001), &rules()),
            "{found:?}"
        );
    }
    let given_back = other.abort(&theirs, &Failure::NotSent, at(1001), &rules());
    assert!(given_back.follows(&other, &here(), at(1001), &rules()));
    let all_free = at(2180);
    assert!(
        begin(&held, 2180)
            .0
            .follows(&held, &here(), all_free, &rules())
    );
}

#[test]
fn a_slot_that_freed_a_little_earlier_on_another_boot_is_not_missed() {
    let held = written();
    let freed = Record {
        revision: 7,
        ledger: held.ledger[1..].to_vec(),
        ..held.clone()
    };
    let elsewhere = Record {
        written: Writer {
            boot_id: there(),
            ..freed.written.clone()
        },
        ..freed.clone()
    };
    // It counts until 1921 here, and until 90 s earlier at the most to anybody whose clock agrees within the skew.
    let follows = |it: &Record, now| it.follows(&held, &here(), at(now), &rules());
    assert!(follows(&elsewhere, 1835) && !follows(&elsewhere, 1825));
    assert!(follows(&freed, 1921) && !follows(&freed, 1920));
}

#[test]
fn a_number_that_was_allotted_twice_tells_an_older_copy_that_caught_up() {
    let (held, ours) = begin(&written(), 1000);
    let mut found = held.clone();
    found.revision = 9;
    let slot = found.ledger.last_mut().unwrap();
    assert_eq!(slot.attempt, ours.generation);
    slot.holder = "somebody else".into();
    assert!(!found.follows(&held, &here(), at(1001), &rules()));
    // Two that raced and were merged know of each other.
    let merged = found.merged_with(&held, at(1001), &rules());
    assert!(merged.follows(&merged, &here(), at(1002), &rules()));
}

#[test]
fn the_late_end_of_an_attempt_whose_slot_was_free_already_brings_no_number_back() {
    let (ours, first) = begin(&written(), 1000);
    // Somebody allots the same number, from an older copy, when the first slot is free again.
    let (mut found, theirs) = begin(&written(), 3000);
    found.ledger.last_mut().unwrap().holder = "somebody else".into();
    assert_eq!(first.generation, theirs.generation);
    let held = found.merged_with(&ours, at(3000), &rules());
    for answered in [false, true] {
        let mut late = held.abort(&first, &Failure::Lost { answered }, at(3001), &rules());
        assert_eq!(late.ledger, held.ledger);
        late.revision = held.revision + 1;
        assert!(late.follows(&held, &here(), at(3001), &rules()));
    }
}
