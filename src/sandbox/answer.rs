//! What goes back to the client, and how faults spoil it. Values only: `server` and `body` carry them out.

use std::time::Duration;

use hyper::body::Bytes;
use jiff::fmt::rfc2822::DateTimePrinter;
use jiff::{SignedDuration, Timestamp};
use serde_json::json;

use super::fault::{Fault, RetryAfter};
use super::gate::Gate;

/// An answer, whole or spoilt. It may hold a token, so it has no `Debug`.
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) headers: Vec<(&'static str, String)>,
    pub(super) body: Vec<Step>,
    /// What `Content-Length` says.
    pub(super) length: u64,
}

/// One step in sending a body.
pub(super) enum Step {
    /// Send these bytes.
    Data(Bytes),
    /// Send so many spaces.
    Fill(u64),
    /// Wait.
    Pause(Duration),
    /// Let what was sent so far leave.
    Flush,
    /// End the connection here.
    Hangup(Hangup),
}

/// How a connection ends before its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Hangup {
    /// It is closed.
    #[error("the sandbox closed the connection")]
    Close,
    /// It is reset.
    #[error("the sandbox reset the connection")]
    Reset,
}

/// What becomes of a mint call once it was judged.
pub(super) struct Delivery {
    /// Wait at these first,
    pub(super) gates: Vec<Gate>,
    /// then so long,
    pub(super) latency: Duration,
    /// then reply.
    pub(super) reply: Reply,
}

/// How a call is replied to.
pub(super) enum Reply {
    Answer(Answer),
    /// Nothing, for as long as the client stays.
    Silence,
    Hangup(Hangup),
}

/// An error answer in Truecaller's shape.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) status: u16,
    pub(super) slug: String,
    pub(super) message: String,
    pub(super) retry_after: Option<RetryAfter>,
}

impl Refusal {
    pub(super) fn new(status: u16, slug: &str, message: impl Into<String>) -> Self {
        Self {
            status,
            slug: slug.into(),
            message: message.into(),
            retry_after: None,
        }
    }

    /// The slug and message that suit a status.
    pub(super) fn of_status(status: u16) -> Self {
        let (slug, message) = match status {
            401 => ("authorization-error", "please login again"),
            403 => (
                "forbidden-error",
                "not authorized. please contact your admin.",
            ),
            404 => ("not-found", "not found"),
            429 => ("too-many-requests", "too many requests"),
            503 => ("service-unavailable", "service unavailable"),
            400..=499 => ("invalid-input", "invalid input"),
            _ => ("internal-server-error", "internal server error"),
        };
        Self::new(status, slug, message)
    }

    pub(super) fn into_answer(self) -> Answer {
        let body = json!({"slug": self.slug, "message": self.message});
        let mut answer = Answer::json(self.status, &body.to_string());
        if let Some(retry_after) = self.retry_after {
            let text = match retry_after {
                RetryAfter::Seconds(seconds) => seconds.to_string(),
                RetryAfter::Text(text) => text,
            };
            answer.headers.push(("retry-after", text));
        }
        answer
    }
}

impl Answer {
    pub(super) fn json(status: u16, body: &str) -> Self {
        let mut answer = Self::bare(status, body);
        answer
            .headers
            .push(("content-type", "application/json".into()));
        answer
    }

    fn bare(status: u16, body: &str) -> Self {
        Self {
            status,
            headers: Vec::new(),
            length: body.len() as u64,
            body: vec![Step::Data(Bytes::copy_from_slice(body.as_bytes()))],
        }
    }

    /// The bytes of a body that was not spoilt yet.
    fn bytes(&self) -> Bytes {
        match self.body.first() {
            Some(Step::Data(bytes)) => bytes.clone(),
            _ => Bytes::new(),
        }
    }
}

/// The answer that takes the place of a mint, and whether it is counted; none if the fault lets the mint happen.
pub(super) fn instead_of_mint(fault: &Fault) -> Option<(Reply, bool)> {
    match fault {
        Fault::DropAfterAccept { counted } => Some((Reply::Hangup(Hangup::Close), *counted)),
        Fault::TooManyRequests {
            retry_after,
            counted,
        } => {
            let mut refusal = Refusal::of_status(429);
            refusal.retry_after.clone_from(retry_after);
            Some((Reply::Answer(refusal.into_answer()), *counted))
        }
        Fault::Status {
            code,
            slug,
            message,
            counted,
            retry_after,
        } => {
            let usual = Refusal::of_status(*code);
            let refusal = Refusal {
                status: *code,
                slug: slug.clone().unwrap_or(usual.slug),
                message: message.clone().unwrap_or(usual.message),
                retry_after: retry_after.clone(),
            };
            Some((Reply::Answer(refusal.into_answer()), *counted))
        }
        Fault::Redirect { location } => {
            let mut answer = Answer::bare(307, "");
            answer.headers.push(("location", location.clone()));
            Some((Reply::Answer(answer), false))
        }
        _ => None,
    }
}

/// The answer to a mint that went well, as the faults about its content make it.
pub(super) fn granted(token: &str, now: Timestamp, fault: Option<&Fault>) -> Answer {
    let token = match fault {
        Some(Fault::EmptyToken) => String::new(),
        Some(Fault::BadToken) => {
            let (head, tail) = token.split_at(token.len() / 2);
            format!("{head}\u{7}\u{e9}{tail}")
        }
        _ => token.into(),
    };
    let created_at = match fault {
        Some(Fault::NoCreatedAt) => None,
        Some(Fault::CreatedAt { value }) => Some(value.clone()),
        Some(Fault::ShiftedDate {
            seconds,
            date_only: false,
        }) => Some(rfc3339(shifted(now, *seconds))),
        Some(Fault::AgedToken { age }) => {
            let age = i64::try_from(age.as_secs()).unwrap_or(i64::MAX);
            Some(rfc3339(shifted(now, -age)))
        }
        _ => Some(rfc3339(now)),
    };
    let mut body = json!({"token": token});
    if let Some(created_at) = created_at {
        body["created_at"] = created_at.into();
    }
    match fault {
        Some(Fault::Empty200) => Answer::json(200, ""),
        // The token is there to be leaked by whoever quotes what could not be read.
        Some(Fault::MalformedBody) => Answer::json(200, &format!(r#"{{"token":"{token}",oops"#)),
        _ => Answer::json(200, &body.to_string()),
    }
}

/// The way an answer takes, as the faults about dates and delivery make it.
pub(super) fn delivered(
    mut answer: Answer,
    now: Timestamp,
    fault: Option<&Fault>,
    gate: Option<Gate>,
) -> Delivery {
    let date = match fault {
        Some(Fault::ShiftedDate { seconds, .. }) => shifted(now, *seconds),
        _ => now,
    };
    answer.headers.extend(http_date(date).map(|d| ("date", d)));
    if let Some(fault) = fault {
        spoil_body(&mut answer, fault);
    }
    let mut delivery = Delivery {
        gates: gate.into_iter().collect(),
        latency: Duration::ZERO,
        reply: Reply::Answer(answer),
    };
    match fault {
        Some(Fault::Latency { duration }) => delivery.latency = *duration,
        Some(Fault::Held(gate)) => delivery.gates.push(gate.clone()),
        Some(Fault::LostAnswer) => delivery.reply = Reply::Silence,
        Some(Fault::DropAfterMint) => delivery.reply = Reply::Hangup(Hangup::Close),
        _ => {}
    }
    delivery
}

fn spoil_body(answer: &mut Answer, fault: &Fault) {
    let bytes = answer.bytes();
    let cut_off = |how| {
        let half = bytes.slice(..bytes.len() / 2);
        vec![Step::Data(half), Step::Flush, Step::Hangup(how)]
    };
    match fault {
        Fault::ResetMidBody => answer.body = cut_off(Hangup::Reset),
        Fault::TruncatedBody => answer.body = cut_off(Hangup::Close),
        Fault::SlowBody { interval } => {
            let byte = |at| [Step::Pause(*interval), Step::Data(bytes.slice(at..=at))];
            answer.body = (0..bytes.len()).flat_map(byte).collect();
        }
        Fault::HugeBody { bytes: length } => {
            // White space behind the value keeps it good JSON.
            let padding = length.saturating_sub(answer.length);
            answer.body.push(Step::Fill(padding));
            answer.length += padding;
        }
        _ => {}
    }
}

fn shifted(at: Timestamp, seconds: i64) -> Timestamp {
    let end = if seconds < 0 {
        Timestamp::MIN
    } else {
        Timestamp::MAX
    };
    at.checked_add(SignedDuration::from_secs(seconds))
        .unwrap_or(end)
}

/// RFC 3339 in UTC with at most three fractional digits, without trailing zeros, as the sample in the contract has it.
fn rfc3339(at: Timestamp) -> String {
    Timestamp::from_millisecond(at.as_millisecond())
        .unwrap_or(at)
        .to_string()
}

/// None where the year has no form in an HTTP date.
fn http_date(at: Timestamp) -> Option<String> {
    DateTimePrinter::new().timestamp_to_rfc9110_string(&at).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> Timestamp {
        "2025-07-10T06:59:05.720999Z".parse().unwrap()
    }

    fn header<'a>(answer: &'a Answer, name: &str) -> Option<&'a str> {
        let mut found = answer.headers.iter().filter(|(n, _)| *n == name);
        found.next().map(|(_, value)| value.as_str())
    }

    fn body(fault: Option<&Fault>) -> String {
        let token = "t".repeat(64);
        String::from_utf8(granted(&token, now(), fault).bytes().to_vec()).unwrap()
    }

    #[test]
    fn a_mint_is_answered_as_in_the_sample() {
        let expected = json!({"token": "t".repeat(64), "created_at": "2025-07-10T06:59:05.72Z"});
        assert_eq!(body(None), expected.to_string());
    }

    #[test]
    fn date_and_created_at_move_together_or_apart() {
        let together = Fault::ShiftedDate {
            seconds: -60,
            date_only: false,
        };
        assert!(body(Some(&together)).contains("06:58:05.72Z"));
        let apart = Fault::ShiftedDate {
            seconds: 60,
            date_only: true,
        };
        assert!(body(Some(&apart)).contains("06:59:05.72Z"));
        for (fault, date) in [(together, "06:58:05"), (apart, "07:00:05")] {
            let answer = granted("t", now(), Some(&fault));
            let Reply::Answer(answer) = delivered(answer, now(), Some(&fault), None).reply else {
                panic!("an answer was expected");
            };
            let expected = format!("Thu, 10 Jul 2025 {date} GMT");
            assert_eq!(header(&answer, "date"), Some(expected.as_str()));
        }
    }

    #[test]
    fn an_absurd_shift_is_survived() {
        for seconds in [i64::MIN, i64::MAX] {
            let fault = Fault::ShiftedDate {
                seconds,
                date_only: false,
            };
            let answer = granted("t", now(), Some(&fault));
            delivered(answer, now(), Some(&fault), None);
        }
    }

    #[test]
    fn every_content_fault_shows_in_the_body() {
        let read = |fault| serde_json::from_str::<serde_json::Value>(&body(Some(&fault)));
        assert_eq!(read(Fault::EmptyToken).unwrap()["token"], "");
        let bad = read(Fault::BadToken).unwrap();
        assert!(bad["token"].as_str().unwrap().contains('\u{7}'));
        let none = read(Fault::NoCreatedAt).unwrap();
        assert!(none.get("created_at").is_none());
        read(Fault::MalformedBody).unwrap_err();
        assert_eq!(body(Some(&Fault::Empty200)), "");
    }

    #[test]
    fn a_huge_body_has_exactly_the_length_it_was_told() {
        let fault = Fault::HugeBody { bytes: 4096 };
        let mut answer = granted("t", now(), Some(&fault));
        let ordinary = answer.length;
        spoil_body(&mut answer, &fault);
        assert_eq!(answer.length, 4096);
        assert!(matches!(answer.body[1], Step::Fill(n) if n == 4096 - ordinary));
    }
}
