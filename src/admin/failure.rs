//! Everything that an operator's request can fail with, and how each failure is told.

use std::borrow::Cow;

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
    /// It came through a Unix socket, from a user and a group that the settings do not name.
    UnknownCaller,
    /// It changes the record, and does not come from somebody who may.
    SocketOnly,
    /// There are not so many slots.
    BadCount { limit: u32 },
    /// The record was not changed.
    Register(Cow<'static, str>),
    /// Nobody knows whether the record was changed.
    Unconfirmed(Cow<'static, str>),
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
    /// The filter is longer than any that is meant.
    TooLong,
    /// The filter did not arrive in time.
    TooSlow,
    /// There is no such filter; the detail does not repeat it.
    BadFilter(Cow<'static, str>),
}

impl Failure {
    #[rustfmt::skip]
    fn row(&self) -> (StatusCode, &'static str, &'static str) {
        match self {
            Self::NotFound => (StatusCode::NOT_FOUND, "not_found", "There is nothing here"),
            Self::WrongMethod { .. } => (StatusCode::METHOD_NOT_ALLOWED, "wrong_method", "The method is not allowed here"),
            Self::NotLocal => (StatusCode::FORBIDDEN, "not_local", "The caller is not allowed here"),
            Self::UnknownCaller => (StatusCode::FORBIDDEN, "unknown_caller", "The caller is not allowed here"),
            Self::SocketOnly => (StatusCode::FORBIDDEN, "socket_only", "The caller is not allowed here"),
            Self::BadCount { .. } => (StatusCode::BAD_REQUEST, "bad_count", "The count is not understood"),
            Self::Register(_) => (StatusCode::SERVICE_UNAVAILABLE, "register", "The record was not changed"),
            Self::Unconfirmed(_) => (StatusCode::INTERNAL_SERVER_ERROR, "unconfirmed", "The record may have been changed"),
            Self::Refused(refusal) => match refusal {
                Refusal::NoHost | Refusal::Target | Refusal::Framing => (StatusCode::BAD_REQUEST, refusal.word(), "The request is malformed"),
                Refusal::Unmarked | Refusal::Forwarded | Refusal::Browser | Refusal::ForeignHost =>
                    (StatusCode::FORBIDDEN, refusal.word(), "The caller is not allowed here"),
            },
            Self::NotNow { .. } => (StatusCode::TOO_MANY_REQUESTS, "not_now", "No refresh now"),
            Self::Draining => (StatusCode::SERVICE_UNAVAILABLE, "draining", "This bearerd is shutting down"),
            Self::TooLong => (StatusCode::PAYLOAD_TOO_LARGE, "too_long", "The filter is too long"),
            Self::TooSlow => (StatusCode::REQUEST_TIMEOUT, "too_slow", "The filter did not arrive in time"),
            Self::BadFilter(_) => (StatusCode::BAD_REQUEST, "bad_filter", "The filter is not understood"),
        }
    }

    /// The stable word for it.
    pub(super) fn word(&self) -> &'static str {
        self.row().1
    }

    pub(super) fn problem(&self) -> Problem {
        let (status, word, title) = self.row();
        let detail = match self {
            Self::NotFound => {
                "the paths are /, /livez, /readyz, /startupz, /metrics, /status, /settings, /log, /refresh, /spend and /unpark, exactly as written".into()
            }
            Self::WrongMethod { allow } => format!("use {allow}").into(),
            Self::NotLocal => "ask from the machine, or the pod, that bearerd runs on".into(),
            Self::UnknownCaller => {
                "neither the process's user nor the group that it runs with is in admin.uids or admin.gids".into()
            }
            Self::SocketOnly => {
                "ask on an admin Unix socket, as the user that runs bearerd or as one of admin.uids or admin.gids".into()
            }
            Self::BadCount { limit } => format!("ask for /spend?count=N with N from 1 to {limit}, which is budget.limit").into(),
            Self::Register(detail) | Self::Unconfirmed(detail) => detail.clone(),
            Self::Refused(Refusal::ForeignHost) => {
                "the Host header names another host: use localhost or a loopback address, or name the host in admin.hosts".into()
            }
            Self::Refused(Refusal::Framing) => {
                "send a body with either Content-Length or Transfer-Encoding: chunked".into()
            }
            Self::Refused(Refusal::Forwarded) => {
                "a proxy passed the request on: ask directly. The usual cause is a proxy in the environment: add localhost, 127.0.0.1 and ::1 to no_proxy".into()
            }
            Self::Refused(_) => {
                "send X-Bearerd-Request: true and one local Host header, directly and not from a web page".into()
            }
            Self::NotNow { waiting_for, until, .. } => match until {
                Some(until) => format!("waiting for {waiting_for} until {until:.0}").into(),
                None => format!("waiting for {waiting_for}").into(),
            },
            Self::Draining => "its successor answers, if there is one".into(),
            Self::TooLong => "a filter may have 4096 bytes".into(),
            Self::TooSlow => "send the whole filter within 5 seconds".into(),
            Self::BadFilter(detail) => detail.clone(),
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
            allow: self.allow(),
        }
    }

    fn allow(&self) -> Option<&'static str> {
        match self {
            Self::WrongMethod { allow } => Some(allow),
            _ => None,
        }
    }

    pub(super) fn response(&self) -> Response<Body> {
        self.problem().response()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_problems_are_the_documented_ones() {
        let mut all = vec![
            Failure::NotFound,
            Failure::WrongMethod { allow: "GET, HEAD" },
            Failure::NotLocal,
            Failure::UnknownCaller,
            Failure::SocketOnly,
            Failure::BadCount { limit: 10 },
            Failure::Register("what the system said".into()),
            Failure::Unconfirmed("what the system said".into()),
            Failure::NotNow {
                waiting_for: "pace",
                until: Some(jiff::Timestamp::from_second(1_800_000_000).unwrap()),
                retry_after: Some(90),
            },
            Failure::Draining,
            Failure::TooLong,
            Failure::TooSlow,
            Failure::BadFilter("what to send".into()),
        ];
        all.extend(Refusal::ALL.map(Failure::Refused));
        let mut written = String::new();
        for failure in all {
            let status = failure.response().status().as_u16();
            let retry_after = failure.problem().retry_after;
            let retry_after =
                retry_after.map_or_else(String::new, |seconds| format!(" retry-after={seconds}"));
            written += &format!("{status}{retry_after}\n");
            written += std::str::from_utf8(&failure.problem().body()).unwrap();
        }
        let documented = include_str!("../../tests/golden/admin_problems.txt");
        assert_eq!(written, documented, "\n{written}");
    }
}
