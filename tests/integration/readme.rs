//! The README is true: every command of it runs, and its tables are the program's own.
//!
//! Commands run as they are written but for this: `cargo run --release --` is the binary that was built for the tests; a demo that
//! the test starts, on ports of the system's choice, stands for `127.0.0.1:7290`, `:7292` and `:7299`; settings of the test's own
//! stand for `/etc/bearerd/bearerd.toml`; and what needs another machine, and `tests/run`, are only looked at.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use bearerd::config::{Fallback, KEYS, Key, Kind};
use reqwest::Method;
use rustix::process::Signal;
use serde_json::Value;

use crate::demo::Demo;
use crate::harness::{Scale, World};
use crate::terminal::{Process, bearerd, golden, golden_file, run, sh};
use crate::tls::certificates::{Authority, server};

fn place(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(name)
}

pub fn readme() -> String {
    fs::read_to_string(place("README.md")).unwrap()
}

/// The fenced blocks of one language.
pub fn blocks(language: &str) -> Vec<String> {
    let text = readme();
    let parts = text.split("\n```").skip(1).step_by(2);
    parts
        .filter_map(|block| block.strip_prefix(language)?.strip_prefix('\n'))
        .map(str::to_owned)
        .collect()
}

/// What a line of a block is, and so how it is tried.
#[derive(Debug, PartialEq)]
enum Line<'a> {
    Demo,
    Script,
    Tests(&'a str),
    Bearerd(&'a str),
    /// It needs a machine of its own, and is only looked at.
    Elsewhere(&'a str),
}

fn line(text: &str) -> Line<'_> {
    let command = text.split(" #").next().unwrap().trim();
    if command == "cargo run --release -- demo" {
        Line::Demo
    } else if text.starts_with("curl ") || text.starts_with("TOKEN=$(curl ") {
        Line::Script
    } else if let Some(rest) = command.strip_prefix("tests/run") {
        Line::Tests(rest.trim())
    } else if let Some(rest) = command.strip_prefix("bearerd ") {
        Line::Bearerd(rest)
    } else if ["docker ", "kubectl ", "install ", "systemctl ", "groupadd "]
        .iter()
        .any(|it| command.starts_with(it))
    {
        Line::Elsewhere(command)
    } else {
        panic!("no rule for this line of the README: {text}")
    }
}

/// The statuses that a request of the README may have.
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
    assert!(asked >= 10, "the README has lost its commands");
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
    for block in blocks("sh") {
        for text in block.lines().filter(|text| !text.is_empty()) {
            match line(text) {
                Line::Script => {}
                Line::Demo => demos += 1,
                Line::Tests(part) => {
                    tests += 1;
                    a_part_of_the_tests(part);
                }
                Line::Bearerd("serve") => {
                    let mut process = Process::start(bearerd(&["serve"], &environment));
                    process.until("a token", |_| {
                        (run(&["status"], &environment).code == Some(0)).then_some(())
                    });
                    daemon = Some(process);
                }
                Line::Elsewhere(command) => {
                    for file in command.split(' ').filter(|it| it.starts_with("deploy/")) {
                        // The name of a Kubernetes object looks like one of ours.
                        assert!(place(file).is_file() || file == "deploy/example", "{text}");
                    }
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
    let daemon = daemon.expect("the README shows how to serve");
    daemon.signal(Signal::TERM);
    assert_eq!(daemon.end().code, Some(0));
    for part in readme().split("`tests/run ").skip(1) {
        a_part_of_the_tests(part.split('`').next().unwrap());
    }
    world.finish();
}

/// The script is there, can be run, and knows the part.
fn a_part_of_the_tests(part: &str) {
    let path = place("tests/run");
    assert!(fs::metadata(&path).unwrap().permissions().mode() & 0o111 == 0o111);
    let part = part.strip_prefix("--yes").unwrap_or(part).trim();
    let (part, filter) = part.split_once(' ').unwrap_or((part, ""));
    let script = fs::read_to_string(path).unwrap();
    let first = filter.split(' ').next().unwrap_or_default();
    let there = match part {
        _ if filter.is_empty() => true,
        "integration" => include_str!("main.rs").contains(&format!("mod {filter};")),
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
fn every_rule_that_is_broken_on_purpose_is_named_and_no_other() {
    let text = readme();
    let laws = text.split("what breaks it on purpose |\n").nth(1).unwrap();
    let rows = laws.lines().take_while(|line| line.starts_with('|'));
    let breaks = rows.filter_map(|row| row.rsplit('|').nth(1));
    let named: BTreeSet<&str> = breaks
        .flat_map(|cell| cell.split('`').skip(1).step_by(2))
        .collect();
    let patches = fs::read_dir(place("tests/mutations")).unwrap();
    let mut there: BTreeSet<String> = patches
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter_map(|name| Some(name.strip_suffix(".patch")?.to_owned()))
        .collect();
    let edges = fs::read_to_string(place("tests/simulation/edges.rs")).unwrap();
    let wrapped = edges.split("    broken(Edge::").skip(1);
    there.extend(wrapped.map(|rest| rest.split(',').next().unwrap().to_owned()));
    assert!(there.len() > 20);
    assert_eq!(named, there.iter().map(String::as_str).collect());
}

#[test]
fn whoever_is_stopped_is_stopped_by_tests_that_exist() {
    let text = readme();
    let (_, rest) = text.split_once("\n## Against whom it stands\n").unwrap();
    let (section, _) = rest.split_once("\n## ").unwrap();
    let rows = section
        .lines()
        .filter(|line| line.starts_with("| "))
        .skip(1);
    let mut named = 0;
    for row in rows {
        let cell = row.trim_end_matches(" |").rsplit(" | ").next().unwrap();
        let modules = cell
            .split('`')
            .skip(1)
            .step_by(2)
            .flat_map(str::split_whitespace);
        for module in modules {
            let file = place(&format!("tests/integration/{module}.rs"));
            assert!(file.is_file(), "{module} in: {row}");
            named += 1;
        }
    }
    assert!(named >= 15, "{named}");
}

#[test]
fn the_example_settings_are_good() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path().display().to_string();
    for name in ["key_id", "api_key"] {
        let path = folder.path().join(name);
        fs::write(&path, format!("a-{name}")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    }
    let authority = Authority::new("root");
    let pair = authority.issue(&server());
    for (name, text) in [
        ("tls.crt", &pair.certificate),
        ("tls.key", &pair.key),
        ("ca.crt", &authority.certificate),
    ] {
        let path = folder.path().join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    }
    let examples = blocks("toml");
    assert!(!examples.is_empty());
    let whole = examples.iter().find(|it| it.contains("[upstream]"));
    let upstream = whole.unwrap();
    for example in &examples {
        // What shows one thing only goes with the first example's account and keys.
        let example = match example.contains("[upstream]") {
            true => example.clone(),
            false => format!("{upstream}\n{example}"),
        };
        let file = folder.path().join("bearerd.toml");
        let text = example
            .replace("/etc/bearerd/keys", &here)
            .replace("/etc/bearerd/tls", &here)
            .replace("/run/bearerd", &here);
        fs::write(&file, text).unwrap();
        let file = file.display().to_string();
        let said = run(&["check", "--config", &file, "--state-folder", &here], &[]);
        assert_eq!(said.code, Some(0), "{said:?}");
        assert!(!said.err.contains("warning: "), "{}", said.err);
    }
}

#[tokio::test]
async fn the_example_answer_has_the_members_of_a_real_one() {
    let world = World::new(Scale::still()).await;
    let daemon = world.start().await;
    let real = daemon.first_token().await.json();
    for example in blocks("json") {
        let example: Value = serde_json::from_str(&example).unwrap();
        let names = |document: &Value| -> Vec<String> {
            document.as_object().unwrap().keys().cloned().collect()
        };
        assert_eq!(names(&example), names(&real));
    }
    assert!(daemon.stop().await.success());
    world.finish();
}

/// Holds the part of the README between two marks to what it should be.
fn generated(mark: &str, table: &str) {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _held = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let text = readme();
    let (begin, end) = (format!("<!-- {mark} -->\n"), format!("<!-- /{mark} -->"));
    let (before, rest) = text.split_once(&begin).expect("the mark is there");
    let (found, after) = rest.split_once(&end).expect("what begins, ends");
    let whole = format!("{before}{begin}{table}{end}{after}");
    golden(place("README.md").to_str().unwrap(), table, found, &whole);
}

#[test]
fn the_settings_are_the_programs_own() {
    let mut table =
        "| key | default | what may be written | environment: `BEARERD_…` | what for |\n|---|---|---|---|---|\n".to_owned();
    for key in KEYS {
        let environment = key.env();
        table.push_str(&format!(
            "| `{}` | {} | {} | `{}` | {} |\n",
            key.path,
            default(key),
            values(key),
            environment.strip_prefix("BEARERD_").unwrap(),
            key.help
        ));
    }
    generated("settings", &table);
}

fn default(key: &Key) -> String {
    match key.fallback {
        Fallback::Value("") => "none".into(),
        Fallback::Value(text) => format!("`{text}`"),
        Fallback::Derived(text) => text.into(),
        Fallback::Required => "**required**".into(),
        Fallback::Unset => "unset".into(),
    }
}

fn values(key: &Key) -> String {
    match key.kind {
        Kind::Flag => "`true`, `false`".into(),
        Kind::Count { least, most } => format!("{least} to {most}"),
        Kind::Length => "length of time".into(),
        Kind::Choice(words) => format!("`{}`", words.join("`, `")),
        Kind::Text(what) => what.into(),
        Kind::List(what) | Kind::Numbers(what) => format!("list of {what}"),
    }
}

/// One family of `/metrics`.
#[derive(Default)]
struct Family {
    kind: String,
    help: String,
    /// Each label with its values.
    labels: BTreeMap<String, BTreeSet<String>>,
}

/// Adds the families of this text to those at hand.
fn read_families(metrics: &str, families: &mut BTreeMap<String, Family>) {
    let mut current = String::new();
    for line in metrics.lines() {
        if let Some((name, help)) = line
            .strip_prefix("# HELP ")
            .and_then(|it| it.split_once(' '))
        {
            families.entry(name.to_owned()).or_default().help = help.to_owned();
        } else if let Some((name, kind)) = line
            .strip_prefix("# TYPE ")
            .and_then(|it| it.split_once(' '))
        {
            families.entry(name.to_owned()).or_default().kind = kind.to_owned();
            current = name.to_owned();
        } else if let Some((_, rest)) = line.split_once('{') {
            let labels = rest.rsplit_once("\"}").unwrap().0;
            let family = families.get_mut(&current).unwrap();
            for (name, value) in labels.split("\",").map(|it| it.split_once("=\"").unwrap()) {
                let values = family.labels.entry(name.to_owned()).or_default();
                values.insert(value.to_owned());
            }
            family.labels.remove("le");
        }
    }
}

/// A label, and its values where they are the same in every version.
fn label(name: &str, values: &BTreeSet<String>) -> String {
    match name {
        "version" => format!("`{name}`"),
        _ => {
            let values: Vec<&str> = values.iter().map(String::as_str).collect();
            format!("`{name}`: {}", values.join(", "))
        }
    }
}

/// What is there before anything has happened is all that there will ever be.
#[tokio::test]
async fn the_metrics_are_those_of_a_running_daemon() {
    let mut world = World::new(Scale::still()).await;
    let mut all = BTreeMap::new();
    let gate = world.sandbox.hold_mints();
    let daemon = world.start().await;
    gate.reached(1).await;
    let before = daemon.ask_admin("/metrics").await.text;
    gate.open();
    daemon.first_token().await;
    let after = daemon.ask_admin("/metrics").await.text;
    assert_eq!(series(&before), series(&after));
    read_families(&after, &mut all);
    assert!(daemon.stop().await.success());
    world.settings("[record]\nregister = \"memory\"");
    let daemon = world.start().await;
    read_families(&daemon.ask_admin("/metrics").await.text, &mut all);
    assert!(daemon.stop().await.success());
    let labels = |family: &Family| {
        let labels = family.labels.iter();
        let labels: Vec<String> = labels.map(|(name, values)| label(name, values)).collect();
        labels.join("; ")
    };
    let names: String = all
        .iter()
        .map(|(name, family)| format!("{name} {} {}\n", family.kind, labels(family)))
        .map(|line| line.replace('`', "").replace(" \n", "\n"))
        .collect();
    golden_file("metrics.txt", &names);
    let mut table = "| metric | type | labels | what it says |\n|---|---|---|---|\n".to_owned();
    for (name, family) in all.iter().filter(|(name, _)| name.starts_with("bearerd_")) {
        table.push_str(&format!(
            "| `{name}` | {} | {} | {} |\n",
            family.kind,
            labels(family),
            family.help
        ));
    }
    generated("metrics", &table);
    world.finish();
}

/// The names and labels of every line, without the values.
fn series(metrics: &str) -> BTreeSet<&str> {
    let lines = metrics.lines().filter(|line| !line.starts_with('#'));
    lines.map(|line| line.rsplit_once(' ').unwrap().0).collect()
}

/// The words of the golden answers over gRPC, with their codes as the protocol names them.
fn codes(golden: &str) -> Vec<(String, String)> {
    let answers = golden.lines().filter_map(|line| line.strip_prefix("grpc "));
    answers
        .map(|line| {
            let mut parts = line.split(' ');
            let mut code = String::new();
            for letter in parts.next().unwrap().chars() {
                if letter.is_ascii_uppercase() && !code.is_empty() {
                    code.push('_');
                }
                code.push(letter.to_ascii_uppercase());
            }
            (parts.next().unwrap().to_ascii_lowercase(), code)
        })
        .collect()
}

/// The words of the golden problems with their statuses.
fn problems(golden: &str) -> Vec<(String, u16)> {
    let documents = golden.lines().filter(|line| line.starts_with('{'));
    documents
        .map(|line| {
            let document: Value = serde_json::from_str(line).unwrap();
            let word = document["type"].as_str().unwrap().rsplit(':').next();
            let status = document["status"].as_u64().unwrap();
            (word.unwrap().to_owned(), status.try_into().unwrap())
        })
        .collect()
}

#[tokio::test]
async fn every_word_for_a_failure_has_its_row() {
    let text = readme();
    let part = text.split("### What to do when").nth(1).unwrap();
    let part = part.split("\n### ").next().unwrap();
    let rows: Vec<(&str, &str, &str)> = part
        .lines()
        .filter_map(|line| {
            let mut cells = line.strip_prefix("| ")?.split(" | ");
            Some((cells.next()?, cells.next()?, cells.next()?))
        })
        .collect();
    let row = |word: &str| {
        let quoted = format!("`{word}`");
        let mut found = rows.iter().filter(|(words, ..)| words.contains(&quoted));
        found.next().unwrap_or_else(|| panic!("no row for {word}"))
    };
    let mut known = Vec::new();
    for golden in [
        include_str!("../golden/api_problems.txt"),
        include_str!("../golden/admin_problems.txt"),
    ] {
        for (word, status) in problems(golden) {
            let told = row(&word).1;
            assert!(told.contains(&status.to_string()), "{word}: {told}");
            known.push(word);
        }
        for (word, code) in codes(golden) {
            let told = row(&word).2;
            assert!(told.split(", ").any(|it| it == code), "{word}: {told}");
        }
    }

    let world = World::new(Scale::still()).await;
    let daemon = world.start().await;
    daemon.first_token().await;
    let metrics = daemon.ask_admin("/metrics").await.text;
    for (family, label) in [
        ("bearerd_refresh_attempts_total", "outcome"),
        ("bearerd_rejection_reports_total", "outcome"),
        ("bearerd_callers_refused_total", "reason"),
    ] {
        for line in metrics.lines().filter(|line| line.starts_with(family)) {
            let word = line.split_once(&format!("{label}=\"")).unwrap().1;
            known.push(word.split('"').next().unwrap().to_owned());
        }
    }
    let misdirected = daemon.send(Method::GET, &daemon.grpc, "/", &[], None).await;
    known.push(misdirected.unwrap().problem());
    let verbose = daemon.ask_admin("/readyz?verbose").await.text;
    for line in verbose.lines().skip(1) {
        known.push(line.split(": ").next().unwrap().to_owned());
    }
    for word in &known {
        row(word);
    }
    for (words, ..) in rows.iter().filter(|(words, ..)| words.contains('`')) {
        for word in words.split('`').skip(1).step_by(2) {
            assert!(known.iter().any(|it| it == word), "nothing says {word}");
        }
    }
    assert!(daemon.stop().await.success());
    world.finish();
}

#[test]
fn lines_can_be_read() {
    for (number, line) in readme().lines().enumerate() {
        let length = line.chars().count();
        assert!(
            length <= 170 || line.starts_with(['|', '{']),
            "line {} has {length} characters",
            number + 1
        );
    }
}
