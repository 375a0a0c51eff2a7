//! What is vended: a token, its generation and its times.
//!
//! Values only: nothing here reads a clock, a file or a socket, and nothing here prints a secret.

use std::fmt;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use crate::clock::Stamp;

/// The longest text that is taken for a token; Truecaller's have a few hundred bytes.
const MOST_BYTES: usize = 8192;

/// Text that must never be shown. It is wiped when dropped, and only [`Secret::expose`] opens it.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// Takes the text over.
    pub fn new(text: String) -> Self {
        Self(Zeroizing::new(text))
    }

    /// The text itself. Whoever calls this answers for where it goes.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// True for what a token can be: visible ASCII, so that it fits into a header, and not absurdly long.
    pub fn could_be_token(&self) -> bool {
        (1..=MOST_BYTES).contains(&self.0.len())
            && self.0.bytes().all(|byte| byte.is_ascii_graphic())
    }

    /// The first eight hex digits of the text's SHA-256: enough to tell two secrets apart, not enough to find one.
    pub fn fingerprint(&self) -> String {
        let digest = Sha256::digest(self.0.as_bytes());
        digest[..4]
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// What holds a secret and is sent, shared by all who send it, and wiped when the last of them is done.
///
/// Out of reach are the buffers of those who send and receive for us: the HTTP and TLS libraries' own, and the system's. What went
/// through them stays until something else is put there.
pub fn wiped(text: Vec<u8>) -> Bytes {
    Bytes::from_owner(Zeroizing::new(text))
}

/// Numbers the attempts to mint, and so the tokens. It is allotted when an attempt begins, rises strictly, and may have gaps. The
/// first of a new record is the Unix second of its birth, so that nothing remembered from a lost record can match.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Generation(pub u64);

impl Generation {
    /// The one after this one.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A token as the record keeps it and callers get it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    /// The attempt that minted it.
    pub generation: Generation,
    /// What is sent to the issuer's endpoints behind `Authorization: Bearer`.
    pub secret: Secret,
    /// The moment before the request that minted it was sent.
    pub issued_at: Stamp,
    /// From when on a successor is wanted.
    pub refresh_at: Stamp,
    /// From when on it is never vended: `issued_at` + the lifetime, or earlier where the answer showed it to be older.
    pub expires_at: Stamp,
}

/// Where a token stands in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Freshness {
    /// Vended; nothing to do.
    Fresh,
    /// Vended, and a successor is wanted.
    Due,
    /// Never vended again.
    Expired,
}

impl Token {
    /// What to do with the token at `now`. The caller does it.
    pub fn freshness(&self, now: Stamp) -> Freshness {
        if self.expired(now) {
            Freshness::Expired
        } else if self.refresh_at.reached(now) {
            Freshness::Due
        } else {
            Freshness::Fresh
        }
    }

    /// True from `expires_at` on, by whichever clock gets there first.
    pub fn expired(&self, now: Stamp) -> bool {
        self.expires_at.reached(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::Timestamp;
    use std::time::Duration;

    fn at(second: u64) -> Stamp {
        Stamp {
            wall: Timestamp::from_second(1_000_000 + i64::try_from(second).unwrap()).unwrap(),
            boot: Duration::from_secs(second),
        }
    }

    #[test]
    fn a_token_is_fresh_then_due_then_expired_each_from_its_moment_on() {
        let token = Token {
            generation: Generation(7),
            secret: Secret::new("opaque".into()),
            issued_at: at(0),
            refresh_at: at(10),
            expires_at: at(20),
        };
        assert_eq!(token.freshness(at(9)), Freshness::Fresh);
        assert_eq!(token.freshness(at(10)), Freshness::Due);
        assert_eq!(token.freshness(at(19)), Freshness::Due);
        assert_eq!(token.freshness(at(20)), Freshness::Expired);
        let stepped_back = Stamp {
            wall: at(0).wall,
            boot: at(20).boot,
        };
        assert_eq!(token.freshness(stepped_back), Freshness::Expired);
    }

    #[test]
    fn a_secret_shows_nothing_but_its_fingerprint() {
        let secret = Secret::new("hush-hush".into());
        assert!(!format!("{secret:?} {:#?}", Some(secret.clone())).contains("hush"));
        assert_eq!(secret.fingerprint().len(), 8);
        assert_ne!(
            secret.fingerprint(),
            Secret::new("hush-husi".into()).fingerprint()
        );
    }
}
