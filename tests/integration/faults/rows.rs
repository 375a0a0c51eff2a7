//! One row per fault: what an attempt that meets it comes to.

use std::time::Duration;

use bearerd::sandbox::{Fault, Gate, RetryAfter};
use jiff::SignedDuration;
use jiff::fmt::rfc2822::DateTimePrinter;
use serde_json::json;

/// How long a daemon waits for an answer that does not come.
const TIMEOUT: Duration = Duration::from_secs(2);

/// How long it waits for one that does: longer than any machine makes it wait.
const PATIENT: Duration = Duration::from_secs(5);

/// Longer than the time-out, and no longer than an answer may be under way.
const TOO_LONG: Duration = Duration::from_millis(2_500);

/// What the daemon says once it has waited for so long.
const SILENCE: &str = "no whole answer within 2s";

const NO_ANSWER: &str = "Truecaller closed the connection without an answer (";

/// What an attempt comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// A token; `again`, at a refresh, it is the one that is held already.
    Minted {
        again: bool,
    },
    Lost,
    Intermediary,
    Throttled,
    Refused,
}

impl Outcome {
    /// The label, in the status and in the metrics.
    pub fn label(self) -> &'static str {
        match self {
            Self::Minted { .. } => "minted",
            Self::Lost => "lost",
            Self::Intermediary => "intermediary",
            Self::Throttled => "throttled",
            Self::Refused => "refused",
        }
    }

    /// What the next attempt waits for where the record is new, so that the first mint may be retried once, soon or when the issuer
    /// asked for it.
    pub fn first_waits_for(self) -> &'static str {
        match self {
            Self::Minted { .. } => "schedule",
            Self::Lost | Self::Intermediary | Self::Throttled => "backoff",
            Self::Refused => "parked",
        }
    }

    /// What the next attempt waits for while a live token is held.
    pub fn later_waits_for(self) -> &'static str {
        match self {
            Self::Minted { .. } | Self::Lost | Self::Intermediary | Self::Throttled => "backoff",
            Self::Refused => "parked",
        }
    }
}

/// A fault and what it comes to. Whatever it is, the one call arrives once and costs one slot.
#[derive(Clone, Debug)]
pub struct Row {
    pub fault: Fault,
    pub outcome: Outcome,
    /// What the operator reads, in part; empty where there is nothing to be read.
    pub detail: &'static str,
    /// Whether the issuer did issue a token.
    pub issued: bool,
    /// Whether the issuer said how long to wait.
    pub retry_after: bool,
}

impl Row {
    /// Which row it is, for those who read of its failure.
    pub fn name(&self) -> String {
        format!("{:?}", self.fault)
    }

    /// How long the daemon waits for its answers.
    pub fn timeout(&self) -> Duration {
        if self.detail == SILENCE {
            TIMEOUT
        } else {
            PATIENT
        }
    }

    /// Lets go of calls and answers that the fault holds back.
    pub fn let_go(&self) {
        if let Fault::Held(gate) | Fault::HeldUnderway(gate) = &self.fault {
            gate.open();
        }
    }
}

/// What each fault comes to. A new fault has to find its place here.
#[rustfmt::skip]
fn row(fault: Fault) -> Row {
    let minted = |detail| (Outcome::Minted { again: false }, detail, true);
    let lost = |detail, issued| (Outcome::Lost, detail, issued);
    let refused = |detail| (Outcome::Refused, detail, false);
    let intermediary = |detail, issued| (Outcome::Intermediary, detail, issued);
    let mut asked_to_wait = false;
    let (outcome, detail, issued) = match &fault {
        Fault::Latency { duration } | Fault::LateArrival { duration } if *duration < TIMEOUT => minted(""),
        Fault::Latency { .. } | Fault::LateArrival { .. } | Fault::LostAnswer => lost(SILENCE, true),
        // Their gates stay closed until the attempt is over.
        Fault::Held(_) | Fault::HeldUnderway(_) => lost(SILENCE, true),
        Fault::SlowBody { .. } => lost(SILENCE, true),
        Fault::DropAfterAccept { .. } => lost(NO_ANSWER, false),
        Fault::DropAfterMint => lost(NO_ANSWER, true),
        Fault::ResetMidBody => lost("eset", true),
        Fault::TruncatedBody => lost("Truecaller closed the connection in the middle of its answer (", true),
        Fault::TooManyRequests { retry_after, .. } => {
            asked_to_wait = retry_after.is_some();
            (Outcome::Throttled, "429 / too-many-requests / too many requests", false)
        }
        Fault::Status { code, slug, .. } => match (code, slug.as_deref()) {
            (400, _) => refused("400 / invalid-input / invalid input"),
            (401, _) => refused("401 / authorization-error / please login again"),
            (403, _) => refused("403 / forbidden-error / not authorized. please contact your admin."),
            (404, _) => refused("404 / not-found / not found"),
            (408, _) => lost("408 / invalid-input / invalid input", false),
            (500, _) => lost("500 / internal-server-error / internal server error", false),
            (503, Some("maintenance")) => lost("503 / maintenance / back soon", false),
            (503, None) => lost("503 / service-unavailable / service unavailable", false),
            other => panic!("no row for {other:?}"),
        },
        Fault::MalformedBody | Fault::Empty200 => intermediary("the answer does not look like Truecaller's: 200 (look at", true),
        Fault::EmptyToken | Fault::BadToken => lost("200 with a token that is not visible ASCII", true),
        Fault::PreviousToken => (Outcome::Minted { again: true }, "", true),
        Fault::CreatedAt { value } => match value.as_bytes()[0] {
            b'0' => minted("created_at is further back than a token lives"),
            b'9' => minted("created_at lies in the future"),
            _ => minted("created_at is not a time"),
        },
        Fault::NoCreatedAt => minted("the answer has no created_at"),
        Fault::ShiftedDate { date_only: false, .. } => minted(""),
        Fault::ShiftedDate { seconds, .. } if *seconds < 0 => minted("created_at lies in the future"),
        Fault::ShiftedDate { .. } => minted("created_at is further back than a token lives"),
        Fault::AgedToken { .. } | Fault::HugeBody { .. } => minted(""),
        Fault::Redirect { .. } => intermediary("the answer does not look like Truecaller's: 307 to 127.0.0.1 (look at", false),
    };
    Row { fault, outcome, detail, issued, retry_after: asked_to_wait }
}

/// Every fault, in each form that makes a difference.
pub fn rows() -> Vec<Row> {
    let gate = Gate::new;
    let status = Fault::status;
    let throttled = |retry_after| Fault::too_many_requests(Some(retry_after));
    let created_at = |value: &str| Fault::CreatedAt {
        value: value.to_owned(),
    };
    let shifted = |seconds, date_only| Fault::ShiftedDate { seconds, date_only };
    let soon = bearerd::clock::wall() + SignedDuration::from_secs(60);
    let soon = DateTimePrinter::new()
        .timestamp_to_rfc9110_string(&soon)
        .unwrap();
    let faults = vec![
        Fault::latency(Duration::from_millis(20)),
        Fault::latency(TOO_LONG),
        Fault::LateArrival {
            duration: Duration::from_millis(20),
        },
        Fault::LateArrival { duration: TOO_LONG },
        Fault::LostAnswer,
        Fault::DropAfterAccept { counted: false },
        Fault::DropAfterAccept { counted: true },
        Fault::DropAfterMint,
        Fault::ResetMidBody,
        Fault::too_many_requests(None),
        throttled(RetryAfter::Seconds(60)),
        throttled(RetryAfter::Text(soon)),
        status(400),
        status(401),
        status(403),
        status(404),
        status(408),
        status(500),
        status(503),
        Fault::Status {
            code: 503,
            slug: Some("maintenance".into()),
            message: Some("back soon".into()),
            counted: true,
            retry_after: Some(RetryAfter::Seconds(1)),
        },
        Fault::TruncatedBody,
        Fault::MalformedBody,
        Fault::Empty200,
        Fault::EmptyToken,
        Fault::BadToken,
        Fault::PreviousToken,
        created_at("0001-01-01T00:00:00Z"),
        created_at("9999-12-30T00:00:00Z"),
        created_at("yesterday"),
        Fault::NoCreatedAt,
        shifted(-40_000_000, false),
        shifted(-3_600, true),
        shifted(400_000, true),
        Fault::AgedToken {
            age: Duration::from_secs(6),
        },
        Fault::SlowBody {
            interval: Duration::from_millis(100),
        },
        Fault::HugeBody { bytes: 1 << 20 },
        Fault::Redirect {
            location: "http://127.0.0.1:9/elsewhere".into(),
        },
        Fault::held(&gate()),
        Fault::held_underway(&gate()),
    ];
    faults.into_iter().map(row).collect()
}

#[test]
fn no_fault_is_forgotten() {
    // The list of those that have a form in JSON, as a script that names another is told it.
    let told = serde_json::from_value::<Fault>(json!({"fault": "another"}))
        .unwrap_err()
        .to_string();
    let (_, listed) = told.split_once("expected one of").unwrap();
    let mut names: Vec<&str> = listed.split('`').skip(1).step_by(2).collect();
    names.extend(["held", "held_underway"]);
    assert!(names.len() >= 23, "{told}");
    let rows = rows();
    for name in names {
        assert!(rows.iter().any(|row| row.fault.name() == name), "{name}");
    }
}
