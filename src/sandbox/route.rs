//! Which endpoint a request is for.

use hyper::Method;

/// Where control requests live.
pub(super) const CONTROL: &str = "/_sandbox/";

/// An endpoint.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Route<'a> {
    /// A token is asked for.
    Mint { account: &'a str },
    /// A token is spent.
    Spend { account: &'a str },
    /// The sandbox itself is meant; the rest of the path.
    Control(&'a str),
    /// The path is known, but not with this method.
    WrongMethod,
    /// Nothing is here.
    Unknown,
}

impl<'a> Route<'a> {
    /// The endpoint of a method and a path without its query.
    pub(super) fn of(method: &Method, path: &'a str) -> Self {
        if let Some(rest) = path.strip_prefix(CONTROL) {
            return Self::Control(rest);
        }
        let parts: Vec<&str> = path.split('/').skip(1).collect();
        let route = match parts.as_slice() {
            ["clients", account, "token"] | ["organisations", account, "campaigns", "token"] => {
                Self::Mint { account }
            }
            [
                "v2",
                "clients",
                account,
                "dynamic_call_record" | "dynamic_call_records",
            ]
            | ["clients", account, "number_management", _, ..] => Self::Spend { account },
            _ => return Self::Unknown,
        };
        if method == Method::POST {
            route
        } else {
            Self::WrongMethod
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_path_of_the_contract_has_its_endpoint() {
        let route = |path| Route::of(&Method::POST, path);
        let account = "a";
        assert_eq!(route("/clients/a/token"), Route::Mint { account });
        assert_eq!(
            route("/organisations/a/campaigns/token"),
            Route::Mint { account }
        );
        for path in [
            "/v2/clients/a/dynamic_call_record",
            "/v2/clients/a/dynamic_call_records",
            "/clients/a/number_management/feature_sets/f/numbers/publish",
        ] {
            assert_eq!(route(path), Route::Spend { account }, "{path}");
        }
        assert_eq!(route("/_sandbox/log"), Route::Control("log"));
        for path in [
            "/",
            "/clients/a/token/",
            "/clients/a/number_management",
            "/clients",
        ] {
            assert_eq!(route(path), Route::Unknown, "{path}");
        }
        assert_eq!(
            Route::of(&Method::GET, "/clients/a/token"),
            Route::WrongMethod
        );
    }
}
