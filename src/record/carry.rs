//! Bringing a record's times onto the reader's boot clock.
//!
//! Boot times mean nothing on another boot clock, so the wall clock is the bridge: what was left when
//! the record was written, less what went by on the wall clock since. That is believed but for
//! `clock.skew`, once however often a record is carried on.

use std::time::Duration;

use jiff::SignedDuration;
use serde::{Deserialize, Serialize};

use super::{Lengths, Record, Rules, codec};
use crate::clock::{BootId, Stamp};

/// When a record was brought from another boot clock, and which of its times have the skew in them
/// already. A slot says it of its own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Carried {
    /// When that was, on the clock that they were brought to.
    pub at: Stamp,
    /// The boot times themselves; those of slots are not among them.
    #[serde(rename = "boot_ns", with = "codec::all_nanoseconds")]
    pub times: Vec<Duration>,
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
        let bridge = Bridge::new(self, now, rules);
        Some(self.carried_by(&Axis {
            bridge,
            both: false,
        }))
    }

    /// The record on both axes at once, where its writer's clocks are further apart than any that
    /// this reader has seen; `None` where they agree.
    ///
    /// Either the wall clock was stepped while nobody looked, or this is another boot clock although
    /// the kernel's files say otherwise. So the later freeing time and the earlier expiry hold.
    fn cross_checked(&self, reader: &Reader<'_>, now: Stamp, rules: &Rules) -> Option<Self> {
        let skew = i128::try_from(rules.skew.as_nanos()).unwrap_or(i128::MAX);
        let writers = self.written.at.offset();
        let agrees = |seen: &i128| (seen - writers).abs() <= skew;
        if self.written.holder == reader.holder || reader.offsets.iter().any(agrees) {
            return None;
        }
        let bridge = Bridge::new(self, now, rules);
        Some(self.carried_by(&Axis { bridge, both: true }))
    }

    fn carried_by(&self, axis: &Axis<'_>) -> Self {
        let (now, rules) = (axis.bridge.now, axis.bridge.rules);
        let mut next = self.clone();
        next.ledger
            .retain(|slot| slot.frees_at.boot > self.written.at.boot);
        for slot in &mut next.ledger {
            let base = axis.bridge.base(slot.carried);
            let counts = slot.lengths.map_or(Duration::ZERO, |own| own.period);
            let most = counts.max(rules.budget.period());
            slot.frees_at = now.plus(axis.at_least(slot.frees_at, &base, most));
            slot.reserved_at = now.minus(axis.age(slot.reserved_at, &base));
            slot.carried = true;
        }
        next.ledger.retain(|slot| slot.frees_at.boot > now.boot);
        if let Some(token) = &mut next.token {
            let lived = token.expires_at.wall.duration_since(token.issued_at.wall);
            token.expires_at = axis.end(token.expires_at);
            token.refresh_at = axis.end(token.refresh_at);
            token.issued_at = token.expires_at.minus(lived.unsigned_abs());
        }
        next.not_before = self.not_before.map(|at| axis.wait(at));
        if let Some(parked) = &mut next.parked {
            parked.retry_at = axis.wait(parked.retry_at);
            parked.since = now.minus(axis.age(parked.since, &axis.bridge.base(false)));
        }
        for set in &mut next.refused {
            set.retry_at = axis.wait(set.retry_at);
            set.since = now.minus(axis.age(set.since, &axis.bridge.base(false)));
        }
        next.hold_until = self.hold_until.map(|at| axis.wait(at));
        next.keys.retry_at = self.keys.retry_at.map(|at| axis.wait(at));
        if let Some(unknown) = &mut next.probation {
            unknown.until = unknown.until.map(|at| axis.wait(at));
        }
        if let Some(claim) = &mut next.claim {
            claim.until = axis.claim(claim.until);
        }
        next.carried = Some(Carried {
            at: now,
            times: next.times(),
        });
        next
    }

    /// The boot times that a carried record has the skew in, but for those of slots.
    fn times(&self) -> Vec<Duration> {
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
        let times = times.into_iter().flatten().chain(refused);
        times.map(|at| at.boot).collect()
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

/// What the wall clock says of times on another boot clock.
struct Bridge<'a> {
    record: &'a Record,
    now: Stamp,
    rules: &'a Rules,
    /// The wall clock is not earlier than the writer's, but for the skew.
    believed: bool,
    /// What the carried times are reckoned from, if that can be trusted.
    anchor: Option<&'a Carried>,
}

/// From where a time is reckoned.
struct Base {
    at: Stamp,
    /// How long ago that is.
    elapsed: Duration,
    /// What must still be added or taken off for clocks that disagree.
    skew: Duration,
    carried: bool,
}

impl<'a> Bridge<'a> {
    fn new(record: &'a Record, now: Stamp, rules: &'a Rules) -> Self {
        let written = record.written.at;
        let since = now.wall.duration_since(written.wall);
        let skew = SignedDuration::try_from(rules.skew).unwrap_or(SignedDuration::MAX);
        // A step of the writer's wall clock in between would be taken for time that went by.
        let moved = |carried: &Carried| (carried.at.offset() - written.offset()).unsigned_abs();
        let anchor = record.carried.as_ref();
        Self {
            record,
            now,
            rules,
            believed: !since.saturating_add(skew).is_negative(),
            anchor: anchor.filter(|carried| moved(carried) <= rules.skew.as_nanos()),
        }
    }

    /// From where a time is reckoned; `carried`: the skew is in it already.
    fn base(&self, carried: bool) -> Base {
        let written = self.record.written.at;
        let anchor = self.anchor.filter(|_| carried);
        let at = anchor.map_or(written, |carried| carried.at);
        let by_wall = self.now.wall.duration_since(at.wall);
        Base {
            at,
            // By the writer's own clock so much is sure.
            elapsed: Duration::try_from(by_wall)
                .unwrap_or_default()
                .max(written.boot.saturating_sub(at.boot)),
            skew: match anchor {
                Some(_) => Duration::ZERO,
                None => self.rules.skew,
            },
            carried: anchor.is_some(),
        }
    }

    fn base_of(&self, time: Stamp) -> Base {
        let known = |carried: &Carried| carried.times.contains(&time.boot);
        self.base(self.record.carried.as_ref().is_some_and(known))
    }
}

/// The clocks that a record's times are read on: the wall clock alone, or the boot clock too.
struct Axis<'a> {
    bridge: Bridge<'a>,
    both: bool,
}

impl Axis<'_> {
    fn by_boot(&self, time: Stamp) -> Duration {
        time.boot.saturating_sub(self.bridge.now.boot)
    }

    /// How much longer what must not end too early has to run; never longer than `most`.
    fn at_least(&self, time: Stamp, base: &Base, most: Duration) -> Duration {
        if time.boot <= self.bridge.record.written.at.boot {
            return Duration::ZERO;
        }
        let by_wall = match self.bridge.believed {
            true => (time.boot.saturating_sub(base.at.boot))
                .saturating_add(base.skew)
                .saturating_sub(base.elapsed),
            false => most,
        };
        let by_boot = if self.both {
            self.by_boot(time)
        } else {
            Duration::ZERO
        };
        by_wall.max(by_boot).min(most)
    }

    /// The end of what must not end too late; never further away than a lifetime.
    fn end(&self, time: Stamp) -> Stamp {
        let base = self.bridge.base_of(time);
        let by_wall = match (self.bridge.believed, self.both) {
            (true, _) => time
                .left(base.at)
                .saturating_sub(base.elapsed.saturating_add(base.skew)),
            // The boot clock says so, and the wall clock no less.
            (false, true) => Duration::MAX,
            (false, false) => Duration::ZERO,
        };
        let by_boot = if self.both {
            time.left(self.bridge.now)
        } else {
            Duration::MAX
        };
        let left = by_wall.min(by_boot).min(self.bridge.rules.lifetime);
        self.bridge.now.plus(left)
    }

    /// How long ago something surely was.
    fn age(&self, time: Stamp, base: &Base) -> Duration {
        let by_wall = time.age(base.at) + base.elapsed.saturating_sub(base.skew);
        if self.both {
            by_wall.min(time.age(self.bridge.now))
        } else {
            by_wall
        }
    }

    /// The end of a wait, which is never longer than it was.
    fn wait(&self, time: Stamp) -> Stamp {
        let was = time.boot.saturating_sub(self.bridge.record.written.at.boot);
        let most = self.bridge.rules.budget.period();
        let left = self.at_least(time, &self.bridge.base_of(time), most);
        self.bridge.now.plus(left.min(was))
    }

    /// The end of a claim. Its process is gone with its boot, or runs on a machine whose boot time
    /// means nothing here: so it lasts from when it was first seen here.
    fn claim(&self, time: Stamp) -> Stamp {
        let whole = self.bridge.rules.claim();
        let base = self.bridge.base_of(time);
        let left = match base.carried {
            true => self.at_least(time, &base, whole),
            false => whole,
        };
        self.bridge.now.plus(left)
    }
}
