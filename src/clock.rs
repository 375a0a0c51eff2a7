//! What time it is, on both clocks at once.
//!
//! Rules never ask for the time: they are given a [`Stamp`]. Only [`SystemClock`] asks the system.

mod boot;

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

pub use boot::{BootId, KernelView, TimeNamespace};

/// A smaller difference between the clocks than this is no step of the wall clock.
const SAME_TIME: SignedDuration = SignedDuration::from_millis(100);

/// The same where too late is not safe: what it takes to read one clock after the other.
const SAME_READING: SignedDuration = SignedDuration::from_millis(1);

/// One moment, on the wall clock and on the boot clock.
///
/// The boot clock (`CLOCK_BOOTTIME`) never steps and goes on through a suspend, but means nothing on another boot. The wall
/// clock means the same everywhere, but may step. Lengths of time are measured on the boot clock; the wall clock is what people
/// and other boots read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stamp {
    /// The wall clock, in UTC.
    pub wall: Timestamp,
    /// Time since the machine booted, in nanoseconds when written down.
    #[serde(rename = "boot_ns", with = "nanoseconds")]
    pub boot: Duration,
}

impl Stamp {
    /// The moment `length` after this one; stays at the end of time rather than overflow.
    #[must_use]
    pub fn plus(self, length: Duration) -> Self {
        let signed = SignedDuration::try_from(length).unwrap_or(SignedDuration::MAX);
        Self {
            wall: self.wall.checked_add(signed).unwrap_or(Timestamp::MAX),
            boot: self.boot.saturating_add(length),
        }
    }

    /// The moment `length` before this one; on the boot clock no earlier than the boot.
    #[must_use]
    pub fn minus(self, length: Duration) -> Self {
        let signed = SignedDuration::try_from(length).unwrap_or(SignedDuration::MAX);
        Self {
            wall: self.wall.checked_sub(signed).unwrap_or(Timestamp::MIN),
            boot: self.boot.saturating_sub(length),
        }
    }

    /// How long until this moment comes on the clock that says so first; zero once either clock has reached it.
    pub fn left(&self, now: Self) -> Duration {
        let by_wall = Duration::try_from(self.wall.duration_since(now.wall)).unwrap_or_default();
        by_wall.min(self.boot.saturating_sub(now.boot))
    }

    /// The earlier of the two moments on each clock by itself.
    #[must_use]
    pub fn sooner(self, other: Self) -> Self {
        Self {
            wall: self.wall.min(other.wall),
            boot: self.boot.min(other.boot),
        }
    }

    /// The wall clock's distance from the boot clock, in nanoseconds. It changes when the wall clock is stepped, and from one boot
    /// clock to another.
    pub fn offset(self) -> i128 {
        self.wall.as_nanosecond() - i128::try_from(self.boot.as_nanos()).unwrap_or_default()
    }

    /// True once either clock has reached this moment: for ends of life, where too early is safe and too late is not.
    pub fn reached(&self, now: Self) -> bool {
        now.wall >= self.wall || now.boot >= self.boot
    }

    /// This moment's distance on the boot clock before `now`; zero if it lies ahead.
    pub fn age(&self, now: Self) -> Duration {
        now.boot.saturating_sub(self.boot)
    }

    /// The moment at which the boot clock will show `boot`, as seen at `now`: for showing a boot time to people.
    #[must_use]
    pub fn at_boot(now: Self, boot: Duration) -> Self {
        if boot >= now.boot {
            now.plus(boot - now.boot)
        } else {
            now.minus(now.boot - boot)
        }
    }

    /// The wall time of this moment to show at `now`: as far from the wall clock's reading as the
    /// boot clock says. This and the two below convert every time that is shown; the stamp's own
    /// wall time is false once the wall clock was stepped.
    pub fn shown(self, now: Self) -> Timestamp {
        if self.is_before_boot() {
            return self.wall;
        }
        let at = Self::at_boot(now, self.boot).wall;
        // The two clocks are read one after the other: without a step the text stays the same.
        if at.duration_since(self.wall).abs() < SAME_TIME {
            self.wall
        } else {
            at
        }
    }

    /// The same for a moment that has come once either clock says so, as the end of a token: the wall
    /// time now + what is left by the clock that ends it first.
    pub fn shown_expiry(self, now: Self) -> Timestamp {
        if self.boot <= now.boot {
            return self.shown(now).min(now.wall);
        }
        let at = now.plus(self.left(now)).wall;
        if at < self.wall && self.wall.duration_since(at) < SAME_READING {
            self.wall
        } else {
            at
        }
    }

    /// The same for a moment that may lie before this boot. It was stamped together with `anchor`, and
    /// is shown as far from it as both are on the wall clock.
    pub fn shown_beside(self, anchor: Self, now: Self) -> Timestamp {
        if self.is_before_boot() {
            let distance = self.wall.duration_since(anchor.wall);
            anchor.shown(now).checked_add(distance).unwrap_or(self.wall)
        } else {
            self.shown(now)
        }
    }

    /// The boot clock has no number for what was before it began: see [`Stamp::minus`].
    fn is_before_boot(self) -> bool {
        self.boot.is_zero()
    }
}

/// Gives the time.
pub trait Clock: Send + Sync {
    /// The moment of the call; its boot time never goes backwards.
    fn now(&self) -> Stamp;
    /// The wall time of the call alone, for those whom the boot clock does not matter.
    fn wall(&self) -> Timestamp {
        self.now().wall
    }
    /// Which boot the boot times belong to.
    fn boot_id(&self) -> BootId;
}

/// The system's clocks.
#[derive(Clone, Debug)]
pub struct SystemClock {
    boot_id: BootId,
}

impl SystemClock {
    /// Asks once which boot clock this is. Where the kernel does not say, an id of this process's own makes records of other
    /// processes count as another boot's, at every start.
    pub fn new() -> Self {
        Self {
            boot_id: BootId::identify(&KernelView::read()).unwrap_or_else(BootId::unique),
        }
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Stamp {
        let boot = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        let boot = Duration::try_from(boot).unwrap_or_default();
        let wall = self.wall();
        Stamp { wall, boot }
    }

    fn wall(&self) -> Timestamp {
        wall()
    }

    fn boot_id(&self) -> BootId {
        self.boot_id.clone()
    }
}

/// The system's wall clock, for the timestamp of a line that is written now. Rules decide nothing by it.
#[must_use]
#[expect(
    clippy::disallowed_methods,
    reason = "this is the one place that asks the system for the wall time"
)]
pub fn wall() -> Timestamp {
    Timestamp::try_from(std::time::SystemTime::now()).unwrap_or(Timestamp::UNIX_EPOCH)
}

/// Writes a duration as whole nanoseconds.
pub(crate) mod nanoseconds {
    use super::Duration;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(crate) fn serialize<S: Serializer>(length: &Duration, out: S) -> Result<S::Ok, S::Error> {
        out.serialize_u64(u64::try_from(length.as_nanos()).unwrap_or(u64::MAX))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
        u64::deserialize(from).map(Duration::from_nanos)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn stamp(wall_s: i64, boot_s: u64) -> Stamp {
        Stamp {
            wall: Timestamp::from_second(wall_s).unwrap(),
            boot: Duration::from_secs(boot_s),
        }
    }

    #[test]
    fn an_end_is_reached_when_the_first_clock_says_so() {
        let end = stamp(1_000, 100);
        assert!(!end.reached(stamp(999, 99)));
        assert!(end.reached(stamp(1_000, 10)));
        assert!(end.reached(stamp(10, 100)));
        assert_eq!(end.left(stamp(990, 95)), Duration::from_secs(5));
        assert_eq!(end.left(stamp(2_000, 95)), Duration::ZERO);
    }

    #[test]
    fn the_ends_of_time_do_not_overflow() {
        let late = stamp(1_000, 100).plus(Duration::MAX);
        assert_eq!((late.wall, late.boot), (Timestamp::MAX, Duration::MAX));
        let early = stamp(1_000, 100).minus(Duration::MAX);
        assert_eq!((early.wall, early.boot), (Timestamp::MIN, Duration::ZERO));
    }

    #[test]
    fn a_moment_is_shown_by_the_wall_clock_as_it_is_now() {
        // Stamped at wall 10000 and boot 5000; then the wall clock was set by `step`.
        let now = |boot, step: i64| stamp(5_000 + i64::try_from(boot).unwrap() + step, boot);
        let (past, end) = (stamp(9_000, 4_000), stamp(13_600, 8_600));
        let shown = |step| {
            let now = now(5_000, step);
            let seconds = [past.shown(now), end.shown(now), end.shown_expiry(now)];
            seconds.map(|it| it.as_second() - now.wall.as_second())
        };
        assert_eq!(shown(0), [-1_000, 3_600, 3_600]);
        assert_eq!(shown(-18_000), [-1_000, 3_600, 3_600], "set back");
        assert_eq!(shown(600), [-1_000, 3_600, 3_000], "set forward");
        assert_eq!(shown(18_000), [-1_000, 3_600, 0], "set beyond its end");
        // The end has come, five hours after it is told by the stamp alone.
        let now = now(9_600, -18_000);
        assert_eq!(end.shown_expiry(now), end.shown(now));
        assert_eq!(end.shown(now).as_second(), now.wall.as_second() - 1_000);
        // The clocks are read one after the other, which is no step.
        let hair = stamp(10_000, 5_000).plus(Duration::from_micros(3));
        let late = Stamp {
            boot: hair.boot - Duration::from_micros(5),
            ..hair
        };
        assert_eq!(past.shown(late), past.wall);
        assert_eq!(end.shown_expiry(late), end.wall);
        let end = end.plus(Duration::from_millis(5));
        let late = late.plus(Duration::from_millis(5));
        assert_eq!(end.shown_expiry(late), end.wall);
    }

    #[test]
    fn what_was_before_the_boot_is_shown_beside_what_was_not() {
        // A token that lives an hour was carried over 100 s after the boot, half an hour into its life.
        let end = stamp(10_000, 1_900);
        let issued = end.minus(Duration::from_secs(3_600));
        assert_eq!(issued.boot, Duration::ZERO);
        for step in [0, -18_000, 18_000] {
            let now = stamp(8_300 + step, 200);
            assert_eq!(
                issued.shown_beside(end, now).as_second(),
                now.wall.as_second() - 1_900
            );
        }
        let later = stamp(9_000, 900);
        let now = stamp(9_500 - 18_000, 1_400);
        assert_eq!(later.shown_beside(end, now), later.shown(now));
    }

    proptest! {
        /// Whatever the clocks did: an end is never shown later than the truth, nor after it was
        /// reached later than now; what was is not shown as what comes, and the other way round.
        #[test]
        fn no_end_is_shown_too_late(
            wall in -4_000_000_000_000_i64..4_000_000_000_000,
            boot in 1_u64..1_000_000_000,
            step in -100_000_000_i64..100_000_000,
            by in -200_000_000_i64..200_000_000,
        ) {
            let at = Stamp {
                wall: Timestamp::from_millisecond(wall).unwrap(),
                boot: Duration::from_millis(boot),
            };
            let moved = i64::try_from(boot).unwrap() + by;
            let now = Stamp {
                wall: Timestamp::from_millisecond(wall + by + step).unwrap(),
                boot: Duration::from_millis(u64::try_from(moved).unwrap_or(0)),
            };
            let expiry = at.shown_expiry(now);
            let bound = now.plus(at.left(now)).wall;
            prop_assert!(expiry <= bound + SAME_READING, "{expiry} {bound}");
            if at.reached(now) {
                prop_assert!(expiry <= now.wall);
            } else {
                prop_assert!(expiry.duration_since(bound).abs() < SAME_READING);
            }
            let shown = at.shown(now);
            let true_distance = SignedDuration::try_from(at.boot).unwrap()
                - SignedDuration::try_from(now.boot).unwrap();
            let distance = shown.duration_since(now.wall);
            prop_assert!((distance - true_distance).abs() < SAME_TIME);
        }
    }

    #[test]
    fn what_is_written_is_read_back_to_the_nanosecond() {
        let at = Stamp {
            wall: "2026-01-02T03:04:05.123456789Z".parse().unwrap(),
            boot: Duration::from_nanos(987_654_321_123),
        };
        let text = serde_json::to_string(&at).unwrap();
        assert_eq!(
            text,
            r#"{"wall":"2026-01-02T03:04:05.123456789Z","boot_ns":987654321123}"#
        );
        assert_eq!(serde_json::from_str::<Stamp>(&text).unwrap(), at);
    }

    #[test]
    fn the_boot_clock_of_the_system_does_not_go_back() {
        let clock = SystemClock::new();
        let first = clock.now();
        assert!(clock.now().boot >= first.boot);
        assert_eq!(clock.boot_id(), SystemClock::new().boot_id());
    }
}
