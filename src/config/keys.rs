//! The table of all settings. It drives reading, the names of environment variables, what `check` prints, and `deploy/settings.md`.

use std::ops::RangeInclusive;
use std::time::Duration;

/// One setting.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// `section.key`; in `upstream.keys.0.…` the 0 stands for any index, in `callers.NAME.…` NAME for any name.
    pub path: &'static str,
    /// What may be written.
    pub kind: Kind,
    /// What holds where nothing is written.
    pub fallback: Fallback,
    /// What it is for, in one line.
    pub help: &'static str,
}

/// What may be written for a setting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `true` or `false`.
    Flag,
    /// A whole number in this range.
    Count {
        /// The least.
        least: u32,
        /// The most.
        most: u32,
    },
    /// A length of time with its unit, such as `"90s"` or `"1h 30m"`, within [`LENGTHS`].
    Length,
    /// One of these words.
    Choice(&'static [&'static str]),
    /// A text; this says which.
    Text(&'static str),
    /// A list of texts; this says which. In the environment and in flags they are separated by commas.
    List(&'static str),
    /// The same, and whole numbers may stand in it without quotes.
    Numbers(&'static str),
}

/// What holds where nothing is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fallback {
    /// This, written as it would be in the environment.
    Value(&'static str),
    /// What follows from other settings, as this tells.
    Derived(&'static str),
    /// Nothing: it must be written.
    Required,
    /// Nothing, and nothing is needed.
    Unset,
}

/// The lengths of time that any setting may have.
pub const LENGTHS: RangeInclusive<Duration> =
    Duration::from_millis(1)..=Duration::from_secs(30 * 24 * 60 * 60);

/// What every environment variable of bearerd begins with.
pub const PREFIX: &str = "BEARERD_";

impl Key {
    /// The environment variable that sets it.
    pub fn env(&self) -> String {
        env_name(self.path)
    }

    /// What may be written, in words.
    pub fn expected(&self) -> String {
        match self.kind {
            Kind::Flag => "true or false".into(),
            Kind::Count { least, most } => format!("a whole number from {least} to {most}"),
            Kind::Length => {
                "a length of time from 1ms to 30 days, such as \"90s\" or \"1h 30m\"".into()
            }
            Kind::Choice(words) => format!("one of {}", words.join(", ")),
            Kind::Text(what) => what.into(),
            Kind::List(what) | Kind::Numbers(what) => format!("a list of {what}"),
        }
    }

    /// The default, in words.
    pub fn default_text(&self) -> &'static str {
        match self.fallback {
            Fallback::Value(text) | Fallback::Derived(text) => text,
            Fallback::Required => "required",
            Fallback::Unset => "unset",
        }
    }
}

/// The environment variable for a path.
pub(super) fn env_name(path: &str) -> String {
    format!("{PREFIX}{}", path.replace('.', "__").to_uppercase())
}

/// The setting at this path, whatever its index.
pub(super) fn find(path: &str) -> Option<&'static Key> {
    let general = generalised(path);
    KEYS.iter().find(|key| key.path == general)
}

/// True if settings lie below this path.
pub(super) fn is_section(path: &str) -> bool {
    let general = generalised(path);
    KEYS.iter().any(|key| {
        key.path
            .strip_prefix(general.as_str())
            .is_some_and(|rest| rest.starts_with('.'))
    })
}

/// The path with its index, if it has one, replaced by 0, and a caller's name by NAME.
pub(super) fn generalised(path: &str) -> String {
    if let Some(rest) = path.strip_prefix("callers.") {
        return match rest.split_once('.') {
            Some((_, field)) => format!("callers.NAME.{field}"),
            None => "callers.NAME".to_owned(),
        };
    }
    let Some(rest) = path.strip_prefix("upstream.keys.") else {
        return path.to_owned();
    };
    let (index, field) = rest
        .split_once('.')
        .map_or((rest, None), |(index, field)| (index, Some(field)));
    if index.parse::<u32>().is_err() {
        return path.to_owned();
    }
    field.map_or_else(
        || "upstream.keys.0".to_owned(),
        |field| format!("upstream.keys.0.{field}"),
    )
}

/// The path that somebody may have meant.
pub(super) fn meant(path: &str) -> Option<String> {
    let general = generalised(path);
    // A right name in a right section, with a step left out between them.
    let (section, name) = general.split_once('.').unwrap_or(("", &general));
    let deeper = |key: &&Key| {
        let rest = key.path.strip_prefix(section).unwrap_or_default();
        rest.starts_with('.') && rest.ends_with(&format!(".{name}"))
    };
    if let Some(key) = KEYS.iter().find(deeper).filter(|_| !section.is_empty()) {
        return Some(key.path.to_owned());
    }
    let depth = general.matches('.').count();
    // Sections are offered only for sections: a wrong key of a right section means another key.
    let known = KEYS.iter().flat_map(|key| {
        let ends = key.path.match_indices('.').map(|(at, _)| &key.path[..at]);
        ends.filter(|section| section.matches('.').count() == depth)
            .chain([key.path])
    });
    let nearest = known
        .map(|known| (strsim::osa_distance(&general, known), known))
        .min()?;
    let tolerated = (general.len() / 4).clamp(1, 4);
    if nearest.0 <= tolerated {
        return Some(nearest.1.to_owned());
    }
    let last = |path: &str| path.rsplit('.').next().unwrap_or_default().to_owned();
    let mut elsewhere = KEYS.iter().filter(|key| last(key.path) == last(&general));
    elsewhere.next().map(|key| key.path.to_owned())
}

const fn key(path: &'static str, kind: Kind, fallback: Fallback, help: &'static str) -> Key {
    Key {
        path,
        kind,
        fallback,
        help,
    }
}

const ACCOUNT: Kind = Kind::Text("an account id of letters, digits, '-', '_' and '.', at most 128");
const KEY_FILE: Kind = Kind::Text("the path of a file, beginning with / or ./");
const FILE: Kind = Kind::Text("the path of a file, beginning with / or ./");
const TLS: Kind = Kind::Choice(&["never", "outward", "always"]);
const ADDRESSES: Kind = Kind::List("addresses, each host:port or unix:/path");
const HOSTS: Kind = Kind::List("host names or IP addresses, without scheme or port");
const IDS: Kind = Kind::Numbers("numbers of users or groups");
const SANS: Kind = Kind::List("DNS names and URIs");
const MODE: Kind = Kind::Text("an octal mode in quotes, such as \"0660\"");
const GROUP: Kind = Kind::Text("a group's name or number");
const LIMIT: Kind = Kind::Count {
    least: 1,
    most: 1000,
};

use Fallback::{Derived, Required, Unset, Value};
use Kind::{Choice, Count, Flag, Length, List, Text};

/// All settings, in the order in which they are shown.
#[rustfmt::skip]
pub const KEYS: &[Key] = &[
    key("upstream.account", ACCOUNT, Required, "the clientAccountId whose token is held"),
    key("upstream.base_url", Text("an https:// URL (http:// to loopback only) without user, query or fragment"),
        Value("https://enterprise-portal-noneu.truecaller.com"), "where Truecaller's API is"),
    key("upstream.mint_path", Text("a path of letters, digits and / - _ . ~ that begins with / and names {account} at most once"),
        Value("/clients/{account}/token"), "the path of the mint call"),
    key("upstream.token_lifetime", Length, Value("60m"), "how long a token lives"),
    key("upstream.timeout", Length, Derived("10s, or a third of budget.in_flight if that is less"), "how long one mint call may take"),
    key("upstream.revokes_previous", Flag, Value("false"), "a new token ends the life of the one before it"),
    key("upstream.strict_permissions", Flag, Value("false"), "key files that others can read are an error, not a warning"),
    key("upstream.keys.0.key_id_file", KEY_FILE, Required, "the file that holds the key's id; up to five pairs, tried in order"),
    key("upstream.keys.0.api_key_file", KEY_FILE, Required, "the file that holds the key itself"),
    key("budget.limit", LIMIT, Value("10"), "the most mints in any closed window"),
    key("budget.window", Length, Value("30m"), "Truecaller's window"),
    key("budget.reserve", Count { least: 0, most: 999 }, Derived("3, or limit - 1 if that is less"), "slots that scheduled refreshes leave free"),
    key("budget.in_flight", Length, Derived("60s, or a thirtieth of budget.window if that is less"),
        "the longest time between reserving a slot and Truecaller counting the mint"),
    key("budget.spacing", Length, Unset, "the least distance between any two mints, retries included, where Truecaller limits requests a minute; none if unset"),
    key("refresh.lead", Length, Derived("window + in flight + window/15, so that slots burnt before a refresh are free again before expiry"),
        "how long before expiry a refresh is due"),
    key("refresh.allow_short_lead", Flag, Value("false"), "allow a lead with which a spent budget can outlast the token"),
    key("clock.skew", Length, Derived("30s, or a sixtieth of upstream.token_lifetime if that is less"),
        "how far wall clocks may disagree across reboots and machines"),
    key("record.register", Choice(&["file", "memory"]), Value("file"), "where the record of token and budget is kept"),
    key("record.absent", Choice(&["new", "wait"]), Value("new"), "without a record: make up to three requests at once, or wait a full period"),
    key("record.file.folder", Text("the path of a folder"), Value("/var/lib/bearerd"), "the state folder"),
    key("record.file.strict_permissions", Flag, Value("false"), "a state folder that others may write to is an error, not a warning"),
    key("http.listen", ADDRESSES, Value("localhost:7290"), "where callers get the token"),
    key("http.hosts", HOSTS, Value(""), "names besides the local ones that callers may put into Host"),
    key("http.socket_mode", MODE, Value("0600"), "the mode of the HTTP Unix sockets: who may write may connect"),
    key("http.socket_group", GROUP, Unset, "the group of the HTTP Unix sockets; the process's own if unset"),
    key("http.tls", TLS, Value("outward"), "which of these addresses have TLS: none, those that other machines can reach, or all; Unix sockets never have"),
    key("grpc.listen", ADDRESSES, Value("localhost:7291"), "where callers get the token over gRPC; empty for nowhere"),
    key("grpc.hosts", HOSTS, Value(""), "names besides the local ones that callers may put into :authority"),
    key("grpc.tls", TLS, Value("outward"), "the same for these addresses"),
    key("grpc.streams", Count { least: 1, most: 10_000 }, Value("256"), "the most calls that one connection may have open at a time"),
    key("grpc.keepalive", Length, Value("30s"), "a connection that was silent for so long is pinged, and cut off if no answer comes within 20s"),
    key("grpc.socket_mode", MODE, Value("0600"), "the mode of the gRPC Unix sockets: who may write may connect"),
    key("grpc.socket_group", GROUP, Unset, "the group of the gRPC Unix sockets; the process's own if unset"),
    key("admin.listen", ADDRESSES, Value("localhost:7292"), "where health, metrics and status are; empty for nowhere"),
    key("admin.hosts", HOSTS, Value(""), "names besides the local ones that operators may put into Host"),
    key("admin.tls", TLS, Value("never"), "the same for these addresses; operators need no certificate"),
    key("admin.startup_grace", Length, Value("30s"), "after this /startupz says yes even without a token"),
    key("admin.socket_mode", MODE, Value("0600"), "the mode of the admin Unix sockets: who may write may connect"),
    key("admin.socket_group", GROUP, Unset, "the group of the admin Unix sockets; the process's own if unset"),
    key("admin.uids", IDS, Unset, "the users that are answered on admin Unix sockets; with admin.gids unset too, whoever may connect"),
    key("admin.gids", IDS, Unset, "the groups that are answered there; a process counts by the one group that it has as it connects"),
    key("limits.header_timeout", Length, Value("10s"), "how long a connection may take for its handshake, and for the head of each request from its first byte"),
    key("limits.idle_timeout", Length, Value("5m"), "how long a connection may be without a request; longer than callers keep theirs pooled"),
    key("limits.write_timeout", Length, Value("30s"), "how long a caller may take nothing of what is written to it"),
    key("limits.connections", Count { least: 1, most: 1_000_000 }, Value("32768"), "the most connections of callers, shared out evenly among http.listen and grpc.listen, and no more than open files allow; when they are taken, one that asks for nothing makes room"),
    key("limits.peer_connections", Count { least: 1, most: 1_000_000 }, Derived("1024, or a quarter of limits.connections if that is less"),
        "the most connections of one user on Unix sockets, one IPv4 address, or one IPv6 network of 64 bits; loopback has no such limit"),
    key("tls.certificate_file", FILE, Unset, "the certificate of TLS listeners, and those between it and its root, in PEM; followed when it changes"),
    key("tls.key_file", FILE, Unset, "its private key, in PEM; followed when it changes"),
    key("tls.client_ca_file", FILE, Unset, "who signs callers' certificates, in PEM; where it is set, callers need a certificate; followed when it changes"),
    key("callers.NAME.uids", IDS, Unset, "the users that this caller is, on Unix sockets"),
    key("callers.NAME.gids", IDS, Unset, "the groups that this caller is, on Unix sockets; a process is known by its main group only, and by its user first"),
    key("callers.NAME.sans", SANS, Unset, "the names of this caller's certificate; a * stands for one whole level"),
    key("callers.NAME.may", List("vend, watch, report and verify"), Derived("everything"), "what this caller may do"),
    key("callers.NAME.rate", Count { least: 1, most: 1_000_000 }, Unset, "how many requests a second this caller may make; unbounded if unset"),
    key("callers.NAME.burst", Count { least: 1, most: 1_000_000 }, Derived("as many as rate"), "how many of them at once, after a rest"),
    key("callers.NAME.streams", Count { least: 1, most: 1_000_000 }, Derived("unbounded; for local three quarters of a listener's connections"),
        "how many watches of tokens and of health, waits and open reflections this caller may have at a time"),
    key("limits.peer_rate", Count { least: 1, most: 1_000_000 }, Unset,
        "how many requests a second may come from one address, or from one IPv6 /64, beyond loopback; unbounded if unset"),
    key("limits.peer_burst", Count { least: 1, most: 1_000_000 }, Derived("as many as limits.peer_rate"), "how many of them at once, after a rest"),
    key("audit.enabled", Flag, Value("true"), "tell who asked for what, and what it came to"),
    key("audit.file", Text("the path of a file in a folder that is there, beginning with / or ./"), Unset, "where the audit's lines go, as JSON, whatever log.level is; into the log, at info, if unset"),
    key("log.format", Choice(crate::telemetry::Format::NAMES), Value("text"), "how a line of the log looks"),
    key("log.level", Text("off, error, warn, info, debug or trace, and target=level pairs after commas, as in info,hyper=debug"),
        Value("info"), "how much is logged; in a release build trace shows no more than debug"),
    key("shutdown.deadline", Length, Value("10s"), "how long open requests may take to end"),
    key("sandbox.listen", Text("an IP address and a port"), Value("127.0.0.1:7299"), "where the sandbox listens"),
    key("sandbox.token_lifetime", Length, Value("60m"), "how long the sandbox's tokens live"),
    key("sandbox.window", Length, Value("30m"), "the sandbox's window"),
    key("sandbox.limit", LIMIT, Value("10"), "the most mints in the sandbox's window"),
    key("sandbox.over_budget_status", Count { least: 400, most: 500 }, Value("429"), "how a mint too many is answered: 429, 400 or 500"),
    key("sandbox.failures_count", Flag, Value("false"), "refused mints take a slot too"),
    key("sandbox.revokes_previous", Flag, Value("false"), "a new token ends the lives of all before it"),
    key("sandbox.account", ACCOUNT, Unset, "the sandbox's account; a made-up one if unset"),
    key("sandbox.key_id_file", KEY_FILE, Unset, "the file with the id of the sandbox's key; a random one if unset"),
    key("sandbox.api_key_file", KEY_FILE, Unset, "the file with the sandbox's key"),
];
