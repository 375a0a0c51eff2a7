//! The first bytes of HTTP/2. They are read before anything is made for a connection, so that one that says nothing costs little, and
//! holds no drain up.

use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::task::yield_now;

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
}

/// None if the caller speaks something else, or has said too little when the listener closes. How long it may take for it is its
/// pulse's matter.
pub(super) async fn greeted(mut socket: Watched<Socket>, closing: &Closing) -> Option<Greeted> {
    let good = {
        let mut preface = pin!(preface(&mut socket));
        tokio::select! {
            biased;
            good = preface.as_mut() => good,
            () = closing.token.cancelled() => {
                // One more turn, in which the driver looks at the socket: a call that came before the drain is answered.
                yield_now().await;
                tokio::select! {
                    biased;
                    good = preface => good,
                    () = async {} => return None,
                }
            }
        }
    };
    matches!(good, Ok(true)).then_some(Greeted { socket, again: 0 })
}

/// True if the next bytes are the preface. Says no at the first byte that is not.
async fn preface(socket: &mut Watched<Socket>) -> io::Result<bool> {
    let mut read = 0;
    while read < PREFACE.len() {
        let mut bytes = [0; PREFACE.len()];
        let mut into = ReadBuf::new(&mut bytes[read..]);
        poll_fn(|cx| Pin::new(&mut *socket).poll_read(cx, &mut into)).await?;
        let filled = into.filled();
        if filled.is_empty() || !PREFACE[read..].starts_with(filled) {
            return Ok(false);
        }
        read += filled.len();
    }
    Ok(true)
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
        Pin::new(&mut self.get_mut().socket).poll_write(cx, from)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().socket).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().socket).poll_shutdown(cx)
    }
}
