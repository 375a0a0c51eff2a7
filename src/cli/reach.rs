//! How a command finds the daemon: where it was told, or where the settings say, or at the usual place.

use std::net::ToSocketAddrs as _;

use super::Exit;
use crate::client::{Door, Failure};
use crate::config::{self, Sources};
use crate::listener::Address;

/// Which of a daemon's doors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    /// Where callers get the token.
    Callers,
    /// Where operators are answered.
    Operators,
}

impl Side {
    fn flag(self) -> &'static str {
        match self {
            Self::Callers => "--address",
            Self::Operators => "--admin",
        }
    }

    fn setting(self) -> &'static str {
        match self {
            Self::Callers => "http.listen",
            Self::Operators => "admin.listen",
        }
    }

    fn usual(self) -> &'static str {
        match self {
            Self::Callers => "localhost:7290",
            Self::Operators => "localhost:7292",
        }
    }

    /// The usual place of its socket.
    pub(super) fn socket(self) -> &'static str {
        match self {
            Self::Callers => "unix:/run/bearerd/http.sock",
            Self::Operators => "unix:/run/bearerd/admin.sock",
        }
    }

    /// Every address that the settings name.
    fn listed(self, sources: &Sources) -> Result<Vec<Address>, (Exit, String)> {
        let listed = match self {
            Self::Callers => config::http_addresses(sources),
            Self::Operators => config::admin_addresses(sources),
        };
        listed.ok_or_else(|| {
            let (flag, setting) = (self.flag(), self.setting());
            let why = format!(
                "{setting} cannot be read; run `bearerd check`, or name the address with {flag}"
            );
            (Exit::BadSettings, why)
        })
    }

    /// The first Unix socket that these settings name, whatever else is wrong with them.
    pub(super) fn socket_in(self, sources: &Sources) -> Option<Address> {
        let listed = self.listed(sources).ok()?.into_iter();
        let mut sockets = listed.filter(|address| matches!(address, Address::Unix(_)));
        sockets.next()
    }

    /// The first address that these settings name and that speaks plain HTTP, which is all that commands speak.
    fn plain(self, sources: &Sources) -> Result<Address, (Exit, String)> {
        let tls = match self {
            Self::Callers => config::http_tls(sources),
            Self::Operators => config::admin_tls(sources),
        };
        let listed = self.listed(sources)?;
        let Some(first) = listed.first() else {
            return Ok(self.usual().parse().expect("the usual address is one"));
        };
        let plain = listed.iter().find(|address| !tls.covers(address));
        plain.cloned().ok_or_else(|| {
            let (setting, flag) = (self.setting(), self.flag());
            let why = format!(
                "{setting} names only addresses with TLS, such as {first}, and commands speak plain HTTP over loopback or a Unix socket; \
                 add one to it, such as `\"{}\"`, or name one with {flag}",
                self.socket()
            );
            (Exit::BadSettings, why)
        })
    }

    /// The door to ask, or how to end and what to say.
    pub(super) fn door(
        self,
        named: Option<&str>,
        sources: &Sources,
    ) -> Result<Door, (Exit, String)> {
        let address: Address = match named {
            Some(text) => text
                .parse()
                .map_err(|error| (Exit::Usage, format!("{}: {error}", self.flag())))?,
            None => self.plain(sources)?,
        };
        Door::new(&address).map_err(|failure| self.told(&failure))
    }

    /// How to end after this failure, and what to say.
    pub(super) fn told(self, failure: &Failure) -> (Exit, String) {
        let exit = match failure.may_pass() {
            true => Exit::TryAgain,
            false => Exit::Failed,
        };
        let hint = match (failure, self) {
            (Failure::Unreachable { address, .. }, _) if is_unknown_name(address) => {
                let (flag, setting) = (self.flag(), self.setting());
                format!(
                    "; the name does not resolve on this machine: mend it in {flag} or {setting}, or write an IP address"
                )
            }
            (Failure::Unreachable { .. } | Failure::NoAnswer { .. }, _) => {
                format!("; is it running, and is this its {}?", self.setting())
            }
            (Failure::Strange { .. }, Self::Operators) => "; is this an admin address?".to_owned(),
            (Failure::Strange { .. }, Self::Callers) => {
                "; is this where callers get the token?".to_owned()
            }
            (
                Failure::NotNow {
                    retry_after: Some(seconds),
                    ..
                },
                _,
            ) => {
                format!(" (try again in {seconds} s)")
            }
            (Failure::NotNow { .. } | Failure::Refused { .. }, _) => String::new(),
        };
        (exit, format!("{failure}{hint}"))
    }
}

/// True for a host that is a name and leads nowhere. It is asked only after a failure.
fn is_unknown_name(address: &Address) -> bool {
    match address {
        Address::Tcp { host, port } => (host.as_str(), *port).to_socket_addrs().is_err(),
        Address::Unix(_) => false,
    }
}

/// Who answers at an address of these settings, if anybody does; what accepts a connection and stays silent counts.
pub(super) async fn who_answers(sources: &Sources) -> Result<Option<Address>, (Exit, String)> {
    let (operators, callers) = (Side::Operators, Side::Callers);
    let all = operators
        .listed(sources)?
        .into_iter()
        .chain(callers.listed(sources)?);
    for address in all {
        let door = Door::new(&address).map_err(|failure| operators.told(&failure))?;
        match door.get("/livez").await {
            Err(Failure::Unreachable { .. }) => {}
            Ok(_) | Err(_) => return Ok(Some(address)),
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Flag;

    #[test]
    fn where_nothing_is_said_the_usual_place_is_asked() {
        let asked = |side: Side, sources: &Sources| {
            let door = side.door(None, sources).unwrap();
            door.address().to_string()
        };
        let none = Sources::flags_only(vec![
            Flag::new("test", "http.listen", ""),
            Flag::new("test", "admin.listen", ""),
        ]);
        for sources in [Sources::default(), none] {
            assert_eq!(asked(Side::Callers, &sources), "localhost:7290");
            assert_eq!(asked(Side::Operators, &sources), "localhost:7292");
        }
    }

    #[test]
    fn addresses_with_tls_are_passed_over_and_named_where_there_are_no_others() {
        let with = |listen: &str, tls: &str| {
            Sources::flags_only(vec![
                Flag::new("test", "http.listen", listen),
                Flag::new("test", "http.tls", tls),
            ])
        };
        let asked = |listen, tls| {
            let door = Side::Callers.door(None, &with(listen, tls));
            door.map(|door| door.address().to_string())
        };
        let both = "0.0.0.0:1,127.0.0.1:2,unix:/run/x.sock";
        assert_eq!(asked(both, "never"), Ok("0.0.0.0:1".to_owned()));
        assert_eq!(asked(both, "outward"), Ok("127.0.0.1:2".to_owned()));
        assert_eq!(asked(both, "always"), Ok("unix:/run/x.sock".to_owned()));
        let (exit, why) = asked("127.0.0.1:2", "always").unwrap_err();
        assert_eq!(exit, Exit::BadSettings);
        assert_eq!(
            why,
            "http.listen names only addresses with TLS, such as 127.0.0.1:2, and commands speak plain HTTP over loopback or a Unix \
             socket; add one to it, such as `\"unix:/run/bearerd/http.sock\"`, or name one with --address"
        );
    }
}
