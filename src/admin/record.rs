//! `POST /spend` and `POST /unpark`: an operator changes the record where its folder is out of
//! reach for a command.
//!
//! Answered on Unix sockets only, to the users and groups that the settings name and to the
//! daemon's own user: on a port nobody knows who asks.

use std::sync::Arc;

use hyper::{Method, Request, Response};
use serde_json::json;

use super::failure::Failure;
use super::{Admin, Room, document, wrong_method};
use crate::listener::{Answer, Body, Peer};
use crate::record::edit::{EditError, Editor};

/// What may be changed.
#[derive(Clone, Copy, Debug)]
pub(super) enum Edit {
    /// Slots are taken for mints that were made elsewhere.
    Spend,
    /// Every set of keys may be tried again.
    Unpark,
}

impl Edit {
    /// What is asked for at this path.
    pub(super) fn at(path: &str) -> Option<Self> {
        match path {
            "/spend" => Some(Self::Spend),
            "/unpark" => Some(Self::Unpark),
            _ => None,
        }
    }

    /// As the audit has it.
    fn as_str(self) -> &'static str {
        match self {
            Self::Spend => "spend",
            Self::Unpark => "unpark",
        }
    }
}

impl Admin {
    pub(super) fn edit<B>(
        &self,
        edit: Edit,
        editor: &Arc<Editor>,
        request: &Request<B>,
        peer: Peer,
    ) -> Answer {
        if *request.method() != Method::POST {
            return wrong_method("POST");
        }
        if let Err(failure) = self.room.may_edit(request, peer) {
            let callers = &self.room.callers;
            callers.operator_refused(peer, edit.as_str(), failure.word());
            return failure.response().into();
        }
        let count = count(request.uri().query());
        let (room, editor) = (Arc::clone(&self.room), Arc::clone(editor));
        Answer::later(async move { room.edited(edit, count, &editor, peer).await })
    }
}

impl Room {
    fn may_edit<B>(&self, request: &Request<B>, peer: Peer) -> Result<(), Failure> {
        self.may_change(request, peer)?;
        match self.operators.may_edit(peer) {
            true => Ok(()),
            false => Err(Failure::SocketOnly),
        }
    }

    async fn edited(
        &self,
        edit: Edit,
        count: Option<u32>,
        editor: &Editor,
        peer: Peer,
    ) -> Response<Body> {
        let done = match edit {
            Edit::Spend => self.spend(count.unwrap_or_default(), editor).await,
            Edit::Unpark => self.unpark(editor).await,
        };
        let done = done.map_err(|error| match error {
            EditError::Count { limit } => Failure::BadCount { limit },
            EditError::Unconfirmed(_) => Failure::Unconfirmed(error.to_string().into()),
            error => Failure::Register(error.to_string().into()),
        });
        let outcome = done
            .as_ref()
            .map_or_else(Failure::word, |(outcome, _)| outcome);
        self.callers.operated(peer, edit.as_str(), outcome);
        match done {
            Ok((_, answer)) => document("application/json", format!("{answer}\n")),
            Err(failure) => failure.response(),
        }
    }

    async fn spend(
        &self,
        count: u32,
        editor: &Editor,
    ) -> Result<(&'static str, serde_json::Value), EditError> {
        let clock = self.clock.as_ref();
        let record = editor.spend(count, clock).await?;
        let now = clock.now();
        let frees_at = record.ledger.last().map(|slot| slot.frees_at.shown(now));
        let answer = json!({
            "outcome": "spent",
            "count": count,
            "taken": record.ledger.len(),
            "limit": editor.limit(),
            "frees_at": frees_at.map(|at| format!("{at:.0}")),
        });
        Ok(("spent", answer))
    }

    async fn unpark(
        &self,
        editor: &Editor,
    ) -> Result<(&'static str, serde_json::Value), EditError> {
        let written = editor.unpark(self.clock.as_ref()).await?;
        let outcome = match written {
            Some(_) => "unparked",
            None => "not_parked",
        };
        Ok((outcome, json!({ "outcome": outcome })))
    }
}

/// `count=N`, and nothing else.
fn count(query: Option<&str>) -> Option<u32> {
    let digits = query?.strip_prefix("count=")?;
    let plain = digits.bytes().all(|byte| byte.is_ascii_digit());
    plain.then(|| digits.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_count_is_digits_and_nothing_else() {
        assert_eq!(count(Some("count=2")), Some(2));
        for wrong in [
            "",
            "count=",
            "count=+2",
            "count=-1",
            "count=2&x",
            "n=2",
            "count=99999999999",
        ] {
            assert_eq!(count(Some(wrong)), None, "{wrong}");
        }
        assert_eq!(count(None), None);
    }
}
