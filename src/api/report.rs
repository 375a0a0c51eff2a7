//! What a caller's report of a refused token means, whichever way it came.

use prometheus::IntCounter;

use super::Metrics;
use crate::clock::Stamp;
use crate::token::Generation;
use crate::vend::{Gone, ReportOutcome, Vend};

/// What a report came to: in the answer, and in `bearerd_rejection_reports_total`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Refreshing,
    StaleGeneration,
    TooYoung,
    Paced,
    NotARefusal,
}

impl Outcome {
    pub(super) const ALL: [Self; 5] = [
        Self::Refreshing,
        Self::StaleGeneration,
        Self::TooYoung,
        Self::Paced,
        Self::NotARefusal,
    ];

    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Refreshing => "refreshing",
            Self::StaleGeneration => "stale_generation",
            Self::TooYoung => "too_young",
            Self::Paced => "paced",
            Self::NotARefusal => "not_a_refusal",
        }
    }
}

/// A 401 is one, and a 500 that says the token could not be parsed. All else is about the call or its pace, not about the token.
pub(super) fn is_refusal(status: u16, message: Option<&str>) -> bool {
    match status {
        401 => true,
        500 => message.is_some_and(|message| {
            let message = message.to_ascii_lowercase();
            message.contains("failed to parse token") || message.contains("50011")
        }),
        _ => false,
    }
}

/// Tells the keeper of a refusal. With the outcome comes the earliest moment of a successor, where the report is paced.
pub(super) async fn judge(
    vend: &Vend,
    generation: Generation,
) -> Result<(Outcome, Option<Stamp>), Gone> {
    Ok(match vend.report(generation).await? {
        ReportOutcome::Refreshing => (Outcome::Refreshing, None),
        ReportOutcome::StaleGeneration => (Outcome::StaleGeneration, None),
        ReportOutcome::TooYoung => (Outcome::TooYoung, None),
        ReportOutcome::Paced { until } => (Outcome::Paced, Some(until)),
    })
}

/// Counts reports by their outcome: `bearerd_rejection_reports_total`.
pub(super) struct Reports([IntCounter; Outcome::ALL.len()]);

impl Reports {
    pub(super) fn new(metrics: &Metrics) -> Self {
        Self(Outcome::ALL.map(|outcome| metrics.reports.with_label_values(&[outcome.word()])))
    }

    pub(super) fn count(&self, outcome: Outcome) {
        self.0[outcome as usize].inc();
    }
}
