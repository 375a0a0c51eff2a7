//! `/log`: how much is logged, seen and changed while the process runs.
//!
//! A change may be for a while: then the settings' filter comes back by itself, so that a forgotten `trace` fills no disk.

use std::future::pending;
use std::ops::RangeInclusive;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::Response;
use serde_json::json;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{Level, info};

use super::document;
use super::failure::Failure;
use crate::clock::{Clock, Stamp};
use crate::listener::Body;
use crate::telemetry::{Filter, FilterHandle};

/// The longest filter, in bytes.
const LONGEST: usize = 4096;

/// How long a filter may take to arrive.
const PATIENCE: Duration = Duration::from_secs(5);

/// For how long a change may be, if it is for a while.
const WHILES: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(24 * 3600);

/// The longest sleep: tokio's timers stand still while the machine is suspended.
const TICK: Duration = Duration::from_secs(5);

/// The filter of the process's log.
pub(super) struct Log {
    handle: FilterHandle,
    in_force: watch::Sender<InForce>,
}

#[derive(Clone)]
struct InForce {
    filter: Filter,
    /// On the boot clock, when the settings' filter comes back.
    until: Option<Duration>,
}

impl Log {
    pub(super) fn new(handle: FilterHandle) -> Self {
        let in_force = InForce {
            filter: handle.of_settings().clone(),
            until: None,
        };
        Self {
            handle,
            in_force: watch::Sender::new(in_force),
        }
    }

    /// The filter in force, if it is not the settings' own.
    pub(super) fn changed(&self) -> Option<String> {
        let filter = &self.in_force.borrow().filter;
        (filter != self.handle.of_settings()).then(|| filter.to_string())
    }

    /// The filter in force, the settings' own, and when that one comes back.
    pub(super) fn shown(&self, now: Stamp) -> Response<Body> {
        let in_force = self.in_force.borrow().clone();
        let until = in_force
            .until
            .map(|at| format!("{:.0}", Stamp::at_boot(now, at).wall));
        let shown = json!({
            "level": in_force.filter.to_string(),
            "settings": self.handle.of_settings().to_string(),
            "until": until,
        });
        document("application/json", format!("{shown}\n"))
    }

    /// Puts the filter of this body in force, for the while that the query names.
    pub(super) async fn put<B>(
        &self,
        query: Option<&str>,
        body: B,
        clock: &dyn Clock,
    ) -> Result<(), Failure>
    where
        B: hyper::body::Body<Data = Bytes>,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let length = query.filter(|query| !query.is_empty()).map(a_while);
        let length = length.transpose()?;
        let filter = filter(&read(body).await?)?;
        let until = length.map(|length| clock.now().boot.saturating_add(length));
        let next = InForce { filter, until };
        self.in_force
            .send_modify(|in_force| self.change(in_force, next, length));
        Ok(())
    }

    /// Says so in the log, by whichever of the two filters shows it.
    fn change(&self, in_force: &mut InForce, next: InForce, length: Option<Duration>) {
        let filter = next.filter.to_string();
        let seconds = length.map(|length| length.as_secs());
        let tell = || {
            info!(
                filter,
                for_seconds = seconds,
                "the log's filter was changed"
            );
        };
        let heard = in_force.filter.enables(module_path!(), Level::INFO);
        if heard {
            tell();
        }
        self.handle.set(&next.filter);
        *in_force = next;
        if !heard {
            tell();
        }
    }

    /// Brings the settings' filter back when its time has come, until `drain`.
    pub(super) async fn keep(&self, clock: &dyn Clock, drain: CancellationToken) {
        let mut in_force = self.in_force.subscribe();
        loop {
            let until = in_force.borrow_and_update().until;
            let rest = async {
                match until {
                    Some(until) => sleep(until.saturating_sub(clock.now().boot).min(TICK)).await,
                    None => pending().await,
                }
            };
            tokio::select! {
                () = drain.cancelled() => return,
                // The sender is this room's own.
                _ = in_force.changed() => {}
                () = rest => self.end(clock.now()),
            }
        }
    }

    /// Ends a change whose time is over.
    fn end(&self, now: Stamp) {
        self.in_force.send_if_modified(|in_force| {
            let over = in_force.until.is_some_and(|until| until <= now.boot);
            if over {
                let settings = InForce {
                    filter: self.handle.of_settings().clone(),
                    until: None,
                };
                self.change(in_force, settings, None);
            }
            over
        });
    }
}

async fn read<B>(body: B) -> Result<Bytes, Failure>
where
    B: hyper::body::Body<Data = Bytes>,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    if body.size_hint().lower() > LONGEST as u64 {
        return Err(Failure::TooLong);
    }
    let body = Box::pin(Limited::new(body, LONGEST));
    let body = timeout(PATIENCE, body.collect())
        .await
        .map_err(|_| Failure::TooSlow)?
        .map_err(|error| {
            if error.is::<LengthLimitError>() {
                Failure::TooLong
            } else {
                Failure::BadFilter("the filter ended early".into())
            }
        })?;
    Ok(body.to_bytes())
}

/// What is wrong never repeats what was sent.
fn filter(body: &[u8]) -> Result<Filter, Failure> {
    let text = std::str::from_utf8(body).unwrap_or_default();
    text.parse().map_err(|error| {
        let detail = format!("send a filter as log.level has it, as plain text: {error}");
        Failure::BadFilter(detail.into())
    })
}

/// The length in `for=10m`.
fn a_while(query: &str) -> Result<Duration, Failure> {
    let text = query.strip_prefix("for=").unwrap_or_default();
    // Whatever is longer than this is no length, and humantime may overflow on it.
    let short = text.len() <= 15;
    let length = short
        .then(|| humantime::parse_duration(text).ok())
        .flatten();
    length.filter(|it| WHILES.contains(it)).ok_or_else(|| {
        let detail = "behind the path may stand ?for= and a length of time of 1s to 24h, as in ?for=10m, and nothing else";
        Failure::BadFilter(detail.into())
    })
}

#[cfg(test)]
mod tests;
