//! The format across versions: what was written by an older build is read, what a newer one adds is kept, and what a build in
//! between drops makes nothing freer.

use super::*;
use crate::keeper::schedule::{Situation, Wishes};
use proptest::prelude::*;
use serde_json::{Map, Value, json};

/// Written by the last build of format 1.0.
const GOLDEN: &str = include_str!("../../../tests/golden/records/1.0.json");

fn golden() -> Record {
    Record::parse(GOLDEN.as_bytes()).unwrap()
}

fn value_of(record: &Record) -> Value {
    serde_json::from_slice(&record.to_text()).unwrap()
}

fn parse(value: &Value) -> Result<Record, Unreadable> {
    Record::parse(value.to_string().as_bytes())
}

/// A moment at which every slot of the golden record counts.
fn then() -> Stamp {
    golden().written.at.plus(SECOND)
}

/// The record as a process of its own boot reads it.
fn read(record: &Record, now: Stamp) -> Record {
    let reader = Reader {
        holder: "somebody",
        boot_id: &record.written.boot_id,
        offsets: &[now.offset()],
    };
    record
        .read_by(&reader, now, &rules())
        .unwrap_or_else(|| record.clone())
}

/// When each wish may be granted, by this record.
fn earliest(record: &Record, now: Stamp) -> [Duration; 3] {
    let rules = rules();
    let situation = Situation {
        record,
        token: record.token.as_ref(),
        keys: &record.keys.fingerprint,
        rules: &rules,
        now,
    };
    let reported = record.token.as_ref().map(|token| token.generation);
    [
        Wishes::default(),
        Wishes {
            reported,
            operator: false,
        },
        Wishes {
            reported: None,
            operator: true,
        },
    ]
    .map(|wishes| situation.plan(wishes).at)
}

/// Every place in a document, as the keys that lead there.
fn places(value: &Value, at: &[String], found: &mut Vec<Vec<String>>) {
    let inside: Vec<(String, &Value)> = match value {
        Value::Object(fields) => fields.iter().map(|(key, it)| (key.clone(), it)).collect(),
        Value::Array(items) => {
            let items = items.iter().enumerate();
            items.map(|(index, it)| (index.to_string(), it)).collect()
        }
        _ => Vec::new(),
    };
    for (key, it) in inside {
        let here = [at, &[key]].concat();
        found.push(here.clone());
        places(it, &here, found);
    }
}

fn pointer(place: &[String]) -> String {
    place.iter().map(|key| format!("/{key}")).collect()
}

#[test]
fn the_golden_record_of_format_1_0_is_read_and_written_without_loss() {
    let record = golden();
    assert!(record.parked.is_some() && record.claim.is_some() && record.probation.is_some());
    assert_eq!((record.format, record.ledger.len()), ((1, 0), 10));
    let written: Value = serde_json::from_str(GOLDEN).unwrap();
    assert_eq!(value_of(&record), written);
    // On the same boot nothing of it frees sooner than the last build of 1.0 would have let it.
    let read = read(&record, then());
    for (was, is) in record.ledger.iter().zip(&read.ledger) {
        assert!(is.frees_at.boot >= was.frees_at.boot);
        assert!(is.frees_at.boot <= was.frees_at.boot + MINUTE);
    }
    for (was, is) in earliest(&record, then())
        .iter()
        .zip(earliest(&read, then()))
    {
        assert!(is >= *was);
    }
}

#[test]
fn a_record_of_this_format_keeps_every_name() {
    let mut record = read(&golden(), then());
    record.format = FORMAT;
    let refused = Failure::Refused {
        key_at_fault: true,
        keys: 2,
        reason: "no".into(),
    };
    record = record.abort(&attempt_of(&record, 9), &refused, then(), &rules());
    record.claim = golden().claim;
    record.refused[0].cursor = 1;
    record.tried = vec!["set".into()];
    record.hold_until = Some(then());
    record.keys.retry_at = Some(then());
    record.probation.as_mut().unwrap().at_once = 2;
    let other = BootId::new("elsewhere");
    let record = record.on_boot(&other, then(), &rules()).unwrap();
    let mut names = Vec::new();
    places(&value_of(&record), &[], &mut names);
    let mut names: Vec<String> = names
        .iter()
        .map(|place| {
            let plain = |key: &String| match key.parse::<usize>() {
                Ok(_) => "*".to_owned(),
                Err(_) => key.clone(),
            };
            place.iter().map(plain).collect::<Vec<_>>().join(".")
        })
        .collect();
    names.sort();
    names.dedup();
    let golden = include_str!("../../../tests/golden/records/1.1.names");
    assert_eq!(names.join("\n"), golden.trim_end());
}

#[test]
fn a_field_that_is_missing_or_unreadable_never_lets_more_be_spent() {
    let whole: Value = serde_json::from_str(GOLDEN).unwrap();
    let now = then();
    let allowed = earliest(&read(&golden(), now), now);
    let mut all = Vec::new();
    places(&whole, &[], &mut all);
    let fields = all
        .iter()
        .filter(|place| place.last().unwrap().parse::<usize>().is_err());
    let mut tried = 0;
    for place in fields {
        tried += 1;
        let (name, folder) = place.split_last().unwrap();
        let mut lacking = whole.clone();
        let object = lacking
            .pointer_mut(&pointer(folder))
            .unwrap()
            .as_object_mut()
            .unwrap();
        object.remove(name);
        assert!(
            matches!(parse(&lacking), Err(Unreadable::Torn { .. })),
            "{place:?}"
        );
        for odd in [
            json!([[]]),
            json!(-1),
            json!({"a": 1}),
            json!("?"),
            json!(1e300),
        ] {
            let mut spoiled = whole.clone();
            *spoiled.pointer_mut(&pointer(place)).unwrap() = odd.clone();
            let Ok(record) = parse(&spoiled) else {
                continue;
            };
            // Words that only people read, and those that a later version may use.
            let read = read(&record, now);
            for (was, is) in allowed.iter().zip(earliest(&read, now)) {
                assert!(is >= *was, "{place:?} = {odd}");
            }
        }
    }
    assert!(tried > 100, "{tried}");
}

/// What a later version adds, wherever it may.
fn with_additions(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            let stamp = fields.contains_key("boot_ns");
            // The writer's own name is written anew by every writer, and a time is two numbers.
            let skipped = stamp || fields.contains_key("boot_id") || fields.contains_key("secret");
            for (_, inside) in fields.iter_mut() {
                with_additions(inside);
            }
            if !skipped {
                fields.insert("later".into(), json!({"a": [1, null, "x"]}));
            }
        }
        Value::Array(items) => items.iter_mut().for_each(with_additions),
        _ => {}
    }
}

#[test]
fn what_a_later_version_adds_is_kept_at_every_swap() {
    let mut value: Value = serde_json::from_str(GOLDEN).unwrap();
    with_additions(&mut value);
    let slot = |value: &mut Value, at: usize, key: &str, word: &str| {
        value["ledger"][at][key] = json!(word);
    };
    slot(&mut value, 0, "outcome", "evaporated");
    slot(&mut value, 1, "trigger", "full_moon");
    slot(&mut value, 2, "class", "ceremonial");
    let record = parse(&value).unwrap();
    assert_eq!(value_of(&record), value, "parsed and written again");
    // A slot of a class that is not known counts against every class.
    assert_eq!(record.spent()[2].class, Class::Reported);
    let rules = rules();
    let now = then();
    let asked = reservation(Class::Urgent, Trigger::Expiry);
    let (begun, attempt) = record.begin(&asked, now, &rules);
    let lost = begun.abort(&attempt, &Failure::Lost { answered: true }, now, &rules);
    let elsewhere = lost
        .on_boot(&BootId::new("x"), now.plus(SECOND), &rules)
        .unwrap();
    for next in [begun, lost, elsewhere] {
        let written = value_of(&next);
        for at in 0..10 {
            let mut was = value["ledger"][at].clone();
            let is = &written["ledger"][at];
            for key in ["frees_at", "reserved_at"] {
                was.as_object_mut().unwrap().remove(key);
            }
            for (key, kept) in was.as_object().unwrap() {
                assert_eq!(&is[key], kept, "slot {at}: {key}");
            }
        }
        for key in ["parked", "probation", "streak"] {
            assert_eq!(written[key]["later"], value[key]["later"], "{key}");
        }
        assert_eq!(written["later"], value["later"]);
    }
    let again = record.abort(
        &attempt_of(&record, 9),
        &Failure::Refused {
            key_at_fault: false,
            keys: 1,
            reason: "no".into(),
        },
        now,
        &rules,
    );
    let (slot, parked) = (&value_of(&again)["ledger"][9], &value_of(&again)["parked"]);
    assert_eq!(slot["later"], value["ledger"][9]["later"]);
    assert_eq!(slot["outcome"], "refused");
    assert_eq!(parked["later"], value["parked"]["later"]);
}

/// The attempt that took this slot.
fn attempt_of(record: &Record, at: usize) -> Attempt {
    let slot = &record.ledger[at];
    Attempt {
        generation: slot.attempt,
        holder: slot.holder.clone(),
        class: slot.class,
        trigger: slot.trigger,
        key: 0,
        reserved_at: slot.reserved_at,
        jitter: 1000,
        taken: Taken::default(),
    }
}

/// What the last build of format 1.0 makes of a document when it writes it again: it keeps what it does not know at the top, drops
/// it everywhere else, and takes words that it does not know for "other".
fn by_format_1_0(value: &Value) -> Value {
    let known: Value = serde_json::from_str(GOLDEN).unwrap();
    fn only_known(value: &mut Value, known: &Value, top: bool) {
        match (value, known) {
            (Value::Object(fields), Value::Object(known)) => {
                fields.retain(|key, _| top || known.contains_key(key));
                for (key, it) in fields.iter_mut() {
                    if let Some(known) = known.get(key) {
                        only_known(it, known, false);
                    }
                }
            }
            (Value::Array(items), Value::Array(known)) => {
                for it in items {
                    only_known(it, &known[0], false);
                }
            }
            _ => {}
        }
    }
    let mut value = value.clone();
    only_known(&mut value, &known, true);
    let word = |fields: &mut Map<String, Value>, key: &str, known: &[&str]| {
        if !known.contains(&fields[key].as_str().unwrap()) {
            fields[key] = json!("other");
        }
    };
    for slot in value["ledger"].as_array_mut().unwrap() {
        let slot = slot.as_object_mut().unwrap();
        word(
            slot,
            "outcome",
            &["begun", "minted", "lost", "throttled", "refused"],
        );
        let triggers = [
            "first_token",
            "schedule",
            "expiry",
            "report",
            "operator",
            "parked",
        ];
        word(slot, "trigger", &triggers);
    }
    value
}

fn frees(record: &Record) -> Vec<Duration> {
    record
        .ledger
        .iter()
        .map(|slot| slot.frees_at.boot)
        .collect()
}

#[test]
fn an_older_build_in_between_makes_nothing_freer() {
    let now = then();
    let new = {
        let record = read(&golden(), now);
        let (begun, _) = record.begin(&reservation(Class::Urgent, Trigger::Expiry), now, &rules());
        Record {
            format: FORMAT,
            written: Writer {
                at: now,
                ..begun.written.clone()
            },
            ..begun
        }
    };
    // Upgrade, rollback, upgrade again on one boot: the old build writes what it knows.
    let rolled_back = parse(&by_format_1_0(&value_of(&new))).unwrap();
    assert_eq!(
        rolled_back.format, FORMAT,
        "the old build leaves the format's name as it is"
    );
    assert!(rolled_back.ledger.iter().all(|slot| slot.lengths.is_none()));
    let again = read(&rolled_back, now);
    for (was, is) in frees(&new).iter().zip(frees(&again)) {
        assert!(is >= *was);
    }
    for (was, is) in earliest(&new, now).iter().zip(earliest(&again, now)) {
        assert!(is >= *was);
    }
    // The lengths and the skew of what another boot brought here are forgotten: they are added again.
    let later = Stamp {
        boot: 77 * SECOND,
        ..now.plus(SECOND)
    };
    let moved = new.on_boot(&BootId::new("there"), later, &rules()).unwrap();
    let moved = Record {
        written: Writer {
            boot_id: BootId::new("there"),
            at: later,
            ..new.written.clone()
        },
        ..moved
    };
    let back = parse(&by_format_1_0(&value_of(&moved))).unwrap();
    let end = Stamp {
        boot: 99 * SECOND,
        ..now.plus(2 * SECOND)
    };
    let kept = moved.on_boot(&here(), end, &rules()).unwrap();
    let dropped = back.on_boot(&here(), end, &rules()).unwrap();
    for (kept, dropped) in frees(&kept).iter().zip(frees(&dropped)) {
        assert!(dropped >= *kept);
    }
    let token = |record: &Record| record.token.as_ref().unwrap().expires_at.left(end);
    assert!(token(&dropped) <= token(&kept));
}

fn here() -> BootId {
    BootId::new("here")
}

proptest! {
    /// Two versions on one folder in turn: the guard is at least as strict as without the old one in between.
    #[test]
    fn versions_in_turn_are_never_more_generous(old in proptest::collection::vec(any::<bool>(), 1..12), pause in 1u64..400) {
        let rules = rules();
        let mut mixed = read(&golden(), then());
        let mut alone = mixed.clone();
        let mut now = then();
        for old in old {
            now = now.plus(Duration::from_secs(pause));
            let asked = reservation(Class::Urgent, Trigger::Expiry);
            let step = |record: &Record| {
                let (begun, _) = record.begin(&asked, now, &rules);
                Record { written: Writer { at: now, ..begun.written.clone() }, ..begun }
            };
            (mixed, alone) = (step(&mixed), step(&alone));
            if old {
                mixed = parse(&by_format_1_0(&value_of(&mixed))).unwrap();
            }
            let (mixed, alone) = (read(&mixed, now), read(&alone, now));
            prop_assert!(frees(&mixed).iter().zip(frees(&alone)).all(|(mixed, alone)| *mixed >= alone));
            for (mixed, alone) in earliest(&mixed, now).iter().zip(earliest(&alone, now)) {
                prop_assert!(*mixed >= alone);
            }
        }
    }
}
