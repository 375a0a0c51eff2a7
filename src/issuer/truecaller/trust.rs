//! The authorities that may vouch for the issuer: the system's, as they are at each attempt.
//!
//! An attempt comes twice an hour, so that what an update of the system adds or withdraws holds
//! from the next one on, without a restart.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use rustls::ClientConfig;
use rustls_platform_verifier::ConfigVerifierExt;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

/// How TLS is spoken with the issuer.
pub(super) struct Trust {
    last: ArcSwap<ClientConfig>,
}

impl Trust {
    /// Reads the system's authorities. Fails where there are none.
    pub(super) fn read() -> Result<Self, rustls::Error> {
        Ok(Self {
            last: ArcSwap::from_pointee(read()?),
        })
    }

    /// With the authorities of now; with those of before where there are none, or the disk does not
    /// answer within `max_time`.
    pub(super) async fn current(&self, max_time: Duration) -> Arc<ClientConfig> {
        match timeout(max_time, spawn_blocking(read)).await {
            Ok(Ok(Ok(config))) => self.last.store(Arc::new(config)),
            Ok(Ok(Err(error))) => tracing::warn!(
                %error,
                "the certificate roots cannot be read again; those of before are kept (the package is ca-certificates)"
            ),
            Ok(Err(_)) | Err(_) => {
                tracing::warn!(
                    "the certificate roots are not read in time; those of before are kept"
                );
            }
        }
        self.last.load_full()
    }
}

/// A client without TLS wants a provider too.
pub(super) fn install_provider() {
    // Whoever installed one first, it is the same one.
    let _ = rustls::crypto::ring::default_provider().install_default();
}

fn read() -> Result<ClientConfig, rustls::Error> {
    install_provider();
    let mut config = ClientConfig::with_platform_verifier()?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

/// Why no issuer could be trusted over TLS; `None` if some could.
pub fn missing_roots() -> Option<rustls::Error> {
    read().err()
}
