//! What operators and their tools reach: health, metrics, the status, a page to look at, and the wish for a new token.
//!
//! Nothing here shows a token, so a listener of this room may stand on an address that other machines reach. What changes
//! something answers this machine's processes only, under the same rules as the callers' door.

mod failure;
mod health;
mod metrics;
mod page;
mod refresh;
mod status;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use hyper::{Method, Request, Response};
use prometheus::{IntGauge, Registry};
use tokio_util::sync::CancellationToken;

use crate::caller::Refusals;
use crate::caller::guard::Rules;
use crate::clock::{Clock, Stamp};
use crate::listener::{Answer, Body, Connection, Listener, Service, serve_http};
use crate::vend::Vend;
use failure::Failure;
use page::Page;

/// What may be set.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Hosts, without a port, that the `Host` of a request that changes something may name beside the local ones.
    pub hosts: Vec<String>,
    /// After so much time `/startupz` says yes even without a token, so that an outage of the issuer holds nobody back for ever.
    pub startup_grace: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            hosts: Vec::new(),
            startup_grace: Duration::from_secs(30),
        }
    }
}

/// What operators reach. Clones are cheap and share everything.
#[derive(Clone)]
pub struct Admin(Arc<Room>);

struct Room {
    vend: Arc<Vend>,
    clock: Arc<dyn Clock>,
    registry: Registry,
    rules: Rules,
    refusals: Refusals,
    draining: CancellationToken,
    startup_grace: Duration,
    since: Stamp,
    page: Page,
    token_usable: IntGauge,
}

impl Admin {
    /// What answers on all admin listeners of the process. `draining` is the process's drain, which makes it unready; these
    /// listeners go on until the drain they are served with, so that the process stays live to its end.
    pub fn new(
        settings: &Settings,
        vend: Arc<Vend>,
        clock: Arc<dyn Clock>,
        registry: Registry,
        refusals: &Refusals,
        draining: CancellationToken,
    ) -> Self {
        let since = clock.now();
        let token_usable = crate::metrics::register(
            &registry,
            IntGauge::new(
                "bearerd_token_usable",
                "1 if a live token can be vended now, else 0.",
            ),
        );
        Self(Arc::new(Room {
            vend,
            clock,
            registry,
            rules: Rules::new(&settings.hosts),
            refusals: refusals.clone(),
            draining,
            startup_grace: settings.startup_grace,
            since,
            page: Page::new(),
            token_usable,
        }))
    }

    /// Answers on this listener until the drain has begun and every request that had arrived is answered. Dropping it cuts the
    /// connections that are left.
    pub async fn serve(self, listener: Listener, drain: CancellationToken) {
        serve_http(listener, self, drain).await;
    }
}

impl Service for Admin {
    fn answer<B>(&self, request: Request<B>, connection: &Connection) -> Answer
    where
        B: hyper::body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let room = &self.0;
        let path = request.uri().path();
        if path == "/refresh" {
            return match *request.method() {
                Method::POST => room.refresh(&request, connection.peer),
                _ => Failure::WrongMethod { allow: "POST" }.response().into(),
            };
        }
        let read: fn(&Room, &str) -> Response<Body> = match path {
            "/livez" => |room, _| room.livez(),
            "/readyz" => Room::readyz,
            "/startupz" => |room, _| room.startupz(),
            "/metrics" => |room, _| room.metrics(),
            "/status" => |room, _| room.status(),
            "/" => |room, _| room.page.response(),
            _ => return Failure::NotFound.response().into(),
        };
        match *request.method() {
            Method::GET | Method::HEAD => read(room, request.uri().query().unwrap_or("")).into(),
            _ => Failure::WrongMethod { allow: "GET, HEAD" }
                .response()
                .into(),
        }
    }
}

impl Room {
    /// True if a live token can be vended now.
    fn usable(&self) -> bool {
        self.vend.current(self.clock.now()).is_ok()
    }
}

/// An answer that nobody keeps.
fn document(kind: &'static str, body: impl Into<Bytes>) -> Response<Body> {
    let mut response = Response::new(Full::new(body.into()));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

#[cfg(test)]
mod tests;
