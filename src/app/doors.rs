//! Every address opened, with the protection that the settings ask for.

use std::sync::Arc;

use arc_swap::ArcSwap;
use prometheus::Registry;
use rustls::ServerConfig;

use super::BindError;
use crate::clock::Clock;
use crate::config::{Config, Secured};
use crate::listener::{Address, Handshakes, Listener, SocketAccess, Tls};
use crate::tls::{self, Credentials};

/// What callers and operators reach.
pub(super) struct Doors {
    pub(super) http: Vec<Listener>,
    pub(super) grpc: Vec<Listener>,
    pub(super) admin: Vec<Listener>,
    pub(super) credentials: Option<Credentials>,
}

/// One section's addresses, as the settings say them.
struct Section<'a> {
    path: &'static str,
    flag: &'static str,
    listen: &'a [Address],
    socket: SocketAccess,
    secured: Secured,
    /// Whether addresses that other machines can reach may be opened with TLS, and without.
    outward: Outward,
}

#[derive(Clone, Copy)]
enum Outward {
    /// Operators are shown no token.
    Free,
    /// Callers have certificates, and rules know them.
    WithTls,
    /// Nobody could tell who asks.
    Never,
}

impl Doors {
    /// Reads the TLS files and takes all addresses. Nothing is answered yet.
    pub(super) async fn open(
        config: &Config,
        clock: &Arc<dyn Clock>,
        registry: &Registry,
    ) -> Result<Self, BindError> {
        let handshakes = Handshakes::register(registry);
        let metrics = tls::Metrics::register(registry);
        let asked = config.tls.as_ref().is_some_and(|it| it.client_ca.is_some());
        let credentials = match &config.tls {
            Some(files) => Some(Credentials::load(
                files.clone(),
                Arc::clone(clock),
                metrics,
            )?),
            None => None,
        };
        let tls = |of: fn(&Credentials) -> Arc<ArcSwap<ServerConfig>>| {
            let current = credentials.as_ref().map(of);
            current.map(|it| Tls::new(it, handshakes.clone()))
        };
        let ruled = config.callers.iter().any(|it| !it.sans.is_empty());
        let outward = match asked && ruled {
            true => Outward::WithTls,
            false => Outward::Never,
        };
        let http = Section {
            path: "http.listen",
            flag: "--http-listen",
            listen: &config.http.listen,
            socket: config.http.socket,
            secured: config.http.tls,
            outward,
        };
        let grpc = Section {
            path: "grpc.listen",
            flag: "--grpc-listen",
            listen: &config.grpc.listen,
            socket: config.grpc.socket,
            secured: config.grpc.tls,
            outward,
        };
        let admin = Section {
            path: "admin.listen",
            flag: "--admin-listen",
            listen: &config.admin.listen,
            socket: config.admin.socket,
            secured: config.admin.tls,
            outward: Outward::Free,
        };
        Ok(Self {
            http: http.open(tls(Credentials::http)).await?,
            grpc: grpc.open(tls(Credentials::grpc)).await?,
            admin: admin.open(tls(Credentials::admin)).await?,
            credentials,
        })
    }
}

impl Section<'_> {
    async fn open(&self, tls: Option<Tls>) -> Result<Vec<Listener>, BindError> {
        let mut open = Vec::with_capacity(self.listen.len());
        for written in self.listen {
            let listener = Listener::bind_with(written, self.socket).await;
            let listener = listener.map_err(|source| BindError::Listener {
                path: self.path,
                flag: self.flag,
                source,
            })?;
            open.push(self.protect(written, listener, tls.as_ref())?);
        }
        Ok(open)
    }

    /// Where a name leads is known only now: an address that other machines can reach is protected as such, whatever it is called.
    fn protect(
        &self,
        written: &Address,
        listener: Listener,
        tls: Option<&Tls>,
    ) -> Result<Listener, BindError> {
        let bound = listener.local_address();
        let secured = self.secured.covers(written) || self.secured.covers(bound);
        let allowed = match self.outward {
            _ if bound.is_local() => true,
            Outward::Free => true,
            Outward::WithTls => secured,
            Outward::Never => false,
        };
        match (allowed, secured, tls) {
            (true, false, _) => Ok(listener),
            (true, true, Some(tls)) => Ok(listener.with_tls(tls.clone())),
            (false, _, _) | (_, true, None) => Err(BindError::Reachable {
                path: self.path,
                written: written.clone(),
                address: bound.clone(),
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use prometheus::Registry;

    fn tls() -> Tls {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ServerConfig::builder_with_provider(provider);
        let config = builder.with_safe_default_protocol_versions().unwrap();
        let nobodys = Arc::new(rustls::server::ResolvesServerCertUsingSni::new());
        let config = config.with_no_client_auth().with_cert_resolver(nobodys);
        let current = Arc::new(ArcSwap::new(Arc::new(config)));
        Tls::new(current, Handshakes::register(&Registry::new()))
    }

    #[tokio::test]
    async fn a_name_that_leads_to_other_machines_is_protected_as_such() {
        // As if a name of this machine led there.
        let written = Address::Tcp {
            host: "localhost".to_owned(),
            port: 0,
        };
        let cases = [
            (Secured::Outward, Outward::WithTls, Some(tls()), Some(true)),
            (Secured::Always, Outward::WithTls, Some(tls()), Some(true)),
            (Secured::Never, Outward::WithTls, Some(tls()), None),
            (Secured::Outward, Outward::Never, Some(tls()), None),
            (Secured::Outward, Outward::Never, None, None),
            (Secured::Never, Outward::Free, None, Some(false)),
            (Secured::Outward, Outward::Free, Some(tls()), Some(true)),
            (Secured::Outward, Outward::Free, None, None),
        ];
        for (index, (secured, outward, tls, expected)) in cases.into_iter().enumerate() {
            let section = Section {
                path: "http.listen",
                flag: "--http-listen",
                listen: &[],
                socket: SocketAccess::default(),
                secured,
                outward,
            };
            let listener = Listener::bind(&"0.0.0.0:0".parse().unwrap()).await.unwrap();
            let opened = section.protect(&written, listener, tls.as_ref());
            if let Err(error) = &opened {
                let told = error.to_string();
                let begins = "http.listen: localhost:0 leads to 0.0.0.0:";
                assert!(told.starts_with(begins), "{told}");
                assert!(error.is_about_settings());
            }
            let has_tls = opened.ok().map(|it| it.has_tls());
            assert_eq!(has_tls, expected, "case {index}");
        }
    }
}
