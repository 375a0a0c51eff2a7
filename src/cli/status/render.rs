//! The status for people: a pure function of the document.

use std::fmt::Write as _;
use std::time::Duration;

use jiff::Timestamp;

use super::document::{Attempt, Document, Slot, Token};

/// Attempts beyond these are in `--format json`.
const MOST_ATTEMPTS: usize = 10;

/// More slots than this are counted rather than drawn.
const MOST_CELLS: u32 = 50;

/// Where the values begin, behind their labels.
const INDENT: usize = 10;

/// A page that is being written.
struct Page {
    text: String,
    now: Timestamp,
    width: usize,
    colour: bool,
}

/// What a line says beside its words.
#[derive(Clone, Copy)]
enum Tone {
    Plain,
    Good,
    Bad,
}

/// Draws the document on lines of at most `width` characters. Everything is seen from the document's own time.
pub(super) fn render(document: &Document, width: usize, colour: bool) -> String {
    let mut page = Page {
        text: String::new(),
        now: document.now(),
        width: width.max(40),
        colour,
    };
    page.loud(document);
    let version = &document.version;
    let heading = format!(
        "{} at {}, bearerd {version}",
        document.account,
        day_and_time(page.now)
    );
    page.line("account", &heading, Tone::Plain);
    page.token(document.token.as_ref());
    page.budget(document);
    page.next(document);
    let register = &document.register;
    let kind = &register.kind;
    if register.up {
        page.line("record", &format!("{kind}, up"), Tone::Plain);
    }
    page.attempts(&document.attempts);
    page.text
}

impl Page {
    /// One line, cut to the width, without anything that could move a terminal's cursor.
    fn line(&mut self, label: &str, text: &str, tone: Tone) {
        let whole = format!("{label:<INDENT$}{text}");
        let harmless: String = whole
            .chars()
            .map(|c| if c.is_control() { ' ' } else { c })
            .collect();
        let harmless = harmless.trim_end();
        let cut: String = match harmless.chars().count() > self.width {
            true => harmless.chars().take(self.width - 1).chain(['…']).collect(),
            false => harmless.to_owned(),
        };
        let _ = match (tone, self.colour) {
            (Tone::Good, true) => writeln!(self.text, "\x1b[32m{cut}\x1b[0m"),
            (Tone::Bad, true) => writeln!(self.text, "\x1b[1;31m{cut}\x1b[0m"),
            _ => writeln!(self.text, "{cut}"),
        };
    }

    /// What somebody must see, first.
    fn loud(&mut self, document: &Document) {
        if let Some(parked) = &document.parked {
            let since = self.ago(parked.since);
            let text = format!(
                "since {since}: the issuer refuses our keys, and mints are rare until they change"
            );
            self.line("PARKED", &text, Tone::Bad);
            self.line("", &parked.reason, Tone::Bad);
        }
        let known = document.parked.as_ref().map(|parked| &parked.reason);
        if let Some(trouble) = &document.trouble
            && known != Some(&trouble.detail)
        {
            self.line(
                "TROUBLE",
                &format!("{}: {}", trouble.code, trouble.detail),
                Tone::Bad,
            );
        }
        let register = &document.register;
        if !register.up {
            let detail = register.detail.as_deref().unwrap_or("no reason known");
            let text = format!(
                "{} does not answer, and without it there is no mint: {detail}",
                register.kind
            );
            self.line("RECORD", &text, Tone::Bad);
        }
        if let Some(moved) = &register.moved_aside {
            self.line("RECORD", moved, Tone::Bad);
        }
        if document.short_lead {
            let text = "the lead is short (refresh.allow_short_lead): a spent budget can outlast the token";
            self.line("NOTE", text, Tone::Plain);
        }
    }

    fn token(&mut self, token: Option<&Token>) {
        let Some(token) = token else {
            return self.line("token", "none yet", Tone::Bad);
        };
        let name = format!("generation {}, {}", token.generation, token.fingerprint);
        if token.expires_at <= self.now {
            let text = format!(
                "EXPIRED {} ago, at {} ({name})",
                self.ago(token.expires_at),
                time(token.expires_at)
            );
            return self.line("token", &text, Tone::Bad);
        }
        let left = self.until(token.expires_at);
        let text = format!("live for {left}, until {} ({name})", time(token.expires_at));
        self.line("token", &text, Tone::Good);
        let due = match token.refresh_at > self.now {
            true => format!(
                "refresh in {}, at {}",
                self.until(token.refresh_at),
                time(token.refresh_at)
            ),
            false => format!("refresh due since {}", time(token.refresh_at)),
        };
        let bar = life_bar(
            token,
            self.now,
            self.width
                .saturating_sub(INDENT + due.len() + 4)
                .clamp(10, 40),
        );
        self.line("", &format!("[{bar}] {due}"), Tone::Plain);
        if token.suspect {
            self.line(
                "SUSPECT",
                "a caller reported that this token was refused",
                Tone::Bad,
            );
        }
    }

    fn budget(&mut self, document: &Document) {
        let budget = &document.budget;
        let taken = budget.slots.len();
        let free = &budget.free;
        let text = format!(
            "{taken} of {} slots taken; free now: {} routine, {} reported, {} urgent",
            budget.limit, free.routine, free.reported, free.urgent
        );
        self.line(
            "budget",
            &text,
            if free.urgent == 0 {
                Tone::Bad
            } else {
                Tone::Plain
            },
        );
        if budget.limit <= MOST_CELLS {
            let cells: String = (0..budget.limit as usize)
                .map(|cell| if cell < taken { "[#]" } else { "[ ]" })
                .collect();
            self.line("", &cells, Tone::Plain);
        }
        for slot in budget.slots.iter().take(MOST_CELLS as usize) {
            let text = self.slot(slot);
            self.line("", &text, Tone::Plain);
        }
    }

    fn slot(&self, slot: &Slot) -> String {
        let what = format!(
            "{} for {}, {}",
            slot.class,
            words(&slot.trigger),
            words(&slot.outcome)
        );
        format!(
            "[#] frees in {:<8} at {}  {what}",
            self.until(slot.frees_at),
            time(slot.frees_at)
        )
    }

    fn next(&mut self, document: &Document) {
        if let Some(attempt) = document.minting {
            self.line("now", &format!("minting, attempt {attempt}"), Tone::Plain);
        }
        let text = match &document.next {
            None => "nothing is planned".to_owned(),
            Some(next) => format!(
                "{} mint for {} in {}, at {}; it waits for {}",
                next.class,
                words(&next.trigger),
                self.until(next.at),
                time(next.at),
                waited_for(&next.waiting_for)
            ),
        };
        self.line("next", &text, Tone::Plain);
    }

    fn attempts(&mut self, attempts: &[Attempt]) {
        if attempts.is_empty() {
            return self.line("attempts", "none by this process", Tone::Plain);
        }
        self.line(
            "attempts",
            "began      took     key  outcome    class     for",
            Tone::Plain,
        );
        for attempt in attempts.iter().take(MOST_ATTEMPTS) {
            let took = format!("{:.2}s", attempt.duration_seconds);
            let row = format!(
                "{}  {took:<8} {:<4} {:<10} {:<9} {}",
                time(attempt.began_at),
                attempt.key,
                words(&attempt.outcome),
                attempt.class,
                words(&attempt.trigger)
            );
            let tone = if attempt.outcome == "minted" {
                Tone::Plain
            } else {
                Tone::Bad
            };
            self.line("", &row, tone);
            if let Some(detail) = &attempt.detail {
                self.line("", &format!("           {detail}"), Tone::Plain);
            }
        }
        if attempts.len() > MOST_ATTEMPTS {
            self.line(
                "",
                &format!("and {} before these", attempts.len() - MOST_ATTEMPTS),
                Tone::Plain,
            );
        }
    }

    fn until(&self, at: Timestamp) -> String {
        length(self.now, at)
    }

    fn ago(&self, at: Timestamp) -> String {
        length(at, self.now)
    }
}

/// `#` has passed, `-` is to come, and `R` is where the refresh is due.
fn life_bar(token: &Token, now: Timestamp, width: usize) -> String {
    let life = seconds(token.issued_at, token.expires_at).max(1);
    let cell = |at: Timestamp| {
        let passed = seconds(token.issued_at, at).min(life);
        usize::try_from(u128::from(passed) * width as u128 / u128::from(life)).unwrap_or(width)
    };
    let (passed, refresh) = (cell(now), cell(token.refresh_at));
    let draw = |index: usize| match index {
        _ if index == refresh => 'R',
        _ if index < passed => '#',
        _ => '-',
    };
    (0..width).map(draw).collect()
}

fn seconds(from: Timestamp, to: Timestamp) -> u64 {
    u64::try_from(to.duration_since(from).as_secs()).unwrap_or(0)
}

/// Whole seconds, and minutes only beyond a day: nobody plans by less.
fn length(from: Timestamp, to: Timestamp) -> String {
    let seconds = seconds(from, to);
    let whole = if seconds > 24 * 60 * 60 {
        seconds / 60 * 60
    } else {
        seconds
    };
    humantime::format_duration(Duration::from_secs(whole)).to_string()
}

fn time(at: Timestamp) -> String {
    at.strftime("%H:%M:%SZ").to_string()
}

fn day_and_time(at: Timestamp) -> String {
    at.strftime("%Y-%m-%d %H:%M:%SZ").to_string()
}

/// `first_token` for people.
fn words(name: &str) -> String {
    name.replace('_', " ")
}

fn waited_for(name: &str) -> String {
    match name {
        "schedule" => "its time".into(),
        "pace" => "its distance from the mint before".into(),
        "backoff" => "the back-off after a failure".into(),
        "budget" => "a free slot".into(),
        "probation" => "the unknown past to be over".into(),
        "claim" => "another process that mints".into(),
        "register" => "the record to answer".into(),
        "parked" => "the rare attempt while parked".into(),
        other => words(other),
    }
}
