//! The other commands: what they print, and how they end.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use bearerd::config::KEYS;
use rustix::process::Signal;
use serde_json::Value;

use crate::harness::{Scale, World};
use crate::terminal::{Process, bearerd, golden_file, run, sh};

#[test]
fn the_help_is_as_it_was_agreed() {
    let mut text = String::new();
    for command in [
        "",
        "serve",
        "demo",
        "sandbox",
        "token",
        "wait",
        "check",
        "init",
        "status",
        "refresh",
        "ledger",
        "ledger show",
        "ledger spend",
        "ledger reset",
        "unpark",
        "version",
        "completions",
        "man",
    ] {
        let arguments: Vec<&str> = command.split_whitespace().chain(["--help"]).collect();
        let said = run(&arguments, &[]);
        assert_eq!((said.code, said.err.as_str()), (Some(0), ""));
        text.push_str(&format!(
            "$ bearerd {}\n{}\n",
            arguments.join(" "),
            said.out
        ));
    }
    golden_file("help.txt", &text);
}

#[test]
fn the_version_is_data() {
    let expected = concat!("bearerd ", env!("CARGO_PKG_VERSION"), "\n");
    for word in ["version", "--version", "-V"] {
        let said = run(&[word], &[]);
        assert_eq!(
            (said.code, said.out.as_str(), said.err.as_str()),
            (Some(0), expected, "")
        );
    }
}

#[tokio::test]
async fn check_shows_every_setting_with_its_origin() {
    let world = World::new(Scale::still()).await;
    let text = world.toml(&world.state(), "state") + "[callers.orders]\nuids = [1000]\n";
    let file = world.write("bearerd.toml", &text);
    let file = file.to_str().unwrap();
    let said = run(&["check", "--config", file, "--format", "json"], &[]);
    assert_eq!(said.code, Some(0), "{}", said.err);
    let document: Value = serde_json::from_str(&said.out).unwrap();
    let text = run(&["check", "--config", file], &[]);
    for key in KEYS {
        let path = key.path.replace("NAME", "orders");
        let shown = &document["settings"][&path];
        assert!(
            shown.get("value").is_some() && shown["from"].is_string(),
            "{}",
            key.path
        );
        let name = key.path.rsplit('.').next().unwrap();
        assert!(text.out.contains(name), "{name} in\n{}", text.out);
    }
    assert_eq!(document["settings"]["upstream.account"]["from"], "file");
    assert_eq!(document["settings"]["budget.limit"]["value"], 10);
    world.captured.add("check", &(said.out + &text.out));
    world.finish();
}

#[tokio::test]
async fn init_writes_a_record_once_and_serve_goes_on_with_it() {
    let world = World::new(Scale::still()).await;
    let file = world.write("bearerd.toml", &world.toml(&world.state(), "state"));
    let file = file.to_str().unwrap();
    let said = run(&["init", "--config", file], &[]);
    assert_eq!((said.code, said.err.as_str()), (Some(0), ""));
    assert_eq!(said.out.trim_end(), world.record().to_str().unwrap());
    let mode = fs::metadata(world.record()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let record =
        || -> Value { serde_json::from_slice(&fs::read(world.record()).unwrap()).unwrap() };
    let lineage = record()["lineage"].clone();

    let again = run(&["init", "--config", file], &[]);
    assert_eq!((again.code, again.out.as_str()), (Some(1), ""));
    assert!(
        again.err.starts_with("there is a record at ") && again.err.lines().count() == 1,
        "{}",
        again.err
    );

    let daemon = world.start().await;
    daemon.first_token().await;
    assert!(daemon.stop().await.success());
    assert_eq!(
        record()["lineage"],
        lineage,
        "serve goes on with the record"
    );
    world.finish();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn status_tells_people_and_machines() {
    let mut world = World::new(Scale::brisk()).await;
    let daemon = world.start().await;
    let generation = daemon.first_token().await.generation();
    let captured = world.captured.clone();
    let ask = |format: &str| {
        let said = run(
            &["status", "--admin", &daemon.admin, "--format", format],
            &[],
        );
        captured.add("status", &said.out);
        said
    };
    let text = ask("text");
    assert_eq!((text.code, text.err.as_str()), (Some(0), ""), "{text:?}");
    for word in [
        "token     live for",
        "budget",
        "timeline",
        "record    file, up",
    ] {
        assert!(text.out.contains(word), "{word} in\n{}", text.out);
    }
    assert!(!text.out.contains('\x1b'), "no colour for a pipe");
    let document: Value = serde_json::from_str(&ask("json").out).unwrap();
    assert!(document["token"]["generation"].as_u64().unwrap() >= generation);
    assert_eq!(document["ready"], true);

    world.stop_sandbox().await;
    daemon
        .until("the token has expired", |status| status["ready"] == false)
        .await;
    let text = ask("text");
    assert_eq!(text.code, Some(75), "{text:?}");
    assert!(
        text.out.contains("EXPIRED") && text.out.contains("TROUBLE"),
        "{}",
        text.out
    );
    let admin = daemon.admin.clone();
    assert!(daemon.stop().await.success());
    let nobody = run(&["status", "--admin", &admin], &[]);
    assert_eq!((nobody.code, nobody.out.as_str()), (Some(75), ""));
    assert_eq!(nobody.err.lines().count(), 1, "{}", nobody.err);
    world.finish();
}

#[test]
fn the_sandbox_stands_alone() {
    let mut sandbox = Process::start(bearerd(&["sandbox", "--listen", "127.0.0.1:0"], &[]));
    let told = sandbox.until("the sandbox has told its address", |it| {
        serde_json::from_str::<Value>(&it.out()).ok()
    });
    let word = |name: &str| told[name].as_str().unwrap().to_owned();
    let (base, account) = (word("base_url"), word("account"));
    let keys = format!(
        "{{\"key_id\": \"{}\", \"api_key\": \"{}\"}}",
        word("key_id"),
        word("api_key")
    );
    let mint = format!(
        "curl -X POST -H 'X-Public-Access: allow' -H 'Content-Type: application/json' -d '{keys}' {base}/clients/{account}/token"
    );
    let control = "curl -X POST -H 'X-Bearerd-Request: true'";
    let minted = sh(&mint, &[]);
    assert_eq!(minted.statuses(), ["200"], "{minted:?}");
    let token: Value = serde_json::from_str(&minted.out).unwrap();
    assert!(token["token"].is_string(), "{token}");

    let script = format!(
        "{control} -d '{{\"fault\": \"status\", \"code\": 503}}' {base}/_sandbox/faults\n{mint}\n{mint}\ncurl {base}/_sandbox/state"
    );
    let said = sh(&script, &[]);
    assert_eq!(said.statuses()[..3], ["200", "503", "200"], "{said:?}");
    sandbox.signal(Signal::TERM);
    let said = sandbox.end();
    assert_eq!((said.code, said.err.as_str()), (Some(0), ""));
}

#[test]
fn the_sandbox_writes_settings_that_serve_takes() {
    // The second has tokens that live no longer than its window.
    for flags in [&[][..], &["--token-lifetime", "20s", "--window", "10m"]] {
        let place = tempfile::tempdir().unwrap();
        let folder = place.path().join("made").display().to_string();
        let arguments = [
            &[
                "sandbox",
                "--listen",
                "127.0.0.1:0",
                "--write-settings",
                &folder,
            ],
            flags,
        ];
        let mut sandbox = Process::start(bearerd(&arguments.concat(), &[]));
        let told = sandbox.until("the sandbox has told its address", |it| {
            serde_json::from_str::<Value>(&it.out()).ok()
        });
        let settings = told["settings"].as_str().unwrap().to_owned();
        assert_eq!(settings, format!("{folder}/bearerd.toml"));
        let ports = ["--http-listen", "--grpc-listen", "--admin-listen"]
            .map(|flag| [flag, "127.0.0.1:0"])
            .concat();
        let serve = [&["serve", "--config", &settings][..], &ports].concat();
        let mut daemon = Process::start(bearerd(&serve, &[]));
        daemon.until("the first token", |it| {
            it.err().contains("a token was minted").then_some(())
        });
        daemon.signal(Signal::TERM);
        assert_eq!(daemon.end().code, Some(0));
        // Somebody's real keys could be there.
        let again = run(&arguments.concat(), &[]);
        assert_eq!(again.code, Some(1), "{again:?}");
        assert!(
            again.err.contains("name a folder without it"),
            "{}",
            again.err
        );
        sandbox.signal(Signal::TERM);
        assert_eq!(sandbox.end().code, Some(0));
    }
}
