//! The tokens that were issued, and what each is worth now.

use std::collections::HashMap;
use std::time::Duration;

use sha2::{Digest, Sha256};

use super::budget::Window;

/// The width over which spending is limited.
const SPENDING_WINDOW: Duration = Duration::from_secs(1);

/// The length of every token.
const TOKEN_LENGTH: usize = 64;

/// The first eight hexadecimal digits of a token's SHA-256: enough to tell tokens apart, useless for spending.
pub fn fingerprint(token: &str) -> String {
    let digest = Sha256::digest(token.as_bytes());
    digest
        .iter()
        .take(4)
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// What a token is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Worth {
    /// It may be spent.
    Live,
    /// Its life is over.
    Expired,
    /// It was revoked, or never issued.
    Unknown,
    /// It does not have the form of a token.
    Unparsable,
}

struct Issued {
    token: String,
    ends: Duration,
    key: usize,
    revoked: bool,
    spends: Window,
}

/// Every token ever issued, in the order of issue.
#[derive(Default)]
pub(super) struct TokenTable {
    issued: Vec<Issued>,
    by_token: HashMap<String, usize>,
}

impl TokenTable {
    /// Issues a token of 64 random alphanumerics that lives while `now < ends`; its generation counts from one.
    pub(super) fn issue(&mut self, key: usize, ends: Duration) -> (String, u64) {
        let token: String = (0..TOKEN_LENGTH)
            .map(|_| fastrand::alphanumeric())
            .collect();
        self.by_token.insert(token.clone(), self.issued.len());
        self.issued.push(Issued {
            token: token.clone(),
            ends,
            key,
            revoked: false,
            spends: Window::new(SPENDING_WINDOW),
        });
        (token, self.issued.len() as u64)
    }

    /// The newest token and its generation.
    pub(super) fn newest(&self) -> Option<(String, u64)> {
        let newest = self.issued.last()?;
        Some((newest.token.clone(), self.issued.len() as u64))
    }

    /// What `token` is worth at `now`.
    pub(super) fn worth(&self, token: &str, now: Duration) -> Worth {
        if token.len() != TOKEN_LENGTH || !token.bytes().all(|b| b.is_ascii_alphanumeric()) {
            return Worth::Unparsable;
        }
        match self.by_token.get(token).map(|index| &self.issued[*index]) {
            None => Worth::Unknown,
            Some(issued) if issued.revoked => Worth::Unknown,
            Some(issued) if now >= issued.ends => Worth::Expired,
            Some(_) => Worth::Live,
        }
    }

    /// Takes one of the `limit` spends per second of a token; false if none is left.
    pub(super) fn charge(&mut self, token: &str, limit: u32, now: Duration) -> bool {
        let Some(index) = self.by_token.get(token) else {
            return false;
        };
        let spends = &mut self.issued[*index].spends;
        let free = spends.count(now) < usize::try_from(limit).unwrap_or(usize::MAX);
        if free {
            spends.record(now);
        }
        free
    }

    /// Revokes one token; false if it was not there to be revoked.
    pub(super) fn revoke(&mut self, token: &str) -> bool {
        match self.by_token.get(token) {
            Some(index) => !std::mem::replace(&mut self.issued[*index].revoked, true),
            None => false,
        }
    }

    /// Revokes every token that `chosen` picks by the index of its key; says how many were not revoked before.
    pub(super) fn revoke_where(&mut self, chosen: impl Fn(usize) -> bool) -> usize {
        let mut revoked = 0;
        for issued in self.issued.iter_mut().filter(|it| chosen(it.key)) {
            revoked += usize::from(!std::mem::replace(&mut issued.revoked, true));
        }
        revoked
    }

    /// How many tokens may be spent at `now`.
    pub(super) fn live(&self, now: Duration) -> usize {
        let live = |issued: &&Issued| !issued.revoked && now < issued.ends;
        self.issued.iter().filter(live).count()
    }

    /// Every token ever issued, in the order of issue.
    pub(super) fn all(&self) -> Vec<String> {
        self.issued.iter().map(|it| it.token.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    #[test]
    fn a_token_lives_until_its_end_and_not_at_it() {
        let mut table = TokenTable::default();
        let (token, generation) = table.issue(0, HOUR);
        assert_eq!(generation, 1);
        assert_eq!(
            table.worth(&token, HOUR - Duration::from_nanos(1)),
            Worth::Live
        );
        assert_eq!(table.worth(&token, HOUR), Worth::Expired);
    }

    #[test]
    fn tokens_coexist_until_they_are_revoked() {
        let mut table = TokenTable::default();
        let (first, _) = table.issue(0, HOUR);
        let (second, _) = table.issue(1, HOUR);
        assert_eq!(table.live(Duration::ZERO), 2);
        assert_eq!(table.revoke_where(|key| key == 0), 1);
        assert_eq!(table.worth(&first, Duration::ZERO), Worth::Unknown);
        assert_eq!(table.worth(&second, Duration::ZERO), Worth::Live);
        assert!(table.revoke(&second));
        assert!(!table.revoke(&second));
    }

    #[test]
    fn only_sixty_four_alphanumerics_are_a_token() {
        let table = TokenTable::default();
        let worth = |token: &str| table.worth(token, Duration::ZERO);
        assert_eq!(worth(&"a".repeat(64)), Worth::Unknown);
        assert_eq!(worth(&"a".repeat(63)), Worth::Unparsable);
        assert_eq!(worth(&"-".repeat(64)), Worth::Unparsable);
        assert_eq!(worth(""), Worth::Unparsable);
    }

    #[test]
    fn spending_is_limited_per_token_and_per_second() {
        let mut table = TokenTable::default();
        let (one, _) = table.issue(0, HOUR);
        let (other, _) = table.issue(0, HOUR);
        assert!((0..100).all(|_| table.charge(&one, 100, Duration::ZERO)));
        assert!(!table.charge(&one, 100, SPENDING_WINDOW));
        assert!(table.charge(&other, 100, SPENDING_WINDOW));
        assert!(table.charge(&one, 100, SPENDING_WINDOW + Duration::from_nanos(1)));
    }

    #[test]
    fn a_fingerprint_is_the_head_of_the_sha_256() {
        assert_eq!(fingerprint("abc"), "ba7816bf");
    }
}
