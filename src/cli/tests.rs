use std::fs;
use std::path::Path;

use clap::CommandFactory;
use clap::Parser as _;
use tempfile::TempDir;

use super::*;
use crate::record::Record;
use crate::token::{Secret, Token};

pub(super) fn page() -> Size {
    Size {
        columns: 100,
        rows: None,
    }
}

fn bearerd(arguments: &[&str], environment: &[(&str, &str)]) -> (Exit, String, String) {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let mut console = Console {
        out: &mut out,
        err: &mut err,
        out_colour: false,
        err_colour: false,
        out_terminal: false,
        size: page,
    };
    let arguments = ["bearerd"].iter().chain(arguments).map(OsString::from);
    let pairs = environment
        .iter()
        .map(|(name, value)| (OsString::from(name), OsString::from(value)));
    let exit = run(arguments, pairs, &mut console);
    (
        exit,
        String::from_utf8(out).unwrap(),
        String::from_utf8(err).unwrap(),
    )
}

/// Takes nothing.
struct Full(ErrorKind);

impl Write for Full {
    fn write(&mut self, _: &[u8]) -> io::Result<usize> {
        Err(self.0.into())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn data_that_cannot_be_written_is_a_failure_and_that_nobody_reads_on_is_none() {
    for (kind, exit, told) in [
        (ErrorKind::StorageFull, Exit::Failed, "stdout cannot be"),
        (ErrorKind::BrokenPipe, Exit::Done, ""),
    ] {
        for command in ["version", "--help", "man"] {
            let mut err = Vec::new();
            let mut console = Console {
                out: &mut Full(kind),
                err: &mut err,
                out_colour: false,
                err_colour: false,
                out_terminal: false,
                size: page,
            };
            let words = ["bearerd", command].map(OsString::from);
            assert_eq!(run(words, [], &mut console), exit, "{command}");
            let err = String::from_utf8(err).unwrap();
            assert!(
                err.starts_with(told) && (told.is_empty() == err.is_empty()),
                "{err}"
            );
        }
    }
}

/// A folder with keys, settings and room for a record.
struct Desk {
    folder: TempDir,
    file: String,
    state: String,
}

impl Desk {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let place = |name: &str| folder.path().join(name).display().to_string();
        fs::write(place("id"), "the-planted-id").unwrap();
        fs::write(place("key"), "the-planted-key").unwrap();
        let (file, state) = (place("bearerd.toml"), place("state"));
        let text = format!(
            "[upstream]\naccount = \"acct-1\"\n[[upstream.keys]]\nkey_id_file = \"{}\"\napi_key_file = \"{}\"\n\
             [record.file]\nfolder = \"{state}\"\n",
            place("id"),
            place("key")
        );
        fs::write(&file, text).unwrap();
        Self {
            folder,
            file,
            state,
        }
    }

    fn run(&self, command: &str, more: &[&str]) -> (Exit, String, String) {
        let arguments = [&[command, "--config", &self.file], more].concat();
        let (exit, out, err) = bearerd(&arguments, &[]);
        assert!(
            !out.contains("planted") && !err.contains("planted"),
            "{out}{err}"
        );
        (exit, out, err)
    }

    fn record(&self) -> std::path::PathBuf {
        Path::new(&self.state).join("record.json")
    }
}

#[test]
fn the_arguments_are_sound() {
    Arguments::command().debug_assert();
}

#[test]
fn help_and_version_are_data_and_a_wrong_flag_is_usage() {
    let (exit, out, err) = bearerd(&["version"], &[]);
    assert_eq!((exit, err.as_str()), (Exit::Done, ""));
    assert_eq!(out, concat!("bearerd ", env!("CARGO_PKG_VERSION"), "\n"));
    let mut whole = Arguments::command();
    whole.build();
    let mut commands = vec![String::new()];
    for command in whole.get_subcommands().filter(|it| it.get_name() != "help") {
        commands.push(command.get_name().to_owned());
        let below = command
            .get_subcommands()
            .filter(|it| it.get_name() != "help");
        commands.extend(below.map(|it| format!("{} {}", command.get_name(), it.get_name())));
    }
    assert_eq!(commands.len(), 1 + 14 + 3);
    for command in &commands {
        let arguments: Vec<&str> = command.split_whitespace().chain(["--help"]).collect();
        let (exit, out, _) = bearerd(&arguments, &[]);
        assert_eq!(exit, Exit::Done);
        assert!(out.contains("Example"), "{out}");
        let takes_settings = !command.starts_with("demo");
        assert_eq!(out.contains("--config"), takes_settings, "{out}");
    }
    let (exit, out, err) = bearerd(&["check", "--acount", "x"], &[]);
    assert_eq!((exit, out.as_str()), (Exit::Usage, ""));
    assert!(err.contains("--account"), "{err}");
    assert_eq!(bearerd(&[], &[]).0, Exit::Usage);
    let (exit, _, err) = bearerd(&["demo", "--config", "bearerd.toml"], &[]);
    assert_eq!(exit, Exit::Usage);
    assert!(err.contains("makes its own settings"), "{err}");
}

#[test]
fn every_flag_sets_a_setting_that_there_is() {
    let all = "--http-listen a --http-listen b --grpc-listen h --admin-listen c --account d --state-folder e --log-level f --log-format g";
    let parse = |command: &str, flags: &str| {
        let words = ["bearerd", command].into_iter().chain(flags.split(' '));
        Arguments::try_parse_from(words).unwrap().command
    };
    let Command::Serve(common) = parse("serve", all) else {
        panic!()
    };
    let sandbox = "--listen a --account b --key-id-file c --api-key-file d --token-lifetime e --window f --limit g \
                   --over-budget-status 429 --failures-count --revokes-previous";
    let Command::Sandbox(sandbox) = parse("sandbox", sandbox) else {
        panic!()
    };
    let Command::Demo(demo) = parse("demo", "--window 20s") else {
        panic!()
    };
    let flags = [common.flags(), sandbox.flags(), demo.flags()].concat();
    assert_eq!(flags.len(), 7 + 10 + 4);
    assert_eq!(flags[1].text, "a,b");
    for flag in flags {
        assert!(
            crate::config::KEYS.iter().any(|key| key.path == flag.path),
            "{}",
            flag.path
        );
    }
}

#[test]
fn good_settings_are_printed() {
    let desk = Desk::new();
    let (exit, out, err) = desk.run("check", &["--http-listen", "127.0.0.1:1"]);
    assert_eq!(exit, Exit::Done, "{err}");
    assert!(
        out.contains("listen = [\"127.0.0.1:1\"]") && out.contains("# flag"),
        "{out}"
    );
    assert!(
        err.contains("the settings are good; serve will make the state folder"),
        "{err}"
    );
    let (exit, out, _) = desk.run("check", &["--format", "json"]);
    let document: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!(exit, Exit::Done);
    assert_eq!(document["settings"]["budget.limit"]["value"], 10);
    assert_eq!(document["settings"]["budget.limit"]["from"], "default");
}

#[test]
fn wrong_settings_are_told_on_stderr() {
    let desk = Desk::new();
    for command in ["check", "init"] {
        let (exit, out, err) = desk.run(command, &["--log-format", "xml", "--account", "a/b"]);
        assert_eq!((exit, out.as_str()), (Exit::BadSettings, ""));
        assert!(
            err.contains("--log-format: ") && err.contains("--account: "),
            "{err}"
        );
        assert_eq!(err.lines().count(), 2, "{err}");
    }
    let file = desk.folder.path().join("a-file");
    fs::write(&file, "").unwrap();
    for command in ["check", "init"] {
        let (exit, _, err) = desk.run(command, &["--state-folder", &file.display().to_string()]);
        assert_eq!(exit, Exit::BadSettings);
        assert!(
            err.contains("record.file.folder: the state folder"),
            "{err}"
        );
    }
}

#[test]
fn a_record_is_written_once_and_belongs_to_its_account() {
    let desk = Desk::new();
    let (exit, out, _) = desk.run("init", &[]);
    assert_eq!(
        (exit, out.trim_end()),
        (Exit::Done, desk.record().to_str().unwrap())
    );
    let record = Record::parse(&fs::read(desk.record()).unwrap()).unwrap();
    assert_eq!(record.account, "acct-1");
    assert_eq!(record.lineage.len(), 32);

    let (exit, out, err) = desk.run("init", &[]);
    assert_eq!((exit, out.as_str()), (Exit::Failed, ""));
    assert!(
        err.contains("record.json.aside', and run init again"),
        "{err}"
    );

    assert_eq!(desk.run("check", &[]).0, Exit::Done);
    let (exit, _, err) = desk.run("check", &["--account", "acct-2"]);
    assert_eq!(exit, Exit::Done);
    assert!(
        err.contains("serve will take it over for \"acct-2\""),
        "{err}"
    );
    assert!(
        err.contains("lost at N starts within a window can cost 3N"),
        "{err}"
    );
    let held = Record {
        token: Some(Token {
            generation: record.generation,
            secret: Secret::new("secret".into()),
            issued_at: record.written.at,
            refresh_at: record.written.at,
            expires_at: record.written.at,
        }),
        ..record
    };
    fs::write(desk.record(), &*held.to_text()).unwrap();
    let (exit, _, err) = desk.run("check", &["--account", "acct-2"]);
    assert_eq!(exit, Exit::BadSettings);
    assert!(err.contains("record.json.aside"), "{err}");
    assert!(err.contains("belongs to account \"acct-1\""), "{err}");
}

#[test]
fn a_check_leaves_a_torn_record_where_it_is() {
    let desk = Desk::new();
    desk.run("init", &[]);
    fs::write(desk.record(), "{").unwrap();
    let (exit, _, err) = desk.run("check", &[]);
    assert_eq!(exit, Exit::Done);
    assert!(err.contains("it is not a whole record"), "{err}");
    assert_eq!(fs::read_to_string(desk.record()).unwrap(), "{");

    fs::write(desk.record(), "{\"format\": \"9.0\"}").unwrap();
    let (exit, _, err) = desk.run("check", &[]);
    assert_eq!(exit, Exit::BadSettings);
    assert!(err.contains("newer format 9.0"), "{err}");
}

#[test]
fn memory_has_no_record_to_write() {
    let desk = Desk::new();
    let (exit, out, err) = bearerd(
        &["init", "--config", &desk.file],
        &[("BEARERD_RECORD__REGISTER", "memory")],
    );
    assert_eq!((exit, out.as_str()), (Exit::BadSettings, ""));
    assert!(
        err.contains("record.register: with \"memory\" there is no record"),
        "{err}"
    );
}
