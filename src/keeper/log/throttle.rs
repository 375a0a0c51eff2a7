//! Which lines are due: a state machine of values and the time, which writes nothing itself.
//!
//! At most [`MAX_LINES`] lines stand in any minute. What finds no place waits and is told later,
//! with how often it happened; nothing is left out. The second place is kept for what cannot wait,
//! and the last minute of a token's life keeps one for its end. Outside the count are the first
//! lines about each thing that a start may find in its record.

mod intake;

use std::collections::VecDeque;
use std::time::Duration;

use super::line::{Line, Message};
use super::trouble::{Failure, Trouble};
use super::{Event, Outlook};
use crate::clock::Stamp;
use crate::token::Generation;

/// The maximum of lines in [`PERIOD`].
const MAX_LINES: usize = 2;

/// How long a line takes its place, and how often an outage is summed up.
const PERIOD: Duration = Duration::from_secs(60);

/// How long a start may take to have a token before its callers count as refused.
const START_GRACE: Duration = Duration::from_secs(10);

/// What is told at the first start and hardly ever again: the first of each has a place of its own.
const START_FACTS: [Message; 9] = [
    Message::NewRecord,
    Message::Adopted,
    Message::StillParked,
    Message::StillFailing,
    Message::RecordLost,
    Message::OtherBoot,
    Message::OtherClock,
    Message::MovedAside,
    Message::Found,
];

/// How much a line may claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rank {
    /// It waits until no other line stands in the last minute while there is an outage.
    News,
    /// It may take the second place.
    Change,
    /// Callers begin to be refused.
    Refusal,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct LogThrottle {
    started: Option<Stamp>,
    /// When the last lines were written, by the boot clock.
    recent: VecDeque<Duration>,
    attempts: Trouble,
    register: Trouble,
    key_files: Trouble,
    /// The newest token, and when it was seen first.
    token: Option<(Generation, Stamp)>,
    has_lived: bool,
    refusal: Option<Refusal>,
    /// How long callers were refused in outages that are over and were not told.
    refused_for: Option<Duration>,
    /// What ended the last of them.
    ended_by: Option<(Message, Option<Generation>)>,
    /// The last token of which half of the lead is over.
    half_lead: Option<Generation>,
    half_lead_is_due: bool,
    parked: Option<Failure>,
    news: Vec<Line>,
    /// When each kind of news was told last.
    news_told: Vec<(Message, Duration)>,
    summed_up: Option<Duration>,
}

/// Callers are refused.
#[derive(Clone, Copy, Debug)]
struct Refusal {
    since: Stamp,
    told: bool,
}

impl LogThrottle {
    /// Takes in what happened up to `now`, and gives the lines that are due.
    pub(super) fn step(
        &mut self,
        now: Stamp,
        outlook: &Outlook,
        events: impl Iterator<Item = Event>,
    ) -> Vec<Line> {
        self.started.get_or_insert(now);
        let live = outlook.token.filter(|(_, end)| !end.reached(now));
        for event in events {
            self.take(event, now, live.is_some());
        }
        self.watch_token(now, outlook, live);
        while self
            .recent
            .front()
            .is_some_and(|at| *at + PERIOD <= now.boot)
        {
            self.recent.pop_front();
        }
        let mut lines = Vec::new();
        // Some milliseconds: then the next attempt is known.
        if !outlook.settling {
            while let Some(line) = self.next_line(now, live, false) {
                lines.push(line);
            }
        } else if let Some(line) = self.refusal_line(now, live, false) {
            lines.push(line);
        }
        lines
            .iter_mut()
            .for_each(|line| complete(line, outlook, live));
        lines
    }

    /// Gives all that waits, however much it is.
    pub(super) fn finish(&mut self, now: Stamp, outlook: &Outlook) -> Vec<Line> {
        let live = outlook.token.filter(|(_, end)| !end.reached(now));
        // The end of the process is no time for another summary.
        self.summed_up = Some(now.boot);
        let mut lines = Vec::new();
        while let Some(line) = self.next_line(now, live, true) {
            lines.push(line);
        }
        lines
            .iter_mut()
            .for_each(|line| complete(line, outlook, live));
        lines
    }

    /// The most pressing line that may be written now. `ending` knows no bounds.
    fn next_line(
        &mut self,
        now: Stamp,
        live: Option<(Generation, Stamp)>,
        ending: bool,
    ) -> Option<Line> {
        let may_change = ending || self.has_place(Rank::Change, now, live);
        if may_change && let Some(line) = self.recovery_line() {
            return Some(self.placed(line, now));
        }
        if let Some(line) = self.refusal_line(now, live, ending) {
            return Some(line);
        }
        if may_change && let Some(line) = self.change_line(now, ending) {
            return Some(self.placed(line, now));
        }
        if let Some(line) = self.news_line(now, live, ending) {
            return Some(line);
        }
        if may_change && let Some(line) = self.summary(now) {
            return Some(self.placed(line, now));
        }
        None
    }

    fn recovery_line(&mut self) -> Option<Line> {
        let over = self.attempts.over.take()?;
        let (message, generation) = self.ended_by.take().unwrap_or((Message::Recovered, None));
        Some(Line {
            generation,
            refused_for: self.refused_for.take(),
            ..Line::new(message).with_over(&over)
        })
    }

    fn refusal_line(
        &mut self,
        now: Stamp,
        live: Option<(Generation, Stamp)>,
        ending: bool,
    ) -> Option<Line> {
        // One that is over is told first.
        if self.attempts.over.is_some() || !(ending || self.has_place(Rank::Refusal, now, live)) {
            return None;
        }
        let refusal = self.refusal.as_mut().filter(|refusal| !refusal.told)?;
        refusal.told = true;
        let message = Line::new(Message::NoToken);
        let line = self.of_outage(message, now);
        self.begun(now);
        Some(self.placed(line, now))
    }

    /// A state has changed, and no line has told it.
    fn change_line(&mut self, now: Stamp, ending: bool) -> Option<Line> {
        if std::mem::take(&mut self.half_lead_is_due) {
            let line = self.of_outage(Line::new(Message::HalfLead), now);
            self.begun(now);
            return Some(line);
        }
        if let Some(failure) = self.parked.take() {
            let mut line = Line::new(Message::Parked);
            line.failure = failure;
            let line = self.of_outage(line, now);
            self.begun(now);
            return Some(line);
        }
        if self.attempts.is_untold() {
            let line = self.of_outage(Line::new(Message::Failed), now);
            self.begun(now);
            return Some(line);
        }
        // A token may follow at once, and its line is the one to read.
        let may_wait = self.attempts.open.is_some() && !self.recent.is_empty();
        if let Some(over) = self.register.over.take_if(|_| ending || !may_wait) {
            return Some(Line::new(Message::RegisterUp).with_over(&over));
        }
        if self.register.is_untold() {
            self.register.told();
            self.summed_up.get_or_insert(now.boot);
            let open = self.register.open.as_ref()?;
            return Some(Line::new(Message::RegisterDown).with_open(open, now));
        }
        None
    }

    fn news_line(
        &mut self,
        now: Stamp,
        live: Option<(Generation, Stamp)>,
        ending: bool,
    ) -> Option<Line> {
        let may = ending || self.has_place(Rank::News, now, live);
        let told = |message| self.news_told.iter().find(|(it, _)| *it == message);
        let is_due = |line: &Line| match told(line.message) {
            None if START_FACTS.contains(&line.message) => true,
            Some((_, at)) => may && (ending || *at + PERIOD <= now.boot),
            None => may,
        };
        if let Some(index) = self.news.iter().position(is_due) {
            let line = self.news.remove(index);
            let first = told(line.message).is_none() && START_FACTS.contains(&line.message);
            self.news_told
                .retain(|(message, _)| *message != line.message);
            self.news_told.push((line.message, now.boot));
            if first {
                return Some(line);
            }
            if self.attempts.open.is_some() {
                self.summed_up = self.summed_up.map(|_| now.boot);
            }
            let line = self.of_outage(line, now);
            return Some(self.placed(line, now));
        }
        let line = match self.key_files.over.take_if(|_| may) {
            Some(over) => Line::new(Message::KeysReadable).with_over(&over),
            None if may && self.key_files.is_untold() => {
                self.key_files.told();
                let open = self.key_files.open.as_ref()?;
                Line::new(Message::KeysUnreadable).with_open(open, now)
            }
            None => return None,
        };
        Some(self.placed(line, now))
    }

    /// Once a minute while an outage lasts, unless news about it stood in its place.
    fn summary(&mut self, now: Stamp) -> Option<Line> {
        let troubles = [&self.attempts, &self.register];
        let mut open = troubles.iter().filter_map(|it| it.open.as_ref());
        if !open.any(|open| open.told) {
            self.summed_up = None;
            return None;
        }
        if *self.summed_up.get_or_insert(now.boot) + PERIOD > now.boot {
            return None;
        }
        self.summed_up = Some(now.boot);
        if self.attempts.open.is_some() {
            return Some(self.of_outage(Line::new(Message::GoesOn), now));
        }
        let open = self.register.open.as_ref()?;
        Some(Line::new(Message::RegisterStillDown).with_open(open, now))
    }

    /// The line with how the outage stands, if there is one.
    fn of_outage(&self, mut line: Line, now: Stamp) -> Line {
        line.refused_for = self.refusal.map(|refusal| refusal.since.age(now));
        if let Some(open) = &self.attempts.open {
            line = line.with_open(open, now);
            let register = self.register.open.as_ref();
            line.register = register.and_then(|open| open.last.said.clone());
        }
        line
    }

    /// A line has told that there is an outage; its first summary is due in a minute.
    fn begun(&mut self, now: Stamp) {
        self.attempts.told();
        self.summed_up.get_or_insert(now.boot);
    }

    fn has_place(&self, rank: Rank, now: Stamp, live: Option<(Generation, Stamp)>) -> bool {
        let taken = self.recent.len();
        let outage = self.attempts.open.is_some() || self.attempts.over.is_some();
        let allowed = match rank {
            Rank::News if outage => taken == 0,
            _ => taken < MAX_LINES,
        };
        let end = live.map(|(_, end)| now.boot + end.left(now));
        let kept = end.filter(|end| rank != Rank::Refusal && *end < now.boot + PERIOD);
        let stand_until = |end: Duration| self.recent.iter().any(|at| *at + PERIOD > end);
        allowed && !kept.is_some_and(stand_until)
    }

    fn placed(&mut self, line: Line, now: Stamp) -> Line {
        self.recent.push_back(now.boot);
        line
    }
}

/// What every line says that is not about the record alone.
fn complete(line: &mut Line, outlook: &Outlook, live: Option<(Generation, Stamp)>) {
    let of_attempts =
        [Message::Found, Message::StillParked, Message::StillFailing].contains(&line.message);
    let of_record = START_FACTS.contains(&line.message) && !of_attempts;
    if !of_record {
        line.next = Some(outlook.next);
        line.token = Some(live.map(|(_, end)| end));
    }
}

#[cfg(test)]
mod tests;
