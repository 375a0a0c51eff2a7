//! What time it is, on both clocks at once.
//!
//! Rules never ask for the time: they are given a [`Stamp`]. Only [`SystemClock`] asks the system.

mod boot;

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

pub use boot::{BootId, KernelView, TimeNamespace};

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
}

/// Gives the time.
pub trait Clock: Send + Sync {
    /// The moment of the call; its boot time never goes backwards.
    fn now(&self) -> Stamp;
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
    #[expect(
        clippy::disallowed_methods,
        reason = "this is the one place that asks the system for the time"
    )]
    fn now(&self) -> Stamp {
        let boot = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        let wall =
            Timestamp::try_from(std::time::SystemTime::now()).unwrap_or(Timestamp::UNIX_EPOCH);
        Stamp {
            wall,
            boot: Duration::try_from(boot).unwrap_or_default(),
        }
    }

    fn boot_id(&self) -> BootId {
        self.boot_id.clone()
    }
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
