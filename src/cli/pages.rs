//! `version`, `completions` and `man`: what the program knows of itself.

use clap::CommandFactory as _;
use clap_complete::Shell;
use clap_mangen::Man;

use super::commands::{Arguments, Form};
use super::{Console, Exit};

pub(super) fn version(form: Form, console: &mut Console<'_>) -> Exit {
    console.print(match form {
        Form::Text => concat!("bearerd ", env!("CARGO_PKG_VERSION"), "\n"),
        Form::Json => concat!(
            "{\"name\": \"bearerd\", \"version\": \"",
            env!("CARGO_PKG_VERSION"),
            "\"}\n"
        ),
    });
    Exit::Done
}

pub(super) fn completions(shell: Shell, console: &mut Console<'_>) -> Exit {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Arguments::command(), "bearerd", &mut script);
    console.print(&String::from_utf8_lossy(&script));
    Exit::Done
}

/// One page about everything: the program first, then each subcommand.
pub(super) fn man(console: &mut Console<'_>) -> Exit {
    let mut program = Arguments::command();
    program.build();
    let mut page = Vec::new();
    let written = whole_page(&program, &mut page);
    written.expect("memory takes what is written");
    console.print(&String::from_utf8_lossy(&page));
    Exit::Done
}

fn whole_page(program: &clap::Command, page: &mut Vec<u8>) -> std::io::Result<()> {
    let man = Man::new(program.clone());
    man.render_title(page)?;
    man.render_name_section(page)?;
    man.render_synopsis_section(page)?;
    man.render_description_section(page)?;
    man.render_options_section(page)?;
    verbatim("SH", program, page);
    for command in commands(program) {
        let name = command.get_bin_name().unwrap_or_default().to_uppercase();
        page.extend_from_slice(format!(".SH \"{name}\"\n").as_bytes());
        let about = command.get_about().map(ToString::to_string);
        page.extend_from_slice(format!("{}.\n", escaped(&about.unwrap_or_default())).as_bytes());
        let man = Man::new(command.clone());
        let mut part = Vec::new();
        man.render_synopsis_section(&mut part)?;
        man.render_options_section(&mut part)?;
        let part = String::from_utf8_lossy(&part).replace("\n.SH ", "\n.SS ");
        let part = part
            .strip_prefix(".SH ")
            .map_or(part.clone(), |rest| format!(".SS {rest}"));
        page.extend_from_slice(part.as_bytes());
        verbatim("SS", command, page);
    }
    Ok(())
}

/// Every subcommand, and theirs, but for those that only print help.
fn commands(of: &clap::Command) -> Vec<&clap::Command> {
    let own = of.get_subcommands().filter(|it| it.get_name() != "help");
    own.flat_map(|it| [vec![it], commands(it)].concat())
        .collect()
}

/// What stands below the flags in the help, line by line as it is there.
fn verbatim(heading: &str, command: &clap::Command, page: &mut Vec<u8>) {
    if let Some(text) = command.get_after_help() {
        let text = escaped(&text.to_string());
        page.extend_from_slice(format!(".{heading} NOTES\n.nf\n{text}\n.fi\n").as_bytes());
    }
}

/// Text that roff shows as it is.
fn escaped(text: &str) -> String {
    let lines = text.lines().map(|line| {
        let line = line.replace('\\', "\\(rs").replace('-', "\\-");
        match line.starts_with(['.', '\'']) {
            true => format!("\\&{line}"),
            false => line,
        }
    });
    lines.collect::<Vec<_>>().join("\n")
}
