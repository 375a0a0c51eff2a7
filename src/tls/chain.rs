//! A bound on the chains that callers show, before anything is verified.
//!
//! Whoever can connect can show a chain, and to look for a path through a hundred authorities of one
//! name takes a third of a second of the thread that serves everybody.

use std::sync::Arc;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, Error, SignatureScheme};

/// Limit of authorities between a caller's certificate and the client CA. Real chains have up to
/// three, and the work grows as the factorial of their number.
const MAX_INTERMEDIATES: usize = 5;

/// Refuses long chains, and leaves the others to the verifier inside.
#[derive(Debug)]
pub(super) struct BoundedChain(pub(super) Arc<dyn ClientCertVerifier>);

impl ClientCertVerifier for BoundedChain {
    fn offer_client_auth(&self) -> bool {
        self.0.offer_client_auth()
    }

    fn client_auth_mandatory(&self) -> bool {
        self.0.client_auth_mandatory()
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.0.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        if intermediates.len() > MAX_INTERMEDIATES {
            return Err(CertificateError::UnknownIssuer.into());
        }
        self.0.verify_client_cert(end_entity, intermediates, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::testing::{Authority, caller};
    use rustls::RootCertStore;
    use rustls::pki_types::pem::PemObject;
    use rustls::server::WebPkiClientVerifier;

    fn der(pem: &str) -> CertificateDer<'static> {
        CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()
    }

    #[test]
    fn a_long_chain_is_refused_before_anybody_looks_for_a_path_through_it() {
        let root = Authority::new("root");
        let mut roots = RootCertStore::empty();
        roots.add(der(&root.certificate)).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let inner = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
        let verifier = BoundedChain(inner.build().unwrap());
        let leaf = der(&root.issue(&caller(&["orders.shop.svc"], &[])).certificate);
        // The root signed the certificate itself: what is shown beside it is not needed.
        let others: Vec<_> = (0..=MAX_INTERMEDIATES)
            .map(|_| der(&Authority::new("other").certificate))
            .collect();
        let now = UnixTime::since_unix_epoch(std::time::Duration::from_secs(1_800_000_000));
        let verified = |others| verifier.verify_client_cert(&leaf, others, now);
        assert!(verified(&others[1..]).is_ok());
        assert_eq!(
            verified(&others).err(),
            Some(CertificateError::UnknownIssuer.into())
        );
    }
}
