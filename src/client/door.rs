//! One daemon's door: plain HTTP over TCP or a Unix socket, one question at a time and nothing in the background.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use reqwest::header::{
    ACCEPT, CONTENT_TYPE, ETAG, HeaderMap, HeaderValue, IF_NONE_MATCH, RETRY_AFTER,
};
use reqwest::{Method, RequestBuilder, StatusCode};
use zeroize::Zeroizing;

use super::answer::{self, Reported, Told};
use super::{Failure, Token};
use crate::clock::Clock;
use crate::listener::Address;
use crate::token::Generation;

/// A daemon on this machine answers in milliseconds.
const PATIENCE: Duration = Duration::from_secs(5);

/// The longest wait that a daemon grants for one question.
pub const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// A token's document has less than ten kilobytes, a status a few tens.
const MOST_BYTES: usize = 1 << 20;

/// So much fits without a second place for it.
const USUAL_BYTES: usize = 16 * 1024;

/// An answer's bytes. They are wiped when dropped.
pub type Body = Zeroizing<Vec<u8>>;

/// Where a daemon is asked. Clones are cheap and share connections.
#[derive(Clone, Debug)]
pub struct Door {
    address: Address,
    base: String,
    client: reqwest::Client,
}

/// An answer, read to its end.
pub(super) struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Body,
}

/// What asking for the token came to.
pub(super) enum Asked {
    /// A token that the asker does not have.
    New(Token, Body),
    /// The token that the asker has is still the one.
    Same,
}

impl Door {
    /// A door at this address. Nobody is asked yet. What listens everywhere is asked on this machine.
    ///
    /// # Errors
    /// The HTTP client cannot be made on this machine.
    pub fn new(address: &Address) -> Result<Self, Failure> {
        // Whoever installed a provider first, it is the same one. No certificate is looked for: this is plain HTTP.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut marked = HeaderMap::new();
        marked.insert("x-bearerd-request", HeaderValue::from_static("true"));
        let builder = reqwest::Client::builder()
            .user_agent(concat!("bearerd/", env!("CARGO_PKG_VERSION")))
            .default_headers(marked)
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never())
            .tls_certs_only([])
            .no_proxy()
            .connect_timeout(PATIENCE)
            .pool_max_idle_per_host(1);
        let (builder, host) = match address {
            Address::Unix(path) => (
                builder.unix_socket(PathBuf::from(path)),
                "localhost".to_owned(),
            ),
            Address::Tcp { host, port } => {
                let host = match host.as_str() {
                    "0.0.0.0" => "127.0.0.1",
                    "::" => "::1",
                    host => host,
                };
                let asked = Address::Tcp {
                    host: host.to_owned(),
                    port: *port,
                };
                // An image without a file of hosts knows no such name.
                let loopback: [IpAddr; 2] =
                    [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
                let loopback = loopback.map(|ip| SocketAddr::new(ip, *port));
                (
                    builder.resolve_to_addrs("localhost", &loopback),
                    asked.to_string(),
                )
            }
        };
        let client = builder.build().map_err(|error| Failure::Unreachable {
            address: address.clone(),
            why: innermost(&error),
        })?;
        Ok(Self {
            address: address.clone(),
            base: format!("http://{host}"),
            client,
        })
    }

    /// Whom it asks.
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// The live token and the document that brought it; where there is none, the daemon waits for one for up to `wait`, a minute at
    /// most.
    ///
    /// # Errors
    /// There is none, or the daemon cannot be asked. A token that has ended on its way is told as `expired`.
    pub async fn token(&self, wait: Duration, clock: &dyn Clock) -> Result<(Token, Body), Failure> {
        match self.ask(None, wait, clock).await? {
            Asked::New(token, _) if token.expired(clock.now()) => Err(Failure::NotNow {
                word: "expired".into(),
                detail: format!("the token of generation {} ends just now", token.generation),
                retry_after: Some(1),
            }),
            Asked::New(token, body) => Ok((token, body)),
            Asked::Same => {
                Err(self.strange("it says that nothing has changed, to somebody who has nothing"))
            }
        }
    }

    /// The token, unless it is still the one that the asker has; that is waited for.
    pub(super) async fn ask(
        &self,
        has: Option<&Token>,
        wait: Duration,
        clock: &dyn Clock,
    ) -> Result<Asked, Failure> {
        let mut request = self
            .request(Method::GET, "/v1/token")
            .header(ACCEPT, "application/json")
            .timeout(wait + PATIENCE);
        let seconds = wait.min(LONGEST_WAIT).as_secs_f64().ceil();
        if seconds > 0.0 {
            request = request.header("prefer", format!("wait={seconds}"));
        }
        if let Some(token) = has {
            request = request.header(IF_NONE_MATCH, token.etag.as_str());
        }
        let answer = self.send(request).await?;
        let now = clock.now();
        match answer.status {
            StatusCode::NOT_MODIFIED => Ok(Asked::Same),
            StatusCode::OK => {
                let etag = answer.headers.get(ETAG).and_then(|tag| tag.to_str().ok());
                let etag = etag.ok_or_else(|| self.strange("its answer has no ETag"))?;
                let token =
                    answer::token(&answer.body, etag, now).map_err(|why| self.strange(why))?;
                Ok(Asked::New(token, answer.body))
            }
            _ => Err(self.failure(&answer)),
        }
    }

    /// Tells the daemon how the issuer answered a token.
    ///
    /// # Errors
    /// The daemon cannot be asked now, or does not take the report.
    pub async fn report(
        &self,
        generation: Generation,
        status: u16,
        message: Option<&str>,
    ) -> Result<Reported, Failure> {
        let report = match message {
            Some(message) => {
                serde_json::json!({"generation": generation, "status": status, "message": message})
            }
            None => serde_json::json!({"generation": generation, "status": status}),
        };
        let request = self
            .request(Method::POST, "/v1/token/rejected")
            .header(CONTENT_TYPE, "application/json")
            .body(report.to_string());
        let answer = self.send(request).await?;
        if answer.status != StatusCode::ACCEPTED {
            return Err(self.failure(&answer));
        }
        Reported::parse(&answer.body, answer.retry_after())
            .ok_or_else(|| self.strange("its answer to a report is not the documented one"))
    }

    /// What a path of this door gives: for operators' questions.
    ///
    /// # Errors
    /// The daemon cannot be asked now, or there is nothing.
    pub async fn get(&self, path: &str) -> Result<Body, Failure> {
        self.plain(self.request(Method::GET, path)).await
    }

    /// What a path of this door answers to somebody who wants something done, without saying more.
    ///
    /// # Errors
    /// The daemon cannot be asked now, or does not do it.
    pub async fn post(&self, path: &str) -> Result<Body, Failure> {
        self.plain(self.request(Method::POST, path)).await
    }

    async fn plain(&self, request: RequestBuilder) -> Result<Body, Failure> {
        let answer = self.send(request).await?;
        match answer.status.is_success() {
            true => Ok(answer.body),
            false => Err(self.failure(&answer)),
        }
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.client
            .request(method, format!("{}{path}", self.base))
            .timeout(PATIENCE)
    }

    async fn send(&self, request: RequestBuilder) -> Result<Answer, Failure> {
        let mut response = request.send().await.map_err(|error| self.broken(&error))?;
        let (status, headers) = (response.status(), response.headers().clone());
        // What grows leaves a copy behind; an answer with a token is shorter than this.
        let mut body = Zeroizing::new(Vec::with_capacity(USUAL_BYTES));
        while let Some(chunk) = response
            .chunk()
            .await
            .map_err(|error| self.broken(&error))?
        {
            if body.len() + chunk.len() > MOST_BYTES {
                return Err(self.strange("its answer does not end"));
            }
            body.extend_from_slice(&chunk);
        }
        Ok(Answer {
            status,
            headers,
            body,
        })
    }

    fn broken(&self, error: &reqwest::Error) -> Failure {
        let (address, why) = (self.address.clone(), innermost(error));
        match error.is_connect() {
            true => Failure::Unreachable { address, why },
            false => Failure::NoAnswer { address, why },
        }
    }

    fn strange(&self, why: impl Into<String>) -> Failure {
        Failure::Strange {
            address: self.address.clone(),
            why: why.into(),
        }
    }

    fn failure(&self, answer: &Answer) -> Failure {
        let Some(Told { word, detail }) = Told::parse(&answer.body) else {
            return self.strange(format!("it answers {}", answer.status));
        };
        match answer.status {
            StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS => Failure::NotNow {
                word,
                detail,
                retry_after: answer.retry_after(),
            },
            status => Failure::Refused {
                address: self.address.clone(),
                status: status.as_u16(),
                word,
                detail,
            },
        }
    }
}

impl Answer {
    fn retry_after(&self) -> Option<u64> {
        self.headers.get(RETRY_AFTER)?.to_str().ok()?.parse().ok()
    }
}

/// The innermost cause says it best.
fn innermost(error: &reqwest::Error) -> String {
    if error.is_timeout() {
        return "it does not answer in time".into();
    }
    let mut cause: &dyn std::error::Error = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    cause.to_string()
}
