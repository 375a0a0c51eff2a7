//! TLS on a listener: each connection shakes hands in its own task, by the settings of that moment.
//!
//! A caller that offers no protocol is served with the listener's own; one that offers others only is turned away. Nothing is
//! remembered from one connection for the next.

use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use prometheus::{IntCounter, IntCounterVec, Opts, Registry};
use rustls::pki_types::CertificateDer;
use rustls::{CertificateError, Error, InvalidMessage, ServerConfig};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::task::yield_now;
use tokio::time::{error::Elapsed, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use webpki::EndEntityCert;

use super::metrics::Counts;
use super::misdirected::{Foreign, MAX_FIRST, Misdirected, Native};
use super::patience::{Pulse, Seat, Watched};
use super::serve::{Closing, Connection, Names, Protocol};
use super::socket::Socket;
use crate::metrics::register;

/// What a listener needs to speak TLS. Clones share it.
#[derive(Clone, Debug)]
pub struct Tls {
    current: Arc<ArcSwap<ServerConfig>>,
    handshakes: Handshakes,
}

impl Tls {
    /// Goes by what `current` holds when a connection begins, and counts how its handshake ends.
    pub fn new(current: Arc<ArcSwap<ServerConfig>>, handshakes: Handshakes) -> Self {
        Self {
            current,
            handshakes,
        }
    }

    /// One connection, from its handshake, which may take so long, to its end.
    pub(super) async fn talk<P: Protocol>(
        self,
        stream: TcpStream,
        (pulse, seat): (Arc<Pulse>, Seat),
        patience: Duration,
        mut connection: Connection,
        protocol: Arc<P>,
        closing: Arc<Closing>,
    ) {
        let peer = connection.peer;
        let stream = match self.shaken(stream, patience, &closing).await {
            Ok(stream) => stream,
            Err(failure) => {
                self.handshakes.count(failure.outcome());
                tracing::debug!(%peer, outcome = failure.outcome().word(), error = %failure, "a TLS handshake failed");
                return;
            }
        };
        self.handshakes.count(Outcome::Done);
        let certificates = stream.get_ref().1.peer_certificates();
        connection.names = certificates
            .and_then(<[_]>::first)
            .map(|leaf| Arc::new(Names::of(leaf)));
        drop(self);
        let socket = Watched::new(Socket::Tls(Box::new(stream)), pulse, seat);
        protocol.talk(socket, connection, closing).await;
    }

    /// Answers a caller that speaks HTTP without TLS. Otherwise the stream comes back unread.
    async fn answer_in_clear(mut stream: TcpStream) -> Result<TcpStream, Failure> {
        let mut first = [0; MAX_FIRST];
        if stream.peek(&mut first[..1]).await? == 0 || !first[0].is_ascii_uppercase() {
            return Ok(stream);
        }
        let mut read = 0;
        while read < first.len() {
            match stream.read(&mut first[read..]).await? {
                0 => break,
                length => read += length,
            }
            if let Some(foreign) = Foreign::of(&first[..read]) {
                // Counted as a handshake. Other addresses are not named without a certificate.
                let here = Misdirected::new(Native::Tls, None, Counts::default());
                here.answer(stream, foreign).await;
                break;
            }
        }
        Err(Failure::InClear)
    }

    /// A connection that has not shaken hands when the listener closes has asked for nothing yet, and holds nothing up.
    async fn shaken(
        &self,
        stream: TcpStream,
        patience: Duration,
        closing: &Closing,
    ) -> Result<TlsStream<TcpStream>, Failure> {
        let acceptor = TlsAcceptor::from(self.current.load_full());
        let handshake = async {
            let stream = Self::answer_in_clear(stream).await?;
            Ok::<_, Failure>(acceptor.accept(stream).await?)
        };
        let mut shake = pin!(timeout(patience, handshake));
        tokio::select! {
            biased;
            shaken = shake.as_mut() => Ok(shaken??),
            () = closing.token.cancelled() => {
                // One more turn, in which the driver looks at the socket: what came before the drain is answered.
                yield_now().await;
                tokio::select! {
                    biased;
                    shaken = shake => Ok(shaken??),
                    () = async {} => Err(Failure::Drained),
                }
            }
        }
    }
}

impl Names {
    /// What a certificate calls its owner. Its signature was checked before. A name with a wildcard is nobody's own, and left out.
    fn of(leaf: &CertificateDer<'_>) -> Self {
        let Ok(leaf) = EndEntityCert::try_from(leaf) else {
            return Self::default();
        };
        let own = leaf.valid_dns_names().filter(|name| !name.contains('*'));
        Self {
            dns: own.map(str::to_owned).collect(),
            uris: leaf.valid_uri_names().map(str::to_owned).collect(),
        }
    }
}

/// Why a connection did not come about.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("it took too long")]
    TimedOut(#[from] Elapsed),
    #[error("the listener drains")]
    Drained,
    #[error("the caller does not speak TLS")]
    InClear,
    #[error(transparent)]
    Broken(#[from] io::Error),
}

impl Failure {
    fn outcome(&self) -> Outcome {
        match self {
            Self::TimedOut(_) => Outcome::TimedOut,
            Self::Drained => Outcome::Drained,
            Self::InClear => Outcome::NotTls,
            Self::Broken(error) => {
                let inner = error.get_ref().and_then(|it| it.downcast_ref());
                inner.map_or(Outcome::Gone, Outcome::of)
            }
        }
    }
}

/// How a handshake ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Done,
    TimedOut,
    Drained,
    Gone,
    NotTls,
    Incompatible,
    NoProtocol,
    NoCertificate,
    ExpiredCertificate,
    UnknownIssuer,
    BadCertificate,
    RefusedByCaller,
    Other,
}

impl Outcome {
    /// All there are, in their order.
    const ALL: [Self; 13] = [
        Self::Done,
        Self::TimedOut,
        Self::Drained,
        Self::Gone,
        Self::NotTls,
        Self::Incompatible,
        Self::NoProtocol,
        Self::NoCertificate,
        Self::ExpiredCertificate,
        Self::UnknownIssuer,
        Self::BadCertificate,
        Self::RefusedByCaller,
        Self::Other,
    ];

    fn of(error: &Error) -> Self {
        match error {
            Error::InvalidMessage(InvalidMessage::InvalidContentType) => Self::NotTls,
            Error::PeerIncompatible(_)
            | Error::InvalidMessage(InvalidMessage::UnknownProtocolVersion) => Self::Incompatible,
            Error::NoApplicationProtocol => Self::NoProtocol,
            Error::NoCertificatesPresented => Self::NoCertificate,
            Error::InvalidCertificate(
                CertificateError::Expired | CertificateError::ExpiredContext { .. },
            ) => Self::ExpiredCertificate,
            Error::InvalidCertificate(CertificateError::UnknownIssuer) => Self::UnknownIssuer,
            Error::InvalidCertificate(_) => Self::BadCertificate,
            Error::AlertReceived(_) => Self::RefusedByCaller,
            _ => Self::Other,
        }
    }

    fn word(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::TimedOut => "timed_out",
            Self::Drained => "drained",
            Self::Gone => "gone",
            Self::NotTls => "not_tls",
            Self::Incompatible => "incompatible",
            Self::NoProtocol => "no_protocol",
            Self::NoCertificate => "no_certificate",
            Self::ExpiredCertificate => "expired_certificate",
            Self::UnknownIssuer => "unknown_issuer",
            Self::BadCertificate => "bad_certificate",
            Self::RefusedByCaller => "refused_by_caller",
            Self::Other => "other",
        }
    }
}

/// Counts handshakes: `bearerd_tls_handshakes_total`. One per process, shared by all listeners.
#[derive(Clone, Debug)]
pub struct Handshakes(Arc<[IntCounter; Outcome::ALL.len()]>);

impl Handshakes {
    /// Registers the metric; every outcome is there from the start.
    pub fn register(registry: &Registry) -> Self {
        let ended = register(
            registry,
            IntCounterVec::new(
                Opts::new(
                    "bearerd_tls_handshakes_total",
                    "TLS handshakes with callers and operators that have ended, by outcome.",
                ),
                &["outcome"],
            ),
        );
        let counts = Outcome::ALL.map(|outcome| ended.with_label_values(&[outcome.word()]));
        Self(Arc::new(counts))
    }

    fn count(&self, outcome: Outcome) {
        self.0[outcome as usize].inc();
    }
}

#[cfg(test)]
mod tests;
