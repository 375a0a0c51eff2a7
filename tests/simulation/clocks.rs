//! Machines, and what their clocks show: a boot clock that drifts, a wall clock that is set.

use std::time::Duration;

use bearerd::clock::Stamp;
use jiff::Timestamp;

/// A true moment or length, in nanoseconds since the world began. No world lasts longer than a `u64` of them.
pub type Nanos = u64;

pub const MILLI: Nanos = 1_000_000;
pub const SECOND: Nanos = 1_000 * MILLI;
pub const MINUTE: Nanos = 60 * SECOND;
pub const HOUR: Nanos = 60 * MINUTE;
pub const DAY: Nanos = 24 * HOUR;

/// What a truthful wall clock shows when the world begins, in seconds.
const EPOCH: i64 = 1_800_000_000;

/// How long a machine has been up when it is first looked at.
const UPTIME: Nanos = 3 * DAY;

/// So many parts of a length, without an overflow on the way.
fn part(length: i64, parts: i64, of: i64) -> i64 {
    length / of * parts + length % of * parts / of
}

pub fn nanos(length: Duration) -> Nanos {
    Nanos::try_from(length.as_nanos()).expect("no length is longer than a u64 of nanoseconds")
}

/// A true moment, as people read it.
pub fn moment(at: Nanos) -> String {
    let (days, seconds) = (at / DAY, at / SECOND % 86_400);
    let (h, m, s) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    let ms = at / MILLI % 1000;
    format!("day {days:>3} {h:02}:{m:02}:{s:02}.{ms:03}")
}

/// One machine, with the clocks of its present boot.
pub struct Machine {
    pub boots: u32,
    /// It is suspended, or down, until then.
    pub stopped_until: Nanos,
    /// The boot clock showed `anchor.1` at `anchor.0`, and has gone `ppm` millionths too fast since.
    anchor: (Nanos, Nanos),
    pub ppm: i64,
    pub wall_ahead: i64,
    /// A mutation: the boot clock is derived from the wall clock, as it stood against this at the boot.
    wall_only: Option<i64>,
}

impl Machine {
    pub fn new(wall_ahead: i64, wall_only: bool) -> Self {
        Self {
            boots: 1,
            stopped_until: 0,
            anchor: (0, UPTIME),
            ppm: 0,
            wall_ahead,
            wall_only: wall_only.then_some(wall_ahead),
        }
    }

    pub fn stamp(&self, now: Nanos) -> Stamp {
        let wall = now.cast_signed() + self.wall_ahead;
        let second = SECOND.cast_signed();
        let nanosecond = i32::try_from(wall.rem_euclid(second)).expect("it is below a second");
        let wall = Timestamp::new(EPOCH + wall.div_euclid(second), nanosecond);
        Stamp {
            wall: wall.expect("a wall clock is set by days at the most"),
            boot: Duration::from_nanos(self.boot_at(now)),
        }
    }

    fn boot_at(&self, now: Nanos) -> Nanos {
        let since = (now - self.anchor.0).cast_signed();
        let shown = self.anchor.1.cast_signed() + since + part(since, self.ppm, 1_000_000);
        Nanos::try_from(shown + self.stepped()).unwrap_or_default()
    }

    fn stepped(&self) -> i64 {
        self.wall_only
            .map_or(0, |at_boot| self.wall_ahead - at_boot)
    }

    /// The first true moment, not before `now`, at which the boot clock shows `boot`.
    pub fn when(&self, boot: Duration, now: Nanos) -> Nanos {
        let boot = nanos(boot);
        let ahead = boot.cast_signed() - self.stepped() - self.anchor.1.cast_signed();
        let at = self.anchor.0.cast_signed() + ahead - part(ahead, self.ppm, 1_000_000 + self.ppm);
        let mut at = Nanos::try_from(at - 1).unwrap_or_default().max(now);
        while self.boot_at(at) < boot {
            at += 1;
        }
        at
    }

    /// The first true moment, not before `now`, at which either clock has reached `end`.
    pub fn reaches(&self, end: Stamp, now: Nanos) -> Nanos {
        let left = end.wall.duration_since(self.stamp(now).wall).as_nanos();
        let by_wall = now + Nanos::try_from(left).unwrap_or_default();
        self.when(end.boot, now).min(by_wall)
    }

    pub fn drift(&mut self, now: Nanos, ppm: i64) {
        let since = (now - self.anchor.0).cast_signed();
        let shown = self.anchor.1.cast_signed() + since + part(since, self.ppm, 1_000_000);
        self.anchor = (
            now,
            Nanos::try_from(shown).expect("a boot clock does not go back"),
        );
        self.ppm = ppm;
    }

    /// Goes down now and comes up later, with its boot clock at nearly nothing.
    pub fn reboot(&mut self, now: Nanos, down_for: Nanos, wall_ahead: i64) {
        self.boots += 1;
        self.stopped_until = now + down_for;
        self.anchor = (now, 0);
        self.wall_ahead = wall_ahead;
        self.wall_only = self.wall_only.map(|_| wall_ahead);
    }
}
