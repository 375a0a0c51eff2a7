//! HTTP/2 without an upgrade before it: many calls at a time on one connection.

mod greeting;

use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Incoming};
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio_util::sync::CancellationToken;

use super::Listener;
use super::serve::{Closing, Connection, Protocol, serve};
use super::socket::Socket;
use greeting::greeted;

/// The most bytes that the headers of a call may have together.
const HEAD_LIMIT: u32 = 16 * 1024;

/// How much of a call's body, and of all bodies on a connection, may be on its way: what is asked here is short.
const STREAM_WINDOW: u32 = 16 * 1024;
const CONNECTION_WINDOW: u32 = 64 * 1024;

/// How much of its answers a call may have waiting to be sent.
const SEND_BUFFER: usize = 16 * 1024;

/// What one connection may ask for.
#[derive(Clone, Debug)]
pub struct Limits {
    /// The most calls that are open at a time.
    pub streams: u32,
    /// A caller that was silent for so long is pinged.
    pub keepalive: Duration,
    /// It is cut off if it does not answer the ping within this.
    pub patience: Duration,
}

/// Answers calls.
pub trait Calls: Clone + Send + Sync + 'static {
    /// What serves this connection, from its first call to its end; dropped when it has ended.
    #[must_use]
    fn on(&self, _connection: &Connection) -> Self {
        self.clone()
    }

    /// What an answer's body is made of.
    type Body: Body<Data = Bytes, Error: Into<Box<dyn std::error::Error + Send + Sync>>>
        + Send
        + 'static;

    /// An answer on its way. Dropping it cancels nothing for others.
    type Answer: Future<Output = Result<Response<Self::Body>, Infallible>> + Send + 'static;

    /// Answers one call.
    fn call(&self, request: Request<Incoming>, connection: &Connection) -> Self::Answer;
}

/// Serves until the drain has begun and every call that had arrived by then has ended: callers are told to go elsewhere, and whoever
/// answers long calls ends them at [`Connection::drain`]. Has no deadline of its own: dropping it cuts the connections that are left.
pub async fn serve_http2<S: Calls>(
    listener: Listener,
    service: S,
    limits: &Limits,
    drain: CancellationToken,
) {
    let builder = builder(limits);
    serve(listener, Http2 { builder, service }, drain).await;
}

fn builder(limits: &Limits) -> http2::Builder<TokioExecutor> {
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits.streams)
        .keep_alive_interval(limits.keepalive)
        .keep_alive_timeout(limits.patience)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buf_size(SEND_BUFFER)
        .max_header_list_size(HEAD_LIMIT);
    builder
}

struct Http2<S> {
    builder: http2::Builder<TokioExecutor>,
    service: S,
}

impl<S: Calls> Protocol for Http2<S> {
    async fn talk(self: Arc<Self>, socket: Socket, connection: Connection, closing: Arc<Closing>) {
        let Some(socket) = greeted(socket, &closing).await else {
            return;
        };
        let service = self.service.on(&connection);
        let bound = service_fn(move |request| service.call(request, &connection));
        let mut connection = pin!(self.builder.serve_connection(TokioIo::new(socket), bound));
        if closing.outlived(connection.as_mut()).await {
            return;
        }
        connection.as_mut().graceful_shutdown();
        let _ = connection.await;
    }
}

#[cfg(test)]
mod tests;
