//! What the record knows of each set of keys and the address that they are sent to.
//!
//! A set is named by its fingerprint. Parking belongs to the set that was refused, and a set that
//! was not tried since the last token need not wait for what went wrong with others.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{KeyTrial, Parked, Record, Rules, codec};
use crate::clock::Stamp;

/// The most sets that are remembered, as refused and as tried.
const MAX_SETS: usize = 8;

/// A set that the issuer refuses.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RefusedSet {
    /// Which set.
    pub fingerprint: String,
    /// When its last key was refused.
    pub since: Stamp,
    /// When it is tried again.
    pub retry_at: Stamp,
    /// What the issuer said.
    pub reason: String,
    /// The index of the key that is tried next, modulo their number.
    #[serde(default, skip_serializing_if = "codec::is_zero")]
    pub cursor: u32,
    /// Fields of a newer minor format, kept as they came.
    #[serde(flatten)]
    pub newer: BTreeMap<String, Value>,
}

/// Why a set is parked, and until when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal<'a> {
    /// Since when.
    pub since: Stamp,
    /// When it is tried again.
    pub retry_at: Stamp,
    /// What the issuer said.
    pub reason: &'a str,
}

impl Record {
    /// Why this set is parked; `None` if it is not.
    ///
    /// Of the set that was tried last [`Record::parked`] says it: an older build may have freed it.
    pub fn refusal_of(&self, set: &str) -> Option<Refusal<'_>> {
        if set == self.keys.fingerprint {
            return self.parked.as_ref().map(|parked| Refusal {
                since: parked.since,
                retry_at: parked.retry_at,
                reason: &parked.reason,
            });
        }
        let entry = self.refused.iter().find(|it| it.fingerprint == set)?;
        Some(Refusal {
            since: entry.since,
            retry_at: entry.retry_at,
            reason: &entry.reason,
        })
    }

    /// True if this set was not tried since the last token, so that it need not wait for what went
    /// wrong with others. Once eight were tried, none is free of that until a token is minted.
    pub fn is_untried(&self, set: &str) -> bool {
        let tried = match self.tried.as_slice() {
            // Format 1.0 remembers one set.
            [] => self.keys.fingerprint == set,
            tried => tried.iter().any(|it| it == set),
        };
        !tried && self.tried.len() < MAX_SETS && self.refusal_of(set).is_none()
    }

    /// The moment before which no set may be tried at all.
    ///
    /// Format 1.0 does not say it; there it is known of a record that waits until its past is
    /// known.
    pub fn held_until(&self) -> Option<Stamp> {
        let known = self.probation.as_ref().and_then(|unknown| unknown.until);
        let waits = self.not_before.filter(|at| Some(*at) == known);
        self.hold_until.or(waits)
    }

    /// Raises the moment before which no set may be tried at all.
    pub(super) fn hold(&mut self, until: Stamp) {
        let later = self.hold_until.filter(|at| at.boot > until.boot);
        self.hold_until = later.or(Some(until));
    }

    /// Makes this the set that was tried last. True if it is tried for the first time since the
    /// last token.
    pub(super) fn take_up(&mut self, set: &str) -> bool {
        if self.keys.fingerprint != set {
            // What format 1.0 wrote of the set before.
            self.remember_parked();
            let entry = self.refused.iter().find(|it| it.fingerprint == set);
            self.keys = KeyTrial {
                fingerprint: set.to_owned(),
                cursor: entry.map_or(0, |it| it.cursor),
                ..KeyTrial::default()
            };
            self.parked = entry.map(|it| Parked {
                since: it.since,
                retry_at: it.retry_at,
                reason: it.reason.clone(),
                newer: BTreeMap::new(),
            });
        }
        self.keys.retry_at = None;
        let first = self.tried.len() < MAX_SETS && !self.tried.iter().any(|it| it == set);
        if first {
            self.tried.push(set.to_owned());
        }
        first
    }

    /// Forgets that the set that was tried last was tried: its request did not leave.
    pub(super) fn untry(&mut self) {
        let last = &self.keys.fingerprint;
        self.tried.retain(|it| it != last);
    }

    /// Parks the set that was tried last.
    pub(super) fn park(&mut self, reason: &str, now: Stamp, rules: &Rules) {
        let before = self.parked.take();
        let (since, newer) = before.map_or_else(
            || (now, BTreeMap::new()),
            |parked| (parked.since, parked.newer),
        );
        self.parked = Some(Parked {
            since,
            retry_at: now.plus(rules.parked_retry),
            reason: reason.to_owned(),
            newer,
        });
        self.remember_parked();
    }

    /// Puts the next attempt of a parked set off, if the set that was tried last is one.
    pub(super) fn put_off(&mut self, now: Stamp, rules: &Rules) {
        if let Some(parked) = &mut self.parked {
            parked.retry_at = now.plus(rules.parked_retry);
            self.remember_parked();
        }
    }

    /// Frees the set that was tried last.
    pub(super) fn free_set(&mut self) {
        let last = &self.keys.fingerprint;
        self.refused.retain(|it| it.fingerprint != *last);
        self.parked = None;
    }

    /// Writes the set that was tried last into the list of those that are refused, if it is parked.
    fn remember_parked(&mut self) {
        let Some(parked) = &self.parked else { return };
        let last = &self.keys.fingerprint;
        let at = self.refused.iter().position(|it| it.fingerprint == *last);
        let newer = at.map_or_else(BTreeMap::new, |at| self.refused.remove(at).newer);
        self.refused.push(RefusedSet {
            fingerprint: last.clone(),
            since: parked.since,
            retry_at: parked.retry_at,
            reason: parked.reason.clone(),
            cursor: self.keys.cursor,
            newer,
        });
        self.cut_sets();
    }

    /// Keeps the newest of each list.
    pub(super) fn cut_sets(&mut self) {
        let over = |length: usize| length.saturating_sub(MAX_SETS);
        self.refused.drain(..over(self.refused.len()));
        self.tried.drain(..over(self.tried.len()));
    }

    /// Adds what another copy knows of sets. The set that was tried last has been chosen already,
    /// and of it [`Record::parked`] speaks.
    pub(super) fn merge_sets(&mut self, held: &Self) {
        for theirs in &held.refused {
            let ours = self
                .refused
                .iter_mut()
                .find(|it| it.fingerprint == theirs.fingerprint);
            match ours {
                Some(ours) if ours.retry_at.boot < theirs.retry_at.boot => *ours = theirs.clone(),
                Some(_) => {}
                None => self.refused.push(theirs.clone()),
            }
        }
        let last = self.keys.fingerprint.clone();
        self.refused
            .retain(|it| it.fingerprint != last || self.parked.is_some());
        self.refused.sort_by_key(|it| it.since.boot);
        self.remember_parked();
        for set in &held.tried {
            if !self.tried.contains(set) {
                self.tried.push(set.clone());
            }
        }
        self.cut_sets();
    }
}
