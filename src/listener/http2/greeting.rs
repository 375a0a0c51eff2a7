//! The first bytes of HTTP/2. They are read before anything is made for a connection, so that one that says nothing costs little, and
//! holds no drain up.

use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::task::yield_now;

use super::resets::Resets;
use crate::listener::metrics::Counts;
use crate::listener::misdirected::Foreign;
use crate::listener::patience::Watched;
use crate::listener::serve::Closing;
use crate::listener::socket::Socket;

/// What every caller says first.
pub(super) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A connection that speaks HTTP/2, and will be read from its beginning.
pub(super) struct Greeted {
    socket: Watched<Socket>,
    /// So many bytes of the preface were read again.
    again: usize,
    resets: Resets,
    counts: Counts,
}

/// How a connection begins.
pub(super) enum Greeting {
    Http2(Greeted),
    Foreign(Watched<Socket>, Foreign),
    /// It has said too little when it or the listener closes, or nothing that can be answered.
    None,
}

/// How long the caller may take is its pulse's matter.
pub(super) async fn greeted(
    mut socket: Watched<Socket>,
    closing: &Closing,
    counts: &Counts,
) -> Greeting {
    let spoken = {
        let mut preface = pin!(preface(&mut socket));
        tokio::select! {
            biased;
            spoken = preface.as_mut() => spoken,
            () = closing.token.cancelled() => {
                // One more turn, in which the driver looks at the socket: a call that came before the drain is answered.
                yield_now().await;
                tokio::select! {
                    biased;
                    spoken = preface => spoken,
                    () = async {} => return Greeting::None,
                }
            }
        }
    };
    match spoken {
        Ok(Some(Foreign::Http2)) => Greeting::Http2(Greeted {
            socket,
            again: 0,
            resets: Resets::default(),
            counts: counts.clone(),
        }),
        Ok(Some(foreign)) => Greeting::Foreign(socket, foreign),
        Ok(None) | Err(_) => Greeting::None,
    }
}

/// HTTP/2 if the next bytes are the preface. Says what else they are at the first byte that is not.
async fn preface(socket: &mut Watched<Socket>) -> io::Result<Option<Foreign>> {
    let mut read = 0;
    let mut bytes = [0; PREFACE.len()];
    while read < PREFACE.len() {
        let mut into = ReadBuf::new(&mut bytes[read..]);
        poll_fn(|cx| Pin::new(&mut *socket).poll_read(cx, &mut into)).await?;
        let came = into.filled().len();
        if came == 0 {
            return Ok(None);
        }
        read += came;
        if !PREFACE.starts_with(&bytes[..read]) {
            // A spoilt preface is none, and nothing that could be answered.
            return Ok(Foreign::of(&bytes[..read]).filter(|it| *it != Foreign::Http2));
        }
    }
    Ok(Some(Foreign::Http2))
}

#[cold]
fn note(counts: &Counts, calls: u64) {
    if counts.malformed(calls) {
        tracing::warn!(
            "a call broke HTTP/2 and was reset unseen; this is logged once, and counted in bearerd_malformed_calls_total. \
             grpcio from 1.57 on and grpcurl send the path of a Unix socket as :authority, which is no host: set it to localhost \
             (grpcio: the channel option grpc.default_authority; grpcurl: -authority localhost)"
        );
    }
}

impl AsyncRead for Greeted {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let it = self.get_mut();
        if it.again == PREFACE.len() {
            return Pin::new(&mut it.socket).poll_read(cx, into);
        }
        let rest = &PREFACE[it.again..];
        let rest = &rest[..rest.len().min(into.remaining())];
        into.put_slice(rest);
        it.again += rest.len();
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Greeted {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        from: &[u8],
    ) -> Poll<io::Result<usize>> {
        let it = self.get_mut();
        let written = Pin::new(&mut it.socket).poll_write(cx, from);
        if let Poll::Ready(Ok(length)) = written {
            let resets = it.resets.count(&from[..length]);
            if resets > 0 {
                note(&it.counts, resets);
            }
        }
        written
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().socket).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().socket).poll_shutdown(cx)
    }
}
