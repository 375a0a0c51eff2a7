//! Which kinds of keys the TLS library can verify signatures of.

use rustls::crypto::CryptoProvider;
use rustls::pki_types::CertificateDer;
use webpki::anchor_from_trusted_cert;

/// Object identifiers of kinds that are met and that it cannot, in DER, and what people call them.
const NAMES: [(&[u8], &str); 5] = [
    (&[0x2b, 0x81, 0x04, 0x00, 0x23], "P-521"),
    (&[0x2b, 0x81, 0x04, 0x00, 0x0a], "secp256k1"),
    (&[0x2b, 0x65, 0x71], "Ed448"),
    (&[0x2a, 0x86, 0x48, 0xce, 0x38, 0x04, 0x01], "DSA"),
    (
        &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x0a],
        "RSASSA-PSS",
    ),
];

/// What the kind of this certificate's key is called, if its signatures cannot be verified.
pub(super) fn unverifiable(
    certificate: &CertificateDer<'_>,
    provider: &CryptoProvider,
) -> Option<&'static str> {
    let anchor = anchor_from_trusted_cert(certificate).ok()?;
    let algorithm = algorithm(&anchor.subject_public_key_info)?;
    let mut known = provider.signature_verification_algorithms.all.iter();
    if known.any(|it| it.public_key_alg_id().as_ref() == algorithm) {
        return None;
    }
    let holds = |(id, _): &&(&[u8], &str)| algorithm.windows(id.len()).any(|it| it == *id);
    Some(
        NAMES
            .iter()
            .find(holds)
            .map_or("an unknown kind", |(_, name)| name),
    )
}

/// The content of the first sequence in a public key's description, which names its kind.
fn algorithm(key_info: &[u8]) -> Option<&[u8]> {
    let [0x30, length @ 0..0x80, rest @ ..] = key_info else {
        return None;
    };
    rest.get(..usize::from(*length))
}
