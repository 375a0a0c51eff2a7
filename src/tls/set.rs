//! From what the files held to what listeners go by: all of it good, or nothing.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::time_provider::TimeProvider;
use rustls::version::{TLS12, TLS13};
use rustls::{Error, RootCertStore, ServerConfig};
use sha2::{Digest, Sha256};
use webpki::EndEntityCert;

use super::algorithms::unverifiable;
use super::chain::BoundedChain;
use super::files::{Contents, File, Files, Text};
use super::problem::{Fault, Problem};
use super::validity::validity;
use crate::clock::Clock;

/// What each kind of listener goes by.
pub(super) struct Set {
    pub(super) http: Arc<ServerConfig>,
    pub(super) grpc: Arc<ServerConfig>,
    pub(super) admin: Arc<ServerConfig>,
    pub(super) facts: Facts,
}

/// What may be told of a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// The DNS names that it is for.
    pub names: Vec<String>,
    /// The SHA-256 of the whole certificate, in hex.
    pub fingerprint: String,
    /// The first second of its life.
    pub from: Timestamp,
    /// The last second of its life.
    pub until: Timestamp,
    /// How many authorities may sign callers' certificates; `None` where callers need no certificate.
    pub authorities: Option<usize>,
}

impl fmt::Display for Facts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = match self.names.is_empty() {
            true => "no DNS name".to_owned(),
            false => self.names.join(", "),
        };
        let (until, fingerprint) = (self.until, &self.fingerprint);
        write!(f, "for {names}, valid until {until}, SHA-256 {fingerprint}")?;
        match self.authorities {
            Some(1) => write!(f, "; one authority signs callers' certificates"),
            Some(count) => write!(f, "; {count} authorities sign callers' certificates"),
            None => write!(f, "; callers need no certificate"),
        }
    }
}

/// Checks everything, and makes what listeners go by. The first problem ends it.
pub(super) fn set(
    files: &Files,
    contents: &Contents,
    clock: &Arc<dyn Clock>,
) -> Result<Set, Problem> {
    let told = |file| move |fault| files.problem(file, fault);
    let provider = Arc::new(ring::default_provider());
    let chain = chain(&contents.certificate).map_err(told(File::Certificate))?;
    let mut facts = facts(&chain[0], clock.now().wall).map_err(told(File::Certificate))?;
    let pair = pair(files, chain, &contents.key, &provider).map_err(told(File::Key))?;
    let verifier = match &contents.client_ca {
        None => None,
        Some(text) => {
            let roots = authorities(text, &provider).map_err(told(File::ClientCa))?;
            facts.authorities = Some(roots.len());
            let builder =
                WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider));
            let verifier = builder.build().map_err(|_| Fault::NoAuthority);
            let verifier = verifier.map_err(told(File::ClientCa))?;
            Some(Arc::new(BoundedChain(verifier)) as Arc<dyn ClientCertVerifier>)
        }
    };
    let resolver = Arc::new(SingleCertAndKey::from(pair));
    let config = |verifier: Option<&Arc<dyn ClientCertVerifier>>, protocol: &[u8]| {
        let clock = Arc::new(WallTime(Arc::clone(clock)));
        let builder = ServerConfig::builder_with_details(Arc::clone(&provider), clock)
            .with_protocol_versions(&[&TLS13, &TLS12])
            .expect("ring has cipher suites for both versions");
        let builder = match verifier {
            Some(verifier) => builder.with_client_cert_verifier(Arc::clone(verifier)),
            None => builder.with_no_client_auth(),
        };
        let mut config = builder.with_cert_resolver(resolver.clone());
        config.alpn_protocols = vec![protocol.to_vec()];
        // A connection that took up another's session would go by the authorities of that one.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Arc::new(config)
    };
    Ok(Set {
        http: config(verifier.as_ref(), b"http/1.1"),
        grpc: config(verifier.as_ref(), b"h2"),
        admin: config(None, b"http/1.1"),
        facts,
    })
}

fn chain(text: &Text) -> Result<Vec<CertificateDer<'static>>, Fault> {
    let chain = certificates(text.as_ref().map_err(Clone::clone)?)?;
    match chain.is_empty() {
        true => Err(Fault::NoCertificate),
        false => Ok(chain),
    }
}

fn certificates(text: &[u8]) -> Result<Vec<CertificateDer<'static>>, Fault> {
    let all: Result<Vec<_>, pem::Error> = CertificateDer::pem_slice_iter(text).collect();
    // What the error quotes may be anything.
    let all = all.map_err(|_| Fault::Damaged)?;
    match all
        .iter()
        .position(|it| EndEntityCert::try_from(it).is_err())
    {
        Some(index) => Err(Fault::NotACertificate { number: index + 1 }),
        None => Ok(all),
    }
}

/// What the certificate says of itself, if it may be used now.
fn facts(leaf: &CertificateDer<'_>, now: Timestamp) -> Result<Facts, Fault> {
    let unreadable = Fault::NotACertificate { number: 1 };
    let parsed = EndEntityCert::try_from(leaf).map_err(|_| unreadable.clone())?;
    let validity = validity(leaf).ok_or(unreadable)?;
    if now > validity.until {
        return Err(Fault::Expired {
            until: validity.until,
        });
    }
    if now < validity.from {
        return Err(Fault::NotYetValid {
            from: validity.from,
        });
    }
    if !validity.for_servers {
        return Err(Fault::NotForServers);
    }
    let fingerprint = Sha256::digest(leaf);
    Ok(Facts {
        names: parsed.valid_dns_names().map(str::to_owned).collect(),
        fingerprint: fingerprint
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect(),
        from: validity.from,
        until: validity.until,
        authorities: None,
    })
}

/// True for both forms of PEM that a password protects.
fn has_password(key: &[u8]) -> bool {
    let marks = [
        "-----BEGIN ENCRYPTED PRIVATE KEY-----",
        "Proc-Type: 4,ENCRYPTED",
    ];
    let holds = |mark: &str| key.windows(mark.len()).any(|part| part == mark.as_bytes());
    marks.into_iter().any(holds)
}

/// The certificate with its key, if they belong together.
fn pair(
    files: &Files,
    chain: Vec<CertificateDer<'static>>,
    key: &Text,
    provider: &CryptoProvider,
) -> Result<CertifiedKey, Fault> {
    let key = key.as_ref().map_err(Clone::clone)?;
    if has_password(key) {
        return Err(Fault::Encrypted);
    }
    let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| match error {
        pem::Error::NoItemsFound => Fault::NoKey,
        _ => Fault::Damaged,
    })?;
    let kind = unverifiable(&chain[0], provider);
    CertifiedKey::from_der(chain, key, provider).map_err(|error| match error {
        Error::InconsistentKeys(_) => Fault::Mismatch {
            certificate: files.certificate.clone(),
        },
        _ => Fault::StrangeKey { kind },
    })
}

/// Those that can be used; at least one.
fn authorities(text: &Text, provider: &CryptoProvider) -> Result<RootCertStore, Fault> {
    let mut roots = RootCertStore::empty();
    let certificates = certificates(text.as_ref().map_err(Clone::clone)?)?;
    let kinds = certificates.iter().map(|it| unverifiable(it, provider));
    if let Some((kind, number)) = kinds.zip(1..).find_map(|(kind, at)| Some((kind?, at))) {
        return Err(Fault::StrangeAuthority { number, kind });
    }
    roots.add_parsable_certificates(certificates);
    match roots.is_empty() {
        true => Err(Fault::NoAuthority),
        false => Ok(roots),
    }
}

/// The wall clock, as rustls asks for it.
struct WallTime(Arc<dyn Clock>);

impl fmt::Debug for WallTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WallTime")
    }
}

impl TimeProvider for WallTime {
    fn current_time(&self) -> Option<UnixTime> {
        let second = u64::try_from(self.0.now().wall.as_second()).ok()?;
        Some(UnixTime::since_unix_epoch(Duration::from_secs(second)))
    }
}
