//! Everything in a text that looks like a time.

use jiff::fmt::rfc2822::DateTimeParser;
use jiff::{SignedDuration, Timestamp};

/// Numbers that look like Unix times and are none: tokens and attempts count from the second of their record's birth.
const NO_TIMES: [&str; 6] = [
    "generation",
    "attempt",
    "minting",
    "etag",
    "_bytes",
    "token: ",
];

/// Unix times from 2001 to 2128.
const UNIX: std::ops::Range<f64> = 1e9..5e9;

/// The times in this text, each with what stands around it. A time of day alone is taken for the one next to `now`.
pub fn times_in(text: &str, now: Timestamp) -> Vec<(Timestamp, String)> {
    text.lines().flat_map(|line| of_line(line, now)).collect()
}

fn of_line(line: &str, now: Timestamp) -> Vec<(Timestamp, String)> {
    let mut found = Vec::new();
    let mut add = |at: Timestamp, place: usize| {
        let mut from = place.saturating_sub(60);
        while !line.is_char_boundary(from) {
            from -= 1;
        }
        let rest: String = line[place..].chars().take(32).collect();
        found.push((at, format!("{}{rest}", &line[from..place])));
    };
    let bytes = line.as_bytes();
    for place in 0..bytes.len() {
        let rest = &bytes[place..];
        if is(rest, b"0000-00-00 00:00:00") || is(rest, b"0000-00-00T00:00:00") {
            let end = rest
                .iter()
                .position(|it| *it == b'Z')
                .expect("times are in UTC");
            let text = line[place..=place + end].replacen(' ', "T", 1);
            add(text.parse().unwrap(), place);
        } else if is(rest, b"00:00:00Z")
            && !(place > 0
                && b"T ".contains(&bytes[place - 1])
                && place > 10
                && bytes[place - 4] == b'-')
        {
            let today = now.strftime("%Y-%m-%d").to_string();
            let at: Timestamp = format!("{today}T{}", &line[place..place + 9])
                .parse()
                .unwrap();
            let day = SignedDuration::from_hours(24);
            let near = [at - day, at, at + day]
                .into_iter()
                .min_by_key(|it| it.duration_since(now).abs());
            add(near.unwrap(), place);
        } else if is(rest, b"00:00:00 GMT") && place >= 17 {
            let text = &line[place - 17..place + 12];
            add(
                DateTimeParser::new().parse_timestamp(text).unwrap(),
                place - 17,
            );
        }
    }
    for (place, number) in numbers(line) {
        let before = &line[..place];
        let named_time = ["_timestamp_seconds ", "_time_seconds "]
            .iter()
            .any(|name| before.ends_with(name));
        let near: String = before
            .chars()
            .rev()
            .take(24)
            .collect::<Vec<_>>()
            .into_iter()
            .rev()
            .collect();
        let exempt = NO_TIMES.iter().any(|name| near.contains(name));
        if (named_time && number != 0.0) || (UNIX.contains(&number) && !exempt) {
            #[allow(clippy::cast_possible_truncation, reason = "it is a Unix time")]
            let at = Timestamp::from_second(number as i64).unwrap();
            add(at, place);
        }
    }
    found
}

/// True if this begins as the pattern does, where a zero stands for any digit.
fn is(text: &[u8], pattern: &[u8]) -> bool {
    text.len() >= pattern.len()
        && pattern.iter().zip(text).all(|(pattern, it)| match pattern {
            b'0' => it.is_ascii_digit(),
            other => other == it,
        })
}

/// The numbers in a line that stand for themselves, and where.
fn numbers(line: &str) -> Vec<(usize, f64)> {
    let part = |it: u8| it.is_ascii_alphanumeric() || b"._-+".contains(&it);
    let bytes = line.as_bytes();
    let begins =
        |place: &usize| bytes[*place].is_ascii_digit() && (*place == 0 || !part(bytes[*place - 1]));
    let whole = |place: usize| {
        let length = bytes[place..].iter().take_while(|it| part(**it)).count();
        Some((place, line[place..place + length].parse().ok()?))
    };
    (0..bytes.len()).filter(begins).filter_map(whole).collect()
}

#[test]
fn what_looks_like_a_time_is_found() {
    let now: Timestamp = "2026-07-01T23:30:00Z".parse().unwrap();
    let text = "\
{\"expires_at\":\"2026-07-01T12:20:00.482Z\",\"generation\":1795338791,\"when\":1782908400}
date: Wed, 01 Jul 2026 12:20:00 GMT
since 1970-01-01T01:00:00Z, at 2026-07-01 12:27:00Z, in 7m, at 00:12:00Z
bearerd_x_timestamp_seconds 5000.25
bearerd_x_timestamp_seconds 0
process_resident_memory_bytes 1795338791
# HELP 127.0.0.1:7290 0
";
    let found: Vec<String> = times_in(text, now)
        .iter()
        .map(|(at, _)| at.to_string())
        .collect();
    let expected = [
        "2026-07-01T12:20:00.482Z",
        "2026-07-01T12:20:00Z",
        "2026-07-01T12:20:00Z",
        "1970-01-01T01:00:00Z",
        "2026-07-01T12:27:00Z",
        "2026-07-02T00:12:00Z",
        "1970-01-01T01:23:20Z",
    ];
    assert_eq!(found, expected);
}
