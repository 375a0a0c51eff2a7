//! The connection of one attempt, which is reset when it is given up.
//!
//! A socket that is closed plainly goes on sending what the other side has not acknowledged: behind
//! a partition that heals, a request would arrive long after its attempt. reqwest keeps its sockets
//! to itself, so its client is sent to a Unix socket of this process, and its bytes (those of TLS,
//! where there is TLS) are passed between there and a TCP connection that is ours.

use std::io;
use std::time::Duration;

use hyper::Uri;
use hyper_util::client::legacy::connect::HttpConnector;
use reqwest::Url;
use rustix::net::sockopt::{set_socket_linger, set_tcp_user_timeout};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixListener, UnixStream};
use tower_service::Service;
use zeroize::Zeroizing;

use super::{texts, transport};
use crate::issuer::Delivery;

/// Limit of what one attempt reads, all of TLS, interim answers and heads included. An answer has a
/// kilobyte and a handshake less than ten, so what is longer is hostile, and costs this much CPU.
const MAX_READ_BYTES: usize = 256 * 1024;

const BUFFER_BYTES: usize = 16 * 1024;

/// A TCP connection to the issuer. Whatever closes it resets it, a killed process as well, so that
/// the system forgets what it has not delivered. Only an answer makes it an ordinary connection.
pub(super) struct Connection(TcpStream);

/// Where the client of this attempt finds its [`Connection`]: a name in the abstract namespace.
pub(super) struct Entrance {
    listener: UnixListener,
    name: String,
}

impl Connection {
    /// Connects. `delivery` bounds how long the system repeats what is not acknowledged.
    pub(super) async fn open(
        url: &Url,
        timeout: Duration,
        delivery: Delivery,
    ) -> Result<Self, String> {
        let uri: Uri = url.as_str().parse().map_err(|error| format!("{error}"))?;
        let mut connector = HttpConnector::new();
        connector.enforce_http(false);
        connector.set_nodelay(true);
        connector.set_connect_timeout(Some(timeout));
        let connecting = tokio::time::timeout(timeout, connector.call(uri)).await;
        let tcp = connecting
            .map_err(|_| format!("no connection within {timeout:?}"))?
            .map_err(|error| {
                let ours = transport::explain(&error, true, url);
                transport::with_library(ours, texts(&error).join(": "))
            })?
            .into_inner();
        let milliseconds = u32::try_from(delivery.user_timeout.as_millis()).unwrap_or(u32::MAX);
        let linger = delivery.resets.then_some(Duration::ZERO);
        // Zero would mean the system's own bound, which is minutes.
        set_tcp_user_timeout(&tcp, milliseconds.max(1))
            .and_then(|()| set_socket_linger(&tcp, linger))
            .map_err(|error| format!("the connection cannot be bounded: {error}"))?;
        Ok(Self(tcp))
    }

    /// Passes bytes between the client and the issuer until one of them ends or breaks off. Nothing
    /// is sent any more once `may_send` says no.
    pub(super) async fn carry(
        &mut self,
        entrance: Entrance,
        may_send: impl Fn() -> bool,
    ) -> io::Result<()> {
        let mut client = entrance.accept().await?;
        let (from_client, to_client) = client.split();
        let (from_issuer, to_issuer) = self.0.split();
        let requests = pass(from_client, to_issuer, usize::MAX, may_send);
        let answers = async {
            let mut to_client = to_client;
            pass(from_issuer, &mut to_client, MAX_READ_BYTES, || true).await?;
            to_client.shutdown().await
        };
        tokio::try_join!(requests, answers).map(|_| ())
    }

    #[cfg(test)]
    pub(super) fn socket(&self) -> &TcpStream {
        &self.0
    }

    /// Closes it as an ordinary connection: the issuer has answered.
    pub(super) fn close(self) {
        // Where this fails it is reset, which an issuer that has answered bears as well.
        let _reset_instead = set_socket_linger(&self.0, None);
    }
}

impl Entrance {
    /// A new one, under a name that is not guessed: whoever took it first could keep us from
    /// minting.
    pub(super) fn new() -> io::Result<Self> {
        let name = format!("\0bearerd-{:032x}", fastrand::u128(..));
        Ok(Self {
            listener: UnixListener::bind(&name)?,
            name,
        })
    }

    /// What [`reqwest::ClientBuilder::unix_socket`] takes.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Any process in the network namespace may connect here, so only this one is let in.
    pub(super) async fn accept(self) -> io::Result<UnixStream> {
        let own = i32::try_from(std::process::id()).ok();
        loop {
            let (stream, _) = self.listener.accept().await?;
            if own.is_some() && stream.peer_cred()?.pid() == own {
                return Ok(stream);
            }
        }
    }
}

/// Passes on what comes until its end, at most so many bytes. They may be secrets, so they are wiped.
async fn pass(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    max_bytes: usize,
    may_go_on: impl Fn() -> bool,
) -> io::Result<()> {
    let mut buffer = Zeroizing::new(vec![0; BUFFER_BYTES]);
    let mut left = max_bytes;
    loop {
        let count = from.read(&mut buffer).await?;
        if count == 0 {
            return Ok(());
        }
        left = left.checked_sub(count).ok_or_else(too_long)?;
        if !may_go_on() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        to.write_all(&buffer[..count]).await?;
    }
}

fn too_long() -> io::Error {
    io::Error::other(format!(
        "the answer and what came before it are longer than {} KiB",
        MAX_READ_BYTES / 1024
    ))
}
