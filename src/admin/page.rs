//! `/`: a page to look at. It is one document that loads nothing but `/status`, and its policy says so to the browser.

use bytes::Bytes;
use hyper::Response;
use hyper::header::{
    CONTENT_SECURITY_POLICY, HeaderValue, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};
use sha2::{Digest, Sha256};

use super::document;
use crate::listener::Body;

const PAGE: &str = include_str!("page.html");

/// The page and its policy, prepared once.
pub(super) struct Page {
    policy: HeaderValue,
}

impl Page {
    pub(super) fn new() -> Self {
        let policy = format!(
            "default-src 'none'; script-src 'sha256-{}'; style-src 'sha256-{}'; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
            digest(between(PAGE, "<script>", "</script>")),
            digest(between(PAGE, "<style>", "</style>")),
        );
        Self {
            policy: HeaderValue::try_from(policy).expect("digests make a header value"),
        }
    }

    pub(super) fn response(&self) -> Response<Body> {
        let mut response = document(
            "text/html; charset=utf-8",
            Bytes::from_static(PAGE.as_bytes()),
        );
        let headers = response.headers_mut();
        headers.insert(CONTENT_SECURITY_POLICY, self.policy.clone());
        headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
        response
    }
}

fn between<'a>(text: &'a str, begin: &str, end: &str) -> &'a str {
    let (_, rest) = text.split_once(begin).expect("the page has it once");
    rest.split_once(end).expect("what begins, ends").0
}

/// The SHA-256 in base64.
fn digest(text: &str) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let digest = Sha256::digest(text.as_bytes());
    let mut written = String::with_capacity(44);
    for group in digest.chunks(3) {
        let bits = (0..3).fold(0_usize, |bits, place| {
            bits << 8 | usize::from(group.get(place).copied().unwrap_or(0))
        });
        for place in 0..4 {
            let letter = ALPHABET[bits >> (18 - 6 * place) & 63];
            written.push(if place > group.len() {
                '='
            } else {
                letter.into()
            });
        }
    }
    written
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_digest_is_the_one_browsers_compute() {
        // echo -n "alert('Hello, world.');" | openssl dgst -sha256 -binary | openssl base64
        assert_eq!(
            digest("alert('Hello, world.');"),
            "qznLcsROx4GACP2dm0UCKCzCG+HiZ1guq6ZZDob/Tng="
        );
    }

    #[test]
    fn the_page_loads_nothing_from_elsewhere_and_writes_no_markup_of_others() {
        for word in [
            "http:",
            "https:",
            "src=",
            "@import",
            "url(",
            "innerHTML",
            " style=",
            " onclick=",
        ] {
            assert!(!PAGE.contains(word), "{word}");
        }
        assert!(PAGE.contains("fetch(\"status\""));
    }
}
