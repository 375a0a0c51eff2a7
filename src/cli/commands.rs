//! What may be typed: the subcommands, their flags and their help.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, Subcommand, ValueEnum};
use clap_complete::Shell;

use super::flags::{Common, Demo, OfRecord, Sandbox};
use super::token;

const EXAMPLES: &str = "\
Examples:
  bearerd demo                                    try it: no account needed
  bearerd check --config bearerd.toml             find everything that is wrong before a start
  bearerd serve --config bearerd.toml             hold a token, keep it fresh, hand it out
  bearerd status --watch                          how token and budget stand, and go on
  bearerd token --format header | curl -H @- ...  spend the token, and keep it off the command line
  curl -H 'X-Bearerd-Request: true' http://127.0.0.1:7290/v1/token

Each setting is a key of the TOML file, BEARERD_SECTION__KEY in the environment, and for the common ones a flag; the later wins.
Data goes to stdout and words for people to stderr, in colour only on a terminal and without NO_COLOR.
Exit codes: 0 done, 1 failed, 2 usage, 75 try again, 78 bad settings.";

/// Holds the one live Truecaller for Business token, keeps it fresh inside the account's mint budget, and vends it locally.
#[derive(Debug, Parser)]
#[command(name = "bearerd", version, after_help = EXAMPLES, max_term_width = 120)]
pub(super) struct Arguments {
    /// The settings' file [default: $BEARERD_CONFIG, or /etc/bearerd/bearerd.toml if it is there]
    #[arg(long, global = true, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
    #[command(subcommand)]
    pub(super) command: Command,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Hold the token, keep it fresh and hand it out
    #[command(
        after_help = "Example:\n  bearerd serve --config /etc/bearerd/bearerd.toml --log-format json"
    )]
    Serve(Common),
    /// Serve against the built-in sandbox: no account needed, and everything runs sixty times as fast
    #[command(after_help = "Example:\n  bearerd demo --token-lifetime 60s --window 30s")]
    Demo(Demo),
    /// Run only the sandbox: a Truecaller that fits in a process, for your own tests
    #[command(
        after_help = "Examples:\n  bearerd sandbox --listen 127.0.0.1:7299 --token-lifetime 5m --limit 3\n  bearerd sandbox --write-settings /tmp/try   # then: bearerd serve --config /tmp/try/bearerd.toml"
    )]
    Sandbox(Sandbox),
    /// Print the live token, and never an expired one
    #[command(after_help = "\
Exits with 75, and says why on stderr, if there is no live token or no daemon answers.

Examples:
  TOKEN=$(bearerd token --format raw)                    the shell takes the end of the line off
  bearerd token --format raw --no-newline > token.txt
  bearerd token --format header | curl -H @- ...
  bearerd token --wait 30s --address unix:/run/bearerd/http.sock | jq .expires_at")]
    Token {
        /// How it is printed
        #[arg(long, value_enum, default_value_t = token::Form::Json)]
        format: token::Form,
        /// Leave out the end of the line, with which each format ends otherwise
        #[arg(long)]
        no_newline: bool,
        /// How long to wait for a token where there is none
        #[arg(long, value_name = "LENGTH", default_value = "0s", value_parser = length)]
        wait: Duration,
        /// Where callers get the token, host:port or unix:/path [default: the first of http.listen]
        #[arg(long, value_name = "ADDRESS")]
        address: Option<String>,
    },
    /// Wait until there is a live token, though no daemon may answer yet
    #[command(after_help = "\
Exits with 0 once there is one, and with 75 at the time-out, saying what was missing last.

Example:
  bearerd wait --timeout 60s && exec ./service")]
    Wait {
        /// How long to wait at the most
        #[arg(long, value_name = "LENGTH", default_value = "30s", value_parser = length)]
        timeout: Duration,
        /// Where callers get the token, host:port or unix:/path [default: the first of http.listen]
        #[arg(long, value_name = "ADDRESS")]
        address: Option<String>,
    },
    /// Find everything that is wrong with the settings, and show those in force
    #[command(after_help = "\
Run it as the user that runs bearerd: it tries whether that user can write the state folder, and leaves nothing behind.
Settings in force go to stdout, problems and warnings to stderr. Secrets are never shown.

Examples:
  bearerd check --config bearerd.toml
  bearerd check --format json | jq '.settings[\"refresh.lead\"]'")]
    Check {
        #[command(flatten)]
        common: Common,
        /// How the settings in force are printed
        #[arg(long, value_enum, default_value_t = Form::Text)]
        format: Form,
    },
    /// Write a new record, where there is none
    #[command(after_help = "\
A record remembers what was spent of the budget. Without one, `serve` begins as `record.absent` says, and writes one itself.

Example:
  bearerd init --account 91c173bb-28d8-4030-9722-8663ff9589f3 --state-folder /var/lib/bearerd")]
    Init(Common),
    /// Show how the token, the budget and the next mint stand
    #[command(after_help = "\
Exits with 0 if there is a live token, and with 75 if there is none or no daemon answers.
Marks: ○ next, ◐ under way, ● minted, ∅ not sent (its slot is free again), ▲ refresh due,
× spent without a token, ■ spent by hand.
Classes: routine mints are scheduled or by hand, and leave the reserve; reported ones follow a
token that was reported as refused, and leave two slots; urgent ones, with no token or nearly
none, may take all.
With --watch it goes on until Ctrl-C, and then exits with 0.
On a terminal it draws anew each second; elsewhere it prints the status once for each change.

Examples:
  bearerd status
  bearerd status --watch
  bearerd status --admin unix:/run/bearerd/admin.sock --format json")]
    Status {
        /// The admin address, host:port or unix:/path [default: the first of admin.listen]
        #[arg(long, value_name = "ADDRESS")]
        admin: Option<String>,
        /// For people, or the document as the daemon gave it
        #[arg(long, value_enum, default_value_t = Form::Text)]
        format: Form,
        /// Go on, until Ctrl-C
        #[arg(long)]
        watch: bool,
    },
    /// Ask a running daemon for a new token now
    #[command(after_help = "\
It spends a slot, so it is paced: exits with 75, and says until when, if the daemon does not mint now.

Example:
  bearerd refresh && bearerd status --watch")]
    Refresh {
        /// The admin address, host:port or unix:/path [default: the first of admin.listen]
        #[arg(long, value_name = "ADDRESS")]
        admin: Option<String>,
    },
    /// For emergencies: look at what the record says was spent, or change it
    #[command(
        subcommand,
        after_help = "\
These work on the record itself, with or without a running daemon. Run them as the user that runs bearerd.

Examples:
  bearerd ledger show
  bearerd ledger spend 2        two mints were made by hand: count them
  bearerd ledger reset --yes    the issuer has forgotten every mint: forget them too"
    )]
    Ledger(Ledger),
    /// For emergencies: let the keys be tried again that the issuer refused
    #[command(after_help = "\
A daemon parks when the issuer refuses every key, and then tries rarely. New keys end that by themselves.
This is for keys that became good again. Run it as the user that runs bearerd: it works on the record itself, with or without a
running daemon. Where the record is out of reach, as under systemd's DynamicUser=, it asks the daemon on the first Unix socket of
admin.listen, which answers admin.uids, admin.gids and its own user.

Examples:
  bearerd unpark --config /etc/bearerd/bearerd.toml
  bearerd unpark --admin unix:/run/bearerd/admin.sock")]
    Unpark {
        #[command(flatten)]
        record: OfRecord,
        /// Ask the daemon on this admin socket, unix:/path, and leave its record alone
        #[arg(long, value_name = "ADDRESS", conflicts_with_all = ["account", "state_folder"])]
        admin: Option<String>,
    },
    /// Print the name and the version
    #[command(after_help = "Example:\n  bearerd version --format json | jq -r .version")]
    Version {
        /// How they are printed
        #[arg(long, value_enum, default_value_t = Form::Text)]
        format: Form,
    },
    /// Print what lets a shell complete bearerd's words
    #[command(after_help = "\
Examples:
  bearerd completions bash > /etc/bash_completion.d/bearerd
  bearerd completions zsh > \"${fpath[1]}/_bearerd\"
  bearerd completions fish > ~/.config/fish/completions/bearerd.fish")]
    Completions {
        /// Which shell
        shell: Shell,
    },
    /// Print the manual page
    #[command(after_help = "\
Examples:
  bearerd man | man -l -
  bearerd man > /usr/local/share/man/man1/bearerd.1")]
    Man,
}

/// What may be done with the ledger.
#[derive(Debug, Subcommand)]
pub(super) enum Ledger {
    /// Print the slots that are taken, and every wait
    #[command(
        after_help = "Examples:\n  bearerd ledger show\n  bearerd ledger show --format json | jq '.slots | length'"
    )]
    Show {
        #[command(flatten)]
        record: OfRecord,
        /// How they are printed
        #[arg(long, value_enum, default_value_t = Form::Text)]
        format: Form,
    },
    /// Take slots for mints that were made elsewhere, as of now
    #[command(after_help = "\
A running daemon sees it within a second and keeps to it. Where the record is out of reach, as under systemd's DynamicUser=, the
daemon is asked on the first Unix socket of admin.listen, which answers admin.uids, admin.gids and its own user.

Examples:
  bearerd ledger spend 2
  bearerd ledger spend 2 --admin unix:/run/bearerd/admin.sock")]
    Spend {
        #[command(flatten)]
        record: OfRecord,
        /// Ask the daemon on this admin socket, unix:/path, and leave its record alone
        #[arg(long, value_name = "ADDRESS", conflicts_with_all = ["account", "state_folder"])]
        admin: Option<String>,
        /// How many
        #[arg(value_name = "COUNT")]
        count: u32,
    },
    /// Forget every mint that was spent, who is minting, and the waits after failures
    #[command(after_help = "\
Only when you know that the issuer does not count those mints: otherwise the next ones overrun its budget.
The token and the parking stay.
It is refused while a daemon answers: a running one that holds the ledger would bring it back.

Example:
  bearerd ledger reset --yes")]
    Reset {
        #[command(flatten)]
        record: OfRecord,
        /// Do it
        #[arg(long)]
        yes: bool,
    },
}

/// How data is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Form {
    /// For people.
    Text,
    /// For machines.
    Json,
}

fn length(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text)
        .ok()
        .filter(|length| *length <= Duration::from_secs(24 * 60 * 60))
        .ok_or_else(|| {
            "expected a length of time with its unit, up to a day, such as 30s or 1m 30s".into()
        })
}
