//! The document of `/status`, as a reader of any version sees it: what is missing is left out, what is new is passed over.

use jiff::Timestamp;
use serde::Deserialize;

#[derive(Debug, Deserialize)]
pub(super) struct Document {
    #[serde(default)]
    pub(super) version: String,
    pub(super) account: String,
    pub(super) at: Option<Timestamp>,
    pub(super) token: Option<Token>,
    pub(super) budget: Budget,
    pub(super) minting: Option<u64>,
    pub(super) next: Option<Next>,
    pub(super) refresh: Option<Refresh>,
    pub(super) unknown_history: Option<Unknown>,
    #[serde(default)]
    pub(super) attempts: Vec<Attempt>,
    pub(super) register: Register,
    pub(super) parked: Option<Parked>,
    pub(super) trouble: Option<Trouble>,
    #[serde(default)]
    pub(super) short_lead: bool,
    #[serde(default)]
    pub(super) sockets_lost: Vec<String>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Token {
    pub(super) generation: u64,
    pub(super) fingerprint: String,
    pub(super) issued_at: Timestamp,
    pub(super) refresh_at: Timestamp,
    pub(super) expires_at: Timestamp,
    #[serde(default)]
    pub(super) suspect: bool,
}

#[derive(Debug, Deserialize)]
pub(super) struct Budget {
    pub(super) limit: u32,
    pub(super) free: Free,
    pub(super) slots: Vec<Slot>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Free {
    pub(super) routine: u32,
    pub(super) reported: u32,
    pub(super) urgent: u32,
}

#[derive(Debug, Deserialize)]
pub(super) struct Slot {
    #[serde(default)]
    pub(super) attempt: u64,
    pub(super) outcome: String,
    pub(super) frees_at: Timestamp,
}

#[derive(Debug, Deserialize)]
pub(super) struct Next {
    pub(super) at: Timestamp,
    pub(super) class: String,
    pub(super) trigger: String,
    pub(super) waiting_for: String,
}

#[derive(Debug, Deserialize)]
pub(super) struct Refresh {
    pub(super) at: Option<Timestamp>,
    pub(super) waiting_for: String,
}

#[derive(Debug, Deserialize)]
pub(super) struct Unknown {
    pub(super) until: Option<Timestamp>,
    pub(super) pace_seconds: f64,
}

#[derive(Debug, Deserialize)]
pub(super) struct Attempt {
    #[serde(default)]
    pub(super) attempt: u64,
    pub(super) class: String,
    pub(super) trigger: String,
    pub(super) key: u32,
    pub(super) began_at: Timestamp,
    pub(super) duration_seconds: f64,
    pub(super) outcome: String,
    pub(super) detail: Option<String>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Register {
    pub(super) kind: String,
    pub(super) up: bool,
    pub(super) detail: Option<String>,
    pub(super) moved_aside: Option<String>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Parked {
    pub(super) since: Timestamp,
    pub(super) reason: String,
}

#[derive(Debug, Deserialize)]
pub(super) struct Trouble {
    pub(super) code: String,
    pub(super) detail: String,
}

impl Document {
    /// The daemon's own time, against which everything in the document is read; this machine's may differ.
    pub(super) fn now(&self) -> Timestamp {
        self.at.unwrap_or(Timestamp::UNIX_EPOCH)
    }

    /// True if a token can be vended at the document's time.
    pub(super) fn has_live_token(&self) -> bool {
        self.token
            .as_ref()
            .is_some_and(|token| token.expires_at > self.now())
    }

    /// The failures since the last token: how many, and when the first of them began.
    pub(super) fn failing(&self) -> Option<(usize, Timestamp)> {
        let failed = |it: &&Attempt| !matches!(it.outcome.as_str(), "minted" | "repeated");
        let run = self.attempts.iter().take_while(failed);
        let (count, first) = run.fold((0, None), |(count, _), it| (count + 1, Some(it.began_at)));
        first.map(|first| (count, first))
    }

    /// True if nothing in it has changed but what time passing changes: the same token in the same state, the same slots, attempts
    /// and troubles, and the next attempt and the parking at the same times, give or take a second.
    pub(super) fn says_the_same_as(&self, other: &Self) -> bool {
        let token = |it: &Self| {
            let token = it.token.as_ref();
            token.map(|token| (token.generation, token.suspect, token.expires_at > it.now()))
        };
        let slots = |it: &Self| -> Vec<(u64, String)> {
            let slots = it.budget.slots.iter();
            slots
                .map(|slot| (slot.attempt, slot.outcome.clone()))
                .collect()
        };
        let made =
            |it: &Self| -> Vec<u64> { it.attempts.iter().map(|made| made.attempt).collect() };
        let trouble = |it: &Self| {
            let trouble = it.trouble.as_ref();
            trouble.map(|trouble| (trouble.code.clone(), trouble.detail.clone()))
        };
        let next = |it: &Self| {
            let next = it.next.as_ref();
            next.map(|it| (it.class.clone(), it.trigger.clone(), it.waiting_for.clone()))
        };
        let parked = |it: &Self| it.parked.as_ref().map(|parked| parked.since);
        let at = |it: &Self| it.next.as_ref().map(|next| next.at);
        // Both are reckoned anew each time, from two clocks that are read one after the other.
        let same_time = |of: &dyn Fn(&Self) -> Option<Timestamp>| match (of(self), of(other)) {
            (Some(one), Some(two)) => one.duration_since(two).as_millis().abs() < 1000,
            (one, two) => one == two,
        };
        same_time(&at)
            && same_time(&parked)
            && token(self) == token(other)
            && slots(self) == slots(other)
            && made(self) == made(other)
            && trouble(self) == trouble(other)
            && next(self) == next(other)
            && self.minting == other.minting
            && self.register.up == other.register.up
            && self.unknown_history.is_some() == other.unknown_history.is_some()
    }
}
