//! Every command that is shown.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::PermissionsExt;

use rustix::process::Signal;

use super::{blocks, document, documents, elsewhere, place, spans};
use crate::demo::Demo;
use crate::harness::{Scale, World};
use crate::terminal::{Process, bearerd, run, sh};

/// What a line of a block is, and so how it is tried.
#[derive(Debug, PartialEq)]
enum Line<'a> {
    Demo,
    Script,
    Tests(&'a str),
    Bearerd(&'a str),
    /// It asks over TLS: `tls::examples` runs it.
    OverTls,
    /// It makes stubs: `languages` runs it.
    Stubs,
    /// It is run in a folder that stands for the root.
    Install,
    /// What it builds is the binary of the tests.
    Build,
    /// It needs a machine of its own, and is only looked at.
    Elsewhere(&'a str),
}

fn line(text: &str) -> Line<'_> {
    known(text).unwrap_or_else(|| panic!("no rule for this line: {text}"))
}

fn known(text: &str) -> Option<Line<'_>> {
    let command = text.split(" #").next().unwrap().trim();
    let (program, rest) = command.split_once(' ').unwrap_or((command, ""));
    Some(match program {
        "cargo" if rest == "run --release -- demo" => Line::Demo,
        "cargo" if rest == "build --release" => Line::Build,
        "curl" if text.contains(" https://") => Line::OverTls,
        "curl" => Line::Script,
        _ if text.starts_with("TOKEN=$(curl ") => Line::Script,
        "python" if rest.starts_with("-m grpc_tools.protoc ") => Line::Stubs,
        "install" => Line::Install,
        "tests/run" => Line::Tests(rest.trim()),
        "bearerd" => Line::Bearerd(rest),
        _ if elsewhere::PROGRAMS.iter().any(|(it, _)| *it == program) => Line::Elsewhere(command),
        _ => return None,
    })
}

/// The statuses that a documented request may have.
fn expected(request: &str) -> &'static [&'static str] {
    let path = request.split("http://").nth(1).unwrap();
    let path = path.split_once('/').unwrap().1.trim_matches([')', '\'']);
    match path.split_once(' ').map_or(path, |(path, _)| path) {
        "v1/token/rejected" => &["202"],
        // Right behind another mint the pace says not now.
        "refresh" => &["202", "429"],
        "v1/token"
        | "readyz?verbose"
        | "status"
        | "metrics"
        | "settings"
        | "log?for=10m"
        | "v2/clients/demo/dynamic_call_record"
        | "_sandbox/switches" => &["200"],
        other => panic!("no rule for {other}"),
    }
}

#[test]
fn every_curl_command_works_against_the_demo() {
    let demo = Demo::start();
    let addresses = demo.addresses();
    let fixed = ["127.0.0.1:7290", "127.0.0.1:7292", "127.0.0.1:7299"];
    let mut asked = 0;
    for block in blocks("sh") {
        let lines = block
            .lines()
            .filter(|text| !text.is_empty() && line(text) == Line::Script);
        let mut script: String = lines.map(|text| format!("{text}\n")).collect();
        let requests: Vec<&'static [&str]> = script.lines().map(expected).collect();
        for (fixed, actual) in fixed.iter().zip(&addresses) {
            script = script.replace(fixed, actual);
        }
        let said = sh(&script, &[]);
        assert_eq!(said.code, Some(0), "{script}{said:?}");
        let statuses = said.statuses();
        assert_eq!(statuses.len(), requests.len(), "{said:?}");
        for (status, request) in statuses.iter().zip(&requests) {
            assert!(request.contains(status), "{status}: {script}{said:?}");
        }
        asked += statuses.len();
    }
    assert!(asked >= 10, "the documents have lost their commands");
    demo.process.signal(Signal::INT);
    assert_eq!(demo.process.end().code, Some(0));
}

// The sandbox goes on while a command is waited for.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_other_command_works() {
    let world = World::new(Scale::still()).await;
    let admin = format!("unix:{}", world.path("admin.sock").display());
    // Where the commands find it; a port that the system chooses, they could not.
    let text = world
        .toml(&world.state(), "state")
        .replace(
            "[admin]\nlisten = [\"127.0.0.1:0\"]",
            &format!("[admin]\nlisten = [{admin:?}]"),
        )
        .replace("[http]\nlisten = [\"127.0.0.1:0\", ", "[http]\nlisten = [");
    let file = world.write("bearerd.toml", &text);
    let environment = [("BEARERD_CONFIG", file.to_str().unwrap())];
    let mut daemon = None;
    let (mut demos, mut tests) = (0, 0);
    let mut shown: BTreeMap<&str, usize> = BTreeMap::new();
    for block in blocks("sh") {
        for text in block.lines().filter(|text| !text.is_empty()) {
            match line(text) {
                Line::Script | Line::OverTls | Line::Stubs | Line::Install | Line::Build => {}
                Line::Demo => demos += 1,
                Line::Tests(part) => {
                    tests += 1;
                    a_part_of_the_tests(part);
                }
                Line::Bearerd("serve") if daemon.is_some() => {}
                Line::Bearerd("serve") => {
                    let mut process = Process::start(bearerd(&["serve"], &environment));
                    process.until("a token", |_| {
                        (run(&["status"], &environment).code == Some(0)).then_some(())
                    });
                    daemon = Some(process);
                }
                Line::Elsewhere(command) => {
                    *shown.entry(elsewhere::parse(command)).or_default() += 1;
                }
                Line::Bearerd(arguments) => {
                    let arguments = arguments.split(" #").next().unwrap();
                    let arguments: Vec<&str> = arguments.split_whitespace().collect();
                    let said = run(&arguments, &environment);
                    // Right behind another mint the pace says not now.
                    let not_now = arguments == ["refresh"] && said.code == Some(75);
                    assert!(said.code == Some(0) || not_now, "{text}: {said:?}");
                    // That command is there to show the token.
                    if arguments[0] != "token" {
                        world.captured.add(text, &(said.out + &said.err));
                    }
                }
            }
        }
    }
    assert!(demos >= 1 && tests >= 1, "{demos} demos, {tests} tests");
    let daemon = daemon.expect("a document shows how to serve");
    daemon.signal(Signal::TERM);
    assert_eq!(daemon.end().code, Some(0));
    assert_eq!(
        shown.into_iter().collect::<Vec<_>>(),
        elsewhere::PROGRAMS,
        "commands that only another machine can run"
    );
    world.finish();
}

/// Commands within sentences are known, too.
#[test]
fn commands_in_sentences_are_known() {
    let (mut ours, mut tests) = (BTreeSet::new(), 0);
    for span in documents().iter().flat_map(|name| spans(name)) {
        let span = span.strip_prefix("BLESS=1 ").unwrap_or(&span);
        if let Some(part) = span.strip_prefix("tests/run ") {
            a_part_of_the_tests(part);
            tests += 1;
        } else if let Some(rest) = span.strip_prefix("bearerd ") {
            let words = rest.split(' ');
            let is_word = |it: &&str| it.bytes().all(|it| it.is_ascii_lowercase());
            ours.insert(words.take_while(is_word).collect::<Vec<_>>().join(" "));
        } else if let Some(Line::Elsewhere(command)) = known(span).filter(|_| span.contains(' ')) {
            elsewhere::parse(command);
        }
    }
    assert!(ours.len() >= 10 && tests >= 10, "{ours:?}, {tests}");
    for command in ours.iter().filter(|it| !it.is_empty()) {
        // An argument such as a shell's name is no command: what is before it is.
        let mut words: Vec<&str> = command.split(' ').collect();
        words.push("--help");
        let said = run(&words, &[]);
        assert_eq!(said.code, Some(0), "bearerd {command}: {said:?}");
    }
}

/// The script is there, can be run, and knows the part.
fn a_part_of_the_tests(part: &str) {
    let path = place("tests/run");
    assert!(fs::metadata(&path).unwrap().permissions().mode() & 0o111 == 0o111);
    let part = part.strip_prefix("--yes").unwrap_or(part).trim();
    if part == "--help" {
        return;
    }
    let (part, filter) = part.split_once(' ').unwrap_or((part, ""));
    let script = fs::read_to_string(path).unwrap();
    let first = filter.split(' ').next().unwrap_or_default();
    let there = match part {
        _ if filter.is_empty() => true,
        "integration" => include_str!("../main.rs").contains(&format!("mod {filter};")),
        "mutations" => place(&format!("tests/mutations/{filter}.patch")).is_file(),
        "bench" => fs::read_to_string(place("tests/bench/run"))
            .is_ok_and(|script| script.contains(&format!("\"{first}\""))),
        "fuzz" => place(&format!("tests/fuzz/corpus/{first}")).is_dir(),
        _ => first.starts_with("--") && script.contains(&format!("{first})")),
    };
    assert!(there, "tests/run {part} {filter}");
    let usage = sh(&format!("'{}' --help", place("tests/run").display()), &[]);
    assert_eq!(usage.code, Some(0), "{usage:?}");
    let mut lines = usage.out.lines().map(str::trim_start);
    let named = format!("tests/run {part} ");
    assert!(
        lines.any(|it| part.is_empty() || it.starts_with(&named)),
        "{part}"
    );
}

#[test]
fn what_is_installed_lies_where_the_unit_looks_for_it() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    fs::create_dir_all(root.join("target/release")).unwrap();
    std::os::unix::fs::symlink(place("deploy"), root.join("deploy")).unwrap();
    for name in ["target/release/bearerd", "key_id", "api_key"] {
        fs::write(root.join(name), "a").unwrap();
    }
    let mut installed = 0;
    for block in blocks("sh") {
        for text in block.lines().filter(|text| !text.is_empty()) {
            if line(text) == Line::Install {
                let command = text.split(" #").next().unwrap().trim();
                let (before, to) = command.rsplit_once(' ').unwrap();
                let said = sh(
                    &format!("cd '{0}'\n{before} '{0}{to}'\n", root.display()),
                    &[],
                );
                assert_eq!(said.code, Some(0), "{text}: {said:?}");
                installed += 1;
            }
        }
    }
    assert_eq!(installed, 6);
    let unit = document("deploy/systemd/bearerd.service");
    for path in [
        "/usr/local/bin/bearerd",
        "/etc/bearerd/bearerd.toml",
        "/etc/bearerd/keys/key_id",
        "/etc/bearerd/keys/api_key",
    ] {
        assert!(unit.contains(path) && root.join(&path[1..]).is_file());
    }
}
