//! Where a secret could show: everything that a daemon says, shows of itself and leaves behind, its memory, and what an abort leaves.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Stdio};

use bearerd::sandbox::ApiKey;
use rustix::process::Signal;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::callers::{GET, over_tcp};
use crate::harness::{Daemon, EVERYTHING, Scale, Spellings, World, base64, cannot_run_here, each};

/// What the system shows of a process to whoever may ask.
fn look_at(daemon: &Daemon, world: &World) {
    let process = format!("/proc/{}", daemon.pid().as_raw_nonzero());
    for file in [
        "environ",
        "cmdline",
        "status",
        "comm",
        "maps",
        "limits",
        "mountinfo",
    ] {
        let path = format!("{process}/{file}");
        let text = fs::read(&path).unwrap_or_default();
        world.captured.add(&path, &String::from_utf8_lossy(&text));
    }
    for entry in fs::read_dir(format!("{process}/fd")).into_iter().flatten() {
        let link = fs::read_link(entry.unwrap().path()).unwrap_or_default();
        world
            .captured
            .add("an open file", &link.display().to_string());
    }
}

/// All files but those of keys, and the record, which is looked at in the end.
fn look_at_files(folder: &Path, world: &World) {
    for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
        let name = entry.file_name().into_string().unwrap();
        world.captured.add("a file's name", &name);
        if entry.file_type().unwrap().is_dir() {
            look_at_files(&entry.path(), world);
        } else if entry.file_type().unwrap().is_file()
            && !["key_id_", "api_key_", "record.json"]
                .iter()
                .any(|it| name.starts_with(it))
        {
            world
                .captured
                .add(&name, &fs::read_to_string(entry.path()).unwrap());
        }
    }
}

/// What a command says; its data, too, unless that is the token.
fn command(world: &World, daemon: &Daemon, arguments: &[&str]) {
    let settings = world.path("state.toml");
    let mut command = Command::new(env!("CARGO_BIN_EXE_bearerd"));
    command
        .arg("--config")
        .arg(settings)
        .args(arguments)
        .env_clear();
    command
        .env("BEARERD_HTTP__LISTEN", &daemon.http)
        .env("BEARERD_ADMIN__LISTEN", &daemon.admin);
    let output = command.output().unwrap();
    let name = arguments.join(" ");
    assert!(
        output.status.success() || output.status.code() == Some(75),
        "{name}: {output:?}"
    );
    world
        .captured
        .add(&name, &String::from_utf8_lossy(&output.stderr));
    if arguments[0] != "token" {
        world
            .captured
            .add(&name, &String::from_utf8_lossy(&output.stdout));
    }
}

#[tokio::test]
async fn whatever_is_said_shown_or_left_behind_holds_no_secret() {
    let world = World::new(Scale::brisk()).await;
    let daemon = world.start().await;
    let mut last = daemon.first_token().await;
    let mut switched = 0;
    for (turn, wish) in ["new filter", "report", "bad keys", "refresh"]
        .into_iter()
        .enumerate()
    {
        match wish {
            "report" => {
                let text = format!(r#"{{"generation":{},"status":401}}"#, last.generation());
                assert_eq!(daemon.report(&text).await.status, 202);
            }
            "bad keys" => {
                world.sandbox.regenerate_key(0).unwrap();
                daemon
                    .until("refused", |status| !status["parked"].is_null())
                    .await;
                world.write_keys();
            }
            "refresh" => drop(daemon.refresh().await),
            _ => {
                let log = daemon.send(
                    reqwest::Method::PUT,
                    &daemon.admin,
                    "/log?for=1m",
                    &[],
                    Some(EVERYTHING),
                );
                let log = log.await.unwrap();
                assert_eq!(
                    (log.status, &log.json()["level"]),
                    (200, &EVERYTHING.into())
                );
                switched = world.captured.lines("stderr").len();
            }
        }
        for path in [
            "/",
            "/livez",
            "/readyz?verbose",
            "/startupz",
            "/metrics",
            "/status",
            "/settings",
            "/log",
            "/nowhere",
        ] {
            daemon.ask_admin(path).await;
        }
        look_at(&daemon, &world);
        last = daemon.get("/v1/token", &[("prefer", "wait=60")]).await;
        assert_eq!(last.status, 200, "turn {turn}");
        over_tcp(&daemon).await.ask(GET, &[], b"").await;
    }
    let commands: [&[&str]; 7] = [
        &["status"],
        &["status", "--format", "json"],
        &["token", "--format", "header"],
        &["wait", "--timeout", "30s"],
        &["refresh"],
        &["check"],
        &["ledger", "show"],
    ];
    for arguments in commands {
        command(&world, &daemon, arguments);
    }
    look_at_files(&world.path(""), &world);
    assert!(daemon.stop().await.success());
    look_at_files(&world.path(""), &world);
    let logged = world.captured.lines("stderr").split_off(switched);
    for target in ["h2", "hyper_util"] {
        let target = format!(" TRACE {target}::");
        assert!(
            logged.iter().any(|line| line.contains(&target)),
            "no line of{target} after the switch"
        );
    }
    assert!(world.captured.says("vending over HTTP") && world.captured.says("record.json"));
    assert!(world.captured.says("Umask:\t0077"));
    world.finish();
}

/// Ways to spell a secret, each of which somebody else can read.
fn spelt(secret: &str) -> Vec<String> {
    let plain = secret.replace('-', "");
    let apart = |with: &str| each(&plain, |it| format!("{}{with}", char::from(it)));
    vec![
        secret.to_owned(),
        secret.to_uppercase(),
        plain.clone(),
        apart("\\u0000"),
        apart("\\u00ad"),
        apart("\\n"),
        apart(" "),
        each(secret, |it| format!("\\u{it:04x}")),
        each(secret, |it| format!("\\\\u{it:04x}")),
        each(secret, |it| format!("%{it:02X}")),
        each(secret, |it| format!("{it:02x}")),
        each(secret, |it| format!("&#{it};")),
        base64(secret),
        base64(&format!("x:{secret}")),
        format!("{}{secret}", "word ".repeat(37)),
        format!("{}{}", &plain[..16], "word ".repeat(50)),
    ]
}

#[test]
fn a_scan_finds_each_spelling_of_a_secret_and_nothing_else() {
    let key = ApiKey::random();
    let other = ApiKey::random();
    let spellings = Spellings::of(&[key.key_id.clone(), key.api_key.clone()]);
    for secret in [&key.key_id, &key.api_key] {
        for spelling in spelt(secret) {
            let said = format!("the key {spelling} is wrong");
            assert!(spellings.are_in(&said), "{said}");
        }
        let bytes = format!("{:?}", secret.as_bytes());
        assert!(spellings.are_in(&bytes), "{bytes}");
    }
    for spelling in spelt(&other.api_key) {
        assert!(!spellings.are_in(&spelling), "{spelling}");
    }
}

/// Reads one request to its end, and gives the key that it came with.
async fn asked(stream: &mut TcpStream) -> ApiKey {
    let mut request = Vec::new();
    loop {
        let mut bytes = [0; 4096];
        let length = stream.read(&mut bytes).await.unwrap();
        assert!(length > 0, "a request is cut off");
        request.extend_from_slice(&bytes[..length]);
        let text = String::from_utf8_lossy(&request);
        let body = text.split_once("\r\n\r\n").map_or("", |(_, body)| body);
        if let Ok(body) = serde_json::from_str::<serde_json::Value>(body) {
            let half = |name: &str| body[name].as_str().unwrap().to_owned();
            return ApiKey {
                key_id: half("key_id"),
                api_key: half("api_key"),
            };
        }
    }
}

/// An issuer that refuses every key, and repeats both of its halves wherever it can, in this spelling.
async fn echo(listener: &TcpListener, spelling: usize) {
    loop {
        let (mut stream, _) = listener.accept().await.unwrap();
        let key = asked(&mut stream).await;
        let of = |secret: &str| spelt(secret).swap_remove(spelling);
        let (id, api) = (of(&key.key_id), of(&key.api_key));
        let (raw_id, raw_api) = (&key.key_id, &key.api_key);
        let body = format!(
            r#"{{"slug":"invalid-input","message":"no {api} of {id}","{raw_id}":"{api}"}}"#
        );
        let answer = format!(
            "HTTP/1.1 401 {raw_api}\r\nContent-Type: application/json\r\nContent-Length: {}\r\nLocation: /{raw_api}\r\n\
             Retry-After: {raw_api}\r\nDate: {raw_id}\r\nWWW-Authenticate: {raw_id}\r\nX-{raw_id}: {raw_api}\r\n\
             Set-Cookie: key={raw_api}\r\nConnection: close\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(answer.as_bytes()).await.unwrap();
    }
}

#[tokio::test]
async fn an_issuer_that_repeats_the_key_in_any_spelling_is_not_repeated() {
    let world = World::new(Scale::still()).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let issuer = format!("http://{}", listener.local_addr().unwrap());
    for spelling in 0..spelt("x-xxxxxxxxxxxxxxxxxxxxxxxx").len() {
        let name = format!("spelling-{spelling}");
        let settings = world.toml(&world.path(&name), &name);
        let settings = settings.replace(&world.sandbox.base_url(), &issuer);
        let settings = world.write("state.toml", &settings);
        let told = async {
            let daemon = Daemon::start(&settings, &world.captured).await;
            let refused = daemon
                .until("refused", |status| !status["parked"].is_null())
                .await;
            let text = refused.to_string();
            assert!(text.contains("401 / invalid-input / no "), "{text}");
            for path in ["/", "/readyz?verbose", "/metrics", "/settings"] {
                daemon.ask_admin(path).await;
            }
            command(&world, &daemon, &["status"]);
            daemon
        };
        let daemon = tokio::select! {
            daemon = told => daemon,
            () = echo(&listener, spelling) => unreachable!("it goes on"),
        };
        assert!(daemon.stop().await.success());
    }
    look_at_files(&world.path(""), &world);
    world.finish();
}

/// How often each of these texts is in what a process may write to of its memory; `None` where that may not be looked at.
fn in_memory(daemon: &Daemon, texts: &[String]) -> Option<BTreeMap<String, usize>> {
    let process = format!("/proc/{}", daemon.pid().as_raw_nonzero());
    let maps = fs::read_to_string(format!("{process}/maps")).ok()?;
    let memory = File::open(format!("{process}/mem")).ok()?;
    let mut found: BTreeMap<String, usize> = texts.iter().map(|text| (text.clone(), 0)).collect();
    for line in maps.lines() {
        let mut fields = line.split_whitespace();
        let (range, rights) = (fields.next()?, fields.next()?);
        if !rights.starts_with("rw") {
            continue;
        }
        let (from, to) = range.split_once('-')?;
        let (from, to) = (
            u64::from_str_radix(from, 16).ok()?,
            u64::from_str_radix(to, 16).ok()?,
        );
        let mut piece = vec![0; usize::try_from(to - from).ok()?];
        if memory.read_exact_at(&mut piece, from).is_err() {
            continue;
        }
        for (text, count) in &mut found {
            // The middle of it: an allocator writes over the beginning of what it was given back.
            let middle = &text.as_bytes()[text.len() / 4..text.len() * 3 / 4];
            *count += piece
                .windows(middle.len())
                .filter(|it| *it == middle)
                .count();
        }
    }
    Some(found)
}

// The sandbox has a thread of its own: an issuer that stands still while this one looks, and then takes
// in everything at once, is no issuer that keeps the budget's window.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn tokens_that_were_replaced_long_ago_are_not_kept_in_memory() {
    let world = World::quiet(Scale::brisk()).await;
    let daemon = world.start().await;
    let mut last = daemon.first_token().await;
    for _ in 0..8 {
        for accept in ["application/json", "text/plain"] {
            daemon.get("/v1/token", &[("accept", accept)]).await;
        }
        last = daemon.next_token(&last).await;
    }
    let tokens = world.sandbox.issued_tokens();
    // The sandbox stands still while this thread looks, and would count afterwards all that was sent meanwhile.
    daemon.signal(Signal::STOP);
    let found = in_memory(&daemon, &tokens);
    daemon.signal(Signal::CONT);
    let Some(found) = found else {
        cannot_run_here(
            "tokens_that_were_replaced_long_ago_are_not_kept_in_memory",
            "this user may not look into another process",
        );
        return;
    };
    let counts: Vec<usize> = tokens.iter().map(|token| found[token]).collect();
    println!("copies, oldest token first: {counts:?}");
    // The newest one may be under way, or be replaced while this looks.
    let live = counts.iter().rposition(|count| *count > 1);
    let live = live.expect("the live token is there, so this looks in the right place");
    assert!(live > 6, "{live}");
    // What is ours is wiped. What hyper sent or read lies where it lay until something else is put there.
    let long_ago = live - 3;
    let left: usize = counts[..long_ago].iter().sum();
    assert!(left < long_ago, "{left} copies of {long_ago} tokens");
    assert!(daemon.stop().await.success());
    world.finish();
}

/// True if this machine writes core files at all.
fn cores_are_written(folder: &Path) -> bool {
    let mut shell = Command::new("sh");
    let shell = shell
        .args(["-c", "ulimit -c unlimited; kill -ABRT $$"])
        .current_dir(folder);
    shell.status().unwrap().core_dumped()
}

/// True once nothing is left of a process but how it ended.
fn is_over(daemon: &Daemon) -> bool {
    let status = format!("/proc/{}/status", daemon.pid().as_raw_nonzero());
    fs::read_to_string(status).unwrap().contains("State:\tZ")
}

#[tokio::test]
async fn no_end_of_any_command_leaves_a_core() {
    let world = World::new(Scale::still()).await;
    let folder = world.path("cores");
    fs::create_dir(&folder).unwrap();
    if !cores_are_written(&folder) {
        cannot_run_here(
            "no_end_of_any_command_leaves_a_core",
            "this machine writes no core files",
        );
        return;
    }
    for file in fs::read_dir(&folder).unwrap() {
        fs::remove_file(file.unwrap().path()).unwrap();
    }
    let settings = world.write("core.toml", &world.toml(&world.state(), "core"));
    // Not SIGQUIT, which a shell lets nobody hear whom it starts in the background.
    for signal in [
        Signal::ABORT,
        Signal::SEGV,
        Signal::ILL,
        Signal::BUS,
        Signal::FPE,
        Signal::SYS,
        Signal::TRAP,
    ] {
        let daemon = Daemon::start_under("-c unlimited", &folder, &settings, &world.captured).await;
        daemon.first_token().await;
        // Rust's own handler takes the first of some, to look for a stack overflow.
        while !is_over(&daemon) {
            daemon.signal(signal);
            tokio::task::yield_now().await;
        }
        let status = daemon.ended().await;
        assert_eq!(status.signal(), Some(signal.as_raw()));
        assert!(!status.core_dumped(), "{signal:?}: {status}");
    }
    let address = format!("unix:{}", world.path("nobody.sock").display());
    let binary = env!("CARGO_BIN_EXE_bearerd");
    // With another umask than the one that is waited for, whatever the user's is.
    let script = "umask 022; ulimit -c unlimited; exec \"$0\" wait --timeout 60s --address \"$1\"";
    let mut waiting = Command::new("sh")
        .args(["-c", script, binary, &address])
        .current_dir(&folder)
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let pid = rustix::process::Pid::from_child(&waiting);
    // Once it is told not to be looked into, `environ` is root's; until then it is the shell that execs.
    let umask = || fs::read_to_string(format!("/proc/{}/status", pid.as_raw_nonzero())).unwrap();
    while !umask().contains("Umask:\t0077") {
        std::thread::yield_now();
    }
    rustix::process::kill_process(pid, Signal::ABORT).unwrap();
    let status = waiting.wait().unwrap();
    assert!(
        status.signal() == Some(6) && !status.core_dumped(),
        "{status}"
    );
    assert_eq!(
        fs::read_dir(&folder).unwrap().count(),
        0,
        "a core file was left"
    );
    world.finish();
}
