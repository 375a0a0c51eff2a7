//! A sliding window over instants, exact to the nanosecond: the window is closed, so an instant exactly one width old
//! still counts, and one nanosecond later it no longer does.

use std::collections::VecDeque;
use std::time::Duration;

/// The instants of the last `width`, and the most that any closed window has held.
pub(super) struct Window {
    width: Duration,
    instants: VecDeque<Duration>,
    worst: usize,
}

impl Window {
    pub(super) fn new(width: Duration) -> Self {
        Self {
            width,
            instants: VecDeque::new(),
            worst: 0,
        }
    }

    /// How many recorded instants lie in `[now - width, now]`.
    pub(super) fn count(&mut self, now: Duration) -> usize {
        while let Some(oldest) = self.instants.front()
            && now.saturating_sub(*oldest) > self.width
        {
            self.instants.pop_front();
        }
        self.instants.len()
    }

    /// Records `now`; instants must not go backwards.
    pub(super) fn record(&mut self, now: Duration) {
        self.instants.push_back(now);
        self.worst = self.worst.max(self.count(now));
    }

    /// The whole seconds after which fewer than `limit` instants will be left; none if that is already so, or never
    /// will be.
    pub(super) fn seconds_until_below(&mut self, limit: u32, now: Duration) -> Option<u64> {
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let excess = self.count(now).checked_sub(limit)?;
        let last_to_leave = self.instants.get(excess)?;
        let age = now.saturating_sub(*last_to_leave);
        Some(self.width.saturating_sub(age).as_secs() + 1)
    }

    /// The most instants that any closed window of this width has held.
    pub(super) fn worst(&self) -> usize {
        self.worst
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const WIDTH: Duration = Duration::from_secs(1800);

    #[test]
    fn an_instant_exactly_one_width_old_still_counts() {
        let mut window = Window::new(WIDTH);
        window.record(Duration::from_secs(5));
        assert_eq!(window.count(Duration::from_secs(5) + WIDTH), 1);
    }

    #[test]
    fn one_nanosecond_later_it_is_free() {
        let mut window = Window::new(WIDTH);
        window.record(Duration::from_secs(5));
        assert_eq!(
            window.count(Duration::from_secs(5) + WIDTH + Duration::from_nanos(1)),
            0
        );
    }

    #[test]
    fn waiting_as_told_always_frees_a_slot() {
        let mut window = Window::new(WIDTH);
        for second in 0..10 {
            window.record(Duration::from_secs(second));
        }
        let now = Duration::from_secs(100);
        let wait = window.seconds_until_below(10, now);
        assert_eq!(wait, Some(1701));
        assert_eq!(window.count(now + Duration::from_secs(1701)), 9);
        assert_eq!(
            window.seconds_until_below(10, now + Duration::from_secs(1701)),
            None
        );
    }

    #[test]
    fn a_limit_of_zero_never_frees() {
        let mut window = Window::new(WIDTH);
        assert_eq!(window.seconds_until_below(0, WIDTH), None);
    }

    proptest! {
        #[test]
        fn the_worst_window_is_what_brute_force_finds(
            gaps in prop::collection::vec(0u64..40, 0..80),
            width in 0u64..100,
        ) {
            let width = Duration::from_nanos(width);
            let mut window = Window::new(width);
            let mut now = Duration::ZERO;
            let mut all = Vec::new();
            for gap in gaps {
                now += Duration::from_nanos(gap);
                all.push(now);
                window.record(now);
            }
            let brute = all
                .iter()
                .map(|end| all.iter().filter(|at| *at <= end && *end - **at <= width).count())
                .max()
                .unwrap_or(0);
            prop_assert_eq!(window.worst(), brute);
        }
    }
}
