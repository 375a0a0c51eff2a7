//! `/livez`, `/readyz`, `/startupz`: the truth at the moment of the question, never a memory of it.

use hyper::{Response, StatusCode};

use super::Room;
use crate::clock::Stamp;
use crate::listener::{Body, text};
use crate::vend::{Status, Unavailable};

impl Room {
    /// Live as long as it answers: neither the issuer nor the register can make it die.
    pub(super) fn livez(&self) -> Response<Body> {
        text(StatusCode::OK, "ok\n")
    }

    /// Ready if a token can be vended now, where callers look for it, and the process means to go on.
    pub(super) fn readyz(&self, query: &str, lost: &[String]) -> Response<Body> {
        let now = self.clock.now();
        let current = self.vend.current(now).map(|_| ());
        let draining = self.draining.is_cancelled();
        let ready = current.is_ok() && !draining && lost.is_empty();
        let (code, word) = if ready {
            (StatusCode::OK, "ready\n")
        } else {
            (StatusCode::SERVICE_UNAVAILABLE, "not ready\n")
        };
        let verbose = query
            .split('&')
            .any(|it| it == "verbose" || it.starts_with("verbose="));
        if verbose {
            let reasons = reasons(current, draining, lost, &self.vend.status(), now);
            text(code, format!("{word}{reasons}"))
        } else {
            text(code, word)
        }
    }

    /// Started once a token lives, or once the grace is over.
    pub(super) fn startupz(&self) -> Response<Body> {
        let served = self.since.age(self.clock.now());
        if self.usable() {
            text(StatusCode::OK, "started\n")
        } else if served >= self.startup_grace {
            text(StatusCode::OK, "started without a token\n")
        } else {
            text(StatusCode::SERVICE_UNAVAILABLE, "starting\n")
        }
    }
}

/// How things stand, a line each.
fn reasons(
    current: Result<(), Unavailable>,
    draining: bool,
    lost: &[String],
    status: &Status,
    now: Stamp,
) -> String {
    let token = match (current, &status.token) {
        (Err(Unavailable::NoTokenYet), _) => "none yet".into(),
        (Err(Unavailable::Expired), Some(token)) => {
            format!("expired at {:.0}", token.expires_at.shown_expiry(now))
        }
        (Err(Unavailable::Expired), None) => "expired".into(),
        (Ok(()), Some(token)) => {
            let suspect = if token.suspect { ", suspect" } else { "" };
            format!(
                "generation {}, live until {:.0}{suspect}",
                token.generation,
                token.expires_at.shown_expiry(now)
            )
        }
        (Ok(()), None) => "live".into(),
    };
    let register = &status.register;
    let register = match (register.kind, register.up, &register.detail) {
        ("", ..) => "not read yet".into(),
        (kind, true, _) => format!("{kind}, up"),
        (kind, false, None) => format!("{kind}, down"),
        (kind, false, Some(detail)) => format!("{kind}, down: {detail}"),
    };
    let parked = match &status.parked {
        None => "no".into(),
        Some(parked) => format!("since {:.0}: {}", parked.since.shown(now), parked.reason),
    };
    let trouble = match &status.trouble {
        None => "none".into(),
        Some(trouble) => format!("{}: {}", trouble.code, trouble.detail),
    };
    let next = match (&status.minting, &status.next) {
        (Some(attempt), _) => format!("attempt {attempt} is under way"),
        (None, None) => "none planned".into(),
        (None, Some(next)) => format!(
            "{:.0} at the earliest, {} ({}), waiting for {}",
            next.at.shown(now),
            next.class,
            next.trigger,
            next.waiting_for
        ),
    };
    let draining = if draining { "yes" } else { "no" };
    let sockets = match lost {
        [] => "found".into(),
        lost => format!("not found: {}", lost.join(", ")),
    };
    let lines = [
        ("token", token),
        ("register", register),
        ("parked", parked),
        ("trouble", trouble),
        ("next attempt", next),
        ("draining", draining.into()),
        ("sockets", sockets),
    ];
    lines
        .iter()
        .map(|(name, line)| format!("{name}: {}\n", line.replace(['\n', '\r'], " ")))
        .collect()
}
