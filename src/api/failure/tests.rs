use super::*;

use std::time::Duration;

use jiff::Timestamp;

use crate::token::Generation;
use crate::vend::status::{NextStatus, ParkedStatus, RegisterStatus, Trouble};

fn now() -> Stamp {
    Stamp {
        wall: Timestamp::from_second(1_800_000_000).unwrap(),
        boot: Duration::from_secs(1_000),
    }
}

fn troubled() -> Status {
    Status {
        parked: Some(ParkedStatus {
            since: now().wall,
            reason: "403 Forbidden: \"key revoked\"".into(),
        }),
        trouble: Some(Trouble {
            code: "refused",
            detail: "the issuer answered 403".into(),
        }),
        register: RegisterStatus {
            kind: "file",
            up: false,
            detail: Some("no space left on device".into()),
            moved_aside: None,
        },
        next: Some(NextStatus {
            at: now().plus(Duration::from_millis(900_100)),
            class: "routine",
            trigger: "schedule",
            waiting_for: "parked",
        }),
        ..Status::default()
    }
}

/// One of each.
fn all() -> Vec<Failure> {
    let mut all = vec![
        Failure::unavailable(Unavailable::NoTokenYet, &Status::default(), now()),
        Failure::unavailable(Unavailable::Expired, &troubled(), now()),
        Failure::Draining,
        Failure::NotFound,
        Failure::WrongMethod { allow: "GET, HEAD" },
        Failure::NotAcceptable,
        Failure::NotJson,
        Failure::TooLong,
        Failure::TooSlow,
        Failure::BadReport("the report ended early".into()),
    ];
    all.extend(Refusal::ALL.map(Failure::Refused));
    all
}

#[test]
fn the_problems_are_the_documented_ones() {
    let mut written = String::new();
    for failure in all() {
        let problem = failure.problem();
        let response = failure.response();
        written += &format!("{}", response.status().as_u16());
        for name in ["content-type", "cache-control", "retry-after", "allow"] {
            if let Some(value) = response.headers().get(name) {
                written += &format!(" {name}={}", value.to_str().unwrap());
            }
        }
        written += "\n";
        written += std::str::from_utf8(&problem.body()).unwrap();
    }
    let documented = include_str!("../../../tests/golden/api_problems.txt");
    assert_eq!(written, documented, "\n{written}");
}

#[test]
fn no_two_failures_share_a_word() {
    let mut words: Vec<_> = all().iter().map(Failure::word).collect();
    let number = words.len();
    words.sort_unstable();
    words.dedup();
    assert_eq!(words.len(), number);
}

#[test]
fn time_helps_as_far_as_the_keeper_knows() {
    let retry_after = |status: &Status| Outlook::new(status, now()).retry_after;
    assert_eq!(retry_after(&Status::default()), None);
    let mut status = troubled();
    assert_eq!(retry_after(&status), Some(901));
    status.next.as_mut().unwrap().at = now();
    assert_eq!(retry_after(&status), Some(1));
    status.minting = Some(Generation(7));
    assert_eq!(retry_after(&status), Some(1));
}
