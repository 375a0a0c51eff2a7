//! Everything that a caller's request can fail with, and how each failure is told.

use std::borrow::Cow;
use std::collections::HashMap;
use std::time::Duration;

use hyper::{Response, StatusCode};
use tonic::{Code, Status as Answer};
use tonic_types::{ErrorDetails, StatusExt};

use crate::caller::Denial;
use crate::caller::guard::Refusal;
use crate::clock::Stamp;
use crate::listener::{Body, Problem, seconds_until};
use crate::vend::{Status, Unavailable};

/// Why a request got no for an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// No token has been minted or found yet.
    NoTokenYet(Outlook),
    /// The last token has reached its end, and there is no successor.
    Expired(Outlook),
    /// The process is on its way down.
    Draining,
    /// The rules of the door turned the caller away.
    Refused(Refusal),
    /// The rules of the caller turned it away.
    Denied(Denial),
    /// There is nothing under this path.
    NotFound,
    /// The path knows other methods.
    WrongMethod {
        /// Those it knows, as `Allow` lists them.
        allow: &'static str,
    },
    /// The caller accepts neither form of the token.
    NotAcceptable,
    /// The report is not declared as JSON.
    NotJson,
    /// The report or the call's message is longer than it may be.
    TooLong,
    /// The report or the call's message did not arrive in time.
    TooSlow,
    /// The report is not the documented one.
    BadReport(Cow<'static, str>),
    /// The call asks for a wait that is none.
    BadWait,
    /// What came where gRPC is spoken is none.
    NotGrpc,
    /// There is no such call.
    UnknownCall,
    /// There is no such service to ask the health of.
    UnknownService,
    /// The call's message is compressed.
    Compressed,
    /// The call's message, or what its headers say about it, cannot be read.
    BadMessage,
    /// The caller's own deadline for the call is over.
    Deadline,
}

/// Why there is no token, and when there may be one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outlook {
    /// What an operator should know.
    pub why: String,
    /// After how many seconds it is worth asking again, where that is known.
    pub retry_after: Option<u64>,
}

impl Outlook {
    /// How things stand at `now`.
    pub fn new(status: &Status, now: Stamp) -> Self {
        let mut why = Vec::new();
        if let Some(parked) = &status.parked {
            let (since, reason) = (parked.since.shown(now), &parked.reason);
            why.push(format!(
                "the issuer refuses the keys since {since:.0}: {reason}"
            ));
        }
        if let Some(trouble) = &status.trouble {
            why.push(format!(
                "last trouble ({}): {}",
                trouble.code, trouble.detail
            ));
        }
        if !status.register.up
            && let Some(detail) = &status.register.detail
        {
            why.push(format!("the {} register: {detail}", status.register.kind));
        }
        if let Some(attempt) = status.minting {
            why.push(format!("attempt {attempt} is under way"));
        }
        if let Some(next) = &status.next {
            let (at, waiting_for) = (next.at.shown(now), next.waiting_for);
            why.push(format!(
                "the next attempt comes at {at:.0} at the earliest, waiting for {waiting_for}"
            ));
        }
        if why.is_empty() {
            why.push("no attempt is planned yet".into());
        }
        let retry_after = match (&status.minting, &status.next) {
            (Some(_), _) => Some(1),
            (None, Some(next)) => Some(seconds_until(next.at, now)),
            (None, None) => None,
        };
        Self {
            why: why.join("; "),
            retry_after,
        }
    }
}

/// How one kind of failure is told: the HTTP status, the gRPC code, the stable word, which is also the metrics' label, and the title.
struct Row(StatusCode, Code, &'static str, &'static str);

/// The domain of every [`tonic_types::ErrorInfo`].
const DOMAIN: &str = "bearerd";

impl From<Denial> for Failure {
    fn from(denial: Denial) -> Self {
        Self::Denied(denial)
    }
}

/// What a caller that was turned away should know, and which setting says so.
fn told(denial: &Denial) -> Cow<'static, str> {
    match denial {
        Denial::UnknownCaller => {
            "no caller of the settings has this user, group or certificate: name it in uids, gids or sans of a [callers.NAME]".into()
        }
        Denial::NotPermitted { caller, right } => {
            let right = right.word();
            format!("this needs the right to {right}, which callers.{caller}.may does not list").into()
        }
        Denial::RateLimited { caller: Some(caller), .. } => {
            format!("ask less often, or raise callers.{caller}.rate and burst").into()
        }
        Denial::RateLimited { caller: None, .. } => {
            "ask less often from this address, or raise limits.peer_rate and peer_burst".into()
        }
        Denial::TooManyStreams { caller, most } => {
            format!("{most} watches and waits are open: end one, or raise callers.{caller}.streams").into()
        }
    }
}

impl Failure {
    /// There is no token, as things stand.
    pub fn unavailable(why: Unavailable, status: &Status, now: Stamp) -> Self {
        let outlook = Outlook::new(status, now);
        match why {
            Unavailable::NoTokenYet => Self::NoTokenYet(outlook),
            Unavailable::Expired => Self::Expired(outlook),
        }
    }

    #[rustfmt::skip]
    fn row(&self) -> Row {
        match self {
            Self::NoTokenYet(_) => Row(StatusCode::SERVICE_UNAVAILABLE, Code::Unavailable, "no_token_yet", "There is no token yet"),
            Self::Expired(_) => Row(StatusCode::SERVICE_UNAVAILABLE, Code::Unavailable, "expired", "The token has expired"),
            Self::Draining => Row(StatusCode::SERVICE_UNAVAILABLE, Code::Unavailable, "draining", "This bearerd is shutting down"),
            Self::Refused(refusal) => match refusal {
                Refusal::NoHost | Refusal::Target | Refusal::Framing => Row(StatusCode::BAD_REQUEST, Code::InvalidArgument, refusal.word(), "The request is malformed"),
                Refusal::Unmarked | Refusal::Forwarded | Refusal::Browser | Refusal::ForeignHost =>
                    Row(StatusCode::FORBIDDEN, Code::PermissionDenied, refusal.word(), "The caller is not allowed here"),
            },
            Self::Denied(denial) => match denial {
                Denial::UnknownCaller | Denial::NotPermitted { .. } =>
                    Row(StatusCode::FORBIDDEN, Code::PermissionDenied, denial.word(), "The caller is not allowed here"),
                Denial::RateLimited { .. } => Row(StatusCode::TOO_MANY_REQUESTS, Code::ResourceExhausted, denial.word(), "The caller asks too often"),
                Denial::TooManyStreams { .. } => Row(StatusCode::TOO_MANY_REQUESTS, Code::ResourceExhausted, denial.word(), "The caller waits too often at once"),
            },
            Self::NotFound => Row(StatusCode::NOT_FOUND, Code::Unimplemented, "not_found", "There is nothing here"),
            Self::WrongMethod { .. } => Row(StatusCode::METHOD_NOT_ALLOWED, Code::Unimplemented, "wrong_method", "The method is not allowed here"),
            Self::NotAcceptable => Row(StatusCode::NOT_ACCEPTABLE, Code::InvalidArgument, "not_acceptable", "No acceptable form"),
            Self::NotJson => Row(StatusCode::UNSUPPORTED_MEDIA_TYPE, Code::InvalidArgument, "not_json", "The report is not declared as JSON"),
            Self::TooLong => Row(StatusCode::PAYLOAD_TOO_LARGE, Code::ResourceExhausted, "too_long", "The request is too long"),
            Self::TooSlow => Row(StatusCode::REQUEST_TIMEOUT, Code::DeadlineExceeded, "too_slow", "The request did not arrive in time"),
            Self::BadReport(_) => Row(StatusCode::BAD_REQUEST, Code::InvalidArgument, "bad_report", "The report is not understood"),
            Self::BadWait => Row(StatusCode::BAD_REQUEST, Code::InvalidArgument, "bad_wait", "The wait is not understood"),
            Self::NotGrpc => Row(StatusCode::UNSUPPORTED_MEDIA_TYPE, Code::InvalidArgument, "not_grpc", "This is no gRPC call"),
            Self::UnknownCall => Row(StatusCode::NOT_FOUND, Code::Unimplemented, "unknown_call", "There is no such call"),
            Self::UnknownService => Row(StatusCode::NOT_FOUND, Code::NotFound, "unknown_service", "There is no such service"),
            Self::Compressed => Row(StatusCode::UNSUPPORTED_MEDIA_TYPE, Code::Unimplemented, "compressed", "The message is compressed"),
            Self::BadMessage => Row(StatusCode::BAD_REQUEST, Code::Internal, "bad_message", "The message is not understood"),
            Self::Deadline => Row(StatusCode::GATEWAY_TIMEOUT, Code::DeadlineExceeded, "deadline", "The caller's deadline is over"),
        }
    }

    /// The stable word for it, in problems and metrics.
    pub fn word(&self) -> &'static str {
        self.row().2
    }

    fn detail(&self) -> Cow<'static, str> {
        match self {
            Self::NoTokenYet(outlook) | Self::Expired(outlook) => outlook.why.clone().into(),
            Self::Draining => "connect again: its successor answers, if there is one".into(),
            Self::Refused(refusal) => match refusal {
                Refusal::Unmarked => "send the header X-Bearerd-Request: true",
                Refusal::Forwarded => {
                    "the request carries Via, Forwarded, X-Forwarded-* or a header such as X-Real-IP: only direct callers are answered. \
                     The usual cause is a proxy in the caller's environment: add localhost, 127.0.0.1 and ::1 to its no_proxy"
                }
                Refusal::Browser => {
                    "the request carries Origin, Sec-Fetch-Site, Sec-Fetch-Dest or Sec-Fetch-User: web pages are not answered"
                }
                Refusal::NoHost => "send exactly one Host header",
                Refusal::ForeignHost => {
                    "the Host header, in gRPC :authority, names another host: use localhost or a loopback address, or name the host in http.hosts or grpc.hosts"
                }
                Refusal::Target => "send the path alone as the request's target",
                Refusal::Framing => {
                    "send a GET without a body, and a report with either Content-Length or Transfer-Encoding: chunked"
                }
            }
            .into(),
            Self::Denied(denial) => told(denial),
            Self::NotFound => {
                "the paths are /v1/token and /v1/token/rejected, exactly as written".into()
            }
            Self::WrongMethod { allow } => format!("use {allow}").into(),
            Self::NotAcceptable => "accept application/json or text/plain".into(),
            Self::NotJson => "send the header Content-Type: application/json".into(),
            Self::TooLong => "a report may have 4096 bytes, and a gRPC message 8192".into(),
            Self::TooSlow => "send the whole request within 5 seconds".into(),
            Self::BadReport(detail) => detail.clone(),
            Self::BadWait => {
                "wait is a length of time from 0 to 60 seconds; over HTTP it is whole seconds without a unit, as in Prefer: wait=30".into()
            },
            Self::NotGrpc => {
                "send the header Content-Type: application/grpc, or ask the HTTP listener".into()
            }
            Self::UnknownCall => {
                "the services are bearerd.v1.TokenService, grpc.health.v1.Health and grpc.reflection.v1.ServerReflection".into()
            }
            Self::UnknownService => {
                "the services are bearerd.v1.TokenService, and the empty name for the process".into()
            }
            Self::Compressed => "send messages as they are: none is long".into(),
            Self::BadMessage => {
                "send one whole message of the call's type, and a grpc-timeout of up to eight digits and a unit".into()
            }
            Self::Deadline => "ask again, with a later deadline if it is a wait".into(),
        }
    }

    fn retry_after(&self) -> Option<u64> {
        match self {
            Self::NoTokenYet(outlook) | Self::Expired(outlook) => outlook.retry_after,
            Self::Draining => Some(1),
            Self::Denied(Denial::RateLimited { retry_after, .. }) => Some(*retry_after),
            _ => None,
        }
    }

    fn allow(&self) -> Option<&'static str> {
        match self {
            Self::WrongMethod { allow } => Some(allow),
            _ => None,
        }
    }

    /// The problem, as every transport may tell it.
    pub fn problem(&self) -> Problem {
        let Row(status, _, word, title) = self.row();
        Problem {
            status,
            word,
            title,
            detail: self.detail(),
            retry_after: self.retry_after(),
            allow: self.allow(),
        }
    }

    /// The answer over gRPC: the title, the detail, the word as the reason, and when to come again.
    pub fn status(&self) -> Answer {
        let Row(_, code, word, title) = self.row();
        let mut details =
            ErrorDetails::with_error_info(word.to_ascii_uppercase(), DOMAIN, HashMap::new());
        if let Some(seconds) = self.retry_after() {
            details.set_retry_info(Some(Duration::from_secs(seconds)));
        }
        let message = format!("{title}: {}", self.detail());
        Answer::with_error_details(code, message, details)
    }

    /// The answer over HTTP.
    pub fn response(&self) -> Response<Body> {
        self.problem().response()
    }
}

#[cfg(test)]
mod tests;
