//! What is worth knowing afterwards: who came from where, what they asked for, and what it came to. Never a token.
//!
//! The lines go where the log goes, or to a file of their own. There is never more of them than a disk can hold: what could be told
//! ever again, such as a refusal, is bounded by the second, and the next line says how many were left out.

use std::io;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::Serialize;

use super::limit::Pace;
use super::rule::Rate;
use crate::clock::Clock;
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

/// How many refusals are told.
const REFUSALS: Rate = rate(10, 100);

/// How many streams are told, how many reports, and how many wishes of operators: as many as may be open when a process ends, and then
/// what a disk bears for days. Each has this for itself, so that nobody hides the one behind the other.
const DOINGS: Rate = rate(100, 20_000);

const fn rate(per_second: u32, burst: u32) -> Rate {
    Rate {
        per_second: NonZeroU32::new(per_second).expect("it is not zero"),
        burst: NonZeroU32::new(burst).expect("it is not zero"),
    }
}

/// What a line tells of, as far as it decides how many of them are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    FirstVend,
    Operator,
    Refusal,
    Report,
    Stream,
}

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
    pub(super) transport: &'static str,
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
    /// So many lines before this one were left out; filled in when the line is told.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) left_out: Option<u64>,
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
    operators: Pace,
    refusals: Pace,
    reports: Pace,
    streams: Pace,
    left_out: AtomicU64,
}

impl Audit {
    pub(super) fn open(settings: &Settings, clock: Arc<dyn Clock>) -> io::Result<Self> {
        let sink = match settings {
            Settings::Off => Sink::Off,
            Settings::Log => Sink::Log,
            Settings::File(path) => Sink::File(LineFile::open(path, lost)?),
        };
        Ok(Self {
            sink,
            clock,
            operators: Pace::new(DOINGS),
            refusals: Pace::new(REFUSALS),
            reports: Pace::new(DOINGS),
            streams: Pace::new(DOINGS),
            left_out: AtomicU64::new(0),
        })
    }

    /// Tells of this, unless there has been too much of its kind.
    pub(super) fn tell(&self, kind: Kind, mut line: Line<'_>) {
        if let Sink::Off = self.sink {
            return;
        }
        let bound = match kind {
            // There are as many as callers and generations.
            Kind::FirstVend => None,
            Kind::Refusal => Some(&self.refusals),
            Kind::Operator => Some(&self.operators),
            Kind::Report => Some(&self.reports),
            Kind::Stream => Some(&self.streams),
        };
        if bound.is_some_and(|bound| bound.ask().is_err()) {
            self.left_out.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let left_out = self.left_out.swap(0, Ordering::Relaxed);
        line.left_out = (left_out > 0).then_some(left_out);
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
        left_out = line.left_out,
    );
}

/// The line in the place of those that the disk did not take.
fn lost(lines: u64) -> String {
    let timestamp = format!("{:.6}", jiff::Timestamp::now());
    serde_json::json!({"timestamp": timestamp, "event": "lost", "lines": lines}).to_string()
}

#[cfg(test)]
mod tests;
