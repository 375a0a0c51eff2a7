use super::*;

/// What a register holds once an operator's record was written there.
fn written_by_hand(record: Record, held: &Record) -> Record {
    Record {
        revision: held.revision + 1,
        written: Writer {
            holder: "operator-1".into(),
            ..writer(300)
        },
        ..record
    }
}

fn free(record: &Record, second: u64) -> u32 {
    let (spent, now) = (record.spent(), at(second).boot);
    rules().budget.free(&spent, Class::Urgent, now)
}

fn follows(found: &Record, held: &Record) -> bool {
    found.follows(held, &BootId::new("here"), at(300), &rules())
}

#[test]
fn spent_slots_count_for_a_period_and_whoever_held_the_record_follows_it() {
    let held = lived();
    let spent = held.spent_by_hand(3, "operator-1", at(300), &rules());
    assert_eq!((free(&held, 300), free(&spent, 300)), (8, 5));
    assert!(follows(&written_by_hand(spent.clone(), &held), &held));
    let by_hand: Vec<&Slot> = spent
        .ledger
        .iter()
        .filter(|slot| slot.trigger == Trigger::Operator)
        .collect();
    assert_eq!(by_hand.len(), 3);
    for (slot, next) in by_hand.iter().zip(1..) {
        assert_eq!(slot.attempt, Generation(held.generation.0 + next));
        assert_eq!(
            (slot.holder.as_str(), slot.frees_at),
            ("operator-1", at(300 + 33 * 60))
        );
    }
    assert_eq!(spent.generation, by_hand[2].attempt);
    // The slots of before have freed themselves by then; these go a period after they were spent.
    assert_eq!(free(&spent, 300 + 33 * 60 - 1), 7);
    assert_eq!(free(&spent, 300 + 33 * 60), 10);
}

#[test]
fn the_token_of_an_attempt_that_was_under_way_is_kept_beside_what_was_spent() {
    let held = lived();
    let (begun, attempt) = begin(&held, 290);
    let spent = written_by_hand(
        begun.spent_by_hand(2, "operator-1", at(300), &rules()),
        &begun,
    );
    assert!(follows(&spent, &begun));
    let token = token(&attempt, 290);
    let ended = spent.commit(&attempt, &token, at(301), at(301), &rules());
    assert_eq!(ended.token, Some(token));
    assert_eq!(ended.ledger.len(), begun.ledger.len() + 2);
    assert_eq!(free(&ended, 301), free(&begun, 301) - 2);
    assert!(ended.claim.is_none() && ended.generation == spent.generation);
}

#[test]
fn what_is_spent_by_hand_outlives_a_lost_record() {
    let held = lived().spent_by_hand(4, "operator-1", at(300), &rules());
    let fresh = Record {
        lineage: "another".into(),
        ..known()
    };
    let merged = fresh.merged_with(&held, at(310), &rules());
    assert_eq!(free(&merged, 310), free(&held, 310));
}

#[test]
fn an_emptied_record_is_a_loss_to_whoever_holds_the_ledger() {
    let (held, _) = begin(&lived(), 290);
    let emptied = written_by_hand(held.emptied(), &held);
    assert_eq!(free(&emptied, 300), 10);
    assert!(emptied.claim.is_none() && emptied.not_before.is_none());
    assert_eq!(
        (&emptied.token, &emptied.lineage),
        (&held.token, &held.lineage)
    );
    assert!(!follows(&emptied, &held));
    let merged = emptied.merged_with(&held, at(300), &rules());
    assert_eq!(free(&merged, 300), free(&held, 300));
}

fn refused(record: &Record, second: u64, keys: u32) -> Record {
    let (begun, attempt) = begin(record, second);
    let failure = Failure::Refused {
        key_at_fault: true,
        keys,
        reason: "401".into(),
    };
    begun.abort(&attempt, &failure, at(second + 1), &rules())
}

#[test]
fn an_unparked_record_follows_and_every_key_is_tried_anew() {
    let parked = refused(&refused(&known(), 0, 2), 10, 2);
    assert!(parked.parked.is_some());
    let unparked = parked.unparked().unwrap();
    assert_eq!(unparked.parked, None);
    assert_eq!(unparked.ledger, parked.ledger, "no slot is given back");
    assert!(follows(
        &written_by_hand(unparked.clone(), &parked),
        &parked
    ));
    let once = refused(&unparked, 300, 2);
    assert_eq!(once.parked, None, "one key is left");
    assert!(refused(&once, 310, 2).parked.is_some());
    assert_eq!(unparked.unparked(), None);
}

#[test]
fn a_wait_that_the_issuer_asked_for_outlives_unparking() {
    let parked = refused(&known(), 0, 1);
    let (begun, attempt) = begin(&parked, 20 * 60);
    let wish = Some(5 * MINUTE);
    let failure = Failure::Throttled { retry_after: wish };
    let throttled = begun.abort(&attempt, &failure, at(20 * 60 + 1), &rules());
    let unparked = throttled.unparked().unwrap();
    assert_eq!(unparked.not_before, throttled.not_before);
    assert!(unparked.not_before.is_some());
}
