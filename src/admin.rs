//! What operators and their tools reach: health, metrics, the status, a page to look at, and the wish for a new token.
//!
//! Nothing here shows a token, so a listener of this room may stand on an address that other machines reach. What changes
//! something answers this machine's processes only, under the same rules as the callers' door.

mod failure;
mod health;
mod log;
mod metrics;
mod operators;
mod page;
mod record;
mod refresh;
mod settings;
mod status;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use hyper::{Method, Request, Response};
use prometheus::{IntGauge, Registry};
use tokio_util::sync::CancellationToken;

use crate::caller::Callers;
use crate::caller::guard::{self, Rules};
use crate::clock::{Clock, Stamp};
use crate::listener::{Answer, Body, Connection, Listener, Lost, Peer, Service, serve_http};
use crate::record::edit::Editor;
use crate::telemetry::FilterHandle;
use crate::vend::Vend;
use failure::Failure;
use log::Log;
use operators::Operators;
use page::Page;
use record::Edit;
use settings::Shown;

/// What may be set.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Hosts, without a port, that the `Host` of a request that changes something may name beside the local ones.
    pub hosts: Vec<String>,
    /// The users that are answered on Unix sockets; with no groups either, whoever may connect.
    pub uids: Vec<u32>,
    /// The groups that are answered there. A process counts by the one that it had as it connected.
    pub gids: Vec<u32>,
    /// After so much time `/startupz` says yes even without a token, so that an outage of the issuer holds nobody back for ever.
    pub startup_grace: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            hosts: Vec::new(),
            uids: Vec::new(),
            gids: Vec::new(),
            startup_grace: Duration::from_secs(30),
        }
    }
}

/// What operators reach. Clones are cheap and share everything.
#[derive(Clone)]
pub struct Admin {
    room: Arc<Room>,
    log: Option<Arc<Log>>,
    shown: Option<Arc<Shown>>,
    lost: Lost,
    editor: Option<Arc<Editor>>,
}

struct Room {
    vend: Arc<Vend>,
    clock: Arc<dyn Clock>,
    registry: Registry,
    rules: Rules,
    operators: Operators,
    callers: Arc<Callers>,
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
        callers: Arc<Callers>,
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
        let room = Room {
            vend,
            clock,
            registry,
            rules: Rules::new(&settings.hosts),
            operators: Operators::new(settings),
            callers,
            draining,
            startup_grace: settings.startup_grace,
            since,
            page: Page::new(),
            token_usable,
        };
        Self {
            room: Arc::new(room),
            log: None,
            shown: None,
            lost: Lost::default(),
            editor: None,
        }
    }

    /// Is not ready while callers do not find one of these sockets.
    #[must_use]
    pub fn watching(mut self, lost: Lost) -> Self {
        self.lost = lost;
        self
    }

    /// Lets operators see and change what this log shows; without it there is no `/log`.
    #[must_use]
    pub fn with_log(mut self, log: FilterHandle) -> Self {
        self.log = Some(Arc::new(Log::new(log)));
        self
    }

    /// Lets operators see these settings in force, which hold no secret; without them there is no `/settings`.
    #[must_use]
    pub fn with_settings(mut self, settings: serde_json::Value) -> Self {
        self.shown = Some(Arc::new(Shown::new(settings)));
        self
    }

    /// Lets operators change the record; without it there is no `/spend` and no `/unpark`.
    #[must_use]
    pub fn with_editor(mut self, editor: Editor) -> Self {
        self.editor = Some(Arc::new(editor));
        self
    }

    /// Ends changes of the log that were for a while, until the drain.
    pub async fn keep_log(self, drain: CancellationToken) {
        match &self.log {
            Some(log) => log.keep(self.room.clock.as_ref(), drain).await,
            None => drain.cancelled().await,
        }
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
        let peer = connection.peer;
        let path = request.uri().path();
        // These have a rule of their own: our own user may, whomever the settings name.
        if let Some((editor, edit)) = self.editor.as_ref().zip(Edit::at(path)) {
            return self.edit(edit, editor, &request, peer);
        }
        if !self.room.operators.include(peer) {
            self.room.callers.no_operator(peer);
            return Failure::UnknownCaller.response().into();
        }
        match (path, &self.log) {
            ("/refresh", _) => self.refresh(&request, peer),
            ("/log", Some(log)) => self.log(log, request, peer),
            _ => self.read(&request),
        }
    }
}

impl Admin {
    /// What changes nothing, and so is for everybody who reaches this.
    fn read<B>(&self, request: &Request<B>) -> Answer {
        let read: fn(&Self, &str) -> Response<Body> = match request.uri().path() {
            "/livez" => |it, _| it.room.livez(),
            "/readyz" => |it, query| it.room.readyz(query, &it.lost.names()),
            "/startupz" => |it, _| it.room.startupz(),
            "/metrics" => |it, _| it.room.metrics(),
            "/status" => |it, _| it.room.status(it.lost.names()),
            "/settings" if self.shown.is_some() => |it, _| it.settings(),
            "/" => |it, _| it.room.page.response(),
            _ => return Failure::NotFound.response().into(),
        };
        match *request.method() {
            Method::GET | Method::HEAD => read(self, request.uri().query().unwrap_or("")).into(),
            _ => wrong_method("GET, HEAD"),
        }
    }

    fn refresh<B>(&self, request: &Request<B>, peer: Peer) -> Answer {
        if *request.method() != Method::POST {
            return wrong_method("POST");
        }
        if let Err(failure) = self.room.may_change(request, peer) {
            self.room
                .callers
                .operator_refused(peer, "refresh", failure.word());
            return failure.response().into();
        }
        let room = Arc::clone(&self.room);
        Answer::later(async move { room.refresh(peer).await })
    }

    fn log<B>(&self, log: &Arc<Log>, request: Request<B>, peer: Peer) -> Answer
    where
        B: hyper::body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        match *request.method() {
            Method::GET | Method::HEAD => return log.shown(self.room.clock.now()).into(),
            Method::PUT => {}
            _ => return wrong_method("GET, HEAD, PUT"),
        }
        if let Err(failure) = self.room.may_change(&request, peer) {
            self.room
                .callers
                .operator_refused(peer, "log", failure.word());
            return failure.response().into();
        }
        let (log, room) = (Arc::clone(log), Arc::clone(&self.room));
        Answer::later(async move {
            let clock = room.clock.as_ref();
            let (head, body) = request.into_parts();
            let put = log.put(head.uri.query(), body, clock).await;
            let outcome = put.as_ref().map_or_else(Failure::word, |()| "changed");
            room.callers.operated(peer, "log", outcome);
            match put {
                Ok(()) => log.shown(clock.now()),
                Err(failure) => failure.response(),
            }
        })
    }
}

fn wrong_method(allow: &'static str) -> Answer {
    Failure::WrongMethod { allow }.response().into()
}

impl Room {
    /// What changes something is for this machine's processes, by the rules of the door.
    fn may_change<B>(&self, request: &Request<B>, peer: Peer) -> Result<(), Failure> {
        if let Peer::Other(_) = peer {
            return Err(Failure::NotLocal);
        }
        guard::check(request, peer, &self.rules).map_err(|refusal| {
            self.callers.refusals().count(refusal);
            Failure::Refused(refusal)
        })
    }

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
