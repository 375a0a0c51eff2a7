//! What may go wrong with a mint, one fault at a time, in Rust and in JSON.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::gate::Gate;

/// What goes wrong with one mint.
///
/// Four faults take the place of the mint: [`DropAfterAccept`](Self::DropAfterAccept),
/// [`TooManyRequests`](Self::TooManyRequests), [`Status`](Self::Status) and [`Redirect`](Self::Redirect). All others let
/// the call be judged, counted and answered as ever, and then spoil the answer: those about the token or its dates only
/// where there is a token, those about delivery always.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "fault", rename_all = "snake_case", deny_unknown_fields)]
pub enum Fault {
    /// The answer comes this much later.
    Latency {
        /// How much later, for example `"250ms"`.
        #[serde(with = "span")]
        duration: Duration,
    },
    /// The call is read, and arrives only this much later: even if the client has given up by then.
    LateArrival {
        /// How much later, for example `"40s"`.
        #[serde(with = "span")]
        duration: Duration,
    },
    /// Minted and counted, then silence until the client gives up, or five minutes.
    LostAnswer,
    /// The connection is closed once the call was read; nothing is minted.
    DropAfterAccept {
        /// Whether the call takes a slot all the same.
        #[serde(default)]
        counted: bool,
    },
    /// Minted and counted, then the connection is closed without any answer.
    DropAfterMint,
    /// Minted and counted, then the connection is reset within the answer's body.
    ResetMidBody,
    /// 429; nothing is minted.
    TooManyRequests {
        /// The `Retry-After` of the answer.
        #[serde(default)]
        retry_after: Option<RetryAfter>,
        /// Whether the call takes a slot all the same.
        #[serde(default)]
        counted: bool,
    },
    /// An error answer of any kind; nothing is minted.
    Status {
        /// 400 to 599.
        code: u16,
        /// The slug; without one, what suits the code.
        #[serde(default)]
        slug: Option<String>,
        /// The message; without one, what suits the code.
        #[serde(default)]
        message: Option<String>,
        /// Whether the call takes a slot all the same.
        #[serde(default)]
        counted: bool,
        /// The `Retry-After` of the answer.
        #[serde(default)]
        retry_after: Option<RetryAfter>,
    },
    /// `Content-Length` promises more than is sent before the connection is closed.
    TruncatedBody,
    /// 200, and a body that holds the token but is not JSON.
    MalformedBody,
    /// 200 without a body.
    #[serde(rename = "empty_200")]
    Empty200,
    /// 200 with `"token": ""`.
    EmptyToken,
    /// 200 with a token that holds a control character and a letter beyond ASCII.
    BadToken,
    /// 200 with the newest earlier token again, dated now; an ordinary mint if there is none. It counts.
    PreviousToken,
    /// 200 with this `created_at`, whatever it says.
    CreatedAt {
        /// Sent as it is.
        value: String,
    },
    /// 200 without `created_at`.
    NoCreatedAt,
    /// The `Date` header, and `created_at` with it, are shifted.
    ShiftedDate {
        /// By how much; negative is into the past.
        seconds: i64,
        /// Leaves `created_at` true.
        #[serde(default)]
        date_only: bool,
    },
    /// The token is this much older than the answer: `created_at` says so, and its life ends that much earlier.
    AgedToken {
        /// How old, for example `"20m"`.
        #[serde(with = "span")]
        age: Duration,
    },
    /// The body comes byte by byte.
    SlowBody {
        /// The pause before each byte, for example `"50ms"`.
        #[serde(with = "span")]
        interval: Duration,
    },
    /// The body is padded to this many bytes, and stays good JSON.
    HugeBody {
        /// The length; at least that of an ordinary answer.
        bytes: u64,
    },
    /// 307; nothing is minted.
    Redirect {
        /// Where to.
        location: String,
    },
    /// The answer waits at a gate. It has no form in JSON.
    #[serde(skip)]
    Held(Gate),
    /// The call is read, and arrives only when the gate lets it: even if the client has given up by then. It has no form
    /// in JSON.
    #[serde(skip)]
    HeldUnderway(Gate),
}

/// A `Retry-After` header: seconds, or any text, such as an HTTP date.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum RetryAfter {
    /// So many seconds.
    Seconds(u64),
    /// Sent as it is.
    Text(String),
}

impl Fault {
    /// The answer comes `duration` later.
    pub fn latency(duration: Duration) -> Self {
        Self::Latency { duration }
    }

    /// 429, with or without `Retry-After`; not counted.
    pub fn too_many_requests(retry_after: Option<RetryAfter>) -> Self {
        Self::TooManyRequests {
            retry_after,
            counted: false,
        }
    }

    /// An error answer with the slug and message that suit its code; not counted.
    pub fn status(code: u16) -> Self {
        Self::Status {
            code,
            slug: None,
            message: None,
            counted: false,
            retry_after: None,
        }
    }

    /// The answer waits at `gate`.
    pub fn held(gate: &Gate) -> Self {
        Self::Held(gate.clone())
    }

    /// The call arrives only when `gate` lets it.
    pub fn held_underway(gate: &Gate) -> Self {
        Self::HeldUnderway(gate.clone())
    }

    /// The fault's name, as in JSON.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Latency { .. } => "latency",
            Self::LateArrival { .. } => "late_arrival",
            Self::LostAnswer => "lost_answer",
            Self::DropAfterAccept { .. } => "drop_after_accept",
            Self::DropAfterMint => "drop_after_mint",
            Self::ResetMidBody => "reset_mid_body",
            Self::TooManyRequests { .. } => "too_many_requests",
            Self::Status { .. } => "status",
            Self::TruncatedBody => "truncated_body",
            Self::MalformedBody => "malformed_body",
            Self::Empty200 => "empty_200",
            Self::EmptyToken => "empty_token",
            Self::BadToken => "bad_token",
            Self::PreviousToken => "previous_token",
            Self::CreatedAt { .. } => "created_at",
            Self::NoCreatedAt => "no_created_at",
            Self::ShiftedDate { .. } => "shifted_date",
            Self::AgedToken { .. } => "aged_token",
            Self::SlowBody { .. } => "slow_body",
            Self::HugeBody { .. } => "huge_body",
            Self::Redirect { .. } => "redirect",
            Self::Held(_) => "held",
            Self::HeldUnderway(_) => "held_underway",
        }
    }

    /// Reads a fault from a JSON object; the error says what is wrong with it.
    pub(super) fn from_json(object: Value) -> Result<Self, String> {
        let given: Vec<String> = object
            .as_object()
            .map(|fields| fields.keys().cloned().collect())
            .unwrap_or_default();
        let fault: Self = serde_json::from_value(object).map_err(|e| e.to_string())?;
        let known = serde_json::to_value(&fault).map_err(|e| e.to_string())?;
        // A fault without fields would swallow any, so what it took is held against what it was given.
        if let Some(unknown) = given.iter().find(|field| known.get(field).is_none()) {
            return Err(format!("`{}` has no field `{unknown}`", fault.name()));
        }
        fault.check()?;
        Ok(fault)
    }

    fn check(&self) -> Result<(), String> {
        let (text, retry_after) = match self {
            Self::Status { code, .. } if !(400..=599).contains(code) => {
                return Err(format!("`code` must be from 400 to 599, not {code}"));
            }
            Self::Status { retry_after, .. } | Self::TooManyRequests { retry_after, .. } => {
                (None, retry_after.as_ref())
            }
            Self::Redirect { location } => (Some(location), None),
            _ => (None, None),
        };
        let text = text.or(match retry_after {
            Some(RetryAfter::Text(text)) => Some(text),
            _ => None,
        });
        match text {
            Some(text) if !text.bytes().all(|b| (b' '..=b'~').contains(&b)) => {
                Err("a header's text must be visible ASCII".into())
            }
            _ => Ok(()),
        }
    }
}

/// Durations as people write them: `"250ms"`, `"20m"`.
mod span {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer, de};

    pub(super) fn serialize<S: Serializer>(span: &Duration, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(&humantime::format_duration(*span))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
        let text = String::deserialize(from)?;
        humantime::parse_duration(&text)
            .map_err(|_| de::Error::custom("a duration is written like \"250ms\" or \"20m\""))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn every_fault_reads_from_json() {
        let forms = [
            json!({"fault": "latency", "duration": "250ms"}),
            json!({"fault": "late_arrival", "duration": "40s"}),
            json!({"fault": "lost_answer"}),
            json!({"fault": "drop_after_accept", "counted": true}),
            json!({"fault": "drop_after_mint"}),
            json!({"fault": "reset_mid_body"}),
            json!({"fault": "too_many_requests", "retry_after": 30}),
            json!({"fault": "too_many_requests", "retry_after": "Thu, 10 Jul 2025 06:59:05 GMT"}),
            json!({"fault": "status", "code": 503, "slug": "x", "message": "y", "retry_after": 1}),
            json!({"fault": "truncated_body"}),
            json!({"fault": "malformed_body"}),
            json!({"fault": "empty_200"}),
            json!({"fault": "empty_token"}),
            json!({"fault": "bad_token"}),
            json!({"fault": "previous_token"}),
            json!({"fault": "created_at", "value": "0001-01-01T00:00:00Z"}),
            json!({"fault": "no_created_at"}),
            json!({"fault": "shifted_date", "seconds": -3600, "date_only": true}),
            json!({"fault": "aged_token", "age": "20m"}),
            json!({"fault": "slow_body", "interval": "5ms"}),
            json!({"fault": "huge_body", "bytes": 1_048_576}),
            json!({"fault": "redirect", "location": "http://127.0.0.1:1/"}),
        ];
        for form in forms {
            let name = form["fault"].clone();
            let fault = Fault::from_json(form).unwrap();
            assert_eq!(name, fault.name());
        }
    }

    #[test]
    fn a_wrong_form_is_told_why() {
        let problem = |form| Fault::from_json(form).unwrap_err();
        assert!(problem(json!({"fault": "lost_anwser"})).contains("unknown variant"));
        assert!(problem(json!({"fault": "lost_answer", "cuonted": true})).contains("cuonted"));
        assert!(problem(json!({"fault": "status", "code": 200})).contains("400 to 599"));
        assert!(problem(json!({"fault": "latency", "duration": "soon"})).contains("250ms"));
        assert!(problem(json!({"fault": "redirect", "location": "a\nb"})).contains("ASCII"));
        assert!(problem(json!({"fault": "held"})).contains("unknown variant"));
    }
}
