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

#[cfg(test)]
mod tests {
    use super::*;

    use proptest::prelude::*;
    use rcgen::ExtendedKeyUsagePurpose;
    use rustls::pki_types::pem::PemObject;

    use crate::tls::testing::{Authority, Wanted, server};

    fn issued(wanted: &Wanted) -> CertificateDer<'static> {
        let pair = Authority::new("tests").issue(wanted);
        CertificateDer::from_pem_slice(pair.certificate.as_bytes()).unwrap()
    }

    #[test]
    fn dates_are_those_that_were_written() {
        // The last second of GeneralizedTime is how a certificate says that it never ends.
        for life in [(0, 1), (1, 1_800_000_000), (1_000_000_000, 253_402_300_799)] {
            let wanted = Wanted {
                life: Some(life),
                ..server()
            };
            let found = validity(&issued(&wanted)).unwrap();
            let expected = (timestamp(life.0), timestamp(life.1));
            assert_eq!((found.from, found.until), expected);
            assert!(found.for_servers);
        }
    }

    #[test]
    fn only_a_usage_without_servers_is_against_servers() {
        let usages = [
            (vec![], true),
            (vec![ExtendedKeyUsagePurpose::ClientAuth], false),
            (
                vec![
                    ExtendedKeyUsagePurpose::ClientAuth,
                    ExtendedKeyUsagePurpose::ServerAuth,
                ],
                true,
            ),
        ];
        for (usage, expected) in usages {
            let wanted = Wanted { usage, ..server() };
            let found = validity(&issued(&wanted)).unwrap();
            assert_eq!(found.for_servers, expected);
        }
    }

    proptest! {
        #[test]
        fn what_is_damaged_is_no_certificate_or_has_dates(at in 0usize..400, to: u8, cut in 0usize..400) {
            let mut bytes = issued(&server()).to_vec();
            let at = at % bytes.len();
            bytes[at] = to;
            let _either = validity(&CertificateDer::from(bytes.clone()));
            bytes.truncate(cut % bytes.len());
            prop_assert!(validity(&CertificateDer::from(bytes)).is_none());
        }
    }
}
