//! `grpc.health.v1.Health`, derived from the state at each question.
//!
//! The empty name asks for the process, `bearerd.v1.TokenService` for a live token: the one is for liveness and the other for
//! readiness, as `/livez` and `/readyz` are.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Interval, MissedTickBehavior, interval};
use tokio_stream::Stream;
use tokio_stream::wrappers::WatchStream;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::{Request, Response, Status};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_server;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

use super::Room;
use super::token::{refused, visitor};
use crate::api::failure::Failure;
use crate::caller;
use crate::token::Generation;

/// An end is told to whoever watches within this.
const TICK: Duration = Duration::from_secs(1);

/// Health on one listener.
pub(super) struct Health {
    pub(super) room: Arc<Room>,
    pub(super) drain: CancellationToken,
}

/// What is asked about.
#[derive(Clone, Copy)]
enum Service {
    Process,
    Tokens,
    Unknown,
}

impl Service {
    fn named(name: &str) -> Self {
        match name {
            "" => Self::Process,
            "bearerd.v1.TokenService" => Self::Tokens,
            _ => Self::Unknown,
        }
    }

    fn status(self, room: &Room, drain: &CancellationToken) -> ServingStatus {
        let serves = match self {
            Self::Process => true,
            Self::Tokens => room.vend.current(room.clock.now()).is_ok(),
            Self::Unknown => return ServingStatus::ServiceUnknown,
        };
        match serves && !drain.is_cancelled() {
            true => ServingStatus::Serving,
            false => ServingStatus::NotServing,
        }
    }
}

#[tonic::async_trait]
impl health_server::Health for Health {
    type WatchStream = Changes;

    async fn check(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        match Service::named(&request.get_ref().service).status(&self.room, &self.drain) {
            ServingStatus::ServiceUnknown => Err(Failure::UnknownService.status()),
            status => Ok(Response::new(told(status))),
        }
    }

    async fn watch(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<Changes>, Status> {
        let open = visitor(&request).waits().map_err(refused)?;
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Ok(Response::new(Changes {
            service: Service::named(&request.get_ref().service),
            changes: WatchStream::new(self.room.vend.watch()),
            tick,
            drained: Box::pin(self.drain.clone().cancelled_owned()),
            drain: self.drain.clone(),
            room: Arc::clone(&self.room),
            last: None,
            ended: false,
            _open: open,
        }))
    }
}

fn told(status: ServingStatus) -> HealthCheckResponse {
    HealthCheckResponse {
        status: status.into(),
    }
}

/// How one service stands, and each change of it until the drain.
pub(super) struct Changes {
    service: Service,
    room: Arc<Room>,
    changes: WatchStream<Option<Generation>>,
    tick: Interval,
    drain: CancellationToken,
    drained: Pin<Box<WaitForCancellationFutureOwned>>,
    last: Option<ServingStatus>,
    ended: bool,
    _open: caller::Stream,
}

impl Stream for Changes {
    type Item = Result<HealthCheckResponse, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.ended {
            return Poll::Ready(None);
        }
        // Whatever woke us, one look tells all; all three are left with a waker.
        while let Poll::Ready(Some(_)) = Pin::new(&mut self.changes).poll_next(cx) {}
        while self.tick.poll_tick(cx).is_ready() {}
        let draining = self.drain.is_cancelled() || self.drained.as_mut().poll(cx).is_ready();
        let status = self.service.status(&self.room, &self.drain);
        if self.last != Some(status) {
            self.last = Some(status);
            return Poll::Ready(Some(Ok(told(status))));
        }
        if draining {
            self.ended = true;
            return Poll::Ready(Some(Err(Failure::Draining.status())));
        }
        Poll::Pending
    }
}
