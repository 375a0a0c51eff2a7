//! Where a listener listens, as it is written in the settings.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;

/// The longest path that fits into a socket's address.
const LONGEST_PATH: usize = 107;

/// `host:port` or `unix:/path`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Address {
    /// A TCP port. Port 0 lets the system choose.
    Tcp {
        /// A name or an IP address, without brackets.
        host: String,
        /// The port.
        port: u16,
    },
    /// A Unix socket with an absolute path.
    Unix(PathBuf),
}

/// What is wrong with an address as it was written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// Neither form.
    #[error("`{written}` is neither `host:port` nor `unix:/path`")]
    Form {
        /// What was written.
        written: String,
    },
    /// The port is not a number up to 65535.
    #[error("`{written}` needs a port from 0 to 65535 behind its last colon")]
    Port {
        /// What was written.
        written: String,
    },
    /// The host is missing, or an IPv6 address has no brackets.
    #[error(
        "`{written}` needs a host before the port: an address, a name, `0.0.0.0` or `[::]` for all; an IPv6 address stands in brackets"
    )]
    Host {
        /// What was written.
        written: String,
    },
    /// The path of a Unix socket is relative.
    #[error("`{written}` needs an absolute path, such as `unix:/run/bearerd/http.sock`")]
    Relative {
        /// What was written.
        written: String,
    },
    /// The path of a Unix socket does not fit.
    #[error(
        "the path in `{written}` is longer than the {LONGEST_PATH} bytes that a socket can have"
    )]
    TooLong {
        /// What was written.
        written: String,
    },
}

impl Address {
    /// True if only this machine can reach it: a Unix socket, `localhost`, 127.0.0.0/8 or `[::1]`.
    pub fn is_local(&self) -> bool {
        match self {
            Self::Unix(_) => true,
            Self::Tcp { host, .. } => {
                self.is_localhost()
                    || host
                        .parse::<IpAddr>()
                        .is_ok_and(|ip| ip.to_canonical().is_loopback())
            }
        }
    }

    /// True if one of them cannot be taken while the other is.
    pub fn overlaps(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Tcp { port, .. }, Self::Tcp { port: theirs, .. }) if port == theirs => {
                let is_loopback = |it: &Self| match it {
                    Self::Tcp { host, .. } => ["127.0.0.1", "::1"].contains(&host.as_str()),
                    Self::Unix(_) => false,
                };
                match (self.is_localhost(), other.is_localhost()) {
                    (true, true) => true,
                    (true, false) => is_loopback(other),
                    (false, true) => is_loopback(self),
                    (false, false) => self == other,
                }
            }
            _ => self == other,
        }
    }

    /// True for a port of `localhost`, which is each loopback address.
    pub(super) fn is_localhost(&self) -> bool {
        let name = |host: &str| host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
        matches!(self, Self::Tcp { host, .. } if name(host) == "localhost")
    }
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let written = || text.to_owned();
        if let Some(path) = text.strip_prefix("unix:") {
            return if !path.starts_with('/') || path.ends_with('/') || path.contains('\0') {
                Err(AddressError::Relative { written: written() })
            } else if path.len() > LONGEST_PATH {
                Err(AddressError::TooLong { written: written() })
            } else {
                Ok(Self::Unix(path.into()))
            };
        }
        let Some((host, port)) = text.rsplit_once(':') else {
            return Err(AddressError::Form { written: written() });
        };
        if port.is_empty() || !port.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(AddressError::Port { written: written() });
        }
        let Ok(port) = port.parse() else {
            return Err(AddressError::Port { written: written() });
        };
        let bracketed = host
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'));
        let well_formed = match bracketed {
            Some(inner) => inner.parse::<std::net::Ipv6Addr>().is_ok(),
            None => {
                !host.is_empty()
                    && host
                        .bytes()
                        .all(|byte| byte.is_ascii_alphanumeric() || b".-_".contains(&byte))
            }
        };
        if !well_formed {
            return Err(AddressError::Host { written: written() });
        }
        let host = bracketed.unwrap_or(host).to_owned();
        Ok(Self::Tcp { host, port })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Tcp { host, port } => write!(f, "{host}:{port}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_shown_as_it_was_written() {
        for text in [
            "127.0.0.1:7290",
            "localhost:0",
            "[::1]:7290",
            "gateway.internal:80",
            "unix:/run/bearerd/http.sock",
        ] {
            assert_eq!(text.parse::<Address>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn only_this_machines_addresses_are_local() {
        for text in [
            "127.0.0.1:1",
            "127.9.9.9:1",
            "[::1]:1",
            "[::ffff:127.0.0.1]:1",
            "LocalHost:1",
            "localhost.:1",
            "unix:/a",
        ] {
            assert!(text.parse::<Address>().unwrap().is_local(), "{text}");
        }
        for text in ["0.0.0.0:1", "[::]:1", "10.0.0.1:1", "localhost.example:1"] {
            assert!(!text.parse::<Address>().unwrap().is_local(), "{text}");
        }
    }

    #[test]
    fn localhost_overlaps_each_loopback_address_that_it_takes() {
        let overlap = |one: &str, other: &str| {
            let [one, other] = [one, other].map(|it| it.parse::<Address>().unwrap());
            assert_eq!(one.overlaps(&other), other.overlaps(&one));
            one.overlaps(&other)
        };
        for same in ["localhost:1", "LOCALHOST.:1", "127.0.0.1:1", "[::1]:1"] {
            assert!(overlap("localhost:1", same), "{same}");
        }
        for other in ["localhost:2", "127.0.0.2:1", "10.0.0.1:1", "unix:/a"] {
            assert!(!overlap("localhost:1", other), "{other}");
        }
        assert!(!overlap("127.0.0.1:1", "[::1]:1") && overlap("unix:/a", "unix:/a"));
    }

    #[test]
    fn a_wrong_address_says_what_is_wrong() {
        let problem = |text: &str| text.parse::<Address>().unwrap_err().to_string();
        assert_eq!(
            problem("7290"),
            "`7290` is neither `host:port` nor `unix:/path`"
        );
        assert!(problem("localhost:").contains("needs a port"));
        assert!(problem("localhost:+80").contains("needs a port"));
        assert!(problem("localhost:65536").contains("needs a port"));
        assert!(problem(":7290").contains("needs a host"));
        assert!(problem("::1:7290").contains("in brackets"));
        assert!(problem("http://localhost:80").contains("needs a host"));
        assert!(problem("unix:run/http.sock").contains("absolute"));
        assert!(problem(&format!("unix:/{}", "x".repeat(120))).contains("longer than"));
    }
}
