//! How a command finds the daemon: where it was told, or where the settings say, or at the usual place.

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
            Self::Callers => "127.0.0.1:7290",
            Self::Operators => "127.0.0.1:7292",
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
            None => match self.listed(sources)?.into_iter().next() {
                Some(address) => address,
                None => self.usual().parse().expect("the usual address is one"),
            },
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
            assert_eq!(asked(Side::Callers, &sources), "127.0.0.1:7290");
            assert_eq!(asked(Side::Operators, &sources), "127.0.0.1:7292");
        }
    }
}
