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

/// What a truthful wall clock shows when the world begins.
const EPOCH: i128 = 1_800_000_000_000_000_000;

/// How long a machine has been up when it is first looked at.
const UPTIME: Nanos = 3 * DAY;

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
        let wall = EPOCH + i128::from(now) + i128::from(self.wall_ahead);
        Stamp {
            wall: Timestamp::from_nanosecond(wall)
                .expect("a wall clock is set by days at the most"),
            boot: Duration::from_nanos(self.boot_at(now)),
        }
    }

    fn boot_at(&self, now: Nanos) -> Nanos {
        let since = i128::from(now - self.anchor.0);
        let shown = i128::from(self.anchor.1) + since + since * i128::from(self.ppm) / 1_000_000;
        Nanos::try_from(shown + self.stepped()).unwrap_or_default()
    }

    fn stepped(&self) -> i128 {
        self.wall_only.map_or(0, |at_boot| {
            i128::from(self.wall_ahead) - i128::from(at_boot)
        })
    }

    /// The first true moment, not before `now`, at which the boot clock shows `boot`.
    pub fn when(&self, boot: Duration, now: Nanos) -> Nanos {
        let shown = i128::try_from(boot.as_nanos()).expect("boot times are far from their end");
        let ahead = shown - self.stepped() - i128::from(self.anchor.1);
        let rate = 1_000_000 + i128::from(self.ppm);
        let at = i128::from(self.anchor.0) + (ahead * 1_000_000).div_euclid(rate);
        let mut at = Nanos::try_from(at).unwrap_or_default().max(now);
        while self.boot_at(at) < nanos(boot) {
            at += 1;
        }
        at
    }

    pub fn drift(&mut self, now: Nanos, ppm: i64) {
        let since = i128::from(now - self.anchor.0);
        let shown = i128::from(self.anchor.1) + since + since * i128::from(self.ppm) / 1_000_000;
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
