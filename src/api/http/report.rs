//! `POST /v1/token/rejected`: a caller says that the issuer refused the token.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use hyper::{HeaderMap, Request, Response, StatusCode};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};

use super::Room;
use crate::api::failure::Failure;
use crate::api::report::{Outcome, is_refusal, judge};
use crate::caller::Visitor;
use crate::caller::rule::Right;
use crate::clock::Stamp;
use crate::listener::{Answer, Body, seconds_until};
use crate::token::Generation;
use crate::vend::Gone;

/// The longest report, in bytes.
const LONGEST: usize = 4096;

/// How long a report may take to arrive.
const PATIENCE: Duration = Duration::from_secs(5);

/// The document as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written<'a> {
    #[serde(default, deserialize_with = "whole_number")]
    generation: Option<u64>,
    #[serde(borrow)]
    etag: Option<Cow<'a, str>>,
    status: u16,
    #[serde(borrow)]
    message: Option<Cow<'a, str>>,
}

/// A number, or one in quotes: Protobuf's JSON writes 64-bit numbers so.
fn whole_number<'de, D: Deserializer<'de>>(from: D) -> Result<Option<u64>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Number<'a> {
        Bare(u64),
        #[serde(borrow)]
        Quoted(Cow<'a, str>),
    }
    let digits = |text: &str| match text.bytes().all(|byte| byte.is_ascii_digit()) {
        true => text.parse().ok(),
        false => None,
    };
    match Option::<Number<'_>>::deserialize(from)? {
        None => Ok(None),
        Some(Number::Bare(number)) => Ok(Some(number)),
        Some(Number::Quoted(text)) => {
            let number = digits(&text).ok_or_else(|| D::Error::custom("it is not a number"))?;
            Ok(Some(number))
        }
    }
}

/// The document as it is meant.
#[derive(Debug, PartialEq, Eq)]
struct Report {
    generation: Generation,
    /// The whole tag, if the report named one.
    tag: Option<String>,
    /// The issuer's answer means that it does not take the token.
    refusal: bool,
}

impl Report {
    /// What is wrong never repeats what was sent: it may hold a token.
    fn parse(body: &[u8]) -> Result<Self, Cow<'static, str>> {
        let not_the_document = |line: usize, column: usize| {
            format!(
                "send {{\"generation\": number or \"etag\": text, \"status\": number, \"message\": text or nothing}} and no other fields; see line {line} column {column}"
            )
        };
        // The parser would take the bare values in brackets, too.
        if !body.trim_ascii_start().starts_with(b"{") {
            return Err(not_the_document(1, 1).into());
        }
        let written: Written<'_> = serde_json::from_slice(body)
            .map_err(|error| not_the_document(error.line(), error.column()))?;
        if !(100..=599).contains(&written.status) {
            return Err("status is the issuer's HTTP status, 100 to 599".into());
        }
        let (generation, tag) = match (written.generation, written.etag) {
            (Some(generation), None) => (Generation(generation), None),
            (None, Some(tag)) => {
                let generation = generation_of(&tag).ok_or(
                    "etag is the ETag header of the answer that gave the token, quotes included",
                )?;
                (generation, Some(tag.into_owned()))
            }
            _ => return Err("name the token by its generation or by its etag, not both".into()),
        };
        Ok(Self {
            generation,
            tag,
            refusal: is_refusal(written.status, written.message.as_deref()),
        })
    }
}

/// What stands before the dash.
fn generation_of(tag: &str) -> Option<Generation> {
    let tag = tag.strip_prefix("W/").unwrap_or(tag);
    let inner = tag.strip_prefix('"')?.strip_suffix('"')?;
    let (generation, fingerprint) = inner.split_once('-')?;
    let well_formed = fingerprint.len() == 8
        && fingerprint.bytes().all(|byte| byte.is_ascii_hexdigit())
        && generation.bytes().all(|byte| byte.is_ascii_digit());
    if !well_formed {
        return None;
    }
    generation.parse().ok().map(Generation)
}

impl Room {
    pub(super) fn rejected<B>(
        self: &Arc<Self>,
        visitor: &Arc<Visitor>,
        request: Request<B>,
    ) -> Answer
    where
        B: hyper::body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        if let Err(denial) = visitor.may(Right::Report) {
            return Failure::from(denial).response().into();
        }
        if !is_json(request.headers()) {
            return Failure::NotJson.response().into();
        }
        let body = request.into_body();
        if body.size_hint().lower() > LONGEST as u64 {
            return Failure::TooLong.response().into();
        }
        let (room, visitor) = (Arc::clone(self), Arc::clone(visitor));
        Answer::later(async move {
            match room.heard(body, &visitor).await {
                Ok((outcome, until)) => room.accepted(outcome, until),
                Err(failure) => failure.response(),
            }
        })
    }

    async fn heard<B>(
        &self,
        body: B,
        visitor: &Visitor,
    ) -> Result<(Outcome, Option<Stamp>), Failure>
    where
        B: hyper::body::Body<Data = Bytes>,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let body = Box::pin(Limited::new(body, LONGEST));
        let body = tokio::time::timeout(PATIENCE, body.collect())
            .await
            .map_err(|_| Failure::TooSlow)?
            .map_err(|error| {
                if error.is::<LengthLimitError>() {
                    Failure::TooLong
                } else {
                    Failure::BadReport("the report ended early".into())
                }
            })?;
        let report = Report::parse(&body.to_bytes()).map_err(Failure::BadReport)?;
        let generation = report.generation;
        let judged = self.judged(report).await;
        let (outcome, until) = judged.map_err(|Gone| Failure::Draining)?;
        visitor.reported(generation, outcome.word());
        Ok((outcome, until))
    }

    async fn judged(&self, report: Report) -> Result<(Outcome, Option<Stamp>), Gone> {
        if !report.refusal {
            return Ok((Outcome::NotARefusal, None));
        }
        if let Some(tag) = report.tag
            && let Ok(live) = self.vend.current(self.clock.now())
            && live.token.generation == report.generation
            && !Tag(&tag).is(&live.etag)
        {
            return Ok((Outcome::StaleGeneration, None));
        }
        judge(&self.vend, report.generation).await
    }

    fn accepted(&self, outcome: Outcome, until: Option<Stamp>) -> Response<Body> {
        self.reports.count(outcome);
        let body = format!("{{\"outcome\":\"{}\"}}\n", outcome.word());
        let mut response = Response::new(Full::new(body.into()));
        *response.status_mut() = StatusCode::ACCEPTED;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Some(until) = until {
            let seconds = seconds_until(until, self.clock.now());
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

/// A tag as a report names it.
struct Tag<'a>(&'a str);

impl Tag<'_> {
    fn is(&self, ours: &HeaderValue) -> bool {
        let bare = |tag: &[u8]| tag.strip_prefix(b"W/").unwrap_or(tag).to_ascii_lowercase();
        bare(self.0.as_bytes()) == bare(ours.as_bytes())
    }
}

fn is_json(headers: &HeaderMap) -> bool {
    headers.get(CONTENT_TYPE).is_some_and(|value| {
        let kind = value.as_bytes().split(|&byte| byte == b';').next();
        kind.unwrap_or_default()
            .trim_ascii()
            .eq_ignore_ascii_case(b"application/json")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse(text: &str) -> Result<Report, Cow<'static, str>> {
        Report::parse(text.as_bytes())
    }

    #[test]
    fn a_report_names_one_token() {
        let report = parse(r#"{"generation": 7, "status": 401}"#).unwrap();
        assert_eq!(
            (report.generation, report.tag, report.refusal),
            (Generation(7), None, true)
        );
        let report =
            parse(r#"{"etag": "W/\"7-0123abcd\"", "status": 401, "message": null}"#).unwrap();
        assert_eq!(report.generation, Generation(7));
        assert_eq!(report.tag.as_deref(), Some("W/\"7-0123abcd\""));
        // As Protobuf's JSON writes it.
        let report = parse(r#"{"generation": "18446744073709551615", "status": 401}"#).unwrap();
        assert_eq!(report.generation, Generation(u64::MAX));
        let report =
            parse(r#"{"generation": null, "etag": "W/\"7-0123abcd\"", "status": 401}"#).unwrap();
        assert_eq!(report.generation, Generation(7));
    }

    #[test]
    fn what_is_not_the_document_is_refused_without_repeating_it() {
        for text in [
            "",
            "[]",
            "[7, null, 401, null]",
            "{",
            r#"{"status": 401}"#,
            r#"{"generation": 7}"#,
            r#"{"generation": "hush", "status": 401}"#,
            r#"{"generation": -7, "status": 401}"#,
            r#"{"generation": "", "status": 401}"#,
            r#"{"generation": "+7", "status": 401}"#,
            r#"{"generation": " 7", "status": 401}"#,
            r#"{"generation": "18446744073709551616", "status": 401}"#,
            r#"{"generation": 7.0, "status": 401}"#,
            r#"{"generation": ["7"], "status": 401}"#,
            r#"{"generation": "7", "status": "401"}"#,
            r#"{"generation": 7, "status": 401, "hush": 1}"#,
            r#"{"generation": 7, "etag": "W/\"7-0123abcd\"", "status": 401}"#,
            r#"{"generation": 7, "status": 99}"#,
            r#"{"generation": 7, "status": 600}"#,
            r#"{"etag": "7-0123abcd", "status": 401}"#,
            r#"{"etag": "\"7\"", "status": 401}"#,
            r#"{"etag": "\"-0123abcd\"", "status": 401}"#,
            r#"{"etag": "\"+7-0123abcd\"", "status": 401}"#,
            r#"{"etag": "\"7-0123abcx\"", "status": 401}"#,
            r#"{"generation": 7, "status": 401} x"#,
        ] {
            let problem = parse(text).unwrap_err();
            assert!(!problem.contains("hush"), "{text}: {problem}");
        }
    }

    #[test]
    fn only_what_is_about_the_token_is_a_refusal() {
        assert!(is_refusal(401, None));
        assert!(is_refusal(500, Some("Failed to Parse Token")));
        assert!(is_refusal(500, Some(r#"{"code":50011}"#)));
        for status in [200, 204, 302, 400, 403, 404, 429, 500, 502, 503] {
            assert!(!is_refusal(status, None), "{status}");
            assert!(!is_refusal(status, Some("something else")), "{status}");
        }
        assert!(!is_refusal(403, Some("failed to parse token")));
    }

    proptest! {
        #[test]
        fn no_bytes_in_a_report_do_harm(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _ = Report::parse(&bytes);
        }

        #[test]
        fn no_etag_in_a_report_does_harm(tag in "(W/)?\"?[0-9a-f\"-]{0,30}\"?") {
            let _ = generation_of(&tag);
        }
    }
}
