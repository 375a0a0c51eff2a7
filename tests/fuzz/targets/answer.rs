//! The upstream's answer: `status took_ms lifetime_s`, header lines, an empty line, the body.
//!
//! Whatever it is, it becomes a token only where it may, never one that outlives the truth, and never a text with a key in it.
//! What the keeper then writes can be read again.

use std::num::NonZeroU32;
use std::time::Duration;

use bearerd::clock::{BootId, Stamp};
use bearerd::issuer::truecaller::{Journey, Response, judge};
use bearerd::issuer::{Answer, Key, Minted};
use bearerd::keeper::{Input, Keeper, Output, Settings};
use bearerd::record::{Absent, Loaded, Record, Rules, Swapped, Version, Wanted};
use bearerd::token::Secret;
use jiff::Timestamp;
use jiff::fmt::rfc2822::DateTimeParser;
use reqwest::StatusCode;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use serde_json::Value;
use zeroize::Zeroizing;

const KEY_ID: &str = "key-id-5e0c2a7d";
const API_KEY: &str = "api-key-93b14f6e";

/// What a text can hold only if it holds a token.
const PLANTED: &str = "planted-5e0c2a7d93b14f6e8a2d";

/// What was sent to the judge, as the assertions read it.
struct Asked {
    status: u16,
    headers: HeaderMap,
    body: Vec<u8>,
    journey: Journey,
    lifetime: Duration,
}

pub fn answer(data: &[u8]) {
    let Some(asked) = read(data) else { return };
    let key = Key {
        key_id: Secret::new(KEY_ID.into()),
        api_key: Secret::new(API_KEY.into()),
    };
    let response = Response {
        status: StatusCode::from_u16(asked.status).unwrap(),
        headers: asked.headers.clone(),
        body: Zeroizing::new(asked.body.clone()),
    };
    let answer = judge(&response, asked.journey, &key, asked.lifetime);
    let success = (200..300).contains(&asked.status);
    match &answer {
        Answer::Minted(minted) => {
            assert!(success, "a token out of a {}", asked.status);
            is_a_token(&asked, minted);
        }
        Answer::Lost { answered, detail } => {
            assert!(
                *answered
                    && (success || [408, 425].contains(&asked.status) || asked.status / 100 == 5)
            );
            is_fit_to_show(detail);
        }
        Answer::Intermediary { detail } => {
            assert_ne!(asked.status, 429);
            is_fit_to_show(detail);
        }
        Answer::Throttled { detail, .. } => {
            assert_eq!(asked.status, 429);
            is_fit_to_show(detail);
        }
        Answer::Refused {
            key_at_fault,
            detail,
        } => {
            assert!([400, 401, 403, 404].contains(&asked.status));
            assert_eq!(*key_at_fault, [401, 403].contains(&asked.status));
            is_fit_to_show(detail);
        }
        Answer::NotSent { .. } => panic!("what was answered was sent"),
    }
    is_written_as_it_is_meant(&asked, answer);
}

fn read(data: &[u8]) -> Option<Asked> {
    let (head, body) = super::cut(data, b"\n\n");
    let mut lines = head.split(|&byte| byte == b'\n');
    let mut numbers = std::str::from_utf8(lines.next()?).ok()?.split(' ');
    let status = numbers
        .next()?
        .parse()
        .ok()
        .filter(|it| (100..1000).contains(it))?;
    let took = Duration::from_millis(numbers.next()?.parse::<u32>().ok()?.into());
    let lifetime = Duration::from_secs(
        numbers
            .next()?
            .parse()
            .ok()
            .filter(|it| (1..=2_592_000).contains(it))?,
    );
    let mut headers = HeaderMap::new();
    for line in lines.take(8) {
        let (name, value) = super::cut(line, b": ");
        headers.append(
            HeaderName::from_bytes(name).ok()?,
            HeaderValue::from_bytes(value).ok()?,
        );
    }
    let sent_at = Stamp {
        wall: "2025-07-10T06:59:05Z".parse().unwrap(),
        boot: Duration::from_secs(100_000),
    };
    Some(Asked {
        status,
        headers,
        body: body.to_vec(),
        journey: Journey {
            sent_at,
            answered_at: sent_at.plus(took),
        },
        lifetime,
    })
}

fn is_a_token(asked: &Asked, minted: &Minted) {
    let secret = minted.secret.expose();
    assert!(
        !secret.is_empty()
            && secret.len() <= 8192
            && secret.bytes().all(|byte| byte.is_ascii_graphic())
    );
    // Fields that are not known may hold anything.
    let document: Value = serde_json::from_str(&String::from_utf8_lossy(&asked.body))
        .expect("only JSON holds a token");
    assert_eq!(document["token"], secret);
    assert_eq!(minted.sent_at, asked.journey.sent_at);
    if let Some(note) = &minted.note {
        is_fit_to_show(note);
    }
    // What the issuer's own clock says of the token's age.
    let date = asked.headers.get("date").and_then(|it| it.to_str().ok());
    let date = date.and_then(|it| DateTimeParser::new().parse_timestamp(it).ok());
    let created: Option<Timestamp> = document["created_at"]
        .as_str()
        .and_then(|it| it.parse().ok());
    let age = date
        .zip(created)
        .and_then(|(date, created)| Duration::try_from(date.duration_since(created)).ok());
    let took = asked.journey.answered_at.boot - asked.journey.sent_at.boot;
    match age.filter(|age| *age < asked.lifetime) {
        Some(age) if age > took + Duration::from_secs(5) => {
            assert!(minted.aged >= age && minted.aged <= age + Duration::from_secs(1));
        }
        _ => assert_eq!(minted.aged, Duration::ZERO),
    }
    let apart = date.is_none() || created.is_none() || age.is_some_and(|age| age >= asked.lifetime);
    assert!(!apart || minted.note.is_some(), "an odd answer is noted");
}

/// One short line without a key.
fn is_fit_to_show(text: &str) {
    // What the issuer or an intermediary said, and what to look at.
    assert!(text.chars().count() <= 3 + 2 * (3 + 200) + 150, "{text}");
    assert!(!text.chars().any(char::is_control), "{text:?}");
    assert!(!text.contains(KEY_ID) && !text.contains(API_KEY), "{text}");
}

/// Gives the answer to a keeper that waits for it, and looks at what it writes and publishes.
fn is_written_as_it_is_meant(asked: &Asked, answer: Answer) {
    let window = (asked.lifetime / 2).min(Duration::from_secs(1800));
    let rules = Rules::new(&Wanted::new(
        asked.lifetime,
        window,
        NonZeroU32::new(10).unwrap(),
    ));
    let secret = match &answer {
        Answer::Minted(minted) => Some(minted.secret.expose().to_owned()),
        _ => None,
    };
    let mut keeper = minting(rules.clone(), asked.journey.sent_at);
    let mut outputs = Vec::new();
    let now = asked.journey.answered_at;
    keeper.step(now, Input::Minted(answer), &mut outputs);
    let later = now.plus(Duration::from_millis(250));
    keeper.step(later, Input::Tick, &mut outputs);
    let end = asked.journey.sent_at.plus(asked.lifetime);
    for output in &outputs {
        match output {
            Output::Swap { next, .. } => {
                assert_eq!(Record::parse(&next.to_text()).as_ref(), Ok(&**next));
                if let Some(token) = &next.token {
                    assert!(token.expires_at.boot <= end.boot && token.expires_at.wall <= end.wall);
                }
            }
            Output::Publish { token, .. } => {
                assert_eq!(Some(token.secret.expose()), secret.as_deref());
                assert!(
                    !token.expired(now)
                        && token.expires_at.boot <= end.boot
                        && token.expires_at.wall <= end.wall
                );
            }
            _ => {}
        }
    }
    if secret.is_some_and(|secret| secret.contains(PLANTED)) {
        let told = format!("{outputs:?} {:?} {keeper:?}", keeper.status(later, "file"));
        assert!(!told.contains(PLANTED), "a token is never shown");
    }
}

/// A keeper whose first request is out.
fn minting(rules: Rules, now: Stamp) -> Keeper {
    let settings = Settings {
        account: "acct-1".into(),
        rules,
        absent: Absent::New,
        holder: "holder".into(),
        boot_id: BootId::new("boot"),
        short_lead: false,
    };
    let mut keeper = Keeper::new(settings, 1);
    let mut outputs = Vec::new();
    let keys = Input::Keys {
        fingerprint: "keys".into(),
        count: 2,
    };
    let nothing = Loaded {
        found: None,
        moved_aside: None,
    };
    let done = || Input::Swapped(Swapped::Done(Version(vec![1])));
    for input in [keys, Input::Loaded(Ok(nothing)), done(), done()] {
        keeper.step(now, input, &mut outputs);
    }
    assert!(
        matches!(outputs.last(), Some(Output::Mint { .. })),
        "{outputs:?}"
    );
    keeper
}
