//! How the sandbox is set up, and what may be switched while it runs.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::keys::ApiKey;

/// How a mint beyond the budget is answered; Truecaller does not say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OverBudget {
    /// 429 `too-many-requests`.
    #[default]
    TooManyRequests,
    /// 400 `invalid-input`.
    BadRequest,
    /// 500 `internal-server-error`.
    InternalServerError,
}

/// How the sandbox is set up. `Debug` shows no key.
#[derive(Clone)]
pub struct Settings {
    /// Where to listen; port 0 takes any free one. Default `127.0.0.1:0`.
    pub listen: SocketAddr,
    /// The client account (or organisation) whose tokens are minted.
    pub account: String,
    /// The account's keys, at most [`MOST_KEYS`](super::MOST_KEYS). Default: one random pair.
    pub keys: Vec<ApiKey>,
    /// How long a token lives. Default 60 minutes.
    pub token_lifetime: Duration,
    /// The width of the budget's closed window. Default 30 minutes.
    pub window: Duration,
    /// How many counted arrivals a window may hold. Default 10.
    pub limit: u32,
    /// How a mint beyond the budget is answered. Default 429.
    pub over_budget: OverBudget,
    /// Whether that answer carries `Retry-After`. Default no.
    pub over_budget_retry_after: bool,
    /// Whether refused calls, those beyond the budget included, take a slot. Default no.
    pub failures_count: bool,
    /// Whether a new token revokes all earlier ones. Default no.
    pub revokes_previous: bool,
    /// Whether regenerating or removing a key revokes the tokens that were minted with it. Default no.
    pub regenerate_revokes: bool,
    /// Whether an expired token is answered with the 500 of an unparsable one. Default no.
    pub expired_fails_to_parse: bool,
    /// How often a token may be spent in a second. Default 100.
    pub spends_per_second: u32,
}

impl Settings {
    /// The contract's numbers, with the unknown matters set to their mildest form.
    pub fn new(account: impl Into<String>) -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            account: account.into(),
            keys: vec![ApiKey::random()],
            token_lifetime: Duration::from_secs(60 * 60),
            window: Duration::from_secs(30 * 60),
            limit: 10,
            over_budget: OverBudget::default(),
            over_budget_retry_after: false,
            failures_count: false,
            revokes_previous: false,
            regenerate_revokes: false,
            expired_fails_to_parse: false,
            spends_per_second: 100,
        }
    }

    pub(super) fn switches(&self) -> Switches {
        Switches {
            down: false,
            suspended: false,
            over_budget: self.over_budget,
            over_budget_retry_after: self.over_budget_retry_after,
            failures_count: self.failures_count,
            revokes_previous: self.revokes_previous,
            regenerate_revokes: self.regenerate_revokes,
            expired_fails_to_parse: self.expired_fails_to_parse,
        }
    }
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings")
            .field("listen", &self.listen)
            .field("account", &self.account)
            .field("keys", &self.keys.len())
            .field("token_lifetime", &self.token_lifetime)
            .field("window", &self.window)
            .field("limit", &self.limit)
            .field("switches", &self.switches())
            .field("spends_per_second", &self.spends_per_second)
            .finish()
    }
}

/// What may be switched while the sandbox runs. In JSON every field may be left out, which leaves it as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Switches {
    /// Every new request, except to `/_sandbox/`, is answered by closing the connection.
    pub down: bool,
    /// Every live token is answered 403 where it is spent.
    pub suspended: bool,
    /// See [`Settings::over_budget`].
    pub over_budget: OverBudget,
    /// See [`Settings::over_budget_retry_after`].
    pub over_budget_retry_after: bool,
    /// See [`Settings::failures_count`].
    pub failures_count: bool,
    /// See [`Settings::revokes_previous`].
    pub revokes_previous: bool,
    /// See [`Settings::regenerate_revokes`].
    pub regenerate_revokes: bool,
    /// See [`Settings::expired_fails_to_parse`].
    pub expired_fails_to_parse: bool,
}

/// The switches to be moved.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SwitchChange {
    down: Option<bool>,
    suspended: Option<bool>,
    over_budget: Option<OverBudget>,
    over_budget_retry_after: Option<bool>,
    failures_count: Option<bool>,
    revokes_previous: Option<bool>,
    regenerate_revokes: Option<bool>,
    expired_fails_to_parse: Option<bool>,
}

impl SwitchChange {
    /// The switches after the change.
    pub(super) fn applied_to(&self, old: Switches) -> Switches {
        Switches {
            down: self.down.unwrap_or(old.down),
            suspended: self.suspended.unwrap_or(old.suspended),
            over_budget: self.over_budget.unwrap_or(old.over_budget),
            over_budget_retry_after: self
                .over_budget_retry_after
                .unwrap_or(old.over_budget_retry_after),
            failures_count: self.failures_count.unwrap_or(old.failures_count),
            revokes_previous: self.revokes_previous.unwrap_or(old.revokes_previous),
            regenerate_revokes: self.regenerate_revokes.unwrap_or(old.regenerate_revokes),
            expired_fails_to_parse: self
                .expired_fails_to_parse
                .unwrap_or(old.expired_fails_to_parse),
        }
    }
}
