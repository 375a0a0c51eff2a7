//! The token over gRPC: `bearerd.v1.TokenService`, health and reflection.
//!
//! A read is one load of the snapshot, and its answer is encoded once a second for all callers. Nobody waits who did not ask to, whoever
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
use crate::caller::guard::{self, Rules};
use crate::caller::rule::Right;
use crate::caller::{Callers, Visitor};
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
    callers: Arc<Callers>,
    rules: Rules,
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
        callers: &Arc<Callers>,
    ) -> Self {
        let room = Room {
            vend,
            clock,
            callers: Arc::clone(callers),
            rules: Rules::new(&settings.hosts),
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

/// Everything that a listener answers, to whoever is at the other end of one connection. Clones are cheap and share everything.
#[derive(Clone)]
struct Services(Arc<Visit>);

struct Visit {
    shared: Arc<Shared>,
    /// Nobody until there is a connection.
    visitor: Arc<Visitor>,
}

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
        let shared = Shared {
            room: Arc::clone(room),
            tokens: TokenServiceServer::new(tokens).max_decoding_message_size(LONGEST),
            health: HealthServer::new(health).max_decoding_message_size(LONGEST),
            reflection: Reflection::default(),
            drain: drain.clone(),
        };
        Self(Arc::new(Visit {
            shared: Arc::new(shared),
            visitor: Arc::new(room.callers.nobody()),
        }))
    }
}

impl Calls for Services {
    type Body = Reply;
    type Answer = Answering;

    fn on(&self, connection: &Connection) -> Self {
        let shared = Arc::clone(&self.0.shared);
        let visitor = Arc::new(shared.room.callers.visitor(connection, "grpc"));
        Self(Arc::new(Visit { shared, visitor }))
    }

    fn call(&self, request: Request<Incoming>, connection: &Connection) -> Answering {
        let visit = Arc::clone(&self.0);
        match visit.admits(&request, connection) {
            Ok(()) => Answering::Begun(Some((visit, request))),
            Err(failure) => {
                let request = Peeked::whole(request, None);
                Answering::Tonic(visit.passed(request, Err(failure)))
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
    Begun(Option<(Arc<Visit>, Request<Incoming>)>),
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
                    let (visit, mut request) = begun.take().expect("it is looked at once");
                    match quick::look(&mut request, cx) {
                        Look::Get => return Poll::Ready(Ok(visit.given())),
                        Look::Watch => return Poll::Ready(Ok(visit.watched())),
                        Look::Other(first) => {
                            let request = Peeked::whole(request, first);
                            *this = Self::Tonic(visit.passed(request, Ok(())));
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

impl Visit {
    /// What holds for every call: its caller has a name, it keeps the rules of the door, and it does not come too often.
    fn admits<B>(&self, request: &Request<B>, connection: &Connection) -> Result<(), Failure> {
        let visitor = &self.visitor;
        visitor.known()?;
        guard::check_call(request, connection.peer, &self.shared.room.rules).map_err(
            |refusal| {
                visitor.refused(refusal);
                Failure::Refused(refusal)
            },
        )?;
        Ok(visitor.paced()?)
    }

    /// The live token, or why there is none for this caller.
    fn given(&self) -> Response<Reply> {
        match self.visitor.may(Right::Vend) {
            Ok(()) => self.shared.room.given(&self.visitor),
            Err(denial) => quick::refused(&denial.into()),
        }
    }

    /// The live token and all that follow, or why this caller may not have them.
    fn watched(&self) -> Response<Reply> {
        let shared = &self.shared;
        match self.visitor.watches() {
            Ok(watching) => {
                let (room, drain) = (Arc::clone(&shared.room), shared.drain.clone());
                quick::watched(Watch::new(room, watching, drain))
            }
            Err(denial) => quick::refused(&denial.into()),
        }
    }

    /// The long way: through the door that holds for every call, to the service that it names.
    fn passed(
        self: Arc<Self>,
        mut request: Request<Peeked>,
        judged: Result<(), Failure>,
    ) -> Pin<Box<dyn Future<Output = Response<Body>> + Send>> {
        // The services know their caller by this.
        request.extensions_mut().insert(Arc::clone(&self.visitor));
        Box::pin(async move {
            door::pass(request, judged, |it| self.shared.answer(it, &self.visitor)).await
        })
    }
}

impl Shared {
    async fn answer(&self, request: Request<Peeked>, visitor: &Visitor) -> Response<Body> {
        let path = request.uri().path();
        let service = path.rsplit_once('/').map_or("", |it| it.0).to_owned();
        let answered = match service.as_str() {
            "/bearerd.v1.TokenService" => self.tokens.clone().call(request.map(Timely::new)).await,
            "/grpc.health.v1.Health" => self.health.clone().call(request.map(Timely::new)).await,
            "/grpc.reflection.v1.ServerReflection"
            | "/grpc.reflection.v1alpha.ServerReflection" => {
                let open = match visitor.waits() {
                    Ok(open) => open,
                    Err(denial) => return token::refused(denial).into_http(),
                };
                let response = match service.ends_with("v1.ServerReflection") {
                    true => self.reflection.first(request).await,
                    false => self.reflection.alpha(request).await,
                };
                return reflection::until(&self.drain, open, response);
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
