//! HTTP/2 without an upgrade before it: many calls at a time on one connection.

mod executor;
mod greeting;
mod kept;
mod resets;

use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Incoming};
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio_util::sync::CancellationToken;

use super::Listener;
use super::date::{Dated, Dates};
use super::metrics::Counts;
use super::misdirected::{Misdirected, Native};
use super::patience::Watched;
use super::serve::{Closing, Connection, Protocol, serve};
use super::socket::Socket;
use executor::{CallExecutor, CallTasks};
use greeting::{Greeting, greeted};
use kept::Kept;

/// The most bytes that the headers of a call may have together.
const HEAD_LIMIT: u32 = 16 * 1024;

/// How much of a call's body, and at least of all bodies on a connection, may be on its way: what is asked here is short.
const STREAM_WINDOW: u32 = 16 * 1024;
const CONNECTION_WINDOW: u32 = 64 * 1024;

/// So much of a connection's window each call has for itself. h2 gives a connection up when the data that nobody has read yet came in
/// too tiny frames: it counts up to 256 bytes for each, unless its call ends with it, and half of the window is what they may make together.
/// Without this, clients that end their calls with a frame of its own could not begin all the calls at once that they may have.
const CALL_SHARE: u32 = 512;

/// How much of its answers a call may have waiting to be sent.
const SEND_BUFFER: usize = 16 * 1024;

/// So many calls may have been cancelled before they were looked at; a connection with one more is given up. Whoever opens and cancels
/// calls as fast as it can (CVE-2023-44487) is soon there.
const UNSEEN_RESETS: usize = 20;

/// So many calls of a connection, over its whole life, may have broken the protocol; a connection with one more is given up. Each costs
/// a frame in answer (CVE-2025-8671).
///
/// What h2 bounds by itself, as the tests of hostile input show: CONTINUATION frames of one head (5 with this limit of a head's length),
/// answers to SETTINGS and PING (one each: nothing more is read before it is written), empty DATA frames (100), the table of HPACK
/// (4 KiB unless it is set).
const ERRORS: usize = 1024;

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
        + Unpin
        + 'static;

    /// An answer on its way. Dropping it cancels nothing for others.
    type Answer: Future<Output = Result<Response<Self::Body>, Infallible>> + Send + Unpin + 'static;

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
    let protocol = Http2 {
        limits: limits.clone(),
        dates: listener.dates.clone(),
        misdirected: Misdirected::new(
            Native::Http2,
            listener.elsewhere.clone(),
            listener.bounds.counts.clone(),
        ),
        counts: listener.bounds.counts.clone(),
        service,
    };
    serve(listener, protocol, drain).await;
}

fn builder(limits: &Limits, calls: CallExecutor) -> http2::Builder<CallExecutor> {
    let mut builder = http2::Builder::new(calls);
    builder
        .timer(TokioTimer::new())
        .auto_date_header(false)
        .max_concurrent_streams(limits.streams)
        .keep_alive_interval(limits.keepalive)
        .keep_alive_timeout(limits.patience)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW.max(limits.streams * CALL_SHARE))
        .max_send_buf_size(SEND_BUFFER)
        .max_header_list_size(HEAD_LIMIT)
        .max_pending_accept_reset_streams(UNSEEN_RESETS)
        .max_local_error_reset_streams(ERRORS);
    builder
}

struct Http2<S> {
    limits: Limits,
    dates: Dates,
    misdirected: Misdirected,
    counts: Counts,
    service: S,
}

impl<S: Calls> Protocol for Http2<S> {
    async fn talk(
        self: Arc<Self>,
        socket: Watched<Socket>,
        connection: Connection,
        closing: Arc<Closing>,
    ) {
        let pulse = Arc::clone(socket.pulse());
        let socket = match greeted(socket, &closing, &self.counts).await {
            Greeting::Http2(socket) => socket,
            Greeting::Foreign(socket, foreign) => {
                return Box::pin(self.misdirected.answer(socket, foreign)).await;
            }
            Greeting::None => return,
        };
        let service = self.service.on(&connection);
        let dates = self.dates.clone();
        pulse.idle();
        let counting = Arc::clone(&pulse);
        let bound = service_fn(move |request| {
            let open = counting.open();
            let answer = Kept::new(service.call(request, &connection), open);
            Dated::new(answer, &dates)
        });
        let calls = CallTasks::default();
        let builder = builder(&self.limits, calls.executor());
        let mut connection = pin!(builder.serve_connection(TokioIo::new(socket), bound));
        let ended = {
            let driven = pin!(calls.drive(connection.as_mut()));
            closing.outlived(driven, &pulse).await
        };
        if !ended {
            connection.as_mut().graceful_shutdown();
            let _ = calls.drive(connection).await;
        }
        calls.shutdown().await;
    }
}

#[cfg(test)]
mod tests;
