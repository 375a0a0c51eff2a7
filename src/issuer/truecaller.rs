//! The mint call of Truecaller for Business, on reqwest.
//!
//! One call sends at most one POST: no retries, no redirects, no connection that was used before. What is given up is reset, so
//! that nothing of it arrives later. What the answer means for the budget is decided by the pure function [`judge`].

mod attempt;
mod connection;
mod in_time;
mod shown;
mod transport;
mod trust;

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use jiff::fmt::rfc2822;
use reqwest::header::{DATE, HeaderMap, HeaderValue, LOCATION, RETRY_AFTER};
use reqwest::{StatusCode, Url};
use serde::Deserialize;
use serde::de::IgnoredAny;
use tokio::time::timeout;
use zeroize::Zeroizing;

use super::{Answer, Issuer, Key, Minted, Pending};
use crate::clock::{Clock, Stamp};
use crate::token::Secret;
use trust::Trust;
pub use trust::missing_roots;

/// Where and how tokens are asked for.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The whole address of the mint call.
    pub mint_url: Url,
    /// How long the one request may take, connecting included.
    pub timeout: Duration,
    /// How long after its reservation a request may still be counted.
    pub in_flight: Duration,
    /// How long a token lives; a `created_at` further back than this is not believed.
    pub lifetime: Duration,
}

/// An answer's `Date` and `created_at` are compared in whole seconds and over a network.
const AGE_TOLERANCE: Duration = Duration::from_secs(5);

/// Truecaller's mint call.
pub struct Truecaller {
    /// `None` for a sandbox on this machine, which is asked without TLS.
    tls: Option<Trust>,
    settings: Settings,
    clock: Arc<dyn Clock>,
}

#[derive(Deserialize)]
struct Given {
    token: Option<String>,
    created_at: Option<serde_json::Value>,
}

#[derive(Deserialize)]
struct Slug {
    slug: Option<String>,
}

/// What came back, as far as it was read.
pub struct Response {
    /// The answer's status.
    pub status: StatusCode,
    /// All of its headers.
    pub headers: HeaderMap,
    /// Its body, or the beginning of a long one. It may hold a token, so it is wiped when dropped.
    pub body: Zeroizing<Vec<u8>>,
}

/// When the request left and its answer was there.
#[derive(Clone, Copy, Debug)]
pub struct Journey {
    /// The moment before the request was sent.
    pub sent_at: Stamp,
    /// The moment when the whole answer had arrived.
    pub answered_at: Stamp,
}

impl Truecaller {
    /// Reads the certificate roots, if the issuer is asked over TLS. Fails where the system has none
    /// to trust.
    pub fn new(settings: Settings, clock: Arc<dyn Clock>) -> Result<Self, rustls::Error> {
        trust::install_provider();
        let tls = match settings.mint_url.scheme() {
            // A bare container, without roots, can have a sandbox too.
            "http" => None,
            _ => Some(Trust::read()?),
        };
        Ok(Self {
            tls,
            settings,
            clock,
        })
    }

    async fn ask(&self, key: &Key, send_by: Duration) -> Answer {
        let sent_at = self.clock.now();
        if sent_at.boot > send_by {
            return Answer::NotSent {
                detail: "too long after its reservation".into(),
            };
        }
        let attempt = self.attempt(key, send_by, sent_at);
        match timeout(self.settings.timeout, attempt).await {
            Ok(Ok(response)) => {
                let journey = Journey {
                    sent_at,
                    answered_at: self.clock.now(),
                };
                judge(&response, journey, key, self.settings.lifetime)
            }
            Ok(Err(failure)) => failure,
            Err(_) => Answer::Lost {
                answered: false,
                detail: format!("no whole answer within {:?}", self.settings.timeout),
            },
        }
    }
}

impl Issuer for Truecaller {
    fn mint<'a>(&'a self, key: &'a Key, send_by: Duration) -> Pending<'a, Answer> {
        Box::pin(self.ask(key, send_by))
    }
}

/// What an answer means: for the token, for the budget, and for the operator. `key` is what was asked with, and is never repeated.
pub fn judge(response: &Response, journey: Journey, key: &Key, lifetime: Duration) -> Answer {
    let status = response.status;
    if status.is_success() && is_object(&response.body) {
        return minted(response, journey, lifetime);
    }
    let detail = shown::refusal(status.as_u16(), &response.body, key);
    let words_of_issuer = has_slug(&response.body);
    match status.as_u16() {
        429 => Answer::Throttled {
            retry_after: retry_after(&response.headers, journey.answered_at.wall),
            detail,
        },
        401 | 403 if words_of_issuer => Answer::Refused {
            key_at_fault: true,
            detail,
        },
        400 | 404 if words_of_issuer => Answer::Refused {
            key_at_fault: false,
            detail: format!("{detail} ({LOOK_AT})"),
        },
        408 | 425 | 500..=599 if words_of_issuer => Answer::Lost {
            answered: true,
            detail,
        },
        _ => intermediary(response, key),
    }
}

/// What an operator should look at when the issuer understands neither request nor account.
const LOOK_AT: &str =
    "look at upstream.account, upstream.mint_path, upstream.base_url and the key files";

/// True if a body is one whole JSON object.
fn is_object(body: &[u8]) -> bool {
    // The parser would take the bare values in brackets for one, too.
    let object = body.trim_ascii_start().starts_with(b"{");
    object && serde_json::from_slice::<IgnoredAny>(body).is_ok()
}

/// True if a body is the documented JSON of an error: an object with a slug. Only the issuer sends that.
fn has_slug(body: &[u8]) -> bool {
    let error = is_object(body).then(|| serde_json::from_slice::<Slug>(body).ok());
    let slug = error.flatten().and_then(|error| error.slug);
    slug.is_some_and(|slug| !slug.trim().is_empty())
}

/// An answer that whatever stands before the issuer gave in its place.
fn intermediary(response: &Response, key: &Key) -> Answer {
    let status = response.status.as_u16();
    let location = response.headers.get(LOCATION);
    let target = location
        .filter(|_| response.status.is_redirection())
        .and_then(|location| Url::parse(location.to_str().ok()?).ok());
    let host = target
        .as_ref()
        .and_then(Url::host_str)
        .map_or_else(String::new, |host| {
            format!(" to {}", shown::host(host, key))
        });
    Answer::Intermediary {
        detail: format!(
            "the answer does not look like Truecaller's: {status}{host} (look at upstream.base_url, upstream.mint_path, and at what \
             stands between)"
        ),
    }
}

fn minted(response: &Response, journey: Journey, lifetime: Duration) -> Answer {
    let lost = |why: &str| Answer::Lost {
        answered: true,
        detail: format!("{} {why}", response.status.as_u16()),
    };
    // The parser's own text may quote the token.
    let Ok(given) = serde_json::from_slice::<Given>(&response.body) else {
        return lost("with a body that is not the documented JSON");
    };
    let Some(token) = given.token.map(Secret::new) else {
        return lost("without a token");
    };
    if !token.could_be_token() {
        return lost("with a token that is not visible ASCII");
    }
    let (aged, note) = match age(
        given.created_at.as_ref(),
        &response.headers,
        journey,
        lifetime,
    ) {
        Ok(aged) => (aged, None),
        Err(odd) => (Duration::ZERO, Some(odd.to_owned())),
    };
    Answer::Minted(Minted {
        secret: token,
        sent_at: journey.sent_at,
        aged,
        note,
    })
}

/// How much older than the request a token is, by the issuer's own clock: its `Date` minus `created_at`.
///
/// `Date` is cut to whole seconds, so a token that is older at all counts as a second older still.
fn age(
    created_at: Option<&serde_json::Value>,
    headers: &HeaderMap,
    journey: Journey,
    lifetime: Duration,
) -> Result<Duration, &'static str> {
    let created_at = created_at.ok_or("the answer has no created_at")?;
    let created_at: Timestamp = created_at
        .as_str()
        .and_then(|text| text.parse().ok())
        .ok_or("the answer's created_at is not a time")?;
    let date = headers
        .get(DATE)
        .and_then(http_date)
        .ok_or("the answer has no Date to hold its created_at against")?;
    let by_issuer = date.duration_since(created_at);
    let took = journey
        .answered_at
        .boot
        .saturating_sub(journey.sent_at.boot);
    let Ok(age) = Duration::try_from(by_issuer) else {
        let ahead = by_issuer.unsigned_abs();
        return if ahead > AGE_TOLERANCE {
            Err("the answer's created_at lies in the future")
        } else {
            Ok(Duration::ZERO)
        };
    };
    if age >= lifetime {
        Err("the answer's created_at is further back than a token lives")
    } else if age > took + AGE_TOLERANCE {
        Ok(age + Duration::from_secs(1))
    } else {
        Ok(Duration::ZERO)
    }
}

fn retry_after(headers: &HeaderMap, now: Timestamp) -> Option<Duration> {
    let value = headers.get(RETRY_AFTER)?;
    if let Ok(seconds) = value.to_str().ok()?.trim().parse() {
        return Some(Duration::from_secs(seconds));
    }
    let base = headers.get(DATE).and_then(http_date).unwrap_or(now);
    Some(Duration::try_from(http_date(value)?.duration_since(base)).unwrap_or_default())
}

fn http_date(value: &HeaderValue) -> Option<Timestamp> {
    rfc2822::DateTimeParser::new()
        .parse_timestamp(value.to_str().ok()?)
        .ok()
}

/// An error with its causes, without the address: it is the operator's own and may be long.
fn causes(error: reqwest::Error, key: &Key) -> String {
    shown::causes(&error.without_url(), key)
}

/// What an error and each of its causes say.
fn texts(error: &dyn std::error::Error) -> Vec<String> {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect()
}

#[cfg(test)]
mod tests;
