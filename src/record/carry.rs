//! Bringing a record's times onto the reader's boot clock.
//!
//! Boot times mean nothing on another boot clock, so the wall clock is the bridge: what was left when
//! the record was written, less what went by on the wall clock since. That is believed but for
//! `clock.skew`, once however often a record is carried on.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::{Lengths, Record, Rules};
use crate::clock::{BootId, Stamp};

/// When a record was brought from another boot clock, and which of its times have the skew in them
/// already. A slot says it of its own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Carried {
    /// When that was, on the clock that they were brought to.
    pub at: Stamp,
    /// The times themselves, on both clocks; those of slots are not among them.
    pub times: Vec<Stamp>,
}

/// Who reads a record, and what its clocks have shown.
#[derive(Clone, Copy, Debug)]
pub struct Reader<'a> {
    /// The process, as records name it.
    pub holder: &'a str,
    /// Its boot clock.
    pub boot_id: &'a BootId,
    /// The distances of its wall clock from its boot clock that it has seen, in nanoseconds: more
    /// than one if the wall clock was stepped while it ran.
    pub offsets: &'a [i128],
}

impl Record {
    /// The record as this reader may use it at `now`: on its boot clock, under its lengths. `None`
    /// where it is so already.
    #[must_use]
    pub fn read_by(&self, reader: &Reader<'_>, now: Stamp, rules: &Rules) -> Option<Self> {
        let lengthened = self.under(rules);
        let record = lengthened.as_ref().unwrap_or(self);
        record
            .on_boot(reader.boot_id, now, rules)
            .or_else(|| record.cross_checked(reader, now, rules))
            .or(lengthened)
    }

    /// The record with its boot times on this boot's clock; `None` where they are already.
    ///
    /// A wall clock that is earlier than the writer's by more than the skew is not believed at all:
    /// then every slot counts as spent now, and the token as expired. No wait gets longer than it
    /// was: that much is sure without any wall clock. Steps before the last write do not matter.
    #[must_use]
    pub fn on_boot(&self, boot_id: &BootId, now: Stamp, rules: &Rules) -> Option<Self> {
        if self.written.boot_id == *boot_id {
            return None;
        }
        Some(self.carried_by(&Axis::new(self, now, rules, false)))
    }

    /// The record on both axes at once, where its writer's clocks are further apart than any that
    /// this reader has seen; `None` where they agree.
    ///
    /// Either the wall clock was stepped while nobody looked, or this is another boot clock although
    /// the kernel's files say otherwise. So the later freeing time and the earlier expiry hold.
    fn cross_checked(&self, reader: &Reader<'_>, now: Stamp, rules: &Rules) -> Option<Self> {
        if !self.is_of_another_clock(reader, rules) {
            return None;
        }
        Some(self.carried_by(&Axis::new(self, now, rules, true)))
    }

    /// True if its writer's clocks are further apart than any that this reader has seen.
    pub fn is_of_another_clock(&self, reader: &Reader<'_>, rules: &Rules) -> bool {
        let writers = self.written.at.offset();
        let agrees = |seen: &i128| (seen - writers).unsigned_abs() <= rules.skew.as_nanos();
        self.written.holder != reader.holder && !reader.offsets.iter().any(agrees)
    }

    fn carried_by(&self, axis: &Axis<'_>) -> Self {
        let (now, rules) = (axis.now, axis.rules);
        let mut next = self.clone();
        next.ledger
            .retain(|slot| slot.frees_at.boot > self.written.at.boot);
        for slot in &mut next.ledger {
            let counts = slot.lengths.map_or(Duration::ZERO, |own| own.period);
            let most = counts.max(rules.budget.period());
            slot.frees_at = axis.not_too_early(slot.frees_at, slot.carried, most);
            slot.reserved_at = axis.not_too_old(slot.reserved_at, slot.carried);
            slot.carried = !axis.both;
        }
        next.ledger.retain(|slot| slot.frees_at.boot > now.boot);
        if let Some(token) = &mut next.token {
            let lived = token.expires_at.wall.duration_since(token.issued_at.wall);
            token.expires_at = axis.not_too_late(token.expires_at);
            token.refresh_at = axis.not_too_late(token.refresh_at);
            token.issued_at = token.expires_at.minus(lived.unsigned_abs());
        }
        next.not_before = self.not_before.map(|at| axis.wait(at));
        if let Some(parked) = &mut next.parked {
            parked.retry_at = axis.wait(parked.retry_at);
            parked.since = axis.not_too_old(parked.since, false);
        }
        for set in &mut next.refused {
            set.retry_at = axis.wait(set.retry_at);
            set.since = axis.not_too_old(set.since, false);
        }
        next.hold_until = self.hold_until.map(|at| axis.wait(at));
        next.keys.retry_at = self.keys.retry_at.map(|at| axis.wait(at));
        if let Some(unknown) = &mut next.probation {
            unknown.until = unknown.until.map(|at| axis.wait(at));
        }
        if let Some(claim) = &mut next.claim {
            claim.until = axis.claim(claim.until);
        }
        // What both axes agree on is this boot clock's own from now on.
        next.carried = (!axis.both).then(|| Carried {
            at: now,
            times: next.times(),
        });
        next
    }

    /// The times that a carried record has the skew in, but for those of slots.
    fn times(&self) -> Vec<Stamp> {
        let token = self.token.as_ref();
        let times = [
            token.map(|token| token.expires_at),
            token.map(|token| token.refresh_at),
            self.not_before,
            self.claim.as_ref().map(|claim| claim.until),
            self.parked.as_ref().map(|parked| parked.retry_at),
            self.probation.as_ref().and_then(|unknown| unknown.until),
            self.hold_until,
            self.keys.retry_at,
        ];
        let refused = self.refused.iter().map(|set| set.retry_at);
        times.into_iter().flatten().chain(refused).collect()
    }

    /// Forgets carried times that are no longer in the record.
    pub(crate) fn prune_carried(&mut self) {
        let Some(mut carried) = self.carried.take() else {
            return;
        };
        let present = self.times();
        carried.times.retain(|time| present.contains(time));
        let any = !carried.times.is_empty() || self.ledger.iter().any(|slot| slot.carried);
        self.carried = any.then_some(carried);
    }

    /// The record with each freeing time as late as these lengths want it; `None` where it is so.
    ///
    /// A token lives no longer than the lifetime in force, whatever it was when it was minted.
    fn under(&self, rules: &Rules) -> Option<Self> {
        let lengths = Lengths::of(&rules.budget);
        if self.suits(lengths, rules) {
            return None;
        }
        let mut next = self.clone();
        for slot in &mut next.ledger {
            slot.lengthen(lengths);
        }
        if let Some(unknown) = &mut next.probation
            && let Some(until) = unknown.until
        {
            let longer = match unknown.period {
                Some(period) => until.plus(lengths.period.saturating_sub(period)),
                // Format 1.0 does not say: the record was born before it was last written.
                None => later(until, self.written.at.plus(lengths.period)),
            };
            // Where nothing is minted until the past is known, that wait is the same moment.
            for wait in [&mut next.not_before, &mut next.hold_until] {
                *wait = wait.map(|at| if at == until { longer } else { at });
            }
            unknown.until = Some(longer);
            let period = unknown.period.unwrap_or_default();
            unknown.period = Some(period.max(lengths.period));
        }
        if let Some(token) = &mut next.token {
            let end = token.issued_at.plus(rules.lifetime);
            let end = token.expires_at.sooner(end);
            token.expires_at = end;
            token.refresh_at = token.refresh_at.sooner(end);
        }
        Some(next)
    }

    /// True if nothing in it is to be made longer, or the token's life shorter.
    fn suits(&self, lengths: Lengths, rules: &Rules) -> bool {
        let covers = |own: Lengths| own.longer(lengths) == own;
        let unknown = self.probation.as_ref().filter(|it| it.until.is_some());
        let token = self.token.as_ref();
        self.ledger
            .iter()
            .all(|slot| slot.lengths.is_some_and(covers))
            && unknown.is_none_or(|it| it.period.is_some_and(|own| own >= lengths.period))
            && token.is_none_or(|it| {
                let end = it.issued_at.plus(rules.lifetime);
                it.expires_at.sooner(end) == it.expires_at
            })
    }
}

fn later(one: Stamp, other: Stamp) -> Stamp {
    if other.boot > one.boot { other } else { one }
}

/// The reader's view of times that were written by other clocks.
///
/// Of a carried time the wall part is the original with the skew in it, which stays as it is however
/// often it is carried on; the boot part is that on the clock of whoever wrote last, made no longer
/// than what is sure without any wall clock.
struct Axis<'a> {
    written: Stamp,
    carried: Option<&'a Carried>,
    now: Stamp,
    rules: &'a Rules,
    skew: SignedDuration,
    /// The wall clock is not earlier than the writer's, but for the skew.
    believed: bool,
    /// The boot clock may be the writer's too: the worse of both clocks holds.
    both: bool,
}

impl<'a> Axis<'a> {
    fn new(record: &'a Record, now: Stamp, rules: &'a Rules, both: bool) -> Self {
        let written = record.written.at;
        let since = now.wall.duration_since(written.wall);
        let skew = SignedDuration::try_from(rules.skew).unwrap_or(SignedDuration::MAX);
        // A step of the writer's wall clock since would be taken for time that went by.
        let moved = |carried: &Carried| (carried.at.offset() - written.offset()).unsigned_abs();
        let carried = record.carried.as_ref();
        Self {
            written,
            carried: carried.filter(|carried| moved(carried) <= rules.skew.as_nanos()),
            now,
            rules,
            skew,
            believed: !since.saturating_add(skew).is_negative(),
            both,
        }
    }

    fn was_carried(&self, time: Stamp) -> bool {
        self.carried
            .is_some_and(|carried| carried.times.contains(&time))
    }

    /// A time as the writer's wall clock will show it, moved by the skew unless it was already.
    fn on_wall(&self, time: Stamp, carried: bool, skew: SignedDuration) -> Timestamp {
        if carried && self.carried.is_some() {
            return time.wall;
        }
        Stamp::at_boot(self.written, time.boot)
            .wall
            .checked_add(skew)
            .unwrap_or(time.wall)
    }

    fn until(&self, wall: Timestamp) -> Duration {
        Duration::try_from(wall.duration_since(self.now.wall)).unwrap_or_default()
    }

    /// The moment `left` from now; `wall` is kept as its original where it can be believed.
    fn here(&self, wall: Timestamp, left: Duration, skew: SignedDuration) -> Stamp {
        let mut at = self.now.plus(left);
        match (self.both, self.believed) {
            (true, _) => {}
            (false, true) => at.wall = wall,
            (false, false) => at.wall = at.wall.checked_add(skew).unwrap_or(at.wall),
        }
        at
    }

    /// The end of what must not end too early; never further away than `most`.
    fn not_too_early(&self, time: Stamp, carried: bool, most: Duration) -> Stamp {
        if time.boot <= self.written.boot {
            return self.now;
        }
        let wall = self.on_wall(time, carried, self.skew);
        // No time has gone by backwards since it was written.
        let written = time.boot.saturating_sub(self.written.boot);
        let by_wall = match self.believed {
            true => self
                .until(wall)
                .min(written.saturating_add(self.rules.skew)),
            false => most,
        };
        let by_boot = match self.both {
            true => time.boot.saturating_sub(self.now.boot),
            false => Duration::ZERO,
        };
        self.here(wall, by_wall.max(by_boot).min(most), self.skew)
    }

    /// The end of what must not end too late; never further away than a lifetime.
    fn not_too_late(&self, time: Stamp) -> Stamp {
        // An end that was further away than a lifetime cannot be true, and has come.
        let possible = time.boot.saturating_sub(self.written.boot) <= self.rules.lifetime;
        // The clock of the two that ends first.
        let left = match possible {
            true => time.left(self.written),
            false => Duration::ZERO,
        };
        // The original, which all wall clocks agree on: lowered to what this one makes of it, it
        // would lose what they disagree by at each turn of two machines.
        let wall = match possible && self.was_carried(time) {
            true => time.wall,
            false => self.written.plus(left).minus(self.rules.skew).wall,
        };
        let by_wall = match (self.believed, self.both) {
            (true, _) => self.until(wall).min(left),
            // The boot clock says so, and the wall clock no less.
            (false, true) => Duration::MAX,
            (false, false) => Duration::ZERO,
        };
        let by_boot = match self.both {
            true => time.left(self.now),
            false => Duration::MAX,
        };
        let left = by_wall.min(by_boot).min(self.rules.lifetime);
        self.here(wall, left, -self.skew)
    }

    /// When something was that must not be taken for older than it is.
    fn not_too_old(&self, time: Stamp, carried: bool) -> Stamp {
        let wall = self.on_wall(time, carried, self.skew);
        let by_wall = Duration::try_from(self.now.wall.duration_since(wall)).unwrap_or_default();
        let age = by_wall.max(time.age(self.written));
        let age = match self.both {
            true => age.min(time.age(self.now)),
            false => age,
        };
        let at = self.now.minus(age);
        match self.both || !self.believed {
            true => at,
            false => Stamp { wall, ..at },
        }
    }

    /// The end of a wait, which is no longer than it was.
    fn wait(&self, time: Stamp) -> Stamp {
        let was = time.boot.saturating_sub(self.written.boot);
        let most = was.min(self.rules.budget.period());
        self.not_too_early(time, self.was_carried(time), most)
    }

    /// The end of a claim. Its process is gone with its boot, or runs on a machine whose boot time
    /// means nothing here: so it lasts from when it was first seen here.
    fn claim(&self, time: Stamp) -> Stamp {
        let whole = self.rules.claim();
        if self.was_carried(time) {
            return self.not_too_early(time, true, whole);
        }
        let wall = self.now.plus(whole + self.rules.skew).wall;
        self.here(wall, whole, self.skew)
    }
}
