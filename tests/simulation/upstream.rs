//! The issuer: it counts, it mints, and the weather on the way to it changes.

use std::collections::VecDeque;
use std::time::Duration;

use bearerd::clock::Stamp;
use bearerd::issuer::{Answer, Minted};
use bearerd::token::Secret;

use crate::clocks::{Nanos, SECOND};
use crate::faults::Kind;
use crate::laws::Epoch;

/// A token, as the issuer knows it.
#[derive(Clone, Copy)]
pub struct Issued {
    pub minted: Nanos,
    pub end: Nanos,
    pub revoked: bool,
    /// Which stretch of the truth the request belongs to that minted it.
    pub epoch: Epoch,
}

/// What a 429 says of how long to wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RetryAfter {
    /// Anything, or nothing.
    Any,
    /// Nothing.
    Never,
    /// The truth.
    True,
}

pub struct Upstream {
    lifetime: Nanos,
    window: Nanos,
    limit: usize,
    revokes_previous: bool,
    weather: Option<(Kind, Nanos)>,
    next: VecDeque<Kind>,
    pub tokens: Vec<Issued>,
    /// What it counts by itself, the second copies included.
    counted: VecDeque<Nanos>,
    /// Requests that strangers will make with our account, in their order. They count like ours.
    pub strangers: VecDeque<Nanos>,
    pub retry_after: RetryAfter,
}

impl Upstream {
    pub fn new(lifetime: Nanos, window: Nanos, limit: usize, revokes_previous: bool) -> Self {
        Self {
            lifetime,
            window,
            limit,
            revokes_previous,
            weather: None,
            next: VecDeque::new(),
            tokens: Vec::new(),
            counted: VecDeque::new(),
            strangers: VecDeque::new(),
            retry_after: RetryAfter::Any,
        }
    }

    /// It counts by another window from now on.
    pub fn lengthen(&mut self, window: Nanos) {
        self.window = window;
    }

    /// From now until then; with no length, for the next request alone.
    pub fn change(&mut self, kind: Kind, until: Option<Nanos>) {
        match until {
            Some(until) => self.weather = Some((kind, until)),
            None => self.next.push_back(kind),
        }
    }

    pub fn clear(&mut self) {
        self.weather = None;
        self.next.clear();
    }

    /// What a request meets that leaves now.
    pub fn weather(&mut self, now: Nanos) -> Option<Kind> {
        let lasting = self.weather.filter(|it| it.1 > now).map(|it| it.0);
        self.next.pop_front().or(lasting)
    }

    pub fn revoke(&mut self) {
        for token in &mut self.tokens {
            token.revoked = true;
        }
    }

    /// A request is here.
    pub fn answer(
        &mut self,
        now: Nanos,
        sent_at: Stamp,
        weather: Option<Kind>,
        key: u32,
        extra: u64,
    ) -> Answer {
        while self.strangers.front().is_some_and(|at| *at <= now) {
            self.counted.extend(self.strangers.pop_front());
        }
        while self
            .counted
            .front()
            .is_some_and(|at| at + self.window < now)
        {
            self.counted.pop_front();
        }
        let full = self.counted.len() >= self.limit;
        self.counted.push_back(now);
        if weather == Some(Kind::Duplicated) {
            self.counted.push_back(now);
        }
        let detail = String::new();
        let throttled = Answer::Throttled {
            retry_after: self.retry_after(now, full, extra),
            detail: detail.clone(),
        };
        if full {
            return throttled;
        }
        match weather {
            Some(Kind::ServerError | Kind::Garbled) => Answer::Lost {
                answered: true,
                detail,
            },
            Some(Kind::Throttled) => throttled,
            Some(Kind::KeyRefused) if key == 0 => Answer::Refused {
                key_at_fault: true,
                detail,
            },
            Some(Kind::AllRefused) => Answer::Refused {
                key_at_fault: false,
                detail,
            },
            Some(Kind::Repeated) if !self.tokens.is_empty() => self.give(now, sent_at),
            Some(Kind::Aged) => self.mint(now, sent_at, extra % self.lifetime + SECOND),
            _ => self.mint(now, sent_at, 0),
        }
    }

    /// How long a 429 asks to wait.
    fn retry_after(&self, now: Nanos, full: bool, extra: u64) -> Option<Duration> {
        let wait = match self.retry_after {
            RetryAfter::Any if extra.is_multiple_of(3) => return None,
            RetryAfter::Any => extra % self.window,
            RetryAfter::Never => return None,
            // Until so many have left the window that one more fits in, this request included.
            RetryAfter::True if full => {
                self.counted[self.counted.len() - self.limit] + self.window + 1 - now
            }
            RetryAfter::True => self.weather.map_or(0, |it| it.1.saturating_sub(now)),
        };
        Some(Duration::from_nanos(wait))
    }

    fn mint(&mut self, now: Nanos, sent_at: Stamp, age: Nanos) -> Answer {
        self.remember(now, (now + self.lifetime).saturating_sub(age));
        self.give(now, sent_at)
    }

    fn remember(&mut self, minted: Nanos, end: Nanos) {
        if self.revokes_previous {
            self.revoke_last();
        }
        self.tokens.push(Issued {
            minted,
            end,
            revoked: false,
            epoch: 0,
        });
    }

    fn revoke_last(&mut self) {
        if let Some(last) = self.tokens.last_mut() {
            last.revoked = true;
        }
    }

    /// The newest token, with the issuer's own word on how old it is.
    fn give(&self, now: Nanos, sent_at: Stamp) -> Answer {
        let index = self.tokens.len() - 1;
        let aged = (now + self.lifetime).saturating_sub(self.tokens[index].end);
        Answer::Minted(Minted {
            secret: Secret::new(format!("token-{index}")),
            sent_at,
            aged: Duration::from_nanos(aged),
            note: None,
        })
    }
}

/// Which of the issuer's tokens this is.
pub fn index_of(secret: &Secret) -> u64 {
    let number = secret.expose().strip_prefix("token-");
    number
        .and_then(|it| it.parse().ok())
        .expect("every token comes from the issuer")
}
