//! The token over gRPC: `bearerd.v1.TokenService`, health and reflection.
//!
//! A read is one load of the snapshot, and its answer was encoded once for all callers. Nobody waits who did not ask to, whoever
//! leaves cancels nothing, and a reader that is slow has nothing but its own connection behind it.

mod codec;
mod door;
mod health;
mod message;
mod quick;
mod reflection;
mod token;
mod watch;

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::body::Incoming;
use hyper::{Request, Response};
use prometheus::IntGauge;
use tokio_util::sync::CancellationToken;
use tonic::body::Body;
use tonic_health::pb::health_server::HealthServer;
use tower_service::Service as _;

use crate::api::failure::Failure;
use crate::api::report::Reports;
use crate::api::{Metrics, Vends};
use crate::caller::Refusals;
use crate::caller::guard::{self, Refusal, Rules};
use crate::clock::Clock;
use crate::listener::{Calls, Connection, Limits, Listener, serve_http2};
use crate::vend::Vend;
use door::Timely;
use health::Health;
use proto::token_service_server::TokenServiceServer;
use quick::{Look, Peeked, Reply};
use reflection::Reflection;
use watch::Watch;

/// What `proto` says, in Rust.
#[allow(
    missing_docs,
    unreachable_pub,
    clippy::all,
    clippy::pedantic,
    reason = "generated; the contract is in the .proto file"
)]
mod proto {
    include!(concat!(env!("OUT_DIR"), "/bearerd.v1.rs"));
}

/// The longest request, in bytes: a report with its message.
const LONGEST: usize = 8 * 1024;

/// How long the answer to a ping may take.
const PING_PATIENCE: Duration = Duration::from_secs(20);

/// What may be set.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Hosts, without a port, that a call's `:authority` may name beside the local ones.
    pub hosts: Vec<String>,
    /// The most calls that one connection may have open at a time.
    pub streams: u32,
    /// A caller that was silent for so long is pinged.
    pub keepalive: Duration,
}

/// What callers reach over gRPC. Clones are cheap and share everything.
#[derive(Clone)]
pub struct Grpc {
    room: Arc<Room>,
    limits: Limits,
}

struct Room {
    vend: Arc<Vend>,
    clock: Arc<dyn Clock>,
    rules: Rules,
    refusals: Refusals,
    vends: Vends,
    reports: Reports,
    watchers: IntGauge,
}

impl Grpc {
    /// What answers on all gRPC listeners of the process.
    pub fn new(
        settings: &Settings,
        vend: Arc<Vend>,
        clock: Arc<dyn Clock>,
        metrics: &Metrics,
        refusals: &Refusals,
    ) -> Self {
        let room = Room {
            vend,
            clock,
            rules: Rules::new(&settings.hosts),
            refusals: refusals.clone(),
            vends: Vends::new(metrics, "grpc", &[]),
            reports: Reports::new(metrics),
            watchers: metrics.watchers.with_label_values(&["grpc"]),
        };
        Self {
            room: Arc::new(room),
            limits: Limits {
                streams: settings.streams,
                keepalive: settings.keepalive,
                patience: PING_PATIENCE,
            },
        }
    }

    /// Answers on this listener until the drain has begun and every call has ended: watchers are told to connect again. Dropping it
    /// cuts the connections that are left.
    pub async fn serve(self, listener: Listener, drain: CancellationToken) {
        let services = Services::new(&self.room, &drain);
        serve_http2(listener, services, &self.limits, drain).await;
    }
}

/// Everything that a listener answers. Clones are cheap and share everything.
#[derive(Clone)]
struct Services(Arc<Shared>);

struct Shared {
    room: Arc<Room>,
    tokens: TokenServiceServer<token::Tokens>,
    health: HealthServer<Health>,
    reflection: Reflection,
    drain: CancellationToken,
}

impl Services {
    fn new(room: &Arc<Room>, drain: &CancellationToken) -> Self {
        let tokens = token::Tokens {
            room: Arc::clone(room),
            drain: drain.clone(),
        };
        let health = Health {
            room: Arc::clone(room),
            drain: drain.clone(),
        };
        Self(Arc::new(Shared {
            room: Arc::clone(room),
            tokens: TokenServiceServer::new(tokens).max_decoding_message_size(LONGEST),
            health: HealthServer::new(health).max_decoding_message_size(LONGEST),
            reflection: Reflection::default(),
            drain: drain.clone(),
        }))
    }
}

impl Calls for Services {
    type Body = Reply;
    type Answer = Answering;

    fn call(&self, request: Request<Incoming>, connection: &Connection) -> Answering {
        let shared = Arc::clone(&self.0);
        match guard::check_call(&request, connection.peer, &shared.room.rules) {
            Ok(()) => Answering::Begun(Some((shared, request))),
            Err(refusal) => {
                shared.room.refusals.count(refusal);
                let request = Peeked::whole(request, None);
                Answering::Tonic(shared.passed(request, Err(refusal)))
            }
        }
    }
}

/// An answer on its way: what a plain read does not need is boxed.
#[expect(
    clippy::large_enum_variant,
    reason = "a plain read shall allocate nothing"
)]
enum Answering {
    /// Nothing of the body was looked at.
    Begun(Option<(Arc<Shared>, Request<Incoming>)>),
    /// The call takes the long way.
    Tonic(Pin<Box<dyn Future<Output = Response<Body>> + Send>>),
}

impl Future for Answering {
    type Output = Result<Response<Reply>, Infallible>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        loop {
            match this {
                Self::Begun(begun) => {
                    let (shared, mut request) = begun.take().expect("it is looked at once");
                    match quick::look(&mut request, cx) {
                        Look::Get => return Poll::Ready(Ok(shared.room.given())),
                        Look::Watch => {
                            let watch = Watch::new(Arc::clone(&shared.room), shared.drain.clone());
                            return Poll::Ready(Ok(quick::watched(watch)));
                        }
                        Look::Other(first) => {
                            let request = Peeked::whole(request, first);
                            *this = Self::Tonic(shared.passed(request, Ok(())));
                        }
                    }
                }
                Self::Tonic(answer) => {
                    return answer.as_mut().poll(cx).map(|it| Ok(it.map(Reply::Tonic)));
                }
            }
        }
    }
}

impl Shared {
    /// The long way: through the door that holds for every call, to the service that it names.
    fn passed(
        self: Arc<Self>,
        request: Request<Peeked>,
        judged: Result<(), Refusal>,
    ) -> Pin<Box<dyn Future<Output = Response<Body>> + Send>> {
        Box::pin(async move { door::pass(request, judged, |it| self.answer(it)).await })
    }

    async fn answer(&self, request: Request<Peeked>) -> Response<Body> {
        let service = request.uri().path().rsplit_once('/').map_or("", |it| it.0);
        let answered = match service {
            "/bearerd.v1.TokenService" => self.tokens.clone().call(request.map(Timely::new)).await,
            "/grpc.health.v1.Health" => self.health.clone().call(request.map(Timely::new)).await,
            "/grpc.reflection.v1.ServerReflection" => {
                let response = self.reflection.first(request).await;
                return reflection::until(&self.drain, response);
            }
            "/grpc.reflection.v1alpha.ServerReflection" => {
                let response = self.reflection.alpha(request).await;
                return reflection::until(&self.drain, response);
            }
            _ => return Failure::UnknownCall.status().into_http(),
        };
        match answered {
            Ok(response) => response,
            Err(never) => match never {},
        }
    }
}

#[cfg(test)]
mod tests;
