//! What events, the token and the time mean for the lines that are due.

use super::{LogThrottle, PERIOD, Refusal, START_GRACE};
use crate::clock::Stamp;
use crate::keeper::Note;
use crate::keeper::log::line::{Keys, Line, Message};
use crate::keeper::log::trouble::Failure;
use crate::keeper::log::{Event, Outlook};
use crate::token::Generation;

impl LogThrottle {
    pub(super) fn take(&mut self, event: Event, now: Stamp, live: bool) {
        match event {
            Event::Note(note) => self.take_note(note, now, live),
            Event::KeysChanged {
                count,
                added,
                removed,
            } => self.add_news(Line {
                keys: Some(Keys {
                    count,
                    added,
                    removed,
                }),
                ..Line::new(Message::KeysChanged)
            }),
            Event::KeysUnreadable(why) => self.key_files.fail(now, failure(None, why)),
            Event::KeysReadable => _ = self.key_files.end(now),
        }
    }

    fn take_note(&mut self, note: Note, now: Stamp, live: bool) {
        match note {
            Note::Failed(trouble) => {
                let last = failure(Some(trouble.code), trouble.detail);
                self.attempts.fail(now, last);
            }
            Note::Parked(said) => self.parked = Some(failure(Some("refused"), said)),
            Note::StillParked { reason, .. } => self.add_news(Line {
                failure: failure(Some("refused"), reason),
                ..Line::new(Message::StillParked)
            }),
            Note::StillFailing(outcome) => self.add_news(Line {
                failure: Failure {
                    outcome: Some(outcome),
                    said: None,
                },
                ..Line::new(Message::StillFailing)
            }),
            Note::Minted(generation) => self.has_token(Message::Minted, generation, now),
            // What has ended already helps nobody.
            Note::Found(generation) if live => self.has_token(Message::Found, generation, now),
            Note::Found(_) => {}
            Note::RegisterDown(why) => self.register.fail(now, failure(None, why)),
            Note::RegisterUp => _ = self.register.end(now),
            Note::Odd(said) => self.add_saying(Message::Odd, said),
            Note::Suspect(generation) => self.add_news(Line {
                generation: Some(generation),
                ..Line::new(Message::Suspect)
            }),
            Note::NewRecord => self.add_news(Line::new(Message::NewRecord)),
            Note::RecordLost => self.add_news(Line::new(Message::RecordLost)),
            Note::OtherBoot => self.add_news(Line::new(Message::OtherBoot)),
            Note::OtherClock => self.add_news(Line::new(Message::OtherClock)),
            Note::Adopted { from } => {
                self.add_saying(Message::Adopted, format!("it was of account {from}"));
            }
            Note::MovedAside(what) => self.add_saying(Message::MovedAside, what),
        }
    }

    /// A new token is there: an outage is over, if there was one.
    fn has_token(&mut self, message: Message, generation: Generation, now: Stamp) {
        if self.attempts.open.is_some() {
            let message = match message {
                Message::Found => Message::RecoveredByOther,
                _ => Message::Recovered,
            };
            return self.end_outage(message, Some(generation), now);
        }
        // The answer that brought it may have been odd: then one line says both.
        let odd = |line: &mut Line| line.message == Message::Odd && line.times == 1;
        let said = match message {
            Message::Minted => self.news.pop_if(odd).map(|line| line.failure),
            _ => None,
        };
        let (message, failure) = match said {
            Some(failure) => (Message::MintedOddly, failure),
            None => (message, Failure::default()),
        };
        self.add_news(Line {
            generation: Some(generation),
            failure,
            ..Line::new(message)
        });
    }

    fn end_outage(&mut self, by: Message, generation: Option<Generation>, now: Stamp) {
        if let Some(refusal) = self.refusal.take() {
            *self.refused_for.get_or_insert_default() += refusal.since.age(now);
        }
        self.attempts.end(now);
        self.ended_by = Some((by, generation));
        self.parked = None;
        self.half_lead_is_due = false;
        self.summed_up = None;
    }

    fn add_saying(&mut self, message: Message, said: String) {
        self.add_news(Line {
            failure: failure(None, said),
            ..Line::new(message)
        });
    }

    /// Of each kind one line waits: the newest, which counts the others.
    fn add_news(&mut self, mut line: Line) {
        let waits = self.news.iter().position(|it| it.message == line.message);
        if let Some(index) = waits {
            let before = self.news.remove(index);
            line.times += before.times;
            line.keys = line.keys.map(|keys| keys.after(before.keys));
        }
        self.news.push(line);
    }

    /// What follows from the token and the time alone.
    pub(super) fn watch_token(
        &mut self,
        now: Stamp,
        outlook: &Outlook,
        live: Option<(Generation, Stamp)>,
    ) {
        let newest = outlook.token.map(|(generation, _)| generation);
        if newest != self.token.map(|(generation, _)| generation) {
            self.token = newest.map(|generation| (generation, now));
        }
        if live.is_some() {
            self.has_lived = true;
            if self.refusal.is_some() {
                self.end_outage(Message::LivesAgain, None, now);
            }
        } else if self.refusal.is_none() {
            self.begin_refusal(now, outlook);
        }
        self.watch_half_lead(now, outlook, live);
    }

    fn begin_refusal(&mut self, now: Stamp, outlook: &Outlook) {
        let since = match (outlook.token, self.started) {
            (Some((_, end)), _) if self.has_lived => Stamp::at_boot(now, end.boot.min(now.boot)),
            (_, Some(started)) if started.age(now) >= START_GRACE => started,
            _ => return,
        };
        self.attempts.begin(since);
        self.refusal = Some(Refusal { since, told: false });
    }

    /// Half of the lead is over. A token that came so late, as after a restart, has a minute first.
    fn watch_half_lead(
        &mut self,
        now: Stamp,
        outlook: &Outlook,
        live: Option<(Generation, Stamp)>,
    ) {
        let Some((generation, end)) = live else {
            self.half_lead_is_due = false;
            return;
        };
        let half = outlook.lead / 2;
        if end.left(now) > half || self.half_lead == Some(generation) {
            return;
        }
        let seen = self.token.map_or(now, |(_, seen)| seen);
        if end.left(seen) <= half && seen.age(now) < PERIOD {
            return;
        }
        self.half_lead = Some(generation);
        self.half_lead_is_due = true;
        self.attempts.begin(now);
    }
}

fn failure(outcome: Option<&'static str>, said: String) -> Failure {
    Failure {
        outcome,
        said: Some(said),
    }
}
