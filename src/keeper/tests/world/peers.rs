//! The world's register, which does what the script says, and its issuer, which counts.

use std::time::Duration;

use reqwest::StatusCode;
use reqwest::header::{HeaderMap, HeaderValue, LOCATION};
use zeroize::Zeroizing;

use super::{Event, Fate, Reply, World};
use crate::clock::Stamp;
use crate::issuer::truecaller::{Journey, Response, judge};
use crate::issuer::{Answer, Key, Minted};
use crate::keeper::Input;
use crate::record::{Loaded, Record, RegisterError, Swapped, Version};
use crate::token::Secret;

impl World {
    pub(super) fn load(&mut self, daemon: usize, number: u64) {
        let result = if self.register_down {
            Err(down())
        } else {
            let found = self.cell.as_ref();
            Ok(Loaded {
                found: found.map(|(record, count)| (record.clone(), version(*count))),
                moved_aside: None,
            })
        };
        self.answer(daemon, number, Input::Loaded(result));
    }

    pub(super) fn swap(
        &mut self,
        daemon: usize,
        number: u64,
        seen: Option<&Version>,
        next: Record,
    ) {
        let fate = match self.fates.pop_front() {
            _ if self.register_down => Fate::Unavailable,
            fate => fate.unwrap_or(Fate::Served),
        };
        let fits = seen
            == self
                .cell
                .as_ref()
                .map(|(_, count)| version(*count))
                .as_ref();
        if fits && matches!(fate, Fate::Served | Fate::UnknownAndDone) {
            self.writes += 1;
            if let Some(claim) = &next.claim {
                self.reserved.insert((claim.holder.clone(), claim.attempt));
            }
            self.wall_ahead_when_written = self.machines[self.daemons[daemon].machine].wall_ahead;
            self.cell = Some((next, self.writes));
            self.tell_others(daemon);
        }
        let outcome = match fate {
            Fate::Unavailable => Swapped::Unavailable(down()),
            Fate::UnknownAndDone | Fate::UnknownAndNotDone => Swapped::Unknown(down()),
            Fate::Served if fits => Swapped::Done(version(self.writes)),
            Fate::Served => Swapped::Conflict,
        };
        self.answer(daemon, number, Input::Swapped(outcome));
    }

    pub(super) fn tell_others(&mut self, writer: usize) {
        for daemon in 0..self.daemons.len() {
            if let Some(life) = self.daemons[daemon]
                .life
                .as_ref()
                .filter(|_| daemon != writer)
            {
                let number = life.number;
                let poll = Duration::from_millis(self.dice.u64(1..500));
                self.push(poll, Event::Give(daemon, number, Box::new(Input::Changed)));
            }
        }
    }

    /// The issuer's client: it looks at the clock, and sends.
    pub(super) fn post(&mut self, daemon: usize, number: u64, send_by: Duration) {
        let sent_at = self.stamp(self.daemons[daemon].machine);
        let reply = self.replies.pop_front();
        let reply = reply.unwrap_or_else(|| self.otherwise.clone());
        if sent_at.boot > send_by || reply == Reply::NotSent {
            let detail = "not sent".to_owned();
            return self.answer(daemon, number, Input::Minted(Answer::NotSent { detail }));
        }
        let way = match &reply {
            Reply::Lost(way) => {
                let timed_out = Answer::Lost {
                    answered: false,
                    detail: "time-out".into(),
                };
                let event = Event::Give(daemon, number, Box::new(Input::Minted(timed_out)));
                self.push(self.rules.timeout, event);
                *way
            }
            _ => self.latency,
        };
        self.push(way, Event::Arrive(daemon, number, sent_at, reply));
    }

    pub(super) fn arrive(&mut self, daemon: usize, number: u64, sent_at: Stamp, reply: &Reply) {
        self.arrivals.push(self.now);
        let window = self.rules.budget.window;
        let counted = self.arrivals.iter().rev();
        let counted = counted.take_while(|at| **at + window >= self.now).count();
        assert!(
            counted <= self.rules.budget.limit.get() as usize,
            "law 1: {counted} mints in a closed window"
        );
        let detail = "as the script says".to_owned();
        let aged = match reply {
            Reply::Aged(age) => *age,
            _ => Duration::ZERO,
        };
        let answer = match reply {
            Reply::Lost(_) | Reply::NotSent => return,
            Reply::Token | Reply::Aged(_) => {
                self.minted += 1;
                self.token(sent_at, aged)
            }
            Reply::Repeated => self.token(sent_at, aged),
            Reply::Broken => Answer::Lost {
                answered: true,
                detail,
            },
            Reply::Http(status, location, body) => {
                let answered_at = self.stamp(self.daemons[daemon].machine);
                let journey = Journey {
                    sent_at,
                    answered_at,
                };
                judged(*status, *location, body, journey, self.rules.lifetime)
            }
            Reply::Throttled(retry_after) => Answer::Throttled {
                retry_after: *retry_after,
                detail,
            },
            Reply::Refused(key_at_fault) => Answer::Refused {
                key_at_fault: *key_at_fault,
                detail,
            },
        };
        let back = Event::Give(daemon, number, Box::new(Input::Minted(answer)));
        self.push(self.latency, back);
    }

    fn token(&mut self, sent_at: Stamp, aged: Duration) -> Answer {
        let secret = format!("token-{}", self.minted);
        let end = (self.now + self.rules.lifetime).saturating_sub(aged);
        let end = *self.ends.entry(secret.clone()).or_insert(end);
        // The issuer's own times tell how old it is.
        let aged = (self.now + self.rules.lifetime).saturating_sub(end);
        Answer::Minted(Minted {
            secret: Secret::new(secret),
            sent_at,
            aged,
            note: None,
        })
    }
}

fn version(count: u64) -> Version {
    Version(count.to_be_bytes().to_vec())
}

fn down() -> RegisterError {
    RegisterError::Io {
        doing: "reach the register".into(),
        why: "it is down".into(),
    }
}

/// What the real client makes of an answer.
fn judged(
    status: u16,
    location: Option<&'static str>,
    body: &str,
    journey: Journey,
    lifetime: Duration,
) -> Answer {
    let location = location.map(|it| (LOCATION, HeaderValue::from_static(it)));
    let response = Response {
        status: StatusCode::from_u16(status).unwrap(),
        headers: HeaderMap::from_iter(location),
        body: Zeroizing::new(body.as_bytes().to_vec()),
    };
    let key = Key {
        key_id: Secret::new("the-key-id".into()),
        api_key: Secret::new("the-api-key".into()),
    };
    judge(&response, journey, &key, lifetime)
}
