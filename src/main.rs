//! Arguments in, exit code out.

use std::env;
use std::io::{self, IsTerminal, Write as _};
use std::process::ExitCode;

use bearerd::cli::{self, Console, Exit, Size};

fn main() -> ExitCode {
    let (mut out, mut err) = (io::stdout(), io::stderr());
    if let Err(error) = cli::shut_in() {
        let _nobody_reads = writeln!(
            err,
            "the process's memory cannot be kept from core files: {error}"
        );
        return Exit::Failed.into();
    }
    // A terminal that knows no escapes is written to as a file is.
    let knows_escapes = env::var_os("TERM").is_none_or(|term| term != "dumb");
    let colour_wanted =
        knows_escapes && env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let mut console = Console {
        out_colour: colour_wanted && out.is_terminal(),
        err_colour: colour_wanted && err.is_terminal(),
        out_terminal: knows_escapes && out.is_terminal(),
        size,
        out: &mut out,
        err: &mut err,
    };
    cli::run(env::args_os(), env::vars_os(), &mut console).into()
}

/// The terminal's size, unless the environment says another; a page of 100 columns where there is none.
fn size() -> Size {
    let written = |name: &str| env::var(name).ok().and_then(|text| text.parse().ok());
    let asked = rustix::termios::tcgetwinsize(io::stdout())
        .ok()
        .filter(|size| size.ws_col > 0 && size.ws_row > 0);
    Size {
        columns: written("COLUMNS")
            .or(asked.map(|size| size.ws_col.into()))
            .unwrap_or(100),
        rows: written("LINES").or(asked.map(|size| size.ws_row.into())),
    }
}
