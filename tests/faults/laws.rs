//! The laws as one caller sees them, asserted at every answer.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bearerd::sandbox::{Outcome, Sandbox};
use jiff::{SignedDuration, Timestamp};
use reqwest::header::{HeaderMap, HeaderValue};
use serde_json::Value;
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::harness::{Daemon, World};

/// What a caller has seen so far.
#[derive(Clone, Copy, Debug, Default)]
pub struct Seen {
    /// Answers with a token.
    pub vended: u64,
    /// Answers without one.
    pub unavailable: u64,
    /// Different tokens.
    pub tokens: u64,
}

/// The newest token that was vended.
struct Last {
    generation: u64,
    token: String,
    /// As the daemon tells it.
    expires_at: Timestamp,
}

/// Judges every answer that one daemon gives to one caller.
pub struct Judge {
    sandbox: Sandbox,
    lifetime: SignedDuration,
    /// The end of each token, by the issuer.
    ends: HashMap<String, Timestamp>,
    last: Option<Last>,
    /// Its wall clock may be set forward at any time, and then it may have to withhold a token that lives.
    steps: bool,
    pub seen: Seen,
}

impl Judge {
    pub fn new(world: &World) -> Self {
        Self {
            steps: false,
            sandbox: world.sandbox.clone(),
            lifetime: SignedDuration::try_from(world.scale.lifetime).unwrap(),
            ends: HashMap::new(),
            last: None,
            seen: Seen::default(),
        }
    }

    /// For a daemon whose wall clock steps.
    pub fn stepping(world: &World) -> Self {
        Self {
            steps: true,
            ..Self::new(world)
        }
    }

    /// Asserts laws 3 and 4 on the answer to a question that was asked between these two moments.
    pub fn answer(&mut self, asked: Timestamp, status: u16, text: &str, answered: Timestamp) {
        match status {
            200 => self.token(asked, text),
            503 => self.none(text, answered),
            other => panic!("{other}: {text}"),
        }
    }

    fn token(&mut self, asked: Timestamp, text: &str) {
        let json: Value = serde_json::from_str(text).unwrap();
        let generation = json["generation"].as_u64().unwrap();
        let token = json["access_token"].as_str().unwrap();
        let end = self.end(token);
        assert!(
            asked < end,
            "law 4: generation {generation} was vended {:#} after its end",
            asked.duration_since(end)
        );
        match &self.last {
            Some(last) => {
                let before = last.generation;
                assert!(before <= generation, "law 3: {before}, then {generation}");
                assert_eq!(before == generation, last.token == token, "a number each");
                self.seen.tokens += u64::from(before < generation);
            }
            None => self.seen.tokens += 1,
        }
        let [issued_at, expires_at]: [Timestamp; 2] =
            ["issued_at", "expires_at"].map(|it| json[it].as_str().unwrap().parse().unwrap());
        if !self.steps {
            let life = expires_at.duration_since(issued_at);
            let short = self.lifetime - life;
            // Both are cut to milliseconds; and who was interrupted between the readings of its two
            // clocks shows the end of the one that ends first.
            assert!(
                (-1..=100).contains(&short.as_millis()),
                "law 4: a life of {life:#}"
            );
        }
        self.last = Some(Last {
            generation,
            token: token.to_owned(),
            expires_at,
        });
        self.seen.vended += 1;
    }

    /// A token that was vended once is vended until its end.
    fn none(&mut self, text: &str, answered: Timestamp) {
        self.seen.unavailable += 1;
        let Some(last) = &self.last else {
            return;
        };
        assert!(text.contains("expired"), "{text}");
        assert!(
            self.steps || answered >= last.expires_at,
            "law 4: generation {} was withheld {:#} before its end",
            last.generation,
            last.expires_at.duration_since(answered)
        );
    }

    /// When the issuer stops taking a token.
    fn end(&mut self, token: &str) -> Timestamp {
        if let Some(end) = self.ends.get(token) {
            return *end;
        }
        let tokens = self.sandbox.issued_tokens();
        let number = tokens.iter().position(|issued| issued == token).unwrap() as u64 + 1;
        let log = self.sandbox.log();
        let minted = log.entries.iter().find(|entry| {
            matches!(entry.outcome, Outcome::Minted { generation, .. } if generation == number)
        });
        let end = minted.unwrap().wall + self.lifetime;
        self.ends.insert(token.to_owned(), end);
        end
    }
}

/// A caller in the background that asks again and again.
pub struct Reader {
    stop: Arc<AtomicBool>,
    task: JoinSet<Seen>,
}

impl Reader {
    pub fn start(world: &World, daemon: &Daemon) -> Self {
        Self::with(Judge::new(world), daemon)
    }

    /// For a daemon whose wall clock is not the true one.
    pub fn stepping(world: &World, daemon: &Daemon) -> Self {
        Self::with(Judge::stepping(world), daemon)
    }

    fn with(judge: Judge, daemon: &Daemon) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let mut task = JoinSet::new();
        let url = format!("http://{}/v1/token", daemon.http);
        task.spawn(read_on(judge, url, Arc::clone(&stop)));
        Self { stop, task }
    }

    /// What it has seen. Fails if any answer broke a law.
    pub async fn finish(mut self) -> Seen {
        self.stop.store(true, Ordering::Relaxed);
        let seen = self.task.join_next().await.unwrap().unwrap();
        assert!(seen.vended > 0, "the reader has read nothing");
        seen
    }
}

/// A client that asks as callers must.
pub fn client() -> reqwest::Client {
    let mut headers = HeaderMap::new();
    headers.insert("x-bearerd-request", HeaderValue::from_static("true"));
    let _installed_already = rustls::crypto::ring::default_provider().install_default();
    let client = reqwest::Client::builder().default_headers(headers);
    client.no_proxy().build().unwrap()
}

async fn read_on(mut judge: Judge, url: String, stop: Arc<AtomicBool>) -> Seen {
    let client = client();
    while !stop.load(Ordering::Relaxed) {
        let asked = bearerd::clock::wall();
        let reply = client.get(&url).send().await.unwrap();
        let (status, text) = (reply.status().as_u16(), reply.text().await.unwrap());
        judge.answer(asked, status, &text, bearerd::clock::wall());
        sleep(Duration::from_millis(3)).await;
    }
    judge.seen
}

/// What all of these came to. Each is seen to its end before any failure counts.
pub async fn every<T: 'static>(mut running: JoinSet<T>) -> Vec<T> {
    let (mut ended, mut failed) = (Vec::new(), 0);
    while let Some(one) = running.join_next().await {
        match one {
            Ok(one) => ended.push(one),
            Err(_) => failed += 1,
        }
    }
    assert_eq!(failed, 0, "of {}, as told above", ended.len() + failed);
    ended
}
