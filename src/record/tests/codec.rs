use super::*;
use crate::record::codec::Unreadable;

#[test]
fn what_is_written_is_read_back() {
    let (mut record, attempt) = begin(&lived(), 1000);
    let refused = Failure::Refused {
        key_at_fault: false,
        keys: 1,
        reason: "\"no\"\n".into(),
    };
    assert_eq!(Record::parse(&record.to_text()), Ok(record.clone()));
    record = record.abort(&attempt, &refused, at(1001), &rules());
    record.probation = Some(Probation {
        until: None,
        period: None,
        at_once: 0,
        newer: BTreeMap::new(),
    });
    assert_eq!(Record::parse(&record.to_text()), Ok(record));
}

#[test]
fn fields_of_a_newer_minor_format_are_kept() {
    let text = String::from_utf8(lived().to_text().to_vec()).unwrap();
    let text = text.replacen("\"1.1\"", "\"1.7\"", 1);
    let text = text.replacen('{', "{\"hue\": {\"a\": [1, null]}, ", 1);
    let text = text.replace("\"outcome\": \"lost\"", "\"outcome\": \"evaporated\"");
    let record = Record::parse(text.as_bytes()).unwrap();
    assert_eq!(
        (record.format, record.ledger[1].outcome),
        ((1, 7), Outcome::Other)
    );
    let (next, _) = begin(&record, 1000);
    let again = Record::parse(&next.to_text()).unwrap();
    assert_eq!(again.newer["hue"], serde_json::json!({"a": [1, null]}));
    assert_eq!(again.format, (1, 7));
}

#[test]
fn a_number_of_a_newer_format_is_kept_to_its_last_bit() {
    let text = String::from_utf8(lived().to_text().to_vec()).unwrap();
    let text = text.replacen('{', "{\"hue\": 5.9604644775390625e-8, ", 1);
    let record = Record::parse(text.as_bytes()).unwrap();
    assert_eq!(record.newer["hue"].as_f64(), Some(f64::powi(2.0, -24)));
    assert_eq!(Record::parse(&record.to_text()), Ok(record));
}

#[test]
fn a_token_that_no_issuer_gave_is_dropped_and_its_slots_are_kept() {
    let long = "x".repeat(8193);
    for odd in ["", "two words", "line\nend", "t\u{f6}ken", &long] {
        let mut record = lived();
        record.token.as_mut().unwrap().secret = Secret::new(odd.into());
        let read = Record::parse(&record.to_text()).unwrap();
        assert_eq!(read.token, None, "{odd:?}");
        assert_eq!(
            (read.ledger, read.generation),
            (record.ledger, record.generation)
        );
    }
}

#[test]
fn a_newer_major_format_is_refused_whatever_else_it_holds() {
    let text = String::from_utf8(lived().to_text().to_vec()).unwrap();
    let newer = |text: &str| Record::parse(text.as_bytes()).unwrap_err();
    let found = Unreadable::NewerFormat {
        found: "2.0".into(),
    };
    assert_eq!(newer(&text.replacen("1.1", "2.0", 1)), found);
    assert_eq!(newer("{\"format\": \"2.0\", \"ledger\": 7}"), found);
}

#[test]
fn a_text_cut_anywhere_is_torn_and_shows_no_secret() {
    let text = lived().to_text();
    let whole = text.len() - 1;
    for length in 0..whole {
        match Record::parse(&text[..length]) {
            Err(Unreadable::Torn { why }) => assert!(!why.contains("secret-"), "{why}"),
            other => panic!("cut at {length}: {other:?}"),
        }
    }
    assert!(
        Record::parse(&text[..whole]).is_ok(),
        "only the line's end is missing"
    );
}

#[test]
fn a_text_with_one_changed_byte_is_no_panic_and_shows_no_secret() {
    let text = lived().to_text();
    for at in 0..text.len() {
        for byte in [0, b'"', b'9', b'}', 0xff] {
            let mut changed = text.to_vec();
            changed[at] = byte;
            if let Err(error) = Record::parse(&changed) {
                assert!(!error.to_string().contains("secret-"), "{error}");
            }
        }
    }
}

#[test]
fn numbers_that_would_overflow_are_no_record() {
    let changed = |change: fn(&mut Record)| {
        let mut record = lived();
        change(&mut record);
        Record::parse(&record.to_text())
    };
    let changes: [fn(&mut Record); 4] = [
        |record| record.generation = Generation(u64::MAX),
        |record| record.revision = u64::MAX,
        |record| record.ledger[0].attempt = Generation(u64::MAX),
        |record| record.token.as_mut().unwrap().generation = Generation(u64::MAX),
    ];
    for change in changes {
        assert!(matches!(changed(change), Err(Unreadable::Torn { .. })));
    }
}
