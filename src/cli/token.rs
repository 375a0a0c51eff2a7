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
    /// The bare token, and the end of the line.
    Raw,
    /// A header for curl.
    Header,
}

/// How the output looks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Printed {
    pub(super) form: Form,
    /// Whether it ends with the end of a line.
    pub(super) newline: bool,
}

/// Prints the live token.
pub(super) fn print(
    address: Option<&str>,
    printed: Printed,
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
    match printed.form {
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
    if printed.newline {
        console.print("\n");
    }
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

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::TcpListener;
    use std::thread;

    use super::*;

    /// Answers so many requests in turn, and gives what was asked.
    fn answer(listener: &TcpListener, answers: &[&str]) -> Vec<String> {
        let one = |answer: &&str| {
            let (mut stream, _) = listener.accept().unwrap();
            let mut asked = Vec::new();
            while !asked.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                stream.read_exact(&mut byte).unwrap();
                asked.push(byte[0]);
            }
            let (head, body) = answer.split_once('|').unwrap();
            let length = body.len();
            write!(
                stream,
                "HTTP/1.1 {head}\r\nETag: W/\"7-0123abcd\"\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}"
            )
            .unwrap();
            String::from_utf8(asked).unwrap()
        };
        answers.iter().map(one).collect()
    }

    const NOT_YET: &str = "503 Service Unavailable|{\"type\":\"urn:bearerd:problem:no_token_yet\",\"title\":\"none\"}";

    #[test]
    fn a_wait_that_is_longer_than_a_daemon_grants_asks_again() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let clock = SystemClock::new();
        let ends = clock.now().plus(Duration::from_secs(60)).wall;
        let token = format!(
            "200 OK|{{\"access_token\":\"x\",\"expires_in\":60,\"expires_at\":\"{ends}\",\"issued_at\":\"{ends}\",\"generation\":7}}"
        );
        let door = Side::Callers
            .door(Some(&address), &Sources::default())
            .unwrap();
        thread::scope(|scope| {
            let asked = scope.spawn(|| answer(&listener, &[NOT_YET, NOT_YET, &token]));
            let patience = Duration::from_secs(3600);
            let (token, _) = crate::cli::block_on(long(&door, patience, &clock)).unwrap();
            assert_eq!(token.generation().0, 7);
            for request in asked.join().unwrap() {
                assert!(request.contains("prefer: wait=60\r\n"), "{request}");
            }
        });
        // Whoever would not wait is told at once.
        thread::scope(|scope| {
            let asked = scope.spawn(|| answer(&listener, &[NOT_YET]));
            let told = crate::cli::block_on(long(&door, Duration::ZERO, &clock)).unwrap_err();
            assert_eq!(told.to_string(), "none");
            assert!(!asked.join().unwrap()[0].contains("prefer"));
        });
    }
}
