//! Who is meant by a name, and what they may do: what the settings say about a caller.

use std::fmt;
use std::num::NonZeroU32;
use std::str::FromStr;

/// The caller that nobody named: every process of this machine that no rule knows.
pub const LOCAL: &str = "local";

/// What the audit calls those who reach the admin listeners.
pub const OPERATOR: &str = "operator";

/// One caller of the settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named {
    /// What it is called in the audit. [`LOCAL`] is whoever has no other name.
    pub name: String,
    /// The users whose processes it is, on a Unix socket.
    pub uids: Vec<u32>,
    /// The groups whose processes it is, on a Unix socket, where no rule names their user. A process is known by the group that it
    /// had as its own when it connected: its further groups are not told.
    pub gids: Vec<u32>,
    /// The names that its certificate may have.
    pub sans: Vec<San>,
    /// What it may do.
    pub may: Rights,
    /// How many requests a second, if there is a bound.
    pub rate: Option<Rate>,
    /// How many watches and waits it may have open at a time, if there is a bound.
    pub streams: Option<NonZeroU32>,
}

/// How fast a caller may ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Requests a second, on average.
    pub per_second: NonZeroU32,
    /// Requests at once, after a rest.
    pub burst: NonZeroU32,
}

/// One thing that a caller may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Right {
    /// Get the token.
    Vend,
    /// Wait for the next token, or watch all.
    Watch,
    /// Report that a token was refused.
    Report,
    /// Begin verifications of users and get their results.
    Verify,
}

impl Right {
    /// All there are, in the order in which they are shown.
    pub const ALL: [Self; 4] = [Self::Vend, Self::Watch, Self::Report, Self::Verify];

    /// As the settings write it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Vend => "vend",
            Self::Watch => "watch",
            Self::Report => "report",
            Self::Verify => "verify",
        }
    }
}

/// A set of rights.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rights(u8);

impl Rights {
    /// Everything.
    pub fn all() -> Self {
        Right::ALL.into_iter().collect()
    }

    /// True if this is among them.
    pub fn include(self, right: Right) -> bool {
        self.0 & (1 << right as u8) != 0
    }

    /// The words for them, in order.
    pub fn words(self) -> Vec<String> {
        let held = Right::ALL.into_iter().filter(|&right| self.include(right));
        held.map(|right| right.word().to_owned()).collect()
    }
}

impl FromIterator<Right> for Rights {
    fn from_iter<T: IntoIterator<Item = Right>>(rights: T) -> Self {
        let bits = rights.into_iter().map(|right| 1 << right as u8);
        Self(bits.fold(0, |all, bit| all | bit))
    }
}

/// Which subject alternative names of a certificate a caller may have: a DNS name or a URI, exactly or with one `*` for one whole
/// level.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum San {
    /// `orders.shop.svc`, or `*.shop.svc` for any one label before the rest. Case does not matter.
    Dns(String),
    /// `spiffe://prod/ns/shop/sa/orders`, or with `*` in the place of one segment of the path. Case matters.
    Uri(String),
}

/// What is wrong with a name as it was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SanError {
    /// Neither form.
    #[error(
        "it is neither a DNS name nor a URI; expected such as orders.shop.svc or spiffe://prod/ns/shop/sa/orders"
    )]
    Form,
    /// More than one level is left open, or a part of one, or the root of a name.
    #[error(
        "a * stands for one whole level, once: the first label of a DNS name of three labels or more, or one segment of a URI's path"
    )]
    Wildcard,
}

impl FromStr for San {
    type Err = SanError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Some((scheme, rest)) = text.split_once("://") {
            return uri(text, scheme, rest);
        }
        dns(text)
    }
}

fn uri(text: &str, scheme: &str, rest: &str) -> Result<San, SanError> {
    let plain = |byte: u8| byte.is_ascii_graphic() && !b"\"<>\\^`{|}?#".contains(&byte);
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    let formed = scheme.starts_with(|c: char| c.is_ascii_alphabetic())
        && scheme
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte))
        && !authority.is_empty()
        && text.bytes().all(plain);
    if !formed {
        return Err(SanError::Form);
    }
    let open = path.split('/').filter(|segment| segment.contains('*'));
    let open: Vec<&str> = open.collect();
    if authority.contains('*') || open.len() > 1 || open.iter().any(|segment| *segment != "*") {
        return Err(SanError::Wildcard);
    }
    Ok(San::Uri(text.to_owned()))
}

fn dns(text: &str) -> Result<San, SanError> {
    let labels: Vec<&str> = text.split('.').collect();
    let (first, others) = labels.split_first().ok_or(SanError::Form)?;
    let plain = |label: &&str| {
        let inner = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        (1..=63).contains(&label.len()) && label.bytes().all(inner)
    };
    if others.iter().any(|label| label.contains('*')) || (first.contains('*') && *first != "*") {
        return Err(SanError::Wildcard);
    }
    if text.len() > 253 || !others.iter().all(plain) || (*first != "*" && !plain(first)) {
        return Err(SanError::Form);
    }
    if *first == "*" && others.len() < 2 {
        return Err(SanError::Wildcard);
    }
    Ok(San::Dns(text.to_ascii_lowercase()))
}

impl San {
    /// True if it leaves no level open.
    pub fn is_exact(&self) -> bool {
        match self {
            Self::Dns(name) => !name.starts_with("*."),
            Self::Uri(uri) => !uri.contains('*'),
        }
    }

    /// True if a certificate's DNS name is the one that is meant, or one of those. A name that is itself open is nobody's.
    pub fn admits_dns(&self, name: &str) -> bool {
        let Self::Dns(rule) = self else { return false };
        if name.contains('*') {
            return false;
        }
        match (rule.strip_prefix("*."), name.split_once('.')) {
            (None, _) => rule.eq_ignore_ascii_case(name),
            (Some(rest), Some((first, others))) => {
                !first.is_empty() && rest.eq_ignore_ascii_case(others)
            }
            (Some(_), None) => false,
        }
    }

    /// True if a certificate's URI is the one that is meant, or one of those. What a level may stand for is a plain segment of a
    /// path.
    pub fn admits_uri(&self, uri: &str) -> bool {
        let Self::Uri(rule) = self else { return false };
        if self.is_exact() {
            return rule == uri;
        }
        let plain = |segment: &str| {
            !["", ".", ".."].contains(&segment) && !segment.contains(['*', '?', '#'])
        };
        let mut segments = uri.split('/');
        let all = rule.split('/').all(|meant| {
            let found = segments.next();
            found.is_some_and(|found| match meant {
                "*" => plain(found),
                meant => found == meant,
            })
        });
        all && segments.next().is_none()
    }
}

impl fmt::Display for San {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dns(name) | Self::Uri(name) => f.write_str(name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use proptest::prelude::*;

    #[test]
    fn a_name_is_a_dns_name_or_a_uri_with_one_level_open_at_most() {
        let dns = |text: &str| Ok(San::Dns(text.to_owned()));
        let uri = |text: &str| Ok(San::Uri(text.to_owned()));
        for (written, read) in [
            ("orders", dns("orders")),
            ("Orders.Shop.svc", dns("orders.shop.svc")),
            ("*.shop.svc", dns("*.shop.svc")),
            (
                "spiffe://prod/ns/shop/sa/orders",
                uri("spiffe://prod/ns/shop/sa/orders"),
            ),
            (
                "spiffe://prod/ns/*/sa/orders",
                uri("spiffe://prod/ns/*/sa/orders"),
            ),
            ("spiffe://prod", uri("spiffe://prod")),
            ("", Err(SanError::Form)),
            ("a..b", Err(SanError::Form)),
            ("a b", Err(SanError::Form)),
            ("user@example.com", Err(SanError::Form)),
            ("spiffe://", Err(SanError::Form)),
            ("://prod/x", Err(SanError::Form)),
            ("spiffe://prod/x?y", Err(SanError::Form)),
            ("*", Err(SanError::Wildcard)),
            ("*.svc", Err(SanError::Wildcard)),
            ("*.*.shop.svc", Err(SanError::Wildcard)),
            ("a*.shop.svc", Err(SanError::Wildcard)),
            ("orders.*.svc", Err(SanError::Wildcard)),
            ("spiffe://*/ns/shop", Err(SanError::Wildcard)),
            ("spiffe://prod/*/*", Err(SanError::Wildcard)),
            ("spiffe://prod/ns/shop*", Err(SanError::Wildcard)),
        ] {
            assert_eq!(written.parse(), read, "{written}");
        }
    }

    #[test]
    fn a_rule_admits_the_names_that_it_means() {
        for (rule, name, admits) in [
            ("orders.shop.svc", "orders.shop.svc", true),
            ("orders.shop.svc", "Orders.SHOP.svc", true),
            ("orders.shop.svc", "a.orders.shop.svc", false),
            ("orders.shop.svc", "orders.shop.svc.", false),
            ("*.shop.svc", "orders.shop.svc", true),
            ("*.shop.svc", "ORDERS.Shop.svc", true),
            ("*.shop.svc", "a.orders.shop.svc", false),
            ("*.shop.svc", "shop.svc", false),
            ("*.shop.svc", ".shop.svc", false),
            ("*.shop.svc", "*.shop.svc", false),
            ("*.shop.svc", "orders.shop.svc.evil.net", false),
            (
                "spiffe://prod/ns/*/sa/a",
                "spiffe://prod/ns/shop/sa/a",
                true,
            ),
            (
                "spiffe://prod/ns/*/sa/a",
                "spiffe://prod/ns/SHOP/sa/a",
                true,
            ),
            (
                "spiffe://prod/ns/*/sa/a",
                "spiffe://Prod/ns/shop/sa/a",
                false,
            ),
            (
                "spiffe://prod/ns/*/sa/a",
                "spiffe://prod/ns/shop/sa/A",
                false,
            ),
            (
                "spiffe://prod/ns/*/sa/a",
                "spiffe://prod/ns/x/y/sa/a",
                false,
            ),
            ("spiffe://prod/ns/*/sa/a", "spiffe://prod/ns//sa/a", false),
            ("spiffe://prod/ns/*/sa/a", "spiffe://prod/ns/../sa/a", false),
            ("spiffe://prod/ns/*/sa/a", "spiffe://prod/ns/*/sa/a", false),
            ("spiffe://prod/ns/*/sa/a", "spiffe://prod/ns/x?/sa/a", false),
            ("spiffe://prod/ns/*", "spiffe://prod/ns/shop", true),
            ("spiffe://prod/ns/*", "spiffe://prod/ns/shop/", false),
            ("spiffe://prod/ns/*", "spiffe://prod/ns", false),
            ("spiffe://prod", "spiffe://prod", true),
            ("spiffe://prod", "spiffe://prod/", false),
        ] {
            let san: San = rule.parse().unwrap();
            let is_uri = rule.contains("://");
            let admitted = [san.admits_uri(name), san.admits_dns(name)];
            assert_eq!(
                admitted,
                [admits && is_uri, admits && !is_uri],
                "{rule} {name}"
            );
        }
    }

    /// What a rule means, as a person would say it: cut both into levels, and compare level by level.
    fn means(rule: &str, name: &str, at: char) -> bool {
        let (rule, name): (Vec<&str>, Vec<&str>) =
            (rule.split(at).collect(), name.split(at).collect());
        rule.len() == name.len() && rule.iter().zip(&name).all(|(r, n)| r == n || *r == "*")
    }

    proptest! {
        #[test]
        fn a_dns_rule_admits_what_is_the_same_level_by_level(
            rule in "([*]|[a-c]{1,2})([.][a-c]{1,2}){2,3}",
            name in "[a-c]{1,2}([.][a-c]{1,2}){0,4}",
            taken in any::<bool>(),
            label in "[a-c]{1,2}",
        ) {
            // Half of the names are the rule's own, with its level filled in.
            let name = if taken { rule.replace('*', &label) } else { name };
            let san: San = rule.parse().unwrap();
            prop_assert_eq!(san.admits_dns(&name), means(&rule, &name, '.'));
            prop_assert_eq!(san.admits_dns(&name.to_uppercase()), means(&rule, &name, '.'));
            prop_assert!(!san.admits_uri(&name));
        }

        #[test]
        fn a_uri_rule_admits_what_is_the_same_level_by_level(
            before in "(/[a-c]{1,2}){0,2}",
            open in any::<bool>(),
            after in "(/[a-c]{1,2}){0,2}",
            name in "s://d(/[a-c]{1,2}){0,5}",
            taken in any::<bool>(),
            segment in "[a-c]{1,2}",
        ) {
            let rule = format!("s://d{before}{}{after}", if open { "/*" } else { "" });
            let name = if taken { rule.replace('*', &segment) } else { name };
            let san: San = rule.parse().unwrap();
            prop_assert_eq!(san.admits_uri(&name), means(&rule, &name, '/'));
            prop_assert!(!san.admits_dns(&name));
        }

        #[test]
        fn no_name_in_a_certificate_does_harm(rule in "([*]|[a-c])([.][a-c]){2}|s://d/[*]", name in ".{0,40}") {
            let san: San = rule.parse().unwrap();
            prop_assert!(!(san.admits_dns(&name) && san.admits_uri(&name)));
        }
    }

    #[test]
    fn a_set_holds_what_was_put_into_it() {
        let some: Rights = [Right::Watch, Right::Verify].into_iter().collect();
        let held = Right::ALL.map(|right| some.include(right));
        assert_eq!(held, [false, true, false, true]);
        assert!(
            Right::ALL
                .into_iter()
                .all(|right| Rights::all().include(right))
        );
        assert_eq!(Rights::default(), [].into_iter().collect());
    }
}
