//! What is worth knowing afterwards: who came from where, what they asked for, and what it came to. Never a token.
//!
//! The lines go where the log goes, or to a file of their own. There is never more of them than a disk can hold: what anybody could
//! cause without end is bounded for each caller, and a line says how many were left out, and of whom.

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::Serialize;

use super::rule::OPERATOR;
use super::share::{Kind, Share};
use crate::clock::{self, Clock};
use crate::listener::Peer;
use crate::telemetry::LineFile;

/// Where the lines go.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Settings {
    /// Nowhere.
    Off,
    /// Where the log goes, in its form and under its filter: their target is `audit`, and their level is info.
    #[default]
    Log,
    /// To this file alone, a JSON object each, whatever the log's filter is.
    File(PathBuf),
}

/// How long lines may be missing before it is told how many.
const LEFT_OUT_AFTER: Duration = Duration::from_secs(10);

/// One event. Everything in it is a word of ours, a number, a name of the settings, or where a connection came from.
#[derive(Debug, Default, Serialize)]
pub(super) struct Line<'a> {
    pub(super) event: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) caller: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) from: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) certificate: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) transport: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) action: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) right: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) generation: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) fingerprint: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) outcome: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) tokens: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) seconds: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) lines: Option<u64>,
}

#[derive(Serialize)]
struct Dated<'a> {
    timestamp: String,
    #[serde(flatten)]
    line: &'a Line<'a>,
}

enum Sink {
    Off,
    Log,
    File(LineFile),
}

/// Tells what happens. One per process.
pub(super) struct Audit {
    sink: Sink,
    clock: Arc<dyn Clock>,
    /// Those whom no rule names.
    pub(super) strangers: Arc<Share>,
    /// Those who reach the admin listeners.
    pub(super) operators: Arc<Share>,
    /// There are as many as callers in the settings.
    shares: Vec<Arc<Share>>,
    /// When the first line was left out that nobody has been told of, by the boot clock.
    missing_since: Mutex<Option<Duration>>,
}

impl Audit {
    pub(super) fn open(settings: &Settings, clock: Arc<dyn Clock>) -> io::Result<Self> {
        let sink = match settings {
            Settings::Off => Sink::Off,
            Settings::Log => Sink::Log,
            Settings::File(path) => Sink::File(LineFile::open(path, lost)?),
        };
        let strangers = Arc::new(Share::of_many(None));
        let operators = Arc::new(Share::of_many(Some(OPERATOR)));
        Ok(Self {
            sink,
            clock,
            shares: vec![Arc::clone(&strangers), Arc::clone(&operators)],
            strangers,
            operators,
            missing_since: Mutex::new(None),
        })
    }

    /// A caller's own share.
    pub(super) fn share(&mut self, caller: &Arc<str>) -> Arc<Share> {
        let share = Arc::new(Share::of(Arc::clone(caller)));
        self.shares.push(Arc::clone(&share));
        share
    }

    /// Tells of this, unless there has been too much of its kind from there. Returns whether it was told.
    pub(super) fn tell(
        &self,
        share: &Share,
        kind: Kind,
        from: Option<Peer>,
        line: Line<'_>,
    ) -> bool {
        if let Sink::Off = self.sink {
            return false;
        }
        let now = self.clock.now().boot;
        self.tell_left_out(now, LEFT_OUT_AFTER);
        let told = share.admits(kind, from);
        match told {
            true => self.write(line),
            false => self.leave_out(share, now),
        }
        told
    }

    /// Counts a line that belongs to one that was left out.
    pub(super) fn skip(&self, share: &Share) {
        if !matches!(self.sink, Sink::Off) {
            self.leave_out(share, self.clock.now().boot);
        }
    }

    fn leave_out(&self, share: &Share, now: Duration) {
        share.leave_out();
        self.missing().get_or_insert(now);
    }

    /// Says of whom lines are missing, and how many, if the first of them has been missing for so long.
    fn tell_left_out(&self, now: Duration, after: Duration) {
        let since = {
            let mut missing = self.missing();
            let Some(since) = missing.filter(|since| now.saturating_sub(*since) >= after) else {
                return;
            };
            *missing = None;
            since
        };
        for share in &self.shares {
            let lines = share.take_left_out();
            if lines > 0 {
                self.write(Line {
                    event: "left_out",
                    caller: share.caller.as_deref(),
                    lines: Some(lines),
                    seconds: Some(now.saturating_sub(since).as_secs_f64()),
                    ..Line::default()
                });
            }
        }
    }

    fn missing(&self) -> std::sync::MutexGuard<'_, Option<Duration>> {
        let missing = self.missing_since.lock();
        missing.unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self, mut line: Line<'_>) {
        // No clock of ours is right to more than a millisecond.
        line.seconds = line.seconds.map(|it| (it * 1000.0).round() / 1000.0);
        match &self.sink {
            Sink::Off => {}
            Sink::Log => log(&line),
            Sink::File(file) => file.write(self.dated(&line)),
        }
    }

    fn dated(&self, line: &Line<'_>) -> Vec<u8> {
        let timestamp = format!("{:.6}", self.clock.now().wall);
        let dated = Dated { timestamp, line };
        let mut text = serde_json::to_vec(&dated).expect("words and numbers are JSON");
        text.push(b'\n');
        text
    }
}

/// What is missing at the end is told at the end.
impl Drop for Audit {
    fn drop(&mut self) {
        self.tell_left_out(self.clock.now().boot, Duration::ZERO);
    }
}

fn log(line: &Line<'_>) {
    tracing::info!(
        target: "audit",
        event = line.event,
        caller = line.caller,
        from = line.from,
        certificate = line.certificate,
        transport = line.transport,
        action = line.action,
        right = line.right,
        generation = line.generation,
        fingerprint = line.fingerprint,
        outcome = line.outcome,
        tokens = line.tokens,
        seconds = line.seconds,
        lines = line.lines,
    );
}

/// The line in the place of those that the disk did not take.
fn lost(lines: u64) -> String {
    let timestamp = format!("{:.6}", clock::wall());
    serde_json::json!({"timestamp": timestamp, "event": "lost", "lines": lines}).to_string()
}

#[cfg(test)]
mod tests;
