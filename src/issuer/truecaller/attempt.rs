//! One attempt: a connection of its own, one POST on it, and its answer.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use reqwest::Client;
use reqwest::header::{ACCEPT, CONTENT_TYPE};
use rustls::ClientConfig;
use serde::Serialize;
use tokio::time::Instant;
use zeroize::Zeroizing;

use super::connection::{Connection, Entrance};
use super::in_time::{InTime, was_withheld};
use super::{Response, Settings, Truecaller, causes, transport};
use crate::clock::Stamp;
use crate::issuer::{Answer, Delivery, Key};
use crate::token::wiped;

/// An answer's body is a few hundred bytes; whatever is longer is not read on.
const MOST_BYTES: usize = 64 * 1024;

/// So much fits without a second place for it.
const USUAL_BYTES: usize = 16 * 1024;

#[derive(Serialize)]
struct Asked<'a> {
    key_id: &'a str,
    api_key: &'a str,
}

impl Truecaller {
    /// Connects, and asks once. Dropping it resets the connection.
    pub(super) async fn attempt(
        &self,
        key: &Key,
        send_by: Duration,
        sent_at: Stamp,
    ) -> Result<Response, Answer> {
        let not_sent = |detail| Answer::NotSent { detail };
        let connect_by = Instant::now() + self.settings.timeout / 2;
        let url = &self.settings.mint_url;
        let delivery = self.delivery(send_by, sent_at);
        let tls = match &self.tls {
            Some(trust) => Some(trust.current(self.settings.timeout / 4).await),
            None => None,
        };
        let opened = Connection::open(url, self.settings.timeout / 2, delivery).await;
        let mut connection = opened.map_err(not_sent)?;
        let entrance = Entrance::new().map_err(|error| not_sent(error.to_string()))?;
        let client = client(tls.as_deref(), &entrance, connect_by);
        let client = client.map_err(|error| not_sent(causes(error, key)))?;
        let until = sent_at.boot + self.settings.timeout;
        let exchange = exchange(self.request(&client, key, until));
        tokio::pin!(exchange);
        let in_time = || self.clock.now().boot <= until;
        let (outcome, broken) = tokio::select! {
            biased;
            outcome = &mut exchange => (outcome, None),
            carried = connection.carry(entrance, in_time) => (exchange.await, carried.err()),
        };
        match outcome {
            Ok(response) => {
                connection.close();
                Ok(response)
            }
            Err(error) => {
                let sent = !(error.is_connect() || error.is_builder() || was_withheld(&error));
                let detail = self.explained(error, broken, key);
                Err(match sent {
                    true => Answer::Lost {
                        answered: false,
                        detail,
                    },
                    false => not_sent(detail),
                })
            }
        }
    }

    /// What broke: the connection to the issuer, or the exchange over it.
    fn explained(&self, error: reqwest::Error, broken: Option<io::Error>, key: &Key) -> String {
        let (url, connecting) = (&self.settings.mint_url, error.is_connect());
        let ours = match &broken {
            Some(broken) => transport::explain(broken, connecting, url),
            None => transport::explain(&error, connecting, url),
        };
        let library = broken.map_or_else(|| causes(error, key), |broken| broken.to_string());
        transport::with_library(ours, library)
    }

    fn request(&self, client: &Client, key: &Key, until: Duration) -> reqwest::RequestBuilder {
        let asked = Asked {
            key_id: key.key_id.expose(),
            api_key: key.api_key.expose(),
        };
        client
            .post(self.settings.mint_url.clone())
            .header("X-Public-Access", "allow")
            .header(CONTENT_TYPE, "application/json")
            .header(ACCEPT, "application/vnd.api+json; version=1.0")
            .body(reqwest::Body::wrap(InTime {
                bytes: Some(written(&asked)),
                clock: Arc::clone(&self.clock),
                until,
            }))
    }

    /// How long the system may go on delivering the request of this attempt by itself.
    pub(super) fn delivery(&self, send_by: Duration, sent_at: Stamp) -> Delivery {
        let Settings {
            timeout, in_flight, ..
        } = self.settings;
        Delivery::of(timeout, in_flight, send_by, sent_at.boot)
    }
}

/// A client for one attempt, which finds the issuer behind this entrance.
fn client(
    tls: Option<&ClientConfig>,
    entrance: &Entrance,
    connect_by: Instant,
) -> reqwest::Result<Client> {
    let client = match tls {
        Some(tls) => Client::builder().tls_backend_preconfigured(tls.clone()),
        None => Client::builder().tls_certs_only([]),
    };
    client
        .user_agent(concat!("bearerd/", env!("CARGO_PKG_VERSION")))
        .retry(reqwest::retry::never())
        .redirect(reqwest::redirect::Policy::none())
        .pool_max_idle_per_host(0)
        .http1_only()
        .no_proxy()
        .unix_socket(entrance.name())
        .connect_timeout(connect_by.saturating_duration_since(Instant::now()))
        .build()
}

/// The request's body, in a place of its size: what grows leaves a copy behind.
fn written(asked: &Asked<'_>) -> Bytes {
    let mut body = Vec::with_capacity(64 + 2 * (asked.key_id.len() + asked.api_key.len()));
    serde_json::to_writer(&mut body, asked).expect("two texts are JSON");
    wiped(body)
}

/// The one POST, and its answer up to [`MOST_BYTES`].
async fn exchange(request: reqwest::RequestBuilder) -> Result<Response, reqwest::Error> {
    let mut response = request.send().await?;
    let mut body = Zeroizing::new(Vec::with_capacity(USUAL_BYTES));
    while let Some(chunk) = response.chunk().await? {
        let room = MOST_BYTES - body.len();
        body.extend_from_slice(&chunk[..chunk.len().min(room)]);
        if chunk.len() >= room {
            break;
        }
    }
    Ok(Response {
        status: response.status(),
        headers: response.headers().clone(),
        body,
    })
}
