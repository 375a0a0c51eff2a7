//! The report of a refused token: the first byte chooses how it arrives, the rest is its body.
//!
//! It is accepted only if it is the documented document, it is passed on only if it means that the token was refused, and what is
//! wrong with it is told without repeating it.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bearerd::listener::{Answer, Connection, Peer, Service};
use bearerd::token::Generation;
use bearerd::vend::ReportOutcome;
use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::Request;
use hyper::body::{Body, Frame, SizeHint};
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::room::{self, Room};

const LONGEST: usize = 4096;

/// A body that arrives in pieces, and says its length beforehand or does not.
struct Pieces {
    left: VecDeque<Bytes>,
    says_length: bool,
}

impl Body for Pieces {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.left.pop_front().map(|piece| Ok(Frame::data(piece))))
    }

    fn size_hint(&self) -> SizeHint {
        let length = self.left.iter().map(|piece| piece.len() as u64).sum();
        if self.says_length {
            SizeHint::with_exact(length)
        } else {
            SizeHint::new()
        }
    }
}

pub fn report(data: &[u8]) {
    let Some((&manner, body)) = data.split_first() else {
        return;
    };
    let (status, answer, heard) = sent(manner, body);
    let document = serde_json::from_slice::<Value>(body).ok();
    match status {
        202 => {
            let document = document.expect("only JSON is accepted");
            let meant = is_documented(&document);
            assert_eq!(meant.refusal, answer["outcome"] != "not_a_refusal");
            // A tag with another fingerprint is stale, and nobody need be asked.
            let by_tag = meant.by_tag && answer["outcome"] == "stale_generation";
            assert!(by_tag || heard.is_some() == meant.refusal);
            assert!(heard.is_none_or(|heard| Some(heard) == meant.generation));
            // Written anew it means the same.
            let anew = serde_json::to_vec(&document).unwrap();
            if anew.len() <= LONGEST {
                let again = sent(manner, &anew);
                assert_eq!((again.0, &again.1, again.2), (202, &answer, heard));
            }
        }
        413 => assert!(body.len() > LONGEST),
        400 => {
            assert_eq!(answer["type"], "urn:bearerd:problem:bad_report");
            let detail = answer["detail"].as_str().unwrap();
            assert!(is_ours(detail), "{detail}");
        }
        other => panic!("{other}: {answer}"),
    }
    assert_eq!(status == 413, body.len() > LONGEST);
}

/// What a document says that was accepted.
struct Meant {
    generation: Option<Generation>,
    refusal: bool,
    by_tag: bool,
}

/// Reads an accepted document by the rules of `proto/README.md` alone.
fn is_documented(document: &Value) -> Meant {
    let fields = document.as_object().expect("an object");
    assert!(
        fields
            .keys()
            .all(|name| ["generation", "etag", "status", "message"].contains(&name.as_str()))
    );
    let status = document["status"].as_u64().expect("a status");
    assert!((100..600).contains(&status));
    let message = document["message"]
        .as_str()
        .unwrap_or_default()
        .to_ascii_lowercase();
    let refusal = status == 401
        || (status == 500
            && (message.contains("failed to parse token") || message.contains("50011")));
    let generation = match &document["generation"] {
        Value::String(digits) => Some(digits.parse().expect("digits")),
        number => number.as_u64(),
    };
    let tag = document["etag"].as_str();
    assert!(
        generation.is_some() != tag.is_some(),
        "one name for the token"
    );
    let from_tag = tag.map(|tag| {
        let inner = tag.trim_start_matches("W/").trim_matches('"');
        inner
            .split('-')
            .next()
            .unwrap()
            .parse()
            .expect("a tag holds a generation")
    });
    Meant {
        generation: generation.or(from_tag).map(Generation),
        refusal,
        by_tag: tag.is_some(),
    }
}

/// True for one of the few sentences that a report is refused with.
fn is_ours(detail: &str) -> bool {
    let (sentence, place) = detail
        .split_once("; see line ")
        .unwrap_or((detail, "0 column 0"));
    let known = [
        "send {\"generation\": number or \"etag\": text, \"status\": number, \"message\": text or nothing} and no other fields",
        "status is the issuer's HTTP status, 100 to 599",
        "etag is the ETag header of the answer that gave the token, quotes included",
        "name the token by its generation or by its etag, not both",
        "the report ended early",
    ];
    let numbers = place.split(" column ").all(|it| it.parse::<u32>().is_ok());
    known.contains(&sentence) && numbers
}

/// Sends it, and gives the status, the answer and the generation that the keeper heard of.
fn sent(manner: u8, body: &[u8]) -> (u16, Value, Option<Generation>) {
    let outcome = match manner & 3 {
        0 => ReportOutcome::Refreshing,
        1 => ReportOutcome::StaleGeneration,
        2 => ReportOutcome::TooYoung,
        _ => ReportOutcome::Paced {
            until: room::start().plus(Duration::from_secs(u64::from(manner))),
        },
    };
    let size = [usize::MAX, 1, 7, 1000][usize::from(manner >> 2 & 3)];
    let left = body
        .chunks(size.min(body.len().max(1)))
        .map(Bytes::copy_from_slice)
        .collect();
    let body = Pieces {
        left,
        says_length: manner & 16 != 0,
    };
    room::run(async move {
        let Room {
            vend,
            api,
            commands,
            ..
        } = Room::open();
        vend.publish(room::live(5, Duration::from_secs(3600), false));
        let request = Request::post("/v1/token/rejected")
            .header("host", "localhost")
            .header("x-bearerd-request", "true")
            .header("content-type", "application/json")
            .body(body)
            .unwrap();
        let connection = Connection {
            peer: Peer::Loopback(SocketAddr::from(([127, 0, 0, 1], 49_152))),
            names: None,
            drain: CancellationToken::new(),
        };
        let mut heard = None;
        let response = match api.on(&connection).answer(request, &connection) {
            Answer::Now(response) => response,
            Answer::Later(later) | Answer::Wait(later, _) => tokio::select! {
                response = later => response,
                () = room::keep(commands, outcome, |generation| heard = Some(generation)) => unreachable!(),
            },
        };
        let (parts, body) = response.into_parts();
        assert_eq!(parts.headers["cache-control"], "no-store");
        let body = body.collect().await.unwrap().to_bytes();
        let answer = serde_json::from_slice(&body).expect("every answer is JSON");
        (parts.status.as_u16(), answer, heard)
    })
}
