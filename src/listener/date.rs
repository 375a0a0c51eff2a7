//! The `Date` of every answer, by the daemon's own clock.
//!
//! hyper keeps a date of its own, which stands still after the wall clock was set back until that has
//! caught up. Its dates are therefore off, and so what hyper refuses by itself has none.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use arc_swap::ArcSwap;
use hyper::Response;
use hyper::header::{DATE, HeaderValue};
use jiff::Timestamp;
use jiff::fmt::rfc2822::DateTimePrinter;

use super::Listener;
use crate::clock::{Clock, SystemClock};

/// Gives the date, rendered once for each second. Clones share everything.
#[derive(Clone)]
pub struct Dates(Arc<Shared>);

struct Shared {
    clock: Arc<dyn Clock>,
    rendered: ArcSwap<Rendered>,
}

struct Rendered {
    second: i64,
    value: HeaderValue,
}

impl Dates {
    /// Dates by this clock.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        let rendered = Rendered::new(clock.wall());
        Self(Arc::new(Shared {
            clock,
            rendered: ArcSwap::from_pointee(rendered),
        }))
    }

    fn now(&self) -> HeaderValue {
        let now = self.0.clock.wall();
        let held = self.0.rendered.load();
        if held.second == now.as_second() {
            return held.value.clone();
        }
        let rendered = Rendered::new(now);
        let value = rendered.value.clone();
        self.0.rendered.store(Arc::new(rendered));
        value
    }
}

impl Listener {
    /// Dates its answers by these, and not by the system's clock.
    #[must_use]
    pub fn dated(mut self, dates: Dates) -> Self {
        self.dates = dates;
        self
    }
}

impl Default for Dates {
    fn default() -> Self {
        Self::new(Arc::new(SystemClock::new()))
    }
}

impl Rendered {
    fn new(now: Timestamp) -> Self {
        let text = DateTimePrinter::new().timestamp_to_rfc9110_string(&now);
        Self {
            second: now.as_second(),
            value: HeaderValue::try_from(
                text.expect("a clock shows a year of at most four digits"),
            )
            .expect("a date is visible ASCII"),
        }
    }
}

/// An answer on its way that gets its date when it is there.
pub(super) struct Dated<T> {
    answer: T,
    dates: Dates,
}

impl<T> Dated<T> {
    pub(super) fn new(answer: T, dates: &Dates) -> Self {
        let dates = dates.clone();
        Self { answer, dates }
    }
}

impl<T, B, E> Future for Dated<T>
where
    T: Future<Output = Result<Response<B>, E>> + Unpin,
{
    type Output = Result<Response<B>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let it = self.get_mut();
        Pin::new(&mut it.answer).poll(cx).map_ok(|mut response| {
            response.headers_mut().insert(DATE, it.dates.now());
            response
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Stamp;
    use crate::listener::testing::{HandClock, at};

    #[test]
    fn the_date_is_rendered_once_a_second_and_goes_back_with_the_clock() {
        let clock = Arc::new(HandClock::new());
        let dates = Dates::new(clock.clone());
        let first = dates.now();
        assert_eq!(first, "Fri, 15 Jan 2027 08:00:00 GMT");
        let before = Arc::as_ptr(&dates.0.rendered.load_full());
        clock.set(at(0).plus(std::time::Duration::from_millis(999)));
        assert_eq!(dates.now(), first);
        assert_eq!(Arc::as_ptr(&dates.0.rendered.load_full()), before);
        clock.set(at(1));
        assert_eq!(dates.now(), "Fri, 15 Jan 2027 08:00:01 GMT");
        let wall = at(0).wall - jiff::SignedDuration::from_hours(5);
        clock.set(Stamp { wall, ..at(2) });
        assert_eq!(dates.now(), "Fri, 15 Jan 2027 03:00:00 GMT");
    }
}
