//! The status for people: a pure function of the document.

use std::time::Duration;

use jiff::Timestamp;

use super::document::{Attempt, Budget, Document, Refresh, Slot, Token};
use super::page::{INDENT, Page, Span, Tone};

/// Attempts beyond these are in `--format json`.
const MOST_ATTEMPTS: usize = 10;

/// More slots than this are counted rather than drawn.
const MOST_CELLS: u32 = 50;

/// Draws the document on lines of at most `width` characters. Everything is seen from the document's own time.
pub(super) fn render(document: &Document, width: usize, colour: bool) -> String {
    let mut view = View {
        page: Page::new(width, colour),
        now: document.now(),
    };
    view.loud(document);
    let (account, version) = (&document.account, &document.version);
    let at = view.now.strftime("%Y-%m-%d %H:%M:%SZ");
    view.page.words(
        "account",
        &[
            plain(account.as_str()),
            (Tone::Dim, format!("  bearerd {version}, {at}")),
        ],
    );
    view.token(document.token.as_ref());
    view.budget(&document.budget);
    let register = &document.register;
    if register.up {
        let kind = &register.kind;
        view.page.words(
            "record",
            &[plain(format!("{kind}, ")), (Tone::Good, "up".into())],
        );
    }
    view.refresh(document.refresh.as_ref());
    view.timeline(document);
    view.legend();
    view.page.text()
}

/// `--help` has the same.
const LEGEND_OF_MARKS: &str = "\
○ next, ◐ under way, ● minted, ∅ not sent (its slot is free again), × spent without a token, ■ spent by hand, ▲ refresh due";
const LEGEND_OF_CLASSES: &str = "\
routine: scheduled or by hand, leaves the reserve; reported: a caller's token was refused, leaves two; urgent: no token or nearly none, takes all";

/// A page, and the time from which everything on it is seen.
struct View {
    page: Page,
    now: Timestamp,
}

impl View {
    /// What somebody must see, first.
    fn loud(&mut self, document: &Document) {
        let page = &mut self.page;
        if let Some(parked) = &document.parked {
            let since = length(parked.since, self.now);
            let text = format!(
                "since {since}: the issuer refuses our keys or settings, so mints are rare"
            );
            page.line("PARKED", text, Tone::Bad);
            page.wrapped("", &parked.reason, Tone::Bad);
        }
        let known = document.parked.as_ref().map(|parked| &parked.reason);
        if let Some(trouble) = &document.trouble
            && known != Some(&trouble.detail)
        {
            let text = format!("{}: {}", trouble.code, trouble.detail);
            page.wrapped("TROUBLE", &text, Tone::Bad);
        }
        if let Some((count, first)) = document.failing() {
            let attempts = if count == 1 { "attempt" } else { "attempts" };
            let (since, ago) = (time(first), length(first, self.now));
            let text = format!("{count} {attempts} without a token, since {since}, {ago} ago");
            page.line("FAILING", text, Tone::Bad);
        }
        if !document.sockets_lost.is_empty() {
            let sockets = document.sockets_lost.join(", ");
            let text = format!("callers do not find {sockets}: the log says what has the path");
            page.wrapped("SOCKETS", &text, Tone::Bad);
        }
        let register = &document.register;
        if !register.up {
            let detail = register.detail.as_deref().unwrap_or("no reason known");
            let kind = &register.kind;
            let text = format!("{kind} does not answer, and without it there is no mint: {detail}");
            page.wrapped("RECORD", &text, Tone::Bad);
        }
        if let Some(moved) = &register.moved_aside {
            page.wrapped("RECORD", moved, Tone::Bad);
        }
        if document.token.as_ref().is_some_and(|token| token.suspect) {
            page.line(
                "SUSPECT",
                "a caller reported that this token was refused",
                Tone::Bad,
            );
        }
        if let Some(unknown) = &document.unknown_history {
            let until = unknown.until.map_or_else(String::new, |at| {
                format!(" until {}, for {}", time(at), length(self.now, at))
            });
            let pace = rounded(unknown.pace_seconds);
            let text = format!(
                "unknown history{until}: what was spent before the record began is not known, so mints keep {pace} apart"
            );
            page.wrapped("NOTE", &text, Tone::Warn);
        }
        if document.short_lead {
            let text = "the lead is short (refresh.allow_short_lead): a spent budget can outlast the token";
            page.line("NOTE", text, Tone::Warn);
        }
    }

    fn token(&mut self, token: Option<&Token>) {
        let Some(token) = token else {
            return self.page.line("token", "none yet", Tone::Bad);
        };
        let name = (
            Tone::Dim,
            format!("  generation {}, {}", token.generation, token.fingerprint),
        );
        let end = time(token.expires_at);
        if token.expires_at <= self.now {
            let text = format!(
                "EXPIRED {} ago, at {end}",
                length(token.expires_at, self.now)
            );
            return self.page.words("token", &[(Tone::Bad, text), name]);
        }
        let due = token.refresh_at <= self.now;
        let tone = match due || token.suspect {
            true => Tone::Warn,
            false => Tone::Good,
        };
        let text = format!(
            "live for {}, until {end}",
            length(self.now, token.expires_at)
        );
        self.page.words("token", &[(tone, text), name]);
        let at = time(token.refresh_at);
        let when = match due {
            true => format!("  refresh due since {at}"),
            false => format!(
                "  refresh in {}, at {at}",
                length(self.now, token.refresh_at)
            ),
        };
        let room = self
            .page
            .width()
            .saturating_sub(INDENT + when.chars().count());
        let mut spans = life_bar(token, self.now, room.clamp(10, 50), tone);
        spans.push(if due { (Tone::Warn, when) } else { plain(when) });
        self.page.words("", &spans);
    }

    fn budget(&mut self, budget: &Budget) {
        let (taken, limit) = (budget.slots.len(), budget.limit);
        let mut spans = Vec::new();
        if limit <= MOST_CELLS {
            for cell in 0..limit as usize {
                let (tone, mark) = budget.slots.get(cell).map_or((Tone::Dim, " "), mark);
                spans.extend([
                    (Tone::Dim, "[".into()),
                    (tone, mark.into()),
                    (Tone::Dim, "]".into()),
                ]);
            }
            spans.push(plain("  "));
        }
        spans.push((
            if budget.free.urgent == 0 {
                Tone::Bad
            } else {
                Tone::Plain
            },
            format!("{taken} of {limit} slots taken"),
        ));
        self.page.words("budget", &spans);
        let free = &budget.free;
        let text = format!(
            "free now: {} routine, {} reported, {} urgent",
            free.routine, free.reported, free.urgent
        );
        self.page.line("", text, Tone::Plain);
        let ends = || budget.slots.iter().map(|slot| slot.frees_at);
        if let (Some(first), Some(last)) = (ends().min(), ends().max()) {
            let when = |at| format!("in {}, at {}", length(self.now, at), time(at));
            let text = match taken {
                1 => format!("it frees {}", when(first)),
                _ => format!("the first frees {}; the last {}", when(first), when(last)),
            };
            self.page.line("", text, Tone::Plain);
        }
    }

    /// What `bearerd refresh` would be told.
    fn refresh(&mut self, refresh: Option<&Refresh>) {
        let Some(refresh) = refresh else { return };
        let why = waited_for(&refresh.waiting_for);
        let text = match (refresh.waiting_for.as_str(), refresh.at) {
            ("nothing", _) => "by hand now".to_owned(),
            (_, Some(at)) => format!(
                "by hand in {}, at {}, waits for {why}",
                length(self.now, at),
                time(at)
            ),
            (_, None) => format!("by hand waits for {why}"),
        };
        self.page.line("refresh", text, Tone::Plain);
    }

    /// What the marks and the classes mean.
    fn legend(&mut self) {
        self.page.wrapped("", LEGEND_OF_MARKS, Tone::Dim);
        self.page.wrapped("", LEGEND_OF_CLASSES, Tone::Dim);
    }

    /// The next attempt, the one under way, and those that were made, newest first.
    fn timeline(&mut self, document: &Document) {
        let mut label = "timeline";
        let mut row = |page: &mut Page, spans: &[Span]| {
            page.words(label, spans);
            label = "";
        };
        match &document.next {
            Some(next) => {
                let left = match length(self.now, next.at) {
                    left if left == "0s" => "now".to_owned(),
                    left => format!("in {left}"),
                };
                let when = format!("○ {}  {left:<12}", time(next.at));
                let what = format!("{}, {}", next.class, reason(&next.trigger));
                let why = match next.waiting_for.as_str() {
                    "nothing" => String::new(),
                    name => format!(", waits for {}", waited_for(name)),
                };
                row(
                    &mut self.page,
                    &[plain(when), plain(what), (Tone::Dim, why)],
                );
            }
            None => row(&mut self.page, &[plain("○ nothing is planned")]),
        }
        if let Some(attempt) = document.minting {
            let text = format!(
                "◐ {}  now         minting, attempt {attempt}",
                time(self.now)
            );
            row(&mut self.page, &[(Tone::Warn, text)]);
        }
        for attempt in document.attempts.iter().take(MOST_ATTEMPTS) {
            self.attempt(attempt);
        }
        let more = document.attempts.len().saturating_sub(MOST_ATTEMPTS);
        if more > 0 {
            self.page
                .line("", format!("  and {more} before these"), Tone::Dim);
        } else if document.attempts.is_empty() {
            self.page
                .line("", "  no attempt yet by this process", Tone::Dim);
        }
    }

    fn attempt(&mut self, attempt: &Attempt) {
        let (tone, mark) = outcome_mark(&attempt.outcome);
        let ago = format!("{} ago", length(attempt.began_at, self.now));
        let rest = format!(
            "{:>5.2}s  {}, {}, key {}",
            attempt.duration_seconds,
            attempt.class,
            reason(&attempt.trigger),
            attempt.key
        );
        self.page.words(
            "",
            &[
                (tone, mark.into()),
                plain(format!(" {}  {ago:<12}", time(attempt.began_at))),
                (tone, format!("{:<10}", words(&attempt.outcome))),
                plain(rest),
            ],
        );
        if let Some(detail) = &attempt.detail {
            self.page
                .line("", format!("             {detail}"), Tone::Dim);
        }
    }
}

fn plain(text: impl Into<String>) -> Span {
    (Tone::Plain, text.into())
}

/// How a slot's cell looks.
fn mark(slot: &Slot) -> (Tone, &'static str) {
    outcome_mark(&slot.outcome)
}

fn outcome_mark(outcome: &str) -> (Tone, &'static str) {
    match outcome {
        "minted" => (Tone::Good, "●"),
        "begun" => (Tone::Warn, "◐"),
        "not_sent" => (Tone::Warn, "∅"),
        "by_hand" => (Tone::Plain, "■"),
        _ => (Tone::Bad, "×"),
    }
}

/// What has passed, what is to come, and where the refresh is due.
fn life_bar(token: &Token, now: Timestamp, width: usize, tone: Tone) -> Vec<Span> {
    let life = milliseconds(token.issued_at, token.expires_at).max(1);
    let cell = |at: Timestamp| {
        let passed = milliseconds(token.issued_at, at).min(life);
        usize::try_from(u128::from(passed) * width as u128 / u128::from(life)).unwrap_or(width)
    };
    // While it lives, its last cell is never gone.
    let passed = cell(now).min(width - 1);
    let refresh = cell(token.refresh_at).min(width - 1);
    (0..width)
        .map(|index| match index {
            _ if index == refresh => (Tone::Plain, "▲".into()),
            _ if index < passed => (Tone::Dim, "░".into()),
            _ => (tone, "█".into()),
        })
        .fold(Vec::new(), |mut spans: Vec<Span>, (tone, text): Span| {
            match spans.last_mut() {
                Some((last, line)) if *last == tone => line.push_str(&text),
                _ => spans.push((tone, text)),
            }
            spans
        })
}

fn milliseconds(from: Timestamp, to: Timestamp) -> u64 {
    u64::try_from(to.duration_since(from).as_millis()).unwrap_or(0)
}

/// From here on minutes say enough.
const MINUTES_FROM: u64 = 10 * 60;

/// Whole seconds, and from ten minutes on whole minutes: nobody plans by less. Rounded down, so that no life is told too long.
fn length(from: Timestamp, to: Timestamp) -> String {
    let seconds = milliseconds(from, to) / 1000;
    let whole = match seconds {
        MINUTES_FROM.. => seconds / 60 * 60,
        _ => seconds,
    };
    humantime::format_duration(Duration::from_secs(whole)).to_string()
}

/// A length in whole seconds, rounded up.
fn rounded(seconds: f64) -> String {
    let length = Duration::try_from_secs_f64(seconds.ceil()).unwrap_or_default();
    humantime::format_duration(length).to_string()
}

fn time(at: Timestamp) -> String {
    at.strftime("%H:%M:%SZ").to_string()
}

/// What set an attempt off, for people.
fn reason(trigger: &str) -> String {
    match trigger {
        "schedule" => "as scheduled".into(),
        "expiry" => "at expiry".into(),
        "report" => "token refused".into(),
        "operator" => "by an operator".into(),
        "parked" => "while parked".into(),
        other => words(other),
    }
}

/// `not_sent` for people.
fn words(name: &str) -> String {
    name.replace('_', " ")
}

fn waited_for(name: &str) -> String {
    match name {
        "schedule" | "parked" => "its time".into(),
        "pace" => "its pace".into(),
        "backoff" => "the back-off".into(),
        "budget" => "a free slot".into(),
        "probation" => "its pace on an unknown history".into(),
        "intermediary" => "its share behind an intermediary".into(),
        "claim" => "another's mint".into(),
        "register" => "the record".into(),
        other => words(other),
    }
}
