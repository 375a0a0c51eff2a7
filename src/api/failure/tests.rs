use super::*;

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use crate::caller::rule::Right;
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
            since: now(),
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

fn denials() -> [Denial; Denial::WORDS.len()] {
    let caller: Arc<str> = "orders".into();
    let right = Right::Report;
    [
        Denial::UnknownCaller,
        Denial::NotPermitted {
            caller: caller.clone(),
            right,
        },
        Denial::RateLimited {
            caller: Some(caller.clone()),
            retry_after: 3,
        },
        Denial::TooManyStreams { caller, most: 100 },
    ]
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
        Failure::BadWait,
        Failure::NotGrpc,
        Failure::UnknownCall,
        Failure::UnknownService,
        Failure::Compressed,
        Failure::BadMessage,
        Failure::Deadline,
    ];
    all.extend(Refusal::ALL.map(Failure::Refused));
    all.extend(denials().map(Failure::Denied));
    all
}

/// A new failure must find its place here, and so in [`all`].
fn place(failure: &Failure) -> usize {
    match failure {
        Failure::NoTokenYet(_) => 0,
        Failure::Expired(_) => 1,
        Failure::Draining => 2,
        Failure::NotFound => 3,
        Failure::WrongMethod { .. } => 4,
        Failure::NotAcceptable => 5,
        Failure::NotJson => 6,
        Failure::TooLong => 7,
        Failure::TooSlow => 8,
        Failure::BadReport(_) => 9,
        Failure::BadWait => 10,
        Failure::NotGrpc => 11,
        Failure::UnknownCall => 12,
        Failure::UnknownService => 13,
        Failure::Compressed => 14,
        Failure::BadMessage => 15,
        Failure::Deadline => 16,
        Failure::Refused(refusal) => 17 + *refusal as usize,
        Failure::Denied(denial) => {
            let place = denials().iter().position(|it| it.word() == denial.word());
            17 + Refusal::ALL.len() + place.unwrap()
        }
    }
}

#[test]
fn every_failure_has_a_status_a_code_and_a_word() {
    for (index, failure) in all().iter().enumerate() {
        assert_eq!(place(failure), index, "{failure:?}");
        let problem = failure.problem();
        assert!(problem.status.is_client_error() || problem.status.is_server_error());
        let word = failure.word();
        assert!(!word.is_empty() && word.bytes().all(|it| it.is_ascii_lowercase() || it == b'_'));
        assert_eq!(problem.word, word);

        let status = failure.status();
        assert_ne!(status.code(), Code::Ok);
        assert!(status.message().starts_with(problem.title), "{status:?}");
        assert!(status.message().ends_with(&*problem.detail), "{status:?}");
        let details = status.get_error_details();
        let info = details.error_info().unwrap();
        assert_eq!(info.reason, word.to_uppercase());
        assert_eq!(info.domain, "bearerd");
        let retry = details.retry_info().map(|it| it.retry_delay.unwrap());
        assert_eq!(retry, problem.retry_after.map(Duration::from_secs));
    }
}

/// A caller may try again what says UNAVAILABLE, and nothing else; over HTTP that is 503.
#[test]
fn both_protocols_agree_on_what_time_helps() {
    for failure in all() {
        let unavailable = failure.problem().status == StatusCode::SERVICE_UNAVAILABLE;
        assert_eq!(
            failure.status().code() == Code::Unavailable,
            unavailable,
            "{failure:?}"
        );
    }
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
        let status = failure.status();
        let details = status.get_error_details();
        let reason = &details.error_info().unwrap().reason;
        written += &format!("grpc {:?} {reason}", status.code());
        if let Some(retry) = details.retry_info().and_then(|it| it.retry_delay) {
            written += &format!(" retry={}", retry.as_secs());
        }
        written += "\n";
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
