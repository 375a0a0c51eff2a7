//! What a daemon's answers mean. Everything here is a pure function of what came.

use std::borrow::Cow;
use std::time::Duration;

use jiff::Timestamp;
use serde::Deserialize;

use super::Token;
use crate::clock::Stamp;
use crate::token::{Generation, Secret};

/// What a report came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reported {
    /// It is believed, and a successor is being minted.
    Refreshing,
    /// It is about another generation than the current one.
    StaleGeneration,
    /// The token is so young that the issuer may not know it everywhere yet.
    TooYoung,
    /// It is believed, and a successor is minted when the pace allows: after so many seconds, where that was said.
    Paced {
        /// How long until then.
        retry_after: Option<u64>,
    },
    /// Such an answer of the issuer is not about the token.
    NotARefusal,
    /// A word that a newer daemon says.
    Other(String),
}

impl Reported {
    pub(super) fn parse(body: &[u8], retry_after: Option<u64>) -> Option<Self> {
        #[derive(Deserialize)]
        struct Written {
            outcome: String,
        }
        let written: Written = serde_json::from_slice(body).ok()?;
        Some(match written.outcome.as_str() {
            "refreshing" => Self::Refreshing,
            "stale_generation" => Self::StaleGeneration,
            "too_young" => Self::TooYoung,
            "paced" => Self::Paced { retry_after },
            "not_a_refusal" => Self::NotARefusal,
            _ => Self::Other(written.outcome),
        })
    }
}

/// A problem document, as far as it is one. It goes to terminals, and so it has no control characters, whoever it is that answers.
#[derive(Default)]
pub(super) struct Told {
    pub(super) word: String,
    pub(super) detail: String,
}

impl Told {
    pub(super) fn parse(body: &[u8]) -> Option<Self> {
        #[derive(Deserialize)]
        struct Written {
            r#type: String,
            #[serde(default)]
            title: String,
            #[serde(default)]
            detail: String,
        }
        let written: Written = serde_json::from_slice(body).ok()?;
        let word = written.r#type.strip_prefix("urn:bearerd:problem:")?;
        let detail = match (written.title.as_str(), written.detail.as_str()) {
            (title, "") => title.to_owned(),
            ("", detail) => detail.to_owned(),
            (title, detail) => format!("{title}: {detail}"),
        };
        Some(Self {
            word: word.replace(char::is_control, " "),
            detail: detail.replace(char::is_control, " "),
        })
    }
}

/// The token in a document that arrived at `now`; what is wrong with it is told without repeating any of it.
pub(super) fn token(body: &[u8], etag: &str, now: Stamp) -> Result<Token, String> {
    #[derive(Deserialize)]
    struct Written<'a> {
        #[serde(borrow)]
        access_token: Cow<'a, str>,
        expires_in: u64,
        expires_at: Timestamp,
        issued_at: Timestamp,
        generation: Generation,
    }
    let written: Written<'_> = serde_json::from_slice(body).map_err(|error| {
        let (line, column) = (error.line(), error.column());
        format!("its answer is not the documented one, at line {line} column {column}")
    })?;
    let secret = Secret::new(written.access_token.into_owned());
    if !secret.could_be_token() {
        return Err("what it gives cannot be a token".into());
    }
    let in_time = now.plus(Duration::from_secs(written.expires_in));
    Ok(Token {
        secret,
        etag: etag.to_owned(),
        generation: written.generation,
        issued_at: written.issued_at,
        expires_at: Stamp {
            wall: written.expires_at,
            boot: in_time.boot,
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_problem_says_cannot_draw_on_a_terminal() {
        let body =
            br#"{"type":"urn:bearerd:problem:a\u0007b","title":"\u001b[2Jx","detail":"one\ntwo"}"#;
        let told = Told::parse(body).unwrap();
        assert_eq!(
            (told.word.as_str(), told.detail.as_str()),
            ("a b", " [2Jx: one two")
        );
    }
}
