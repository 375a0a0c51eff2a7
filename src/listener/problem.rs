//! How every listener says no: RFC 9457, `application/problem+json`.

use std::borrow::Cow;

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use hyper::{Response, StatusCode};
use serde::Serialize;

use super::Body;
use crate::clock::Stamp;

/// One refusal or failure, as it is told to whoever asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The HTTP status.
    pub status: StatusCode,
    /// The stable word: the problem's `type` is `urn:bearerd:problem:<word>`.
    pub word: &'static str,
    /// What kind of problem this is, the same words each time.
    pub title: &'static str,
    /// What happened this time and what to do about it. Never a secret.
    pub detail: Cow<'static, str>,
    /// After how many seconds it is worth trying again, when time will help.
    pub retry_after: Option<u64>,
    /// The methods that the path knows, where the method was the problem.
    pub allow: Option<&'static str>,
}

#[derive(Serialize)]
struct Document<'a> {
    r#type: String,
    title: &'a str,
    status: u16,
    detail: &'a str,
}

impl Problem {
    /// The document as it is sent.
    pub fn body(&self) -> Bytes {
        let document = Document {
            r#type: format!("urn:bearerd:problem:{}", self.word),
            title: self.title,
            status: self.status.as_u16(),
            detail: &self.detail,
        };
        let mut body = serde_json::to_vec(&document).expect("text and numbers are JSON");
        body.push(b'\n');
        body.into()
    }

    /// The answer.
    pub fn response(&self) -> Response<Body> {
        let mut response = Response::new(Full::new(self.body()));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(
            CONTENT_TYPE,
            HeaderValue::from_static("application/problem+json"),
        );
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Some(seconds) = self.retry_after {
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        if let Some(allow) = self.allow {
            headers.insert(ALLOW, HeaderValue::from_static(allow));
        }
        response
    }
}

/// The whole seconds until then by the boot clock, which decides when attempts are made, rounded up,
/// and at least one: what `Retry-After` says.
pub fn seconds_until(then: Stamp, now: Stamp) -> u64 {
    let left = then.boot.saturating_sub(now.boot);
    let begun = u64::from(left.subsec_nanos() > 0);
    left.as_secs().saturating_add(begun).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn the_wait_is_whole_seconds_rounded_up_and_at_least_one() {
        let now = Stamp {
            wall: jiff::Timestamp::UNIX_EPOCH,
            boot: Duration::from_secs(5),
        };
        let after = |milliseconds| now.plus(Duration::from_millis(milliseconds));
        assert_eq!(seconds_until(now, after(10_000)), 1);
        assert_eq!(seconds_until(now, now), 1);
        assert_eq!(seconds_until(after(1), now), 1);
        assert_eq!(seconds_until(after(1_000), now), 1);
        assert_eq!(seconds_until(after(1_001), now), 2);
        assert_eq!(seconds_until(after(90_000), now), 90);
    }
}
