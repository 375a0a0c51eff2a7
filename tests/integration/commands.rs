//! What scripts ask: the token, the wait for it, and how each command ends.

use std::time::Duration;

use bearerd::sandbox::Outcome;
use jiff::Timestamp;
use rustix::process::Signal;
use serde_json::Value;

use crate::harness::{Daemon, PATIENCE, Scale, World};
use crate::terminal::{Process, bearerd, run, sh};

/// One row: in which state, what is typed, how it ends, and a word that says why.
type Row<'a> = (&'a str, &'a str, i32, &'a str);

#[rustfmt::skip]
const ROWS: &[Row<'_>] = &[
    // A live token.
    ("live", "token --address HTTP", 0, ""),
    ("live", "token --format raw --address HTTP", 0, ""),
    ("live", "token --format header --wait 1s --address SOCKET", 0, ""),
    ("live", "wait --address HTTP", 0, ""),
    ("live", "status --admin ADMIN", 0, ""),
    ("live", "refresh --admin ADMIN", 75, "No refresh now"),
    ("live", "unpark --config FILE", 0, "it is not parked"),
    ("live", "ledger show --config FILE", 0, ""),
    ("live", "ledger spend 1 --config FILE", 0, "1 spent"),
    ("live", "ledger reset --yes --config FILE", 1, "a daemon answers at unix:"),
    ("live", "init --config FILE", 1, "there is a record at"),
    // Another door, and no door at all.
    ("live", "token --address ADMIN", 1, "refuses"),
    ("live", "wait --address ADMIN", 1, "refuses"),
    ("live", "status --admin HTTP", 1, "refuses"),
    ("live", "refresh --admin HTTP", 1, "refuses"),
    ("live", "token --address SANDBOX", 1, "does not answer as a bearerd does"),
    // No token yet.
    ("none", "token --address HTTP", 75, "There is no token yet"),
    ("none", "token --wait 1s --address HTTP", 75, "There is no token yet"),
    ("none", "wait --timeout 4s --address HTTP", 75, "no token within 4s: There is no token yet"),
    ("none", "status --admin ADMIN", 75, ""),
    // An expired one.
    ("expired", "token --format raw --address HTTP", 75, "The token has expired"),
    ("expired", "token --wait 1s --address SOCKET", 75, "The token has expired"),
    ("expired", "wait --timeout 4s --address HTTP", 75, "no token within 4s: The token has expired"),
    ("expired", "status --admin ADMIN", 75, ""),
    // Nobody.
    ("nobody", "token --address HTTP", 75, "no daemon answers at"),
    ("nobody", "token --wait 1s --address SOCKET", 75, "no daemon answers at unix:"),
    ("nobody", "wait --timeout 2s --address HTTP", 75, "no token within 2s: no daemon answers at"),
    ("nobody", "status --admin ADMIN", 75, "no daemon answers at"),
    ("nobody", "refresh --admin ADMIN", 75, "no daemon answers at"),
    ("nobody", "version", 0, ""),
    ("nobody", "completions zsh", 0, ""),
    ("nobody", "man", 0, ""),
    ("nobody", "check --config FILE", 0, "the settings are good"),
    ("nobody", "ledger show --config FILE", 0, ""),
    ("nobody", "ledger spend 3 --config FILE", 0, "3 spent"),
    ("nobody", "ledger reset --yes --config FILE", 0, "slots, the claim and the waits are forgotten"),
    ("nobody", "ledger show --config FILE --state-folder FOLDER", 1, "there is no record at"),
    ("nobody", "ledger spend 1 --config FILE --state-folder FOLDER", 1, "there is no record at"),
    ("nobody", "unpark --config FILE --state-folder FOLDER", 1, "there is no record at"),
    ("nobody", "ledger show --config FILE --account another", 78, "belongs to account"),
    ("nobody", "unpark --config FILE --account another", 78, "belongs to account"),
    // What there is not.
    ("nobody", "", 2, "Usage"),
    ("nobody", "tokens", 2, "token"),
    ("nobody", "token --format xml", 2, "xml"),
    ("nobody", "token --wait soon", 2, "expected a length of time"),
    ("nobody", "token --address nowhere", 2, "--address: `nowhere` is neither"),
    ("nobody", "wait --timeout 2days", 2, "up to a day"),
    ("nobody", "wait --address unix:here", 2, "absolute path"),
    ("nobody", "status --admin nowhere", 2, "--admin: "),
    ("nobody", "status --admin nowhere.invalid:1", 75, "the name does not resolve on this machine: mend it in --admin or admin.listen"),
    ("nobody", "status --watch --admin nowhere", 2, "--admin: "),
    ("nobody", "refresh --admin nowhere", 2, "--admin: "),
    ("nobody", "ledger", 2, "Usage"),
    ("nobody", "ledger spend --config FILE", 2, "COUNT"),
    ("nobody", "ledger spend 0 --config FILE", 2, "spend takes 1 to 10 slots"),
    ("nobody", "ledger spend 11 --config FILE", 2, "spend takes 1 to 10 slots"),
    ("nobody", "ledger reset --config FILE", 2, "with --yes"),
    ("nobody", "completions tcsh", 2, "tcsh"),
    // Settings that are wrong.
    ("nobody", "token --config MISSING", 78, "http.listen cannot be read"),
    ("nobody", "wait --config MISSING", 78, "http.listen cannot be read"),
    ("nobody", "status --config MISSING", 78, "admin.listen cannot be read"),
    ("nobody", "refresh --config MISSING", 78, "admin.listen cannot be read"),
    ("nobody", "check --config MISSING", 78, "cannot be read"),
    ("nobody", "init --config MISSING", 78, "cannot be read"),
    ("nobody", "ledger show --config MISSING", 78, "cannot be read"),
    ("nobody", "ledger spend 1 --config MISSING", 78, "cannot be read"),
    ("nobody", "ledger reset --yes --config MISSING", 78, "cannot be read"),
    ("nobody", "unpark --config MISSING", 78, "cannot be read"),
];

/// Types every row of this state; the places stand for where this daemon is, or was.
fn type_rows(state: &str, world: &World, places: &[(&str, String)]) {
    let mut typed = 0;
    for (_, line, code, why) in ROWS.iter().filter(|row| row.0 == state) {
        let mut arguments = line.to_string();
        for (place, actual) in places {
            arguments = arguments.replace(place, actual);
        }
        let words: Vec<&str> = arguments.split_whitespace().collect();
        let said = run(&words, &[]);
        assert_eq!(said.code, Some(*code), "{state}: {line}: {}", said.err);
        assert!(said.err.contains(why), "{state}: {line}: {}", said.err);
        // The status says it on its page.
        if *code != 0 && !(line.starts_with("status") && why.is_empty()) {
            assert!(!said.err.is_empty(), "{state}: {line} says nothing");
            assert_eq!(said.out, "", "{state}: {line}");
        }
        world.captured.add(line, &said.err);
        if !line.starts_with("token") {
            world.captured.add(line, &said.out);
        }
        typed += 1;
    }
    assert!(typed > 0, "{state}");
}

fn places(world: &World, daemon: &Daemon) -> Vec<(&'static str, String)> {
    let base = world.sandbox.base_url();
    let path = |name: &str| world.path(name).display().to_string();
    vec![
        ("HTTP", daemon.http.clone()),
        ("SOCKET", format!("unix:{}", daemon.socket)),
        ("ADMIN", daemon.admin.clone()),
        ("SANDBOX", base.trim_start_matches("http://").to_owned()),
        ("FILE", path("state.toml")),
        ("FOLDER", path("empty")),
        ("MISSING", path("missing.toml")),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_command_ends_with_its_exit_code() {
    let world = World::new(Scale::still()).await;
    let daemon = world.start().await;
    daemon.first_token().await;
    let there = places(&world, &daemon);
    type_rows("live", &world, &there);
    let token = daemon.token().await.access_token();
    for (more, end) in [(&[][..], "\n"), (&["--no-newline"], "")] {
        let raw = [
            &["token", "--format", "raw", "--address", &daemon.http][..],
            more,
        ]
        .concat();
        // It is compared without being shown.
        let printed = bearerd(&raw, &[]).output().unwrap().stdout;
        assert!(printed == format!("{token}{end}").as_bytes(), "{more:?}");
    }
    assert!(daemon.stop().await.success());
    type_rows("nobody", &world, &there);
    world.finish();

    let mut world = World::new(Scale::brisk()).await;
    world.stop_sandbox().await;
    let daemon = world.start().await;
    type_rows("none", &world, &places(&world, &daemon));
    world.start_sandbox().await;
    daemon.first_token().await;
    world.stop_sandbox().await;
    let expired = |status: &Value| status["ready"] == false;
    daemon.until("the token has expired", expired).await;
    type_rows("expired", &world, &places(&world, &daemon));
    assert!(daemon.stop().await.success());
    world.finish();
}

/// Arguments and an environment, and whether they lead to the daemon.
type Way<'a> = (&'a [&'a str], &'a [(&'a str, &'a str)], bool);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_daemon_is_found_by_flag_settings_and_environment() {
    let world = World::new(Scale::still()).await;
    let daemon = world.start().await;
    let token = daemon.first_token().await.access_token();
    let socket = format!("unix:{}", daemon.socket);
    let (http, admin) = (daemon.http.clone(), daemon.admin.clone());
    let text = format!("[http]\nlisten = [{socket:?}]\n[admin]\nlisten = [{admin:?}]\n");
    let file = world.write("found.toml", &text).display().to_string();
    let nowhere = world.path("nowhere.sock").display().to_string();
    let (http_listen, admin_listen) = ("BEARERD_HTTP__LISTEN", "BEARERD_ADMIN__LISTEN");
    let both = format!("{socket},{http}");
    let wrong = format!("unix:{nowhere}");
    let ways: [Way<'_>; 6] = [
        (&["--config", &file], &[], true),
        (&[], &[("BEARERD_CONFIG", &file)], true),
        (&[], &[(http_listen, &both), (admin_listen, &admin)], true),
        (&["--config", &file], &[(http_listen, &http)], true),
        (
            &["--config", &file],
            &[(http_listen, &wrong), (admin_listen, &wrong)],
            false,
        ),
        (
            &[],
            &[(http_listen, "nowhere"), (admin_listen, "nowhere")],
            false,
        ),
    ];
    for (arguments, environment, found) in ways {
        let said = run(
            &[&["token", "--format", "raw"], arguments].concat(),
            environment,
        );
        let expected = if found {
            format!("{token}\n")
        } else {
            String::new()
        };
        assert_eq!(
            said.out, expected,
            "{arguments:?} {environment:?} {}",
            said.err
        );
        for command in ["wait", "status"] {
            let patience: &[&str] = if command == "wait" {
                &["--timeout", "300ms"]
            } else {
                &[]
            };
            let said = run(&[&[command], patience, arguments].concat(), environment);
            assert_eq!(
                said.code == Some(0),
                found,
                "{command} {arguments:?} {environment:?}"
            );
        }
    }
    // A flag goes before all of it.
    let said = run(
        &["token", "--format", "header", "--address", &http],
        &[(http_listen, &wrong)],
    );
    assert_eq!(said.out, format!("Authorization: Bearer {token}\n"));
    assert!(daemon.stop().await.success());
    world.finish();
}

/// Until when each token lives by the sandbox's wall clock.
fn ends(world: &World) -> Vec<(String, Timestamp)> {
    let log = world.sandbox.log();
    let minted = log
        .entries
        .iter()
        .filter(|entry| matches!(entry.outcome, Outcome::Minted { .. }));
    let ends = minted.map(|entry| entry.wall + world.scale.lifetime);
    world
        .sandbox
        .issued_tokens()
        .into_iter()
        .zip(ends)
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shell_loop_under_rotation_never_prints_an_expired_token() {
    let mut world = World::new(Scale::brisk()).await;
    let daemon = world.start().await;
    daemon.first_token().await;
    let script = format!(
        "while ! test -e {}; do\n  began=$(date +%s%N)\n  token=$(bearerd token --format raw --address unix:{} 2>/dev/null) \
         && code=0 || code=$?\n  echo \"$began $code $token\"\ndone",
        world.path("enough").display(),
        daemon.socket
    );
    let looping = tokio::task::spawn_blocking(move || sh(&script, &[]));
    let arrivals = world.sandbox.mints() as u64;
    world.sandbox.arrived(arrivals + 4).await;
    // The end of a token under the loop's eyes, and the way back.
    world.stop_sandbox().await;
    let expired = |status: &Value| status["ready"] == false;
    daemon.until("the token has expired", expired).await;
    world.start_sandbox().await;
    daemon
        .until("there is a token again", |status| status["ready"] == true)
        .await;
    let arrivals = world.sandbox.mints() as u64;
    world.sandbox.arrived(arrivals + 2).await;
    std::fs::write(world.path("enough"), "").unwrap();
    let said = looping.await.unwrap();
    assert_eq!(said.code, Some(0), "{said:?}");

    let ends = ends(&world);
    let (mut printed, mut refused) = (0, 0);
    let mut different = std::collections::BTreeSet::new();
    for line in said.out.lines() {
        let mut words = line.splitn(3, ' ');
        let began: i64 = words.next().unwrap().parse().unwrap();
        let (code, token) = (words.next().unwrap(), words.next().unwrap_or_default());
        if code != "0" {
            assert_eq!(
                (code, token),
                ("75", ""),
                "what cannot be had is not printed"
            );
            refused += 1;
            continue;
        }
        let (_, end) = ends
            .iter()
            .find(|(known, _)| known == token)
            .expect("a token of the sandbox");
        let began = Timestamp::from_nanosecond(began.into()).unwrap();
        assert!(
            began < *end,
            "printed {} after its end",
            began.duration_since(*end)
        );
        different.insert(token.to_owned());
        printed += 1;
    }
    println!(
        "{} tokens, {printed} printed, {refused} refused",
        different.len()
    );
    assert!(
        different.len() >= 5 && printed > 20 && refused > 0,
        "{} tokens, {printed} printed, {refused} refused",
        different.len()
    );
    assert!(daemon.stop().await.success());
    world.finish();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wait_is_over_when_a_token_can_be_had() {
    let mut world = World::new(Scale::still()).await;
    let gate = world.sandbox.hold_mints();
    let socket = format!("unix:{}", world.path("state.sock").display());
    let wait = |timeout: &str| bearerd(&["wait", "--timeout", timeout, "--address", &socket], &[]);
    // Nobody answers yet, and the upstream is slow.
    let early = Process::start(wait("60s"));
    let daemon = world.start().await;
    gate.reached(1).await;
    let slow = Process::start(wait("60s"));
    let short = Process::start(wait("4s")).end();
    assert_eq!(short.code, Some(75));
    assert!(short.err.contains("There is no token yet"), "{}", short.err);
    gate.open();
    for waiting in [early, slow] {
        let said = waiting.end();
        assert_eq!(
            (said.code, said.out.as_str(), said.err.as_str()),
            (Some(0), "", "")
        );
    }
    // The upstream is down, and there is a token all the same.
    world.stop_sandbox().await;
    assert_eq!(Process::start(wait("60s")).end().code, Some(0));
    assert!(daemon.stop().await.success());
    // It is down, and there is none.
    std::fs::remove_file(world.record()).unwrap();
    let daemon = world.start().await;
    daemon
        .until("it has tried", |status| !status["trouble"].is_null())
        .await;
    let said = Process::start(wait("4s")).end();
    assert_eq!(said.code, Some(75));
    assert!(said.err.contains("last trouble (not_sent)"), "{}", said.err);
    assert!(daemon.stop().await.success());
    world.finish();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watched_status_is_printed_once_for_each_change_until_it_is_interrupted() {
    let world = World::new(Scale::brisk()).await;
    let daemon = world.start().await;
    daemon.first_token().await;
    let watch = |format: &str| {
        let arguments = [
            "status",
            "--watch",
            "--admin",
            &daemon.admin,
            "--format",
            format,
        ];
        Process::start(bearerd(&arguments, &[]))
    };
    let (mut text, mut json) = (watch("text"), watch("json"));
    for process in [&mut text, &mut json] {
        process.until("three blocks", |it| {
            let blocks = it.out().matches("account   ").count()
                + it.out().lines().filter(|it| it.starts_with('{')).count();
            (blocks >= 3).then_some(())
        });
        process.signal(Signal::INT);
    }
    let (text, json) = (text.end(), json.end());
    assert_eq!((text.code, text.err.as_str()), (Some(0), ""));
    assert!(!text.out.contains('\x1b'), "no cursor is moved in a pipe");
    assert_eq!(json.code, Some(0));
    let mut last = Value::Null;
    for line in json.out.lines() {
        let document: Value = serde_json::from_str(line).unwrap();
        let state = |it: &Value| {
            (
                it["token"].clone(),
                it["budget"]["slots"].clone(),
                it["minting"].clone(),
            )
        };
        assert!(
            state(&document) != state(&last) || document["next"] != last["next"],
            "{line}"
        );
        last = document;
    }
    world
        .captured
        .add("status --watch", &(text.out + &json.out));
    assert!(daemon.stop().await.success());
    world.finish();
}

#[test]
fn completions_and_the_page_are_what_shells_and_man_read() {
    let version = run(&["version", "--format", "json"], &[]);
    let document: Value = serde_json::from_str(&version.out).unwrap();
    assert_eq!(document["version"], env!("CARGO_PKG_VERSION"));
    for (shell, word) in [
        ("bash", "complete -F"),
        ("zsh", "#compdef bearerd"),
        ("fish", "complete -c bearerd"),
        ("elvish", "edit:completion"),
        ("powershell", "Register-ArgumentCompleter"),
    ] {
        let said = run(&["completions", shell], &[]);
        assert_eq!((said.code, said.err.as_str()), (Some(0), ""));
        for word in [word, "ledger", "unpark", "address"] {
            assert!(said.out.contains(word), "{word} for {shell}");
        }
    }
    let parsed = sh("bearerd completions bash | bash -n", &[]);
    assert_eq!((parsed.code, parsed.err.as_str()), (Some(0), ""));
    let page = run(&["man"], &[]);
    assert_eq!(page.code, Some(0));
    assert!(
        page.out
            .lines()
            .any(|line| line.starts_with(".TH bearerd 1")),
        "{}",
        page.out
    );
    let rendered = sh("bearerd man | groff -k -man -Tutf8 -ww", &[]);
    assert_eq!((rendered.code, rendered.err.as_str()), (Some(0), ""));
    for word in [
        "BEARERD LEDGER SPEND",
        "bearerd token --format header | curl -H @- ...",
    ] {
        let plain = without_overstrikes(&rendered.out);
        assert!(plain.contains(word), "{word} in\n{plain}");
    }
}

/// What a terminal shows of bold and underlined words.
fn without_overstrikes(text: &str) -> String {
    let mut plain = String::new();
    let mut parts = text.split("\x1b[");
    plain.push_str(parts.next().unwrap());
    for part in parts {
        plain.push_str(part.split_once('m').map_or(part, |(_, rest)| rest));
    }
    let mut shown: Vec<char> = Vec::new();
    for c in plain.chars() {
        match c {
            '\u{8}' => drop(shown.pop()),
            c => shown.push(c),
        }
    }
    shown.into_iter().collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refresh_says_that_it_began() {
    let world = World::new(Scale::brisk()).await;
    let daemon = world.start().await;
    let first = daemon.first_token().await;
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        let said = run(&["refresh", "--admin", &daemon.admin], &[]);
        if said.code == Some(0) {
            assert_eq!((said.out.as_str(), said.err.as_str()), ("refreshing\n", ""));
            break;
        }
        assert_eq!((said.code, said.out.as_str()), (Some(75), ""));
        assert!(
            said.err.contains("No refresh now: waiting for"),
            "{}",
            said.err
        );
        assert!(tokio::time::Instant::now() < deadline, "{}", said.err);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    daemon.next_token(&first).await;
    assert!(daemon.stop().await.success());
    world.finish();
}
