//! What `ledger show` prints: the record without its secret.

use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;

use super::Desk;
use crate::clock::{Clock as _, Stamp};
use crate::record::{Record, Slot};

/// The record's past and its waits, as of one moment.
#[derive(Serialize)]
pub(super) struct Shown {
    account: String,
    record: String,
    revision: u64,
    written_at: Timestamp,
    written_by: String,
    at: Timestamp,
    generation: u64,
    token: Option<Token>,
    limit: u32,
    slots: Vec<Row>,
    claim: Option<Claim>,
    not_before: Option<Timestamp>,
    /// No attempt before this moment, whatever set is at hand.
    hold_until: Option<Timestamp>,
    /// `None` where the past is known; `until` is `None` where it stays unknown.
    probation: Option<Probation>,
    parked: Option<Parked>,
    /// The sets that the issuer refuses, the one that was tried last among them.
    refused: Vec<Refused>,
}

#[derive(Serialize)]
struct Refused {
    fingerprint: String,
    /// The keys and the address of the settings are this set.
    at_hand: bool,
    #[serde(flatten)]
    parked: Parked,
}

#[derive(Serialize)]
struct Token {
    generation: u64,
    fingerprint: String,
    issued_at: Timestamp,
    expires_at: Timestamp,
    live: bool,
}

#[derive(Serialize)]
struct Row {
    attempt: u64,
    holder: String,
    class: &'static str,
    trigger: &'static str,
    outcome: &'static str,
    reserved_at: Timestamp,
    frees_at: Timestamp,
    #[serde(skip)]
    frees_in: Duration,
}

#[derive(Serialize)]
struct Claim {
    attempt: u64,
    holder: String,
    until: Timestamp,
}

#[derive(Serialize)]
struct Probation {
    until: Option<Timestamp>,
    /// The requests that may still be made without the distance that is safe.
    at_once: u32,
}

#[derive(Serialize)]
struct Parked {
    since: Timestamp,
    retry_at: Timestamp,
    reason: String,
}

impl Shown {
    pub(super) fn new(record: &Record, desk: &Desk, now: Stamp) -> Self {
        let wall = |at: Stamp| at.shown(now);
        // Of what a writer on another boot did not carry over, only the wall time is known.
        let ours = record.written.boot_id == desk.clock.boot_id();
        let as_written = |at: Stamp| if ours { wall(at) } else { at.wall };
        let ahead = |at: Stamp| (at.boot > now.boot).then(|| wall(at));
        let counting = record
            .ledger
            .iter()
            .filter(|it| it.frees_at.boot > now.boot);
        let mut slots: Vec<Row> = counting.map(|slot| Row::new(slot, now)).collect();
        slots.sort_by_key(|slot| slot.frees_in);
        Self {
            account: record.account.clone(),
            record: desk.register.path().display().to_string(),
            revision: record.revision,
            written_at: as_written(record.written.at),
            written_by: record.written.holder.clone(),
            at: now.wall,
            generation: record.generation.0,
            token: record.token.as_ref().map(|token| Token {
                generation: token.generation.0,
                fingerprint: token.secret.fingerprint(),
                issued_at: token.issued_at.shown_beside(token.expires_at, now),
                expires_at: token.expires_at.shown_expiry(now),
                live: !token.expired(now),
            }),
            limit: desk.config.rules.budget.limit.get(),
            slots,
            claim: record.claim.as_ref().map(|claim| Claim {
                attempt: claim.attempt.0,
                holder: claim.holder.clone(),
                until: wall(claim.until),
            }),
            not_before: record.not_before.and_then(ahead),
            hold_until: record.held_until().and_then(ahead),
            probation: record.probation.as_ref().map(|probation| Probation {
                until: probation.until.map(wall),
                at_once: probation.at_once,
            }),
            parked: record.parked.as_ref().map(|parked| Parked {
                since: as_written(parked.since),
                retry_at: wall(parked.retry_at),
                reason: parked.reason.clone(),
            }),
            refused: Refused::all(record, desk, now, as_written),
        }
    }

    pub(super) fn to_json(&self) -> String {
        let mut text = serde_json::to_string_pretty(self).expect("plain values are JSON");
        text.push('\n');
        text
    }

    pub(super) fn to_text(&self) -> String {
        let token = self.token.as_ref();
        let (revision, written) = (self.revision, day_and_time(self.written_at));
        let mut lines = vec![
            line("account", &self.account),
            line("record", &self.record),
            line(
                "",
                &format!(
                    "revision {revision}, written {written} by {}",
                    self.written_by
                ),
            ),
            line("token", &token.map_or("none".to_owned(), Token::words)),
            line(
                "slots",
                &format!("{} of {} taken", self.slots.len(), self.limit),
            ),
        ];
        if !self.slots.is_empty() {
            lines.push(line("", HEADINGS));
        }
        lines.extend(self.slots.iter().map(|slot| line("", &slot.words())));
        if let Some(claim) = &self.claim {
            let (attempt, holder, until) = (claim.attempt, &claim.holder, time(claim.until));
            let text = format!("attempt {attempt} of {holder}, until {until}");
            lines.push(line("claim", &text));
        }
        let waits = self.waits();
        let labels = ["waits"].into_iter().chain(std::iter::repeat(""));
        lines.extend(labels.zip(&waits).map(|(label, wait)| line(label, wait)));
        lines.extend(self.refused.iter().map(|set| line("PARKED", &set.words())));
        lines.concat()
    }

    fn waits(&self) -> Vec<String> {
        let mut waits = Vec::new();
        if let Some(at) = self.not_before {
            waits.push(format!("no mint before {}", time(at)));
        }
        if let Some(at) = self.hold_until {
            waits.push(format!("no mint before {} with any keys", time(at)));
        }
        if let Some(probation) = &self.probation {
            let until = probation
                .until
                .map(|until| format!(" until {}", time(until)));
            let until = until.unwrap_or_default();
            let but = match probation.at_once {
                0 => String::new(),
                left => format!(" but for {left}"),
            };
            waits.push(format!(
                "unknown history{until}: mints{but} keep their distance, since what was spent before is not known"
            ));
        }
        if waits.is_empty() {
            waits.push("none".to_owned());
        }
        waits
    }
}

/// One line, without anything that could move a terminal's cursor.
fn line(label: &str, words: &str) -> String {
    let harmless = words.replace(char::is_control, " ");
    let line = format!("{label:<10}{harmless}");
    format!("{}\n", line.trim_end())
}

/// What stands over [`Row::words`].
const HEADINGS: &str = "reserved   frees      in        outcome    class     for          by";

impl Token {
    fn words(&self) -> String {
        let state = if self.live {
            "live until"
        } else {
            "expired at"
        };
        format!(
            "generation {}, {}, {state} {}",
            self.generation,
            self.fingerprint,
            day_and_time(self.expires_at)
        )
    }
}

impl Refused {
    /// Every set that is refused, the one at hand first.
    fn all(
        record: &Record,
        desk: &Desk,
        now: Stamp,
        as_written: impl Fn(Stamp) -> Timestamp,
    ) -> Vec<Self> {
        let at_hand = desk.set_at_hand();
        let last = &record.keys.fingerprint;
        let others = record.refused.iter().map(|set| &set.fingerprint);
        let others = others.filter(|set| *set != last);
        let mut all: Vec<Self> = [last]
            .into_iter()
            .chain(others)
            .filter_map(|set| {
                let refusal = record.refusal_of(set)?;
                Some(Self {
                    fingerprint: set.clone(),
                    at_hand: at_hand.as_ref() == Some(set),
                    parked: Parked {
                        since: as_written(refusal.since),
                        retry_at: refusal.retry_at.shown(now),
                        reason: refusal.reason.to_owned(),
                    },
                })
            })
            .collect();
        all.sort_by_key(|set| !set.at_hand);
        all
    }

    fn words(&self) -> String {
        let Parked {
            since,
            retry_at,
            reason,
        } = &self.parked;
        let (since, retry_at) = (day_and_time(*since), time(*retry_at));
        let whose = match self.at_hand {
            true => String::new(),
            false => format!(
                "with keys or settings that are not those at hand ({}) ",
                self.fingerprint
            ),
        };
        format!("{whose}since {since}, next attempt at {retry_at}: {reason}")
    }
}

impl Row {
    fn new(slot: &Slot, now: Stamp) -> Self {
        Self {
            attempt: slot.attempt.0,
            holder: slot.holder.clone(),
            class: slot.class.name(),
            trigger: slot.trigger.name(),
            outcome: slot.outcome_shown(),
            reserved_at: slot.reserved_at.shown_beside(slot.frees_at, now),
            frees_at: slot.frees_at.shown(now),
            frees_in: slot.frees_at.boot.saturating_sub(now.boot),
        }
    }

    fn words(&self) -> String {
        let left = Duration::from_secs(self.frees_in.as_secs());
        format!(
            "{}  {}  {:<8}  {:<9}  {:<8}  {:<11}  {}",
            time(self.reserved_at),
            time(self.frees_at),
            humantime::format_duration(left).to_string(),
            self.outcome.replace('_', " "),
            self.class,
            self.trigger.replace('_', " "),
            self.holder
        )
    }
}

fn time(at: Timestamp) -> String {
    at.strftime("%H:%M:%SZ").to_string()
}

fn day_and_time(at: Timestamp) -> String {
    at.strftime("%Y-%m-%d %H:%M:%SZ").to_string()
}
