//! The token over HTTP/1.1: `GET /v1/token` and `POST /v1/token/rejected`.
//!
//! A read is one load of the snapshot and copies nothing. Nobody waits who did not ask to, and whoever hangs up cancels nothing.

mod accept;
mod conditions;
mod report;
mod token;

use std::sync::Arc;

use bytes::Bytes;
use hyper::header::{CONNECTION, HeaderValue};
use hyper::{Method, Request};
use prometheus::{IntCounter, IntGauge};
use tokio_util::sync::CancellationToken;

use crate::api::failure::Failure;
use crate::api::report::Reports;
use crate::api::{Metrics, Vends};
use crate::caller::guard::{self, Refusal, Rules};
use crate::caller::{Callers, Visitor};
use crate::clock::Clock;
use crate::listener::{Answer, Connection, Listener, Service, serve_http};
use crate::vend::Vend;

/// What may be set.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// Hosts, without a port, that a request's `Host` may name beside the local ones.
    pub hosts: Vec<String>,
}

/// What callers reach over HTTP. Clones are cheap and share everything.
#[derive(Clone)]
pub struct Api {
    room: Arc<Room>,
    /// Whoever is at the other end of the connection; nobody until there is one.
    visitor: Arc<Visitor>,
}

struct Room {
    vend: Arc<Vend>,
    clock: Arc<dyn Clock>,
    callers: Arc<Callers>,
    rules: Rules,
    vends: Vends,
    not_modified: IntCounter,
    reports: Reports,
    watchers: IntGauge,
}

impl Api {
    /// What answers on all HTTP listeners of the process.
    pub fn new(
        settings: &Settings,
        vend: Arc<Vend>,
        clock: Arc<dyn Clock>,
        metrics: &Metrics,
        callers: &Arc<Callers>,
    ) -> Self {
        let room = Room {
            vend,
            clock,
            callers: Arc::clone(callers),
            rules: Rules::new(&settings.hosts),
            vends: Vends::new(metrics, "http", &[Failure::NotAcceptable, Failure::BadWait]),
            not_modified: metrics.vends.with_label_values(&["http", "not_modified"]),
            reports: Reports::new(metrics),
            watchers: metrics.watchers.with_label_values(&["http"]),
        };
        Self {
            room: Arc::new(room),
            visitor: Arc::new(callers.nobody()),
        }
    }

    /// Answers on this listener until the drain has begun and every request that had arrived is answered. Dropping it cuts the
    /// connections that are left.
    pub async fn serve(self, listener: Listener, drain: CancellationToken) {
        serve_http(listener, self, drain).await;
    }
}

impl Service for Api {
    fn on(&self, connection: &Connection) -> Self {
        Self {
            room: Arc::clone(&self.room),
            visitor: Arc::new(self.room.callers.visitor(connection, "http")),
        }
    }

    fn answer<B>(&self, request: Request<B>, connection: &Connection) -> Answer
    where
        B: hyper::body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let (room, visitor) = (&self.room, &self.visitor);
        if let Err(failure) = room.admits(visitor, &request, connection) {
            return refused(&failure);
        }
        let method = request.method();
        match request.uri().path() {
            "/v1/token" if *method == Method::GET || *method == Method::HEAD => {
                room.token(request.headers(), visitor, connection)
            }
            "/v1/token" => wrong_method("GET, HEAD"),
            "/v1/token/rejected" if *method == Method::POST => room.rejected(visitor, request),
            "/v1/token/rejected" => wrong_method("POST"),
            _ => Failure::NotFound.response().into(),
        }
    }
}

/// Where the next request begins is in doubt if it is where this one ends.
fn refused(failure: &Failure) -> Answer {
    let mut response = failure.response();
    if *failure == Failure::Refused(Refusal::Framing) {
        let close = HeaderValue::from_static("close");
        response.headers_mut().insert(CONNECTION, close);
    }
    response.into()
}

impl Room {
    /// What holds for every request: its caller has a name, it keeps the rules of the door, and it does not come too often.
    fn admits<B>(
        &self,
        visitor: &Visitor,
        request: &Request<B>,
        connection: &Connection,
    ) -> Result<(), Failure> {
        visitor.known()?;
        guard::check(request, connection.peer, &self.rules).map_err(|refusal| {
            visitor.refused(refusal);
            Failure::Refused(refusal)
        })?;
        Ok(visitor.paced()?)
    }
}

fn wrong_method(allow: &'static str) -> Answer {
    Failure::WrongMethod { allow }.response().into()
}

#[cfg(test)]
mod tests;
