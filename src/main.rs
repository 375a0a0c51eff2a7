//! Arguments in, exit code out.

use std::env;
use std::io::{self, IsTerminal};
use std::process::ExitCode;

use bearerd::cli::{self, Console};

fn main() -> ExitCode {
    let (mut out, mut err) = (io::stdout(), io::stderr());
    let colour_wanted = env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let columns = env::var("COLUMNS")
        .ok()
        .and_then(|columns| columns.parse().ok());
    let mut console = Console {
        out_colour: colour_wanted && out.is_terminal(),
        err_colour: colour_wanted && err.is_terminal(),
        width: columns.unwrap_or(100),
        out: &mut out,
        err: &mut err,
    };
    cli::run(env::args_os(), env::vars_os(), &mut console).into()
}
