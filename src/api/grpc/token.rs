//! `TokenService`: the token now, the wait for one, all that follow, and the report of a refused one.

use std::fmt;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

use super::Room;
use super::message::{Vended, framed};
use super::proto::token_service_server::TokenService;
use super::proto::{
    GetTokenRequest, ReportOutcome, ReportRejectedRequest, ReportRejectedResponse,
    WatchTokenRequest,
};
use super::watch::{Messages, Watch};
use crate::api::Watcher;
use crate::api::failure::Failure;
use crate::api::report::{self, is_refusal, judge};
use crate::caller::rule::Right;
use crate::caller::{Denial, Visitor};
use crate::clock::Stamp;
use crate::listener::seconds_until;
use crate::token::Generation;
use crate::vend::{Gone, Live, Unavailable};

/// The longest wait for a token.
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// The longest message of the issuer that a report may repeat, in bytes.
const LONGEST_MESSAGE: usize = 4096;

/// What Truecaller's answer said may hold the token.
impl fmt::Debug for ReportRejectedRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ReportRejectedRequest(…)")
    }
}

/// The service on one listener.
pub(super) struct Tokens {
    pub(super) room: Arc<Room>,
    pub(super) drain: CancellationToken,
}

#[tonic::async_trait]
impl TokenService for Tokens {
    type WatchTokenStream = Messages;

    async fn get_token(
        &self,
        request: Request<GetTokenRequest>,
    ) -> Result<Response<Vended>, Status> {
        let room = &self.room;
        let now = room.clock.now();
        // What makes no sense, or is not allowed, is told at the first call, and not first in an outage.
        let wait = request.get_ref().wait.map(length).transpose()?;
        let right = match wait {
            Some(wait) if !wait.is_zero() => Right::Watch,
            _ => Right::Vend,
        };
        visitor(&request).may(right).map_err(refused)?;
        let (live, now) = match (room.vend.current(now), wait) {
            (Ok(live), _) => (live, now),
            (Err(why), None) => return Err(room.failed(why, now)),
            (Err(_), Some(wait)) => {
                let _stream = visitor(&request).waits().map_err(refused)?;
                self.awaited(wait).await?
            }
        };
        room.vends.ok();
        visitor(&request).vended(&live.token);
        Ok(Response::new(Vended::from_frame(&framed(&live, now))))
    }

    async fn watch_token(
        &self,
        request: Request<WatchTokenRequest>,
    ) -> Result<Response<Messages>, Status> {
        let watching = visitor(&request).watches().map_err(refused)?;
        let watch = Watch::new(Arc::clone(&self.room), watching, self.drain.clone());
        Ok(Response::new(Messages(watch)))
    }

    async fn report_rejected(
        &self,
        request: Request<ReportRejectedRequest>,
    ) -> Result<Response<ReportRejectedResponse>, Status> {
        let visitor = Arc::clone(visitor(&request));
        visitor.may(Right::Report).map_err(refused)?;
        let report = request.into_inner();
        let (outcome, until) = self
            .room
            .judged(&report)
            .await
            .map_err(|failure| failure.status())?;
        self.room.reports.count(outcome);
        visitor.reported(Generation(report.generation), outcome.word());
        let retry_after = until.map(|until| {
            let seconds = seconds_until(until, self.room.clock.now());
            prost_types::Duration {
                seconds: seconds.try_into().unwrap_or(i64::MAX),
                nanos: 0,
            }
        });
        Ok(Response::new(ReportRejectedResponse {
            outcome: spoken(outcome).into(),
            retry_after,
        }))
    }
}

impl Tokens {
    /// The first token that can be vended within so much time, and when that was found.
    async fn awaited(&self, wait: Duration) -> Result<(Arc<Live>, Stamp), Status> {
        let room = &self.room;
        let mut changes = room.vend.watch();
        let _watcher = Watcher::new(&room.watchers);
        let mut end = pin!(tokio::time::sleep(wait));
        loop {
            let now = room.clock.now();
            let why = match room.vend.current(now) {
                Ok(live) => return Ok((live, now)),
                Err(why) => why,
            };
            tokio::select! {
                changed = changes.changed() => if changed.is_err() {
                    return Err(room.failed(why, now));
                },
                () = end.as_mut() => return Err(room.failed(why, room.clock.now())),
                () = self.drain.cancelled() => return Err(room.draining()),
            }
        }
    }
}

impl Room {
    pub(super) fn failed(&self, why: Unavailable, now: Stamp) -> Status {
        let failure = Failure::unavailable(why, &self.vend.status(), now);
        self.vends.failed(&failure);
        failure.status()
    }

    pub(super) fn draining(&self) -> Status {
        self.vends.failed(&Failure::Draining);
        Failure::Draining.status()
    }

    async fn judged(
        &self,
        report: &ReportRejectedRequest,
    ) -> Result<(report::Outcome, Option<Stamp>), Failure> {
        let status = u16::try_from(report.status).ok();
        let Some(status) = status.filter(|it| (100..=599).contains(it)) else {
            return Err(Failure::BadReport(
                "status is the issuer's HTTP status, 100 to 599".into(),
            ));
        };
        if report.message.len() > LONGEST_MESSAGE {
            return Err(Failure::BadReport("message may have 4096 bytes".into()));
        }
        if !is_refusal(status, Some(&report.message)) {
            return Ok((report::Outcome::NotARefusal, None));
        }
        let judged = judge(&self.vend, Generation(report.generation)).await;
        judged.map_err(|Gone| Failure::Draining)
    }
}

/// Who is at the other end of a call's connection.
pub(super) fn visitor<T>(request: &Request<T>) -> &Arc<Visitor> {
    let visitor = request.extensions().get::<Arc<Visitor>>();
    visitor.expect("every call is given its caller at the door")
}

pub(super) fn refused(denial: Denial) -> Status {
    Failure::from(denial).status()
}

fn spoken(outcome: report::Outcome) -> ReportOutcome {
    match outcome {
        report::Outcome::Refreshing => ReportOutcome::Refreshing,
        report::Outcome::StaleGeneration => ReportOutcome::StaleGeneration,
        report::Outcome::TooYoung => ReportOutcome::TooYoung,
        report::Outcome::Paced => ReportOutcome::Paced,
        report::Outcome::NotARefusal => ReportOutcome::NotARefusal,
    }
}

/// A wait as it is meant: longer ones are cut to the longest there is.
fn length(wait: prost_types::Duration) -> Result<Duration, Status> {
    let wait = Duration::try_from(wait).map_err(|_| Failure::BadWait.status())?;
    Ok(wait.min(LONGEST_WAIT))
}
