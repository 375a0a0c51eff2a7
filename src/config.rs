//! What was written, checked and meant: one `Settings` for each room.
//!
//! Later sources win: defaults, one TOML file, the environment (`BEARERD_SECTION__KEY`), flags. Everything that is wrong is found
//! in one run and told with its place, never with a value that could be a secret. Keys come from files only.

mod effective;
mod hints;
mod keys;
mod meaning;
mod problems;
mod raw;
mod value;

use std::ffi::OsString;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub use effective::{Effective, Shown};
pub use keys::{Fallback, KEYS, Key, Kind, LENGTHS, PREFIX};
pub use problems::{Problem, Problems};

use crate::caller::audit;
use crate::caller::rule::{Named, Rate};
use crate::issuer::{self, KeyFiles};
use crate::listener::{Address, Patience, SocketAccess};
use crate::record::{Absent, Rules};
use crate::telemetry;
use crate::tls;
use raw::Written;

/// The file that is read where none is named and this one exists.
pub const DEFAULT_FILE: &str = "/etc/bearerd/bearerd.toml";

/// The environment variable that names the file.
pub const CONFIG_VARIABLE: &str = "BEARERD_CONFIG";

/// What was meant.
#[derive(Clone, Debug)]
pub struct Config {
    /// The account whose token is held.
    pub account: String,
    /// How fast, how long and how often.
    pub rules: Rules,
    /// The lead is shorter than a slot's period, which `refresh.allow_short_lead` allowed: a spent budget can outlast the token.
    pub short_lead: bool,
    /// What a new record assumes about the past.
    pub absent: Absent,
    /// Where the record lives.
    pub register: Register,
    /// Where and how tokens are asked for.
    pub issuer: issuer::truecaller::Settings,
    /// Where the keys are; each file was read once, and one pair was there.
    pub keys: KeyFiles,
    /// What callers reach.
    pub http: Http,
    /// What callers reach over gRPC.
    pub grpc: Grpc,
    /// What operators reach.
    pub admin: Admin,
    /// What connections may take.
    pub bounds: Bounds,
    /// The certificate of TLS listeners; it was read once and could be used.
    pub tls: Option<tls::Files>,
    /// Who has a name, and what each may do.
    pub callers: Vec<Named>,
    /// How fast each other machine may ask, if there is a bound.
    pub peers: Option<Rate>,
    /// Where it is told what callers and operators did.
    pub audit: audit::Settings,
    /// The log.
    pub log: telemetry::Settings,
    /// How long open requests may take to end once the process is told to.
    pub shutdown_deadline: Duration,
    /// For `demo` and `sandbox`.
    pub sandbox: Sandbox,
    /// What may be as it is but should not.
    pub warnings: Vec<String>,
}

impl Config {
    /// The file that the audit's lines go to, if they have one of their own.
    pub fn audit_file(&self) -> Option<&Path> {
        match &self.audit {
            audit::Settings::File(file) => Some(file),
            audit::Settings::Off | audit::Settings::Log => None,
        }
    }
}

/// Where the record lives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Register {
    /// In a folder.
    File {
        /// The state folder.
        folder: PathBuf,
    },
    /// In this process only.
    Memory,
}

/// What callers reach.
#[derive(Clone, Debug)]
pub struct Http {
    /// Any addresses; those that other machines reach have TLS and a rule for callers.
    pub listen: Vec<Address>,
    /// Names besides the local ones that are right in `Host`.
    pub hosts: Vec<String>,
    /// Who may connect to its Unix sockets.
    pub socket: SocketAccess,
    /// Which of the addresses have TLS.
    pub tls: Secured,
}

/// What callers reach over gRPC.
#[derive(Clone, Debug)]
pub struct Grpc {
    /// Any addresses, none turns it off; those that other machines reach have TLS and a rule for callers.
    pub listen: Vec<Address>,
    /// Names besides the local ones that are right in `:authority`.
    pub hosts: Vec<String>,
    /// Who may connect to its Unix sockets.
    pub socket: SocketAccess,
    /// Which of the addresses have TLS.
    pub tls: Secured,
    /// The most calls that one connection may have open at a time.
    pub streams: NonZeroU32,
    /// A caller that was silent for so long is pinged.
    pub keepalive: Duration,
}

/// What operators reach.
#[derive(Clone, Debug)]
pub struct Admin {
    /// Any addresses; none turns it off.
    pub listen: Vec<Address>,
    /// Names besides the local ones that are right in `Host`.
    pub hosts: Vec<String>,
    /// Who may connect to its Unix sockets.
    pub socket: SocketAccess,
    /// The users that are answered on its Unix sockets; with no groups either, whoever may connect.
    pub uids: Vec<u32>,
    /// The groups that are answered there.
    pub gids: Vec<u32>,
    /// Which of the addresses have TLS.
    pub tls: Secured,
    /// After this `/startupz` says yes even without a token.
    pub startup_grace: Duration,
}

/// What connections may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// How long each may take for what.
    pub patience: Patience,
    /// The most that callers may have together; no more than open files allow.
    pub connections: NonZeroU32,
    /// The most that one peer may have.
    pub peer_connections: NonZeroU32,
}

/// Which addresses of a section have TLS. Unix sockets never have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Secured {
    /// None.
    Never,
    /// Those that other machines can reach.
    Outward,
    /// Every TCP address.
    Always,
}

impl Secured {
    /// True if this address has TLS.
    pub fn covers(self, address: &Address) -> bool {
        match self {
            Self::Never => false,
            Self::Outward => !address.is_local(),
            Self::Always => matches!(address, Address::Tcp { .. }),
        }
    }
}

/// A Truecaller that fits in a process.
#[derive(Clone, Debug)]
pub struct Sandbox {
    /// Where it listens.
    pub listen: SocketAddr,
    /// Its account; `None` for a made-up one.
    pub account: Option<String>,
    /// The files of its key's id and of the key, not read yet; `None` for a random pair.
    pub key_files: Option<(PathBuf, PathBuf)>,
    /// How long its tokens live.
    pub token_lifetime: Duration,
    /// The width of its window.
    pub window: Duration,
    /// The most mints in its window.
    pub limit: NonZeroU32,
    /// How a mint too many is answered: 429, 400 or 500.
    pub over_budget_status: u16,
    /// Whether refused mints take a slot.
    pub failures_count: bool,
    /// Whether a new token ends the lives of all before it.
    pub revokes_previous: bool,
}

/// Where a value came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Nobody wrote it.
    Default,
    /// The file.
    File,
    /// An environment variable.
    Environment,
    /// A flag.
    Flag,
    /// It follows from other settings.
    Derived,
}

impl Origin {
    /// The word for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Default => "default",
            Self::File => "file",
            Self::Environment => "environment",
            Self::Flag => "flag",
            Self::Derived => "derived",
        }
    }
}

/// One value from the command line.
#[derive(Clone)]
pub struct Flag {
    /// What problems call it: `--account`.
    pub name: String,
    /// The setting it sets: `upstream.account`, `upstream.keys.0.key_id_file`.
    pub path: String,
    /// What was written, as it would be in the environment.
    pub text: String,
}

impl Flag {
    /// A value for the setting at `path`.
    pub fn new(name: impl Into<String>, path: impl Into<String>, text: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            path: path.into(),
            text: text.into(),
        }
    }
}

/// Where settings come from. It has no `Debug`: somebody may have put a key into the environment.
#[derive(Clone, Default)]
pub struct Sources {
    named: Option<PathBuf>,
    usual: Option<PathBuf>,
    environment: Vec<(String, OsString)>,
    flags: Vec<Flag>,
}

impl Sources {
    /// The file that `--config` names, or else the environment, or else the usual one if it is there; the variables of this
    /// environment that begin with [`PREFIX`]; and flags, where the later of two for one setting wins.
    pub fn new(
        file: Option<PathBuf>,
        environment: impl IntoIterator<Item = (OsString, OsString)>,
        flags: Vec<Flag>,
    ) -> Self {
        let ours = |(name, value): (OsString, OsString)| {
            let name = name.into_string().ok()?;
            name.starts_with(PREFIX).then_some((name, value))
        };
        let mut environment: Vec<(String, OsString)> =
            environment.into_iter().filter_map(ours).collect();
        environment.sort();
        let variable = environment
            .iter()
            .find(|(name, value)| name == CONFIG_VARIABLE && !value.is_empty());
        Self {
            named: file.or_else(|| variable.map(|(_, value)| PathBuf::from(value))),
            usual: Some(PathBuf::from(DEFAULT_FILE)),
            environment,
            flags,
        }
    }

    /// Defaults and these flags, and nothing from files or the environment.
    pub fn flags_only(flags: Vec<Flag>) -> Self {
        Self {
            flags,
            ..Self::default()
        }
    }

    /// True if flags set something.
    pub fn has_flags(&self) -> bool {
        !self.flags.is_empty()
    }

    /// True if nobody wrote settings: there is no file, and nothing in the environment.
    pub fn is_bare(&self) -> bool {
        self.environment.is_empty() && self.file().is_none()
    }

    /// The file that is read, if any.
    pub fn file(&self) -> Option<PathBuf> {
        // A file that was named must be there; the usual one may be missing.
        let usual = || self.usual.clone().filter(|path| path.exists());
        self.named.clone().or_else(usual)
    }
}

/// What reading came to.
#[derive(Clone, Debug)]
pub struct Reading {
    /// What was meant.
    pub config: Config,
    /// Every setting's value in force and where it came from, to be shown.
    pub effective: Effective,
}

/// Reads and checks everything, the key files included.
///
/// # Errors
/// All that is wrong, at once.
pub fn read(sources: &Sources) -> Result<Reading, Problems> {
    let mut written = Written::read(sources);
    let config = meaning::config(&mut written);
    match config {
        Some(config) if written.problems.0.is_empty() => {
            let effective = Effective::new(&written, &config, sources.file());
            Ok(Reading { config, effective })
        }
        _ => Err(written.problems),
    }
}

/// How the log looks with these settings, whatever else is wrong with them; text if that itself cannot be read.
pub fn log_format(sources: &Sources) -> telemetry::Format {
    Written::read(sources).log_format()
}

/// Reads what the sandbox alone needs: no account, no keys. Problems of the other sections are told only where a value cannot be
/// read at all.
///
/// # Errors
/// All that is wrong, at once.
pub fn read_sandbox(sources: &Sources) -> Result<Sandbox, Problems> {
    let mut written = Written::read(sources);
    let sandbox = meaning::sandbox(&mut written);
    match sandbox {
        Some(sandbox) if written.problems.0.is_empty() => Ok(sandbox),
        _ => Err(written.problems),
    }
}

/// Where operators reach a daemon with these settings, whatever else is wrong with them; `None` if that itself cannot be read.
pub fn admin_addresses(sources: &Sources) -> Option<Vec<Address>> {
    addresses(sources, "admin.listen")
}

/// Where callers reach it, in the same way.
pub fn http_addresses(sources: &Sources) -> Option<Vec<Address>> {
    addresses(sources, "http.listen")
}

/// Which of the addresses where operators reach it have TLS, in the same way.
pub fn admin_tls(sources: &Sources) -> Secured {
    meaning::secured(&Written::read(sources), "admin.tls")
}

/// Which of the addresses where callers reach it have TLS.
pub fn http_tls(sources: &Sources) -> Secured {
    meaning::secured(&Written::read(sources), "http.tls")
}

fn addresses(sources: &Sources, path: &str) -> Option<Vec<Address>> {
    let written = Written::read(sources);
    if written.has_failed(path) {
        return None;
    }
    let listen = written.list(path);
    listen.iter().map(|text| text.parse().ok()).collect()
}

#[cfg(test)]
mod tests;
