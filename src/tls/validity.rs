//! From when and until when a certificate is valid. webpki, which has parsed it, tells by refusing it at both ends of time.

use jiff::Timestamp;
use rustls::pki_types::{CertificateDer, UnixTime};
use std::time::Duration;
use webpki::{EndEntityCert, Error, KeyUsage};

/// The first and the last second of a certificate's life, and whether it may stand for a server; `None` if it is no certificate.
pub(super) struct Validity {
    pub(super) from: Timestamp,
    pub(super) until: Timestamp,
    pub(super) for_servers: bool,
}

pub(super) fn validity(certificate: &CertificateDer<'_>) -> Option<Validity> {
    let parsed = EndEntityCert::try_from(certificate).ok()?;
    // Without anybody who could have signed it every time is refused: dates come first, then the usage, then the missing signer.
    let refusal = |second: u64| {
        let time = UnixTime::since_unix_epoch(Duration::from_secs(second));
        let usage = KeyUsage::server_auth();
        parsed
            .verify_for_usage(&[], &[], &[], time, usage, None, None)
            .err()
    };
    let from = match refusal(0) {
        Some(Error::CertNotValidYet { not_before, .. }) => not_before.as_secs(),
        Some(Error::BadDer | Error::BadDerTime | Error::InvalidCertValidity) => return None,
        // It was valid when Unix time began.
        _ => 0,
    };
    let Some(Error::CertExpired { not_after, .. }) = refusal(u64::MAX) else {
        return None;
    };
    let for_servers = !matches!(
        refusal(from),
        Some(Error::RequiredEkuNotFoundContext(_) | Error::EmptyEkuExtension)
    );
    Some(Validity {
        from: timestamp(from),
        until: timestamp(not_after.as_secs()),
        for_servers,
    })
}

fn timestamp(second: u64) -> Timestamp {
    let second = i64::try_from(second).unwrap_or(i64::MAX);
    Timestamp::from_second(second).unwrap_or(Timestamp::MAX)
}
