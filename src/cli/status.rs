//! `status`: asks a running daemon how things stand.

mod document;
mod render;

use std::time::Duration;

use reqwest::Client;
use zeroize::Zeroizing;

use super::{Console, Exit, Form};
use crate::config::{self, Sources};
use crate::listener::Address;
use document::Document;

/// A daemon on this machine answers in milliseconds.
const PATIENCE: Duration = Duration::from_secs(5);

/// The document is a few tens of kilobytes at most.
const MOST_BYTES: usize = 1 << 20;

const USUAL_ADDRESS: &str = "127.0.0.1:7292";

/// The document as it came and as it was read.
struct Answer {
    text: Zeroizing<Vec<u8>>,
    document: Document,
}

/// Why there is no document.
enum Refusal {
    /// Nobody answers there, or not now.
    Unreachable(String),
    /// Somebody answers, with something else.
    Strange(String),
}

pub(super) fn run(
    admin: Option<&str>,
    sources: &Sources,
    format: Form,
    console: &mut Console<'_>,
) -> Exit {
    match ask(admin, sources) {
        Ok(Answer { text, document }) => {
            let rendered = match format {
                Form::Text => render::render(&document, console.width, console.out_colour),
                Form::Json => format!("{}\n", String::from_utf8_lossy(&text).trim_end()),
            };
            console.print(&rendered);
            match document.has_live_token() {
                true => Exit::Done,
                false => Exit::TryAgain,
            }
        }
        Err((exit, why)) => {
            console.tell(&why);
            exit
        }
    }
}

/// The answer, or how to end and what to say.
fn ask(admin: Option<&str>, sources: &Sources) -> Result<Answer, (Exit, String)> {
    let address = address(admin, sources)?;
    let text = super::block_on(fetch(&address)).map_err(|refusal| match refusal {
        Refusal::Unreachable(why) => {
            let hint = "is it running, and is this its admin.listen?";
            (
                Exit::TryAgain,
                format!("no daemon answers at {address} ({why}); {hint}"),
            )
        }
        Refusal::Strange(why) => {
            let text = format!("{address} is not the admin address of a bearerd ({why})");
            (Exit::Failed, text)
        }
    })?;
    match serde_json::from_slice(&text) {
        Ok(document) => Ok(Answer { text, document }),
        Err(error) => {
            let why = format!("{address} gave no status that can be read ({error})");
            Err((Exit::Failed, why))
        }
    }
}

/// Where to ask: as told, or as the settings say, or at the usual place.
fn address(admin: Option<&str>, sources: &Sources) -> Result<Address, (Exit, String)> {
    if let Some(text) = admin {
        return text
            .parse()
            .map_err(|error| (Exit::Usage, format!("--admin: {error}")));
    }
    let wrong = || {
        let why =
            "admin.listen cannot be read; run `bearerd check`, or name the address with --admin";
        (Exit::BadSettings, why.to_owned())
    };
    let listen = config::admin_addresses(sources).ok_or_else(wrong)?;
    let usual = || USUAL_ADDRESS.parse().expect("the usual address is one");
    Ok(listen.into_iter().next().unwrap_or_else(usual))
}

async fn fetch(address: &Address) -> Result<Zeroizing<Vec<u8>>, Refusal> {
    // Whoever installed a provider first, it is the same one. No certificate is looked for: this is plain HTTP.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let builder = Client::builder()
        .user_agent(concat!("bearerd/", env!("CARGO_PKG_VERSION")))
        .redirect(reqwest::redirect::Policy::none())
        .tls_certs_only([])
        .no_proxy()
        .timeout(PATIENCE);
    let named = address.to_string();
    let (builder, host) = match named.strip_prefix("unix:") {
        Some(path) => (
            builder.unix_socket(std::path::PathBuf::from(path)),
            "localhost",
        ),
        None => (builder, named.as_str()),
    };
    // What listens everywhere is asked here.
    let host = host
        .replacen("0.0.0.0:", "127.0.0.1:", 1)
        .replacen("[::]:", "[::1]:", 1);
    let unreachable = |error: &reqwest::Error| Refusal::Unreachable(causes(error));
    let client = builder.build().map_err(|error| unreachable(&error))?;
    let request = client
        .get(format!("http://{host}/status"))
        .header("X-Bearerd-Request", "true");
    let mut response = request.send().await.map_err(|error| unreachable(&error))?;
    if !response.status().is_success() {
        return Err(Refusal::Strange(format!(
            "it answers {}",
            response.status()
        )));
    }
    let mut text = Zeroizing::new(Vec::new());
    while let Some(chunk) = response
        .chunk()
        .await
        .map_err(|error| unreachable(&error))?
    {
        if text.len() + chunk.len() > MOST_BYTES {
            return Err(Refusal::Strange("its answer does not end".into()));
        }
        text.extend_from_slice(&chunk);
    }
    Ok(text)
}

/// The innermost cause says it best.
fn causes(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}

#[cfg(test)]
mod tests;
