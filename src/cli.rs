//! The subcommands: what people and scripts type.
//!
//! stdout is data, stderr is for people, and the exit code says which kind of end it was.

mod check;
mod commands;
mod demo;
mod flags;
mod for_daemon;
mod init;
mod ledger;
mod pages;
mod reach;
mod refresh;
mod register;
mod sandbox;
mod serve;
mod status;
mod token;

use std::ffi::OsString;
use std::io::{self, ErrorKind, Write};
use std::pin::{Pin, pin};
use std::process::ExitCode;

use clap::Parser as _;

use commands::{Arguments, Command, Form, Ledger};
pub use flags::{Common, Demo, OfRecord, Sandbox};

use crate::config::{Problems, Sources};
use crate::lifecycle;
use crate::lifecycle::notify::Wishes;

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
    /// Whether `out` is a terminal, where lines may be drawn over.
    pub out_terminal: bool,
    /// How much fits on it, asked anew for each drawing.
    pub size: fn() -> Size,
}

/// How much fits on a terminal or, where `out` is none, a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    /// Characters in a line.
    pub columns: usize,
    /// Lines, as far as that is known.
    pub rows: Option<usize>,
}

impl Console<'_> {
    /// Data. That nobody reads on is no failure; any other trouble is told at the end.
    fn print(&mut self, text: &str) {
        let _nobody_reads_on = self.still_read(text);
    }

    /// Data; false if nobody reads on.
    fn still_read(&mut self, text: &str) -> bool {
        let written = self.out.write_all(text.as_bytes());
        written.and_then(|()| self.out.flush()).is_ok()
    }

    /// One line for people.
    fn tell(&mut self, line: &str) {
        let _ = writeln!(self.err, "{line}");
    }

    /// One line for people about how it ends.
    fn end(&mut self, exit: Exit, line: &str) -> Exit {
        self.tell(line);
        exit
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
        self.end(Exit::BadSettings, &problems_told(problems, sources))
    }
}

fn problems_told(problems: &Problems, sources: &Sources) -> String {
    match sources.is_bare() {
        true => format!("{problems}\n{NO_SETTINGS}"),
        false => problems.to_string(),
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

/// Keeps what this process holds from core files, other processes and the readers of new files. Every command may hold a secret, so it
/// is called first, and once.
pub fn shut_in() -> io::Result<()> {
    lifecycle::shut_in()
}

/// Does what these arguments ask, in this environment.
pub fn run(
    arguments: impl IntoIterator<Item = OsString>,
    environment: impl IntoIterator<Item = (OsString, OsString)>,
    console: &mut Console<'_>,
) -> Exit {
    let mut out = Heard {
        out: &mut *console.out,
        trouble: None,
    };
    let exit = obey(
        arguments,
        environment,
        &mut Console {
            out: &mut out,
            err: &mut *console.err,
            ..*console
        },
    );
    match out.trouble {
        Some(why) if exit == Exit::Done => {
            console.fail(&format!("stdout cannot be written ({why})"))
        }
        _ => exit,
    }
}

/// Remembers why data could not be written, unless it is that nobody reads on.
struct Heard<'a> {
    out: &'a mut dyn Write,
    trouble: Option<io::Error>,
}

impl Heard<'_> {
    fn heard<T>(&mut self, written: io::Result<T>) -> io::Result<T> {
        written.map_err(|error| {
            let kind = error.kind();
            if !matches!(kind, ErrorKind::BrokenPipe | ErrorKind::Interrupted) {
                self.trouble = Some(error);
            }
            kind.into()
        })
    }
}

impl Write for Heard<'_> {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        let written = self.out.write(data);
        self.heard(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        let written = self.out.flush();
        self.heard(written)
    }
}

fn obey(
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
    let Arguments {
        config: file,
        command,
    } = arguments;
    let environment: Vec<(OsString, OsString)> = environment.into_iter().collect();
    let wishes = Wishes::find(&environment, std::process::id());
    let given = |flags| Sources::new(file.clone(), environment, flags);
    match command {
        Command::Serve(common) => serve::run(&given(common.flags()), wishes.as_ref(), console),
        Command::Demo(_) if file.is_some() => {
            let why =
                "--config: the demo makes its own settings; leave it out, or run `bearerd serve`";
            console.end(Exit::Usage, why)
        }
        Command::Demo(demo) => demo::run(&demo, console),
        Command::Sandbox(flags) => {
            let folder = flags.write_settings.clone();
            sandbox::run(&given(flags.flags()), folder.as_deref(), console)
        }
        Command::Token {
            format,
            no_newline,
            wait,
            address,
        } => token::print(
            address.as_deref(),
            token::Printed {
                form: format,
                newline: !no_newline,
            },
            wait,
            &given(Vec::new()),
            console,
        ),
        Command::Wait { timeout, address } => {
            token::wait(address.as_deref(), timeout, &given(Vec::new()), console)
        }
        Command::Check { common, format } => check::run(&given(common.flags()), format, console),
        Command::Init(common) => init::run(&given(common.flags()), console),
        Command::Status {
            admin,
            format,
            watch: false,
        } => status::run(admin.as_deref(), &given(Vec::new()), format, console),
        Command::Status { admin, format, .. } => {
            status::watch(admin.as_deref(), &given(Vec::new()), format, console)
        }
        Command::Refresh { admin } => refresh::run(admin.as_deref(), &given(Vec::new()), console),
        Command::Ledger(Ledger::Show { record, format }) => {
            ledger::show(&given(record.flags()), format, console)
        }
        Command::Ledger(Ledger::Spend {
            record,
            admin,
            count,
        }) => ledger::spend(count, admin.as_deref(), &given(record.flags()), console),
        Command::Ledger(Ledger::Reset { record, yes }) => {
            ledger::reset(yes, &given(record.flags()), console)
        }
        Command::Unpark { record, admin } => {
            ledger::unpark(admin.as_deref(), &given(record.flags()), console)
        }
        Command::Version { format } => pages::version(format, console),
        Command::Completions { shell } => pages::completions(shell, console),
        Command::Man => pages::man(console),
    }
}

/// Runs what a short command waits for.
fn block_on<T>(work: impl Future<Output = T>) -> T {
    let mut done = None;
    drive(pin!(async { done = Some(work.await) }));
    done.expect("what was waited for is done")
}

/// One copy of the runtime's loop serves every command: each costs several kilobytes of the binary.
fn drive(work: Pin<&mut dyn Future<Output = ()>>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    runtime
        .expect("a runtime of one thread needs nothing that a process lacks")
        .block_on(work);
}

#[cfg(test)]
mod tests;
