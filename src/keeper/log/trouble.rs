//! Something that fails for a while, told when it begins and when it is over.

use std::time::Duration;

use crate::clock::Stamp;

/// What a failure was.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Failure {
    pub(super) outcome: Option<&'static str>,
    pub(super) said: Option<String>,
}

/// The trouble that goes on, and those that are over and were not told yet.
#[derive(Debug, Default)]
pub(super) struct Trouble {
    pub(super) open: Option<Open>,
    pub(super) over: Option<Over>,
}

/// A trouble that goes on.
#[derive(Debug)]
pub(super) struct Open {
    pub(super) since: Stamp,
    /// How many times something failed.
    pub(super) failed: u32,
    pub(super) last: Failure,
    /// A line has told that it began.
    pub(super) told: bool,
}

/// Troubles that are over.
#[derive(Debug)]
pub(super) struct Over {
    pub(super) times: u32,
    pub(super) failed: u32,
    /// When the first of them began, and the last of them ended.
    pub(super) since: Stamp,
    pub(super) until: Stamp,
    /// How long they lasted together.
    pub(super) lasted: Duration,
}

impl Trouble {
    /// It begins, unless it goes on already.
    pub(super) fn begin(&mut self, since: Stamp) -> &mut Open {
        self.open.get_or_insert_with(|| Open {
            since,
            failed: 0,
            last: Failure::default(),
            told: false,
        })
    }

    /// Something failed.
    pub(super) fn fail(&mut self, now: Stamp, last: Failure) {
        let open = self.begin(now);
        open.failed = open.failed.saturating_add(1);
        open.last = last;
    }

    /// It is over, if there was any.
    pub(super) fn end(&mut self, now: Stamp) -> bool {
        let Some(open) = self.open.take() else {
            return false;
        };
        let over = self.over.get_or_insert(Over {
            times: 0,
            failed: 0,
            since: open.since,
            until: now,
            lasted: Duration::ZERO,
        });
        over.times += 1;
        over.failed = over.failed.saturating_add(open.failed);
        over.until = now;
        over.lasted += open.since.age(now);
        true
    }

    /// True if it goes on and no line has told so.
    pub(super) fn is_untold(&self) -> bool {
        self.open.as_ref().is_some_and(|open| !open.told)
    }

    pub(super) fn told(&mut self) {
        if let Some(open) = &mut self.open {
            open.told = true;
        }
    }
}
