//! Truecaller's rules: who may mint, what is counted, what a token is worth. Values and `now` in, answers out.

use std::time::Duration;

use hyper::body::Bytes;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::answer::{self, Answer, Delivery, Hangup, Refusal, Reply};
use super::budget::Window;
use super::fault::{Fault, RetryAfter};
use super::gate::Gate;
use super::keys::KeyRing;
use super::log::{Journal, MintEntry, Outcome};
use super::script::Queue;
use super::settings::{OverBudget, Settings, Switches};
use super::tokens::{TokenTable, Worth, fingerprint};

/// One instant, by both clocks.
#[derive(Clone, Copy)]
pub(super) struct Now {
    /// Since the sandbox began; never goes back.
    pub(super) mono: Duration,
    pub(super) wall: Timestamp,
}

/// A mint call as it arrived. It holds a key, so it has no `Debug`.
#[derive(Clone)]
pub(super) struct MintCall {
    pub(super) account: String,
    /// Whether `X-Public-Access: allow` was there.
    pub(super) public_access: bool,
    /// Whether `Content-Type` was `application/json`.
    pub(super) is_json: bool,
    /// None if it was too large.
    pub(super) body: Option<Bytes>,
}

/// What becomes of a mint call once it was read.
pub(super) enum Met {
    Arrived(Delivery),
    /// It is still underway, for as long as this fault says.
    Delay(Fault),
}

/// What a business endpoint says to a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spend {
    /// 200.
    Accepted,
    /// 401 `authorization-error`: missing, expired, revoked or never issued.
    LoginAgain,
    /// 500 `internal-server-error`: not in the form of a token.
    FailedToParse,
    /// 403 `forbidden-error`: the permission is suspended; the token is good.
    NotAuthorized,
    /// 429: spent too often in this second; the token is good.
    TooManyCalls,
}

impl Spend {
    /// The answer's status.
    pub fn status(self) -> u16 {
        match self {
            Self::Accepted => 200,
            Self::LoginAgain => 401,
            Self::FailedToParse => 500,
            Self::NotAuthorized => 403,
            Self::TooManyCalls => 429,
        }
    }

    pub(super) fn into_answer(self) -> Answer {
        match self {
            Self::Accepted => Answer::json(200, r#"{"status":"success"}"#),
            Self::FailedToParse => {
                let message = "500/50011 - Failed to parse token";
                Refusal::new(500, "internal-server-error", message).into_answer()
            }
            refused => Refusal::of_status(refused.status()).into_answer(),
        }
    }
}

/// How often tokens were spent, by the answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct SpendCounts {
    /// Answered 200.
    pub accepted: u64,
    /// Answered 401.
    pub login_again: u64,
    /// Answered 500.
    pub failed_to_parse: u64,
    /// Answered 403.
    pub not_authorized: u64,
    /// Answered 429.
    pub too_many_calls: u64,
}

/// The whole state of the account.
pub(super) struct Upstream {
    account: String,
    token_lifetime: Duration,
    limit: u32,
    spends_per_second: u32,
    pub(super) switches: Switches,
    pub(super) keys: KeyRing,
    pub(super) tokens: TokenTable,
    pub(super) faults: Queue,
    pub(super) journal: Journal,
    pub(super) spends: SpendCounts,
    pub(super) gate: Option<Gate>,
    /// The arrivals that took a slot.
    pub(super) budget: Window,
    /// All arrivals.
    pub(super) traffic: Window,
}

#[derive(Deserialize)]
struct MintBody {
    key_id: Option<String>,
    api_key: Option<String>,
}

impl Upstream {
    pub(super) fn new(settings: &Settings, keys: KeyRing) -> Self {
        Self {
            account: settings.account.clone(),
            token_lifetime: settings.token_lifetime,
            limit: settings.limit,
            spends_per_second: settings.spends_per_second,
            switches: settings.switches(),
            keys,
            tokens: TokenTable::default(),
            faults: Queue::default(),
            journal: Journal::default(),
            spends: SpendCounts::default(),
            gate: None,
            budget: Window::new(settings.window),
            traffic: Window::new(settings.window),
        }
    }

    /// Whether a path's account is ours.
    pub(super) fn knows(&self, account: &str) -> bool {
        account == self.account
    }

    pub(super) fn account(&self) -> &str {
        &self.account
    }

    pub(super) fn limit(&self) -> u32 {
        self.limit
    }

    /// A mint call was read: it meets its fault, and arrives unless the fault delays it.
    pub(super) fn meet(&mut self, now: Now, call: &MintCall) -> Met {
        match self.faults.next() {
            Some(delay @ (Fault::LateArrival { .. } | Fault::HeldUnderway(_))) => Met::Delay(delay),
            fault => Met::Arrived(self.arrive(now, call, fault.as_ref())),
        }
    }

    /// A mint call arrives: it is judged, counted and logged.
    pub(super) fn arrive(&mut self, now: Now, call: &MintCall, fault: Option<&Fault>) -> Delivery {
        let key = self.check(call);
        let instead = fault.and_then(answer::instead_of_mint);
        let key_index = key.as_ref().ok().copied();
        let (outcome, counted, reply) = match (instead, key) {
            (Some((reply, counted)), _) => (Outcome::Faulted, counted, reply),
            (None, Err(refusal)) => {
                let slug = refusal.slug.clone();
                let reply = Reply::Answer(refusal.into_answer());
                (
                    Outcome::Refused { slug },
                    self.switches.failures_count,
                    reply,
                )
            }
            (None, Ok(_)) if self.is_spent(now) => {
                let reply = Reply::Answer(self.over_budget(now).into_answer());
                (Outcome::OverBudget, self.switches.failures_count, reply)
            }
            (None, Ok(key)) => {
                let (outcome, answer) = self.mint(now, key, fault);
                (outcome, true, Reply::Answer(answer))
            }
        };
        self.note(now, key_index, counted, outcome, fault.map(Fault::name));
        let gate = self.gate.clone().filter(|gate| !gate.is_open());
        match reply {
            Reply::Answer(answer) => answer::delivered(answer, now.wall, fault, gate),
            reply => Delivery {
                gates: gate.into_iter().collect(),
                latency: Duration::ZERO,
                reply,
            },
        }
    }

    /// A mint call arrives while the sandbox is down.
    pub(super) fn arrive_while_down(&mut self, now: Now) -> Hangup {
        self.note(now, None, false, Outcome::Down, None);
        Hangup::Close
    }

    /// Which key the call carries, or what is wrong with it.
    fn check(&self, call: &MintCall) -> Result<usize, Refusal> {
        let invalid = |message: &str| Refusal::new(400, "invalid-input", message);
        if !self.knows(&call.account) {
            return Err(Refusal::new(404, "not-found", "account not found"));
        }
        if !call.public_access {
            return Err(invalid("X-Public-Access: allow is required"));
        }
        if !call.is_json {
            return Err(invalid("Content-Type: application/json is required"));
        }
        let body = call
            .body
            .as_ref()
            .ok_or_else(|| invalid("body is too large"))?;
        let body: MintBody = serde_json::from_slice(body)
            .map_err(|_| invalid("body must be a JSON object of key_id and api_key"))?;
        let given = |field: Option<String>| field.filter(|text| !text.is_empty());
        let key_id = given(body.key_id).ok_or_else(|| invalid("key_id is required"))?;
        let api_key = given(body.api_key).ok_or_else(|| invalid("api_key is required"))?;
        self.keys
            .find(&key_id, &api_key)
            .ok_or_else(|| Refusal::new(401, "authorization-error", "invalid api key"))
    }

    fn is_spent(&mut self, now: Now) -> bool {
        self.budget.count(now.mono) >= usize::try_from(self.limit).unwrap_or(usize::MAX)
    }

    fn over_budget(&mut self, now: Now) -> Refusal {
        let (status, slug) = match self.switches.over_budget {
            OverBudget::TooManyRequests => (429, "too-many-requests"),
            OverBudget::BadRequest => (400, "invalid-input"),
            OverBudget::InternalServerError => (500, "internal-server-error"),
        };
        let mut refusal = Refusal::new(status, slug, "token limit exceeded");
        if self.switches.over_budget_retry_after {
            let wait = self.budget.seconds_until_below(self.limit, now.mono);
            refusal.retry_after = wait.map(RetryAfter::Seconds);
        }
        refusal
    }

    fn mint(&mut self, now: Now, key: usize, fault: Option<&Fault>) -> (Outcome, Answer) {
        if let (Some(Fault::PreviousToken), Some((token, generation))) =
            (fault, self.tokens.newest())
        {
            let outcome = Outcome::Repeated {
                fingerprint: fingerprint(&token),
                generation,
            };
            return (outcome, answer::granted(&token, now.wall, fault));
        }
        let age = match fault {
            Some(Fault::AgedToken { age }) => *age,
            _ => Duration::ZERO,
        };
        if self.switches.revokes_previous {
            self.tokens.revoke_where(|_| true);
        }
        let ends = (now.mono + self.token_lifetime).saturating_sub(age);
        let (token, generation) = self.tokens.issue(key, ends);
        let outcome = Outcome::Minted {
            fingerprint: fingerprint(&token),
            generation,
        };
        (outcome, answer::granted(&token, now.wall, fault))
    }

    fn note(
        &mut self,
        now: Now,
        key: Option<usize>,
        counted: bool,
        outcome: Outcome,
        fault: Option<&'static str>,
    ) {
        tracing::debug!(
            outcome = outcome.name(),
            fault,
            counted,
            "a mint call arrived"
        );
        self.traffic.record(now.mono);
        if counted {
            self.budget.record(now.mono);
        }
        self.journal.append(MintEntry {
            sequence: 0,
            arrived: now.mono,
            wall: now.wall,
            key,
            counted,
            outcome,
            fault,
        });
    }

    /// A token is spent; none if the call carried none.
    pub(super) fn spend(&mut self, now: Now, token: Option<&str>) -> Spend {
        let spend = match token.map(|token| (token, self.tokens.worth(token, now.mono))) {
            None | Some((_, Worth::Unknown)) => Spend::LoginAgain,
            Some((_, Worth::Unparsable)) => Spend::FailedToParse,
            Some((_, Worth::Expired)) if self.switches.expired_fails_to_parse => {
                Spend::FailedToParse
            }
            Some((_, Worth::Expired)) => Spend::LoginAgain,
            Some((_, Worth::Live)) if self.switches.suspended => Spend::NotAuthorized,
            Some((token, Worth::Live)) => {
                if self.tokens.charge(token, self.spends_per_second, now.mono) {
                    Spend::Accepted
                } else {
                    Spend::TooManyCalls
                }
            }
        };
        let count = match spend {
            Spend::Accepted => &mut self.spends.accepted,
            Spend::LoginAgain => &mut self.spends.login_again,
            Spend::FailedToParse => &mut self.spends.failed_to_parse,
            Spend::NotAuthorized => &mut self.spends.not_authorized,
            Spend::TooManyCalls => &mut self.spends.too_many_calls,
        };
        *count += 1;
        spend
    }

    /// Revokes what was minted with a key that is no more, if that is how the account behaves.
    pub(super) fn key_is_gone(&mut self, index: usize) {
        if self.switches.regenerate_revokes {
            self.tokens.revoke_where(|key| key == index);
        }
    }
}

#[cfg(test)]
mod tests;
