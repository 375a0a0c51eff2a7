//! Everything that an operator's request can fail with, and how each failure is told.

use hyper::header::{ALLOW, HeaderValue};
use hyper::{Response, StatusCode};

use crate::caller::guard::Refusal;
use crate::listener::{Body, Problem};

pub(super) enum Failure {
    /// There is nothing under this path.
    NotFound,
    /// The path knows other methods.
    WrongMethod { allow: &'static str },
    /// It changes something, and it does not come from this machine.
    NotLocal,
    /// The rules of the door turned it away.
    Refused(Refusal),
    /// No mint now.
    NotNow {
        waiting_for: &'static str,
        until: Option<jiff::Timestamp>,
        retry_after: Option<u64>,
    },
    /// The keeper has ended.
    Draining,
}

impl Failure {
    #[rustfmt::skip]
    fn row(&self) -> (StatusCode, &'static str, &'static str) {
        match self {
            Self::NotFound => (StatusCode::NOT_FOUND, "not_found", "There is nothing here"),
            Self::WrongMethod { .. } => (StatusCode::METHOD_NOT_ALLOWED, "wrong_method", "The method is not allowed here"),
            Self::NotLocal => (StatusCode::FORBIDDEN, "not_local", "The caller is not allowed here"),
            Self::Refused(refusal) => (StatusCode::FORBIDDEN, refusal.word(), "The caller is not allowed here"),
            Self::NotNow { .. } => (StatusCode::TOO_MANY_REQUESTS, "not_now", "No refresh now"),
            Self::Draining => (StatusCode::SERVICE_UNAVAILABLE, "draining", "This bearerd is shutting down"),
        }
    }

    pub(super) fn problem(&self) -> Problem {
        let (status, word, title) = self.row();
        let detail = match self {
            Self::NotFound => {
                "the paths are /, /livez, /readyz, /startupz, /metrics, /status and /refresh, exactly as written".into()
            }
            Self::WrongMethod { allow } => format!("use {allow}").into(),
            Self::NotLocal => "ask from the machine, or the pod, that bearerd runs on".into(),
            Self::Refused(_) => {
                "send X-Bearerd-Request: true and one local Host header, directly and not from a web page".into()
            }
            Self::NotNow { waiting_for, until, .. } => match until {
                Some(until) => format!("waiting for {waiting_for} until {until:.0}").into(),
                None => format!("waiting for {waiting_for}").into(),
            },
            Self::Draining => "its successor answers, if there is one".into(),
        };
        let retry_after = match self {
            Self::NotNow { retry_after, .. } => *retry_after,
            Self::Draining => Some(1),
            _ => None,
        };
        Problem {
            status,
            word,
            title,
            detail,
            retry_after,
        }
    }

    pub(super) fn response(&self) -> Response<Body> {
        let mut response = self.problem().response();
        if let Self::WrongMethod { allow } = self {
            response
                .headers_mut()
                .insert(ALLOW, HeaderValue::from_static(allow));
        }
        response
    }
}
