//! HTTP/1.1: one request after the other.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;

use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::task::yield_now;
use tokio_util::sync::CancellationToken;

use super::Listener;
use super::answer::{Answering, Body};
use super::date::{Dated, Dates};
use super::misdirected::{Misdirected, Native};
use super::patience::{Pulse, Watched};
use super::serve::{Closing, Connection, Protocol, Service, serve};
use super::socket::Socket;

/// The most bytes a request's head may have; more are answered with 431.
const HEAD_LIMIT: usize = 16 * 1024;

/// Serves until the drain has begun and every request that had arrived by then is answered. Has no deadline of its own: dropping
/// it cuts the connections that are left.
pub async fn serve_http<S: Service>(listener: Listener, service: S, drain: CancellationToken) {
    let protocol = Http1 {
        builder: builder(),
        dates: listener.dates.clone(),
        misdirected: Misdirected::new(
            Native::Http1,
            listener.elsewhere.clone(),
            listener.bounds.counts.clone(),
        ),
        service,
    };
    serve(listener, protocol, drain).await;
}

struct Http1<S> {
    builder: http1::Builder,
    dates: Dates,
    misdirected: Misdirected,
    service: S,
}

fn builder() -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder
        .writev(false)
        // Who shuts its writing half behind a request is answered.
        .half_close(true)
        .max_buf_size(HEAD_LIMIT)
        .auto_date_header(false);
    builder
}

impl<S: Service> Protocol for Http1<S> {
    /// What hyper keeps for a connection is made inside, so that the task holds it once.
    async fn talk(
        self: Arc<Self>,
        socket: Watched<Socket>,
        connection: Connection,
        closing: Arc<Closing>,
    ) {
        let socket = socket.in_turn();
        let pulse = Arc::clone(socket.pulse());
        let bound = Bound {
            service: self.service.on(&connection),
            dates: self.dates.clone(),
            connection,
            closing: Arc::clone(&closing),
            pulse: Arc::clone(&pulse),
        };
        let mut connection = self.builder.serve_connection(TokioIo::new(socket), bound);
        if closing.outlived(Pin::new(&mut connection), &pulse).await {
            let mut socket = connection.into_parts().io.into_inner();
            if let Some(foreign) = socket.take_foreign() {
                Box::pin(self.misdirected.answer(socket, foreign)).await;
            }
            return;
        }
        // One more turn, in which the driver looks at the socket: a request that came before the drain is answered.
        tokio::select! {
            biased;
            _ = &mut connection => return,
            () = yield_now() => {}
        }
        Pin::new(&mut connection).graceful_shutdown();
        let _ = connection.await;
    }
}

/// A service on one connection, as hyper calls it.
struct Bound<S> {
    service: S,
    dates: Dates,
    connection: Connection,
    closing: Arc<Closing>,
    pulse: Arc<Pulse>,
}

impl<S: Service> hyper::service::Service<Request<Incoming>> for Bound<S> {
    type Response = hyper::Response<Body>;
    type Error = Infallible;
    type Future = Dated<Answering>;

    fn call(&self, request: Request<Incoming>) -> Dated<Answering> {
        let answer = self.service.answer(request, &self.connection);
        let answer = Answering::new(answer, &self.closing, &self.connection.drain, &self.pulse);
        Dated::new(answer, &self.dates)
    }
}
