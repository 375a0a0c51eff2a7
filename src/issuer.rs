//! Who mints: one request, one answer, and what that answer means for the budget.

mod delivery;
mod key_files;
pub mod truecaller;

use std::pin::Pin;
use std::time::Duration;

use sha2::{Digest, Sha256};

use crate::clock::Stamp;
use crate::token::Secret;
pub use delivery::Delivery;
pub use key_files::{KeyError, KeyFiles, Look, NotAKey};

/// What an attempt to mint came to, told by what the issuer may have counted.
#[derive(Debug)]
pub enum Answer {
    /// A token.
    Minted(Minted),
    /// No byte of the request left this machine: nothing was counted.
    NotSent {
        /// What the system said.
        detail: String,
    },
    /// It may have been counted, and gave no token that can be used.
    Lost {
        /// Whether the issuer answered: then it is counted by now, if ever.
        answered: bool,
        /// What happened.
        detail: String,
    },
    /// The answer is not the issuer's: something that stands before it gave it. The request may have been counted, or may be yet.
    Intermediary {
        /// What it looked like.
        detail: String,
    },
    /// The issuer counts too many (429).
    Throttled {
        /// Its `Retry-After`, if it sent one that can be read.
        retry_after: Option<Duration>,
        /// What it said.
        detail: String,
    },
    /// The issuer refused, and will refuse the same request again.
    Refused {
        /// It was about the key (401, 403): another may do better.
        key_at_fault: bool,
        /// What it said.
        detail: String,
    },
}

/// A token as the issuer gave it.
#[derive(Debug)]
pub struct Minted {
    /// What callers will send.
    pub secret: Secret,
    /// The moment before the request was sent.
    pub sent_at: Stamp,
    /// How much older than `sent_at` the answer showed the token to be; zero where it did not.
    pub aged: Duration,
    /// What was odd about the answer, though not fatal.
    pub note: Option<String>,
}

/// What an issuer promises to answer later.
pub type Pending<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Mints tokens.
pub trait Issuer: Send + Sync {
    /// Sends at most one request, and none once the boot clock has passed `send_by`. Dropping the call leaves the outcome unknown.
    fn mint<'a>(&'a self, key: &'a Key, send_by: Duration) -> Pending<'a, Answer>;
}

/// One pair that may ask for tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    /// The key's id.
    pub key_id: Secret,
    /// The key itself.
    pub api_key: Secret,
}

/// The keys at hand, in the order in which they are tried. Never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Keys(Vec<Key>);

impl Keys {
    /// A set of keys; `None` where there is none.
    pub fn new(keys: Vec<Key>) -> Option<Self> {
        (!keys.is_empty()).then_some(Self(keys))
    }

    /// How many there are.
    pub fn count(&self) -> u32 {
        u32::try_from(self.0.len()).unwrap_or(u32::MAX)
    }

    /// The key with this index, modulo their number.
    pub fn pick(&self, index: u32) -> &Key {
        &self.0[index as usize % self.0.len()]
    }

    /// Tells one set of keys and address from another: sixteen hex digits of a SHA-256 over all of it.
    pub fn fingerprint_at(&self, mint_url: &str) -> String {
        let mut digest = Sha256::new();
        digest.update(mint_url.len().to_be_bytes());
        digest.update(mint_url.as_bytes());
        for key in &self.0 {
            for part in [&key.key_id, &key.api_key] {
                digest.update(part.expose().len().to_be_bytes());
                digest.update(part.expose().as_bytes());
            }
        }
        digest.finalize()[..8]
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect()
    }
}

impl Key {
    /// What looks like a slip of the pen in this pair, though it may be a key.
    pub fn oddities(&self) -> Vec<&'static str> {
        let halves = [&self.key_id, &self.api_key];
        let any = |is_odd: fn(&str) -> bool| halves.iter().any(|it| is_odd(it.expose()));
        let odd = [
            (
                any(is_quoted),
                "one of its files begins or ends with a quotation mark; if the key has none, remove it",
            ),
            // What base64 ends with is no sign of an assignment.
            (
                any(|text| text.trim_end_matches('=').contains('=')),
                "one of its files holds a `=`, as in NAME=value; if that is not a part of the key, write only the value",
            ),
            (
                self.key_id == self.api_key,
                "both of its files hold the same; one is the key's id, and the other is the key itself",
            ),
        ];
        let odd = odd.into_iter().filter(|(is_so, _)| *is_so);
        odd.map(|(_, what)| what).collect()
    }
}

fn is_quoted(text: &str) -> bool {
    let mark = |c: char| matches!(c, '"' | '\'' | '`');
    text.starts_with(mark) || text.ends_with(mark)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A pair for a test of this room.
    pub(super) fn key(id: &str, key: &str) -> Key {
        Key {
            key_id: Secret::new(id.into()),
            api_key: Secret::new(key.into()),
        }
    }

    #[test]
    fn keys_are_picked_in_turn_and_told_apart() {
        let keys = Keys::new(vec![key("a", "1"), key("b", "2")]).unwrap();
        assert_eq!(keys.pick(3), &key("b", "2"));
        let of = |keys: Vec<Key>, url: &str| Keys::new(keys).unwrap().fingerprint_at(url);
        let here = of(vec![key("a", "1"), key("b", "2")], "https://here/1");
        assert_eq!(here, keys.fingerprint_at("https://here/1"));
        for other in [
            of(vec![key("b", "2"), key("a", "1")], "https://here/1"),
            of(vec![key("a", "1"), key("b", "2")], "https://here/2"),
            of(vec![key("a", "1")], "https://here/1"),
        ] {
            assert_ne!(here, other);
        }
        assert_ne!(of(vec![key("ab", "c")], "x"), of(vec![key("a", "bc")], "x"));
        assert!(Keys::new(Vec::new()).is_none());
    }

    #[test]
    fn what_looks_like_a_slip_of_the_pen_is_told() {
        let odd = |id: &str, text: &str| key(id, text).oddities().join(" ");
        assert_eq!(odd("id", "key=="), "");
        assert_eq!(odd("an-id", "it's-a-key"), "");
        assert!(odd("id", "\"key\"").contains("quotation mark"));
        assert!(odd("'id", "key").contains("quotation mark"));
        assert!(odd("KEY_ID=id", "key").contains("NAME=value"));
        assert!(odd("same", "same").contains("both of its files hold the same"));
        assert_eq!(key("'a=b'", "'a=b'").oddities().len(), 3);
    }
}
