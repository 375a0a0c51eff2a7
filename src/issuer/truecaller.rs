//! The mint call of Truecaller for Business, on reqwest.
//!
//! One call sends at most one POST: no retries, no redirects, no connection that was used before. What the answer means for the
//! budget is decided by the pure function [`judge`].

mod in_time;
mod transport;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use jiff::fmt::rfc2822;
use reqwest::header::{ACCEPT, CONTENT_TYPE, DATE, HeaderMap, HeaderValue, RETRY_AFTER};
use reqwest::{Client, StatusCode, Url};
use serde::{Deserialize, Serialize};
use tokio::time::timeout;
use zeroize::Zeroizing;

use super::{Answer, Issuer, Key, Minted, Pending};
use crate::clock::{Clock, Stamp};
use crate::token::{Secret, wiped};
use in_time::{InTime, was_withheld};

/// Where and how tokens are asked for.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The whole address of the mint call.
    pub mint_url: Url,
    /// How long the one request may take, connecting included.
    pub timeout: Duration,
    /// How long a token lives; a `created_at` further back than this is not believed.
    pub lifetime: Duration,
}

/// An answer's body is a few hundred bytes; whatever is longer is not read on.
const MOST_BYTES: usize = 64 * 1024;

/// So much fits without a second place for it.
const USUAL_BYTES: usize = 16 * 1024;

/// An answer's `Date` and `created_at` are compared in whole seconds and over a network.
const AGE_TOLERANCE: Duration = Duration::from_secs(5);

/// Truecaller's mint call.
pub struct Truecaller {
    client: Client,
    settings: Settings,
    clock: Arc<dyn Clock>,
}

#[derive(Serialize)]
struct Asked<'a> {
    key_id: &'a str,
    api_key: &'a str,
}

#[derive(Deserialize)]
struct Given {
    token: Option<String>,
    created_at: Option<serde_json::Value>,
}

#[derive(Deserialize)]
struct Told {
    slug: Option<String>,
    message: Option<String>,
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
    /// Prepares the client. Fails where the system has no certificate roots to trust, if the issuer is asked over TLS.
    pub fn new(settings: Settings, clock: Arc<dyn Clock>) -> Result<Self, reqwest::Error> {
        // Whoever installed a provider first, it is the same one.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = match settings.mint_url.scheme() {
            // A sandbox on this machine: a bare container, without roots, can have one too.
            "http" => Client::builder().tls_certs_only([]),
            _ => Client::builder(),
        };
        let client = client
            .user_agent(concat!("bearerd/", env!("CARGO_PKG_VERSION")))
            .retry(reqwest::retry::never())
            .redirect(reqwest::redirect::Policy::none())
            .pool_max_idle_per_host(0)
            .http1_only()
            .no_proxy()
            .connect_timeout(settings.timeout / 2)
            .build()?;
        Ok(Self {
            client,
            settings,
            clock,
        })
    }

    async fn ask(&self, key: &Key, send_by: Duration) -> Answer {
        let asked = Asked {
            key_id: key.key_id.expose(),
            api_key: key.api_key.expose(),
        };
        let body = written(&asked);
        let request = self
            .client
            .post(self.settings.mint_url.clone())
            .header("X-Public-Access", "allow")
            .header(CONTENT_TYPE, "application/json")
            .header(ACCEPT, "application/vnd.api+json; version=1.0");
        let sent_at = self.clock.now();
        if sent_at.boot > send_by {
            return Answer::NotSent {
                detail: "too long after its reservation".into(),
            };
        }
        let request = request.body(reqwest::Body::wrap(InTime {
            bytes: Some(body),
            clock: Arc::clone(&self.clock),
            until: sent_at.boot + self.settings.timeout,
        }));
        match timeout(self.settings.timeout, exchange(request)).await {
            Ok(Ok(response)) => {
                let journey = Journey {
                    sent_at,
                    answered_at: self.clock.now(),
                };
                judge(&response, journey, key, self.settings.lifetime)
            }
            Ok(Err(error)) if error.is_connect() || error.is_builder() || was_withheld(&error) => {
                Answer::NotSent {
                    detail: self.explained(error),
                }
            }
            Ok(Err(error)) => Answer::Lost {
                answered: false,
                detail: self.explained(error),
            },
            Err(_) => Answer::Lost {
                answered: false,
                detail: format!("no whole answer within {:?}", self.settings.timeout),
            },
        }
    }

    fn explained(&self, error: reqwest::Error) -> String {
        let ours = transport::explain(&error, error.is_connect(), &self.settings.mint_url);
        transport::with_library(ours, causes(error))
    }
}

impl Issuer for Truecaller {
    fn mint<'a>(&'a self, key: &'a Key, send_by: Duration) -> Pending<'a, Answer> {
        Box::pin(self.ask(key, send_by))
    }
}

/// The request's body, in a place of its size: what grows leaves a copy behind.
fn written(asked: &Asked<'_>) -> Bytes {
    let mut body = Vec::with_capacity(64 + 2 * (asked.key_id.len() + asked.api_key.len()));
    serde_json::to_writer(&mut body, asked).expect("two texts are JSON");
    wiped(body)
}

/// The one POST, and its answer up to [`MOST_BYTES`].
async fn exchange(request: reqwest::RequestBuilder) -> Result<Response, reqwest::Error> {
    let mut response = request.send().await?;
    let mut body = Zeroizing::new(Vec::with_capacity(USUAL_BYTES));
    while let Some(chunk) = response.chunk().await? {
        let room = MOST_BYTES - body.len();
        body.extend_from_slice(&chunk[..chunk.len().min(room)]);
        if chunk.len() >= room {
            break;
        }
    }
    Ok(Response {
        status: response.status(),
        headers: response.headers().clone(),
        body,
    })
}

/// What an answer means: for the token, for the budget, and for the operator. `key` is what was asked with, and is never repeated.
pub fn judge(response: &Response, journey: Journey, key: &Key, lifetime: Duration) -> Answer {
    let status = response.status;
    if status.is_success() {
        return minted(response, journey, lifetime);
    }
    let detail = told(response, key);
    match status.as_u16() {
        429 => Answer::Throttled {
            retry_after: retry_after(&response.headers, journey.answered_at.wall),
            detail,
        },
        401 | 403 => Answer::Refused {
            key_at_fault: true,
            detail,
        },
        408 | 425 | 500..=599 => Answer::Lost {
            answered: true,
            detail,
        },
        _ => Answer::Refused {
            key_at_fault: false,
            detail,
        },
    }
}

fn minted(response: &Response, journey: Journey, lifetime: Duration) -> Answer {
    let lost = |why: &str| Answer::Lost {
        answered: true,
        detail: format!("{} {why}", response.status.as_u16()),
    };
    if response.body.is_empty() {
        return lost("with an empty body");
    }
    // The parser would take the bare values in brackets, too, and its own text may quote the token.
    let object = response.body.trim_ascii_start().starts_with(b"{");
    let Some(given) = object
        .then(|| serde_json::from_slice::<Given>(&response.body).ok())
        .flatten()
    else {
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

/// The issuer's own words for an operator: status, slug and message, cut short, with no key in them.
fn told(response: &Response, key: &Key) -> String {
    let told = serde_json::from_slice::<Told>(&response.body).unwrap_or(Told {
        slug: None,
        message: None,
    });
    let words = [told.slug, told.message]
        .into_iter()
        .flatten()
        .map(|word| shown(&word, key));
    let words: Vec<String> = [response.status.as_u16().to_string()]
        .into_iter()
        .chain(words)
        .collect();
    words.join(" / ")
}

/// Text from outside, made fit for one line of a log.
fn shown(text: &str, key: &Key) -> String {
    let mut text = text.to_owned();
    for secret in [&key.api_key, &key.key_id] {
        text = text.replace(secret.expose(), "…");
    }
    let safe = |c: char| if c.is_control() { ' ' } else { c };
    text.chars().map(safe).take(200).collect()
}

/// An error with its causes, without the address: it is the operator's own and may be long.
fn causes(error: reqwest::Error) -> String {
    let error = error.without_url();
    let mut texts = Vec::new();
    let mut cause = std::error::Error::source(&error);
    while let Some(error) = cause {
        texts.push(error.to_string());
        cause = error.source();
    }
    if texts.is_empty() {
        error.to_string()
    } else {
        texts.join(": ")
    }
}

#[cfg(test)]
mod tests;
