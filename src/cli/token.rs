//! `token` and `wait`: what scripts ask.

use std::time::Duration;

use clap::ValueEnum;
use tokio::time::{Instant, sleep, timeout};

use super::reach::Side;
use super::{Console, Exit};
use crate::client::{Body, Door, Failure, LONGEST_WAIT, Token};
use crate::clock::{Clock as _, SystemClock};
use crate::config::Sources;

/// How often a daemon that does not answer is asked again.
const AGAIN: Duration = Duration::from_millis(100);

/// How a token is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Form {
    /// The document as the daemon gave it.
    Json,
    /// The bare token.
    Raw,
    /// A header for curl.
    Header,
}

/// Prints the live token.
pub(super) fn print(
    address: Option<&str>,
    form: Form,
    patience: Duration,
    sources: &Sources,
    console: &mut Console<'_>,
) -> Exit {
    let side = Side::Callers;
    let clock = SystemClock::new();
    let asked = side.door(address, sources).and_then(|door| {
        super::block_on(long(&door, patience, &clock)).map_err(|failure| side.told(&failure))
    });
    let (token, document) = match asked {
        Ok(asked) => asked,
        Err((exit, why)) => return console.end(exit, &why),
    };
    if token.expired(clock.now()) {
        return console.end(Exit::TryAgain, "the token has just expired");
    }
    match form {
        Form::Json => {
            let text = String::from_utf8_lossy(&document);
            console.print(text.trim_end());
        }
        Form::Raw => console.print(token.secret().expose()),
        Form::Header => {
            console.print("Authorization: Bearer ");
            console.print(token.secret().expose());
        }
    }
    console.print("\n");
    Exit::Done
}

/// Asks once, or again and again where somebody would wait longer than a daemon grants at once.
async fn long(
    door: &Door,
    patience: Duration,
    clock: &SystemClock,
) -> Result<(Token, Body), Failure> {
    let end = Instant::now() + patience;
    loop {
        let asked_at = Instant::now();
        let left = end.saturating_duration_since(asked_at);
        let asked = door.token(left.min(LONGEST_WAIT), clock).await;
        match asked {
            Err(Failure::NotNow { .. }) if Instant::now() + AGAIN < end => {
                sleep(AGAIN.saturating_sub(asked_at.elapsed())).await;
            }
            asked => return asked,
        }
    }
}

/// Waits until there is a live token, though nobody may answer yet.
pub(super) fn wait(
    address: Option<&str>,
    patience: Duration,
    sources: &Sources,
    console: &mut Console<'_>,
) -> Exit {
    let side = Side::Callers;
    let door = match side.door(address, sources) {
        Ok(door) => door,
        Err((exit, why)) => return console.end(exit, &why),
    };
    let mut last = None;
    let until_live = async {
        let (clock, end) = (SystemClock::new(), Instant::now() + patience);
        loop {
            // Whole seconds, and not the last half, so that the daemon's own reason comes back before the time is over.
            let left = end.saturating_duration_since(Instant::now() + AGAIN * 5);
            let whole = Duration::from_secs(left.min(LONGEST_WAIT).as_secs());
            match door.token(whole, &clock).await {
                Ok(_) => return Ok(()),
                Err(failure) if !failure.may_pass() => return Err(failure),
                Err(failure) => last = Some(failure),
            }
            sleep(AGAIN).await;
        }
    };
    let ended = super::block_on(async { timeout(patience, until_live).await });
    let (exit, why) = match ended {
        Ok(Ok(())) => return Exit::Done,
        Ok(Err(failure)) => side.told(&failure),
        Err(_) => match last {
            Some(failure) => (Exit::TryAgain, side.told(&failure).1),
            None => (
                Exit::TryAgain,
                format!("{} has not answered yet", door.address()),
            ),
        },
    };
    let patience = humantime::format_duration(patience);
    match exit {
        Exit::TryAgain => console.end(exit, &format!("no token within {patience}: {why}")),
        exit => console.end(exit, &why),
    }
}
