//! The subcommands: what people and scripts type.
//!
//! stdout is data, stderr is for people, and the exit code says which kind of end it was.

mod check;
mod demo;
mod flags;
mod init;
mod sandbox;
mod serve;
mod status;

use std::ffi::OsString;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand, ValueEnum};

pub use flags::{Common, Demo, Sandbox};

use crate::config::{Problems, Sources};

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// It did what was asked.
    Done = 0,
    /// It failed at run time.
    Failed = 1,
    /// It was asked for something that there is not.
    Usage = 2,
    /// Not now: no daemon answers, or there is no live token.
    TryAgain = 75,
    /// The settings, or what they name, are wrong.
    BadSettings = 78,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// Where a run says what.
pub struct Console<'a> {
    /// Data.
    pub out: &'a mut dyn Write,
    /// Words for people.
    pub err: &'a mut dyn Write,
    /// Whether `out` takes colour.
    pub out_colour: bool,
    /// Whether `err` takes colour.
    pub err_colour: bool,
    /// How many characters a line may have.
    pub width: usize,
}

impl Console<'_> {
    /// Data. That nobody reads on is no failure.
    fn print(&mut self, text: &str) {
        let _ = self
            .out
            .write_all(text.as_bytes())
            .and_then(|()| self.out.flush());
    }

    /// One line for people.
    fn tell(&mut self, line: &str) {
        let _ = writeln!(self.err, "{line}");
    }

    /// One line for people about why it did not work.
    fn fail(&mut self, line: &str) -> Exit {
        self.tell(line);
        Exit::Failed
    }

    /// One line about an error and what caused it.
    fn fail_with(&mut self, error: &dyn std::error::Error) -> Exit {
        self.fail(&with_causes(error))
    }

    /// All that is wrong with the settings, and where to begin if nobody wrote any.
    fn tell_problems(&mut self, problems: &Problems, sources: &Sources) -> Exit {
        self.tell(&problems.to_string());
        if sources.is_bare() {
            self.tell(NO_SETTINGS);
        }
        Exit::BadSettings
    }
}

/// An error's text and its causes', each of which says only its own part.
fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    text
}

const NO_SETTINGS: &str = "\
no settings were found: write /etc/bearerd/bearerd.toml, or name a file with --config; to try bearerd without an account, run `bearerd demo`";

const EXAMPLES: &str = "\
Examples:
  bearerd demo                                   try it: no account needed
  bearerd check --config bearerd.toml            find everything that is wrong before a start
  bearerd serve --config bearerd.toml            hold a token, keep it fresh, hand it out
  bearerd status                                 how token and budget stand
  curl -H 'X-Bearerd-Request: true' http://127.0.0.1:7290/v1/token

Each setting is a key of the TOML file, BEARERD_SECTION__KEY in the environment, and for the common ones a flag; the later wins.
Exit codes: 0 done, 1 failed, 2 usage, 75 try again, 78 bad settings.";

/// Holds the one live Truecaller for Business token, keeps it fresh inside the account's mint budget, and vends it locally.
#[derive(Debug, Parser)]
#[command(name = "bearerd", version, after_help = EXAMPLES, max_term_width = 120)]
struct Arguments {
    /// The settings' file [default: $BEARERD_CONFIG, or /etc/bearerd/bearerd.toml if it is there]
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
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
        after_help = "Example:\n  bearerd sandbox --listen 127.0.0.1:7299 --token-lifetime 5m --limit 3"
    )]
    Sandbox(Sandbox),
    /// Find everything that is wrong with the settings, and show those in force
    #[command(after_help = "\
Run it as the user that runs bearerd: it makes the state folder if it is missing, and tries whether it can write there.
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

Examples:
  bearerd status
  bearerd status --admin unix:/run/bearerd/admin.sock --format json")]
    Status {
        /// The admin address, host:port or unix:/path [default: the first of admin.listen]
        #[arg(long, value_name = "ADDRESS")]
        admin: Option<String>,
        /// For people, or the document as the daemon gave it
        #[arg(long, value_enum, default_value_t = Form::Text)]
        format: Form,
    },
    /// Print the name and the version
    Version,
}

/// How data is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Form {
    /// For people.
    Text,
    /// For machines.
    Json,
}

/// Does what these arguments ask, in this environment.
pub fn run(
    arguments: impl IntoIterator<Item = OsString>,
    environment: impl IntoIterator<Item = (OsString, OsString)>,
    console: &mut Console<'_>,
) -> Exit {
    let arguments = match Arguments::try_parse_from(arguments) {
        Ok(arguments) => arguments,
        Err(error) if error.use_stderr() => {
            console.tell(error.to_string().trim_end());
            return Exit::Usage;
        }
        Err(help) => {
            console.print(&help.to_string());
            return Exit::Done;
        }
    };
    let file = arguments.config;
    match arguments.command {
        Command::Serve(common) => {
            serve::run(&Sources::new(file, environment, common.flags()), console)
        }
        Command::Demo(_) if file.is_some() => {
            console.tell(
                "--config: the demo makes its own settings; leave it out, or run `bearerd serve`",
            );
            Exit::Usage
        }
        Command::Demo(demo) => demo::run(&demo, console),
        Command::Sandbox(flags) => {
            sandbox::run(&Sources::new(file, environment, flags.flags()), console)
        }
        Command::Check { common, format } => {
            let sources = Sources::new(file, environment, common.flags());
            check::run(&sources, format, console)
        }
        Command::Init(common) => {
            init::run(&Sources::new(file, environment, common.flags()), console)
        }
        Command::Status { admin, format } => {
            let sources = Sources::new(file, environment, Vec::new());
            status::run(admin.as_deref(), &sources, format, console)
        }
        Command::Version => {
            console.print(concat!("bearerd ", env!("CARGO_PKG_VERSION"), "\n"));
            Exit::Done
        }
    }
}

/// Runs what a short command waits for.
fn block_on<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    runtime
        .expect("a runtime of one thread needs nothing that a process lacks")
        .block_on(work)
}

#[cfg(test)]
mod tests;
