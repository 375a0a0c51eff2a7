//! Flags for the common settings. Each is read and checked as the setting that it sets.

use std::path::PathBuf;

use clap::Args;

use crate::config::Flag;

/// Flags of what works with the daemon's settings.
#[derive(Clone, Debug, Default, Args)]
pub struct Common {
    /// The clientAccountId whose token is held [upstream.account]
    #[arg(long, value_name = "ID")]
    pub account: Option<String>,
    /// Where callers get the token; may be repeated [http.listen]
    #[arg(long, value_name = "ADDRESS")]
    pub http_listen: Vec<String>,
    /// Where callers get the token over gRPC; may be repeated [grpc.listen]
    #[arg(long, value_name = "ADDRESS")]
    pub grpc_listen: Vec<String>,
    /// Where health, metrics and status are; may be repeated [admin.listen]
    #[arg(long, value_name = "ADDRESS")]
    pub admin_listen: Vec<String>,
    /// The folder of the record [record.file.folder]
    #[arg(long, value_name = "FOLDER")]
    pub state_folder: Option<String>,
    /// How much is logged: info, or info,hyper=debug [log.level]
    #[arg(long, value_name = "LEVEL")]
    pub log_level: Option<String>,
    /// How a line of the log looks: text or json [log.format]
    #[arg(long, value_name = "FORMAT")]
    pub log_format: Option<String>,
}

impl Common {
    /// As settings.
    pub fn flags(&self) -> Vec<Flag> {
        let flags = [
            one("--account", "upstream.account", self.account.as_ref()),
            many("--http-listen", "http.listen", &self.http_listen),
            many("--grpc-listen", "grpc.listen", &self.grpc_listen),
            many("--admin-listen", "admin.listen", &self.admin_listen),
            one(
                "--state-folder",
                "record.file.folder",
                self.state_folder.as_ref(),
            ),
            one("--log-level", "log.level", self.log_level.as_ref()),
            one("--log-format", "log.format", self.log_format.as_ref()),
        ];
        flags.into_iter().flatten().collect()
    }
}

/// Flags of what works on the record.
#[derive(Clone, Debug, Default, Args)]
pub struct OfRecord {
    /// The clientAccountId whose record it is [upstream.account]
    #[arg(long, value_name = "ID")]
    pub account: Option<String>,
    /// The folder of the record [record.file.folder]
    #[arg(long, value_name = "FOLDER")]
    pub state_folder: Option<String>,
}

impl OfRecord {
    /// As settings.
    pub fn flags(&self) -> Vec<Flag> {
        let flags = [
            one("--account", "upstream.account", self.account.as_ref()),
            one(
                "--state-folder",
                "record.file.folder",
                self.state_folder.as_ref(),
            ),
        ];
        flags.into_iter().flatten().collect()
    }
}

/// Flags of the demo.
#[derive(Clone, Debug, Args)]
pub struct Demo {
    /// It is refused, so the help does not offer it
    #[arg(long, hide = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Where callers get the token; may be repeated [http.listen]
    #[arg(long, value_name = "ADDRESS")]
    pub http_listen: Vec<String>,
    /// Where callers get the token over gRPC; may be repeated [grpc.listen]
    #[arg(long, value_name = "ADDRESS")]
    pub grpc_listen: Vec<String>,
    /// Where health, metrics and status are; may be repeated [admin.listen]
    #[arg(long, value_name = "ADDRESS")]
    pub admin_listen: Vec<String>,
    /// Where the sandbox listens [sandbox.listen]
    #[arg(long, value_name = "IP:PORT")]
    pub sandbox_listen: Option<String>,
    /// How long the sandbox's tokens live
    #[arg(long, value_name = "LENGTH", default_value = "60s")]
    pub token_lifetime: String,
    /// The sandbox's window
    #[arg(long, value_name = "LENGTH", default_value = "30s")]
    pub window: String,
    /// How much is logged: info, or info,hyper=debug [log.level]
    #[arg(long, value_name = "LEVEL")]
    pub log_level: Option<String>,
}

impl Demo {
    /// As settings of both sides: the daemon's and the sandbox's.
    pub fn flags(&self) -> Vec<Flag> {
        let [lifetime, window] = [&self.token_lifetime, &self.window];
        let flags = [
            many("--http-listen", "http.listen", &self.http_listen),
            many("--grpc-listen", "grpc.listen", &self.grpc_listen),
            many("--admin-listen", "admin.listen", &self.admin_listen),
            one(
                "--sandbox-listen",
                "sandbox.listen",
                self.sandbox_listen.as_ref(),
            ),
            one("--log-level", "log.level", self.log_level.as_ref()),
            one(
                "--token-lifetime",
                "upstream.token_lifetime",
                Some(lifetime),
            ),
            one("--token-lifetime", "sandbox.token_lifetime", Some(lifetime)),
            one("--window", "budget.window", Some(window)),
            one("--window", "sandbox.window", Some(window)),
        ];
        flags.into_iter().flatten().collect()
    }
}

/// Flags of the sandbox.
#[derive(Clone, Debug, Default, Args)]
pub struct Sandbox {
    /// Where to listen [sandbox.listen]
    #[arg(long, value_name = "IP:PORT")]
    pub listen: Option<String>,
    /// The account [sandbox.account]
    #[arg(long, value_name = "ID")]
    pub account: Option<String>,
    /// The file with the id of its key [sandbox.key_id_file]
    #[arg(long, value_name = "FILE")]
    pub key_id_file: Option<String>,
    /// The file with its key [sandbox.api_key_file]
    #[arg(long, value_name = "FILE")]
    pub api_key_file: Option<String>,
    /// How long tokens live [sandbox.token_lifetime]
    #[arg(long, value_name = "LENGTH")]
    pub token_lifetime: Option<String>,
    /// The width of the window [sandbox.window]
    #[arg(long, value_name = "LENGTH")]
    pub window: Option<String>,
    /// The most mints in a window [sandbox.limit]
    #[arg(long, value_name = "COUNT")]
    pub limit: Option<String>,
    /// How a mint too many is answered: 429, 400 or 500 [sandbox.over_budget_status]
    #[arg(long, value_name = "STATUS")]
    pub over_budget_status: Option<String>,
    /// Refused mints take a slot too [sandbox.failures_count]
    #[arg(long)]
    pub failures_count: bool,
    /// A new token ends the lives of all before it [sandbox.revokes_previous]
    #[arg(long)]
    pub revokes_previous: bool,
    /// Write key files and a bearerd.toml for `bearerd serve` into this folder, where there are none yet
    #[arg(long, value_name = "FOLDER")]
    pub write_settings: Option<PathBuf>,
}

impl Sandbox {
    /// As settings.
    pub fn flags(&self) -> Vec<Flag> {
        let set = |on: bool| on.then(|| "true".to_owned());
        let flags = [
            one("--listen", "sandbox.listen", self.listen.as_ref()),
            one("--account", "sandbox.account", self.account.as_ref()),
            one(
                "--key-id-file",
                "sandbox.key_id_file",
                self.key_id_file.as_ref(),
            ),
            one(
                "--api-key-file",
                "sandbox.api_key_file",
                self.api_key_file.as_ref(),
            ),
            one(
                "--token-lifetime",
                "sandbox.token_lifetime",
                self.token_lifetime.as_ref(),
            ),
            one("--window", "sandbox.window", self.window.as_ref()),
            one("--limit", "sandbox.limit", self.limit.as_ref()),
            one(
                "--over-budget-status",
                "sandbox.over_budget_status",
                self.over_budget_status.as_ref(),
            ),
            one(
                "--failures-count",
                "sandbox.failures_count",
                set(self.failures_count).as_ref(),
            ),
            one(
                "--revokes-previous",
                "sandbox.revokes_previous",
                set(self.revokes_previous).as_ref(),
            ),
        ];
        flags.into_iter().flatten().collect()
    }
}

fn one(name: &str, path: &str, text: Option<&String>) -> Option<Flag> {
    text.map(|text| Flag::new(name, path, text))
}

fn many(name: &str, path: &str, texts: &[String]) -> Option<Flag> {
    (!texts.is_empty()).then(|| Flag::new(name, path, texts.join(",")))
}
