//! Unix sockets: who may connect, who is answered, and whose place is taken.

use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use rustix::process::geteuid;

use crate::harness::{Daemon, PATIENCE, Scale, World, cannot_run_here};

/// A user and a group that nobody is.
const STRANGER: u32 = 54321;

fn daemon_of(settings: &Path, variables: &[(&str, String)]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bearerd"));
    command.args(["serve", "--config"]).arg(settings);
    command.env_clear();
    command.envs(variables.iter().map(|(name, value)| (name, value)));
    command
}

async fn start(world: &World, variables: &[(&str, String)]) -> Daemon {
    let settings = world.write("state.toml", &world.toml(&world.state(), "state"));
    Daemon::spawn(daemon_of(&settings, variables), &world.captured).await
}

/// An admin socket beside the port.
fn admin_socket(world: &World) -> (PathBuf, (&'static str, String)) {
    let path = world.path("admin.sock");
    let listen = format!("127.0.0.1:0,unix:{}", path.display());
    (path, ("BEARERD_ADMIN__LISTEN", listen))
}

/// One command about the admin socket.
fn ask(socket: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bearerd"));
    let address = format!("unix:{}", socket.display());
    let command = command.args(arguments).args(["--admin", &address]);
    command.env_clear().output().unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[tokio::test]
async fn each_section_has_its_own_mode_and_group() {
    let world = World::new(Scale::still()).await;
    let (admin, listen) = admin_socket(&world);
    let own = rustix::process::getegid().as_raw();
    let group = if geteuid().is_root() { STRANGER } else { own };
    let variables = [
        listen,
        ("BEARERD_HTTP__SOCKET_MODE", "0660".into()),
        ("BEARERD_HTTP__SOCKET_GROUP", group.to_string()),
        ("BEARERD_GRPC__SOCKET_MODE", "0620".into()),
    ];
    let daemon = start(&world, &variables).await;
    let rights = |path: &Path| {
        let found = std::fs::metadata(path).unwrap();
        (found.mode() & 0o777, found.gid())
    };
    assert_eq!(rights(Path::new(&daemon.socket)), (0o660, group));
    assert_eq!(rights(Path::new(&daemon.grpc_socket)), (0o620, own));
    assert_eq!(rights(&admin), (0o600, own));
    assert!(daemon.stop().await.success());
    world.finish();
}

#[tokio::test]
async fn on_an_admin_socket_only_named_users_and_groups_are_answered() {
    let world = World::new(Scale::still()).await;
    let (socket, listen) = admin_socket(&world);
    let (uid, gid) = (geteuid().as_raw(), rustix::process::getegid().as_raw());
    for (uids, gids, answered) in [
        (String::new(), String::new(), true),
        (STRANGER.to_string(), String::new(), false),
        (STRANGER.to_string(), STRANGER.to_string(), false),
        (format!("{STRANGER},{uid}"), String::new(), true),
        (String::new(), gid.to_string(), true),
    ] {
        let who = format!("uids {uids:?}, gids {gids:?}");
        let variables = [
            listen.clone(),
            ("BEARERD_ADMIN__UIDS", uids),
            ("BEARERD_ADMIN__GIDS", gids),
        ];
        let daemon = start(&world, &variables).await;
        daemon.first_token().await;
        let commands: [&[&str]; 3] = [&["status"], &["refresh"], &["status", "--format", "json"]];
        for command in commands {
            let output = ask(&socket, command);
            world.captured.add("a command", &said(&output));
            let refused = said(&output).contains("admin.uids or admin.gids");
            assert_eq!(refused, !answered, "{who}: {command:?}: {}", said(&output));
            assert!(
                answered || output.status.code() == Some(1),
                "{who}: {command:?}"
            );
            assert!(answered || output.stdout.is_empty(), "{who}: {command:?}");
        }
        let told = world
            .captured
            .says("action=\"any\" outcome=\"unknown_caller\"");
        assert!(answered || told, "{who}: the audit does not tell");
        let client = reqwest::Client::builder()
            .unix_socket(socket.clone())
            .build();
        let client = client.unwrap();
        for path in [
            "/",
            "/livez",
            "/readyz",
            "/startupz",
            "/metrics",
            "/status",
            "/settings",
            "/log",
            "/nowhere",
        ] {
            let reply = client
                .get(format!("http://localhost{path}"))
                .send()
                .await
                .unwrap();
            assert_eq!(reply.status().as_u16() == 403, !answered, "{who}: {path}");
            let text = reply.text().await.unwrap();
            assert_eq!(
                text.contains("urn:bearerd:problem:unknown_caller"),
                !answered,
                "{who}: {path}"
            );
            world.captured.add(path, &text);
        }
        assert_eq!(
            daemon.ask_admin("/livez").await.status,
            200,
            "{who}: the port has other rules"
        );
        assert!(daemon.stop().await.success());
    }
    world.finish();
}

#[tokio::test]
async fn sockets_of_a_killed_daemon_are_replaced_and_those_of_a_live_one_are_not() {
    let world = World::new(Scale::still()).await;
    let (admin, listen) = admin_socket(&world);
    let daemon = start(&world, std::slice::from_ref(&listen)).await;
    daemon.first_token().await;
    let sockets = [
        PathBuf::from(&daemon.socket),
        PathBuf::from(&daemon.grpc_socket),
        admin,
    ];
    let (names, ports) = (
        ["HTTP__LISTEN", "GRPC__LISTEN", "ADMIN__LISTEN"].map(|it| format!("BEARERD_{it}")),
        "127.0.0.1:0".to_owned(),
    );
    let settings = world.path("state.toml");
    for (section, socket) in sockets.iter().enumerate() {
        let mut variables = names.each_ref().map(|name| (name.as_str(), ports.clone()));
        variables[section].1 = format!("unix:{}", socket.display());
        let second = daemon_of(&settings, &variables).output().unwrap();
        world.captured.add("a second daemon", &said(&second));
        let expected = format!("another process listens on unix:{}", socket.display());
        assert_eq!(second.status.code(), Some(1));
        assert!(said(&second).contains(&expected), "{}", said(&second));
    }
    assert_eq!(daemon.token().await.status, 200, "it noticed nothing");
    // The number of a file that was removed may be the next one's.
    let files = || {
        sockets.each_ref().map(|it| {
            let found = std::fs::metadata(it).unwrap();
            (found.ino(), found.created().unwrap())
        })
    };
    let before = files();
    daemon.kill();
    assert_eq!(files(), before, "a killed daemon leaves its sockets");
    let daemon = start(&world, &[listen]).await;
    for (before, after) in before.into_iter().zip(files()) {
        assert_ne!(before, after);
    }
    assert!(ask(&sockets[2], &["status"]).status.success());
    assert!(daemon.stop().await.success());
    assert!(sockets.iter().all(|it| !it.exists()));
    world.finish();
}

/// Runs the daemon as a user without rights, in a folder that this user can read.
fn as_a_stranger(world: &World, more: &str) -> Output {
    let folder = world.path("");
    std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(0o755)).unwrap();
    let settings = world.write("state.toml", &world.toml(&world.state(), "state"));
    let state = world.state();
    std::fs::create_dir_all(&state).unwrap();
    std::fs::set_permissions(&state, std::fs::Permissions::from_mode(0o700)).unwrap();
    for path in [
        settings.clone(),
        state,
        world.path("key_id_0"),
        world.path("api_key_0"),
    ] {
        chown(path, Some(STRANGER), Some(STRANGER)).unwrap();
    }
    // A copy: the place where it was built may be closed to others.
    let binary = world.path("bearerd");
    std::fs::copy(env!("CARGO_BIN_EXE_bearerd"), &binary).unwrap();
    let id = STRANGER.to_string();
    let mut command = Command::new("setpriv");
    command.args(["--reuid", &id, "--regid", &id, "--clear-groups"]);
    command
        .arg(&binary)
        .args(["serve", "--config"])
        .arg(&settings);
    let variables = more.lines().map(|line| line.split_once('=').unwrap());
    let output = command
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .envs(variables)
        .output()
        .unwrap();
    std::fs::remove_file(binary).unwrap();
    world.captured.add("a stranger's daemon", &said(&output));
    output
}

#[tokio::test]
async fn a_user_without_rights_is_told_what_stands_in_the_way() {
    if !geteuid().is_root() {
        cannot_run_here(
            "a_user_without_rights_is_told_what_stands_in_the_way",
            "only root can run a daemon as another user",
        );
        return;
    }
    let world = World::new(Scale::still()).await;
    let foreign = world.path("foreign.sock");
    let _root_listens = UnixListener::bind(&foreign).unwrap();
    std::fs::set_permissions(&foreign, std::fs::Permissions::from_mode(0o600)).unwrap();
    let here = format!(
        "BEARERD_HTTP__LISTEN=unix:{}\nBEARERD_GRPC__LISTEN=127.0.0.1:0",
        foreign.display()
    );
    let refused = as_a_stranger(&world, &here);
    assert_eq!(refused.status.code(), Some(1));
    assert!(
        said(&refused).contains("belongs to another user"),
        "{}",
        said(&refused)
    );

    let own = world.state().join("http.sock");
    let here = format!(
        "BEARERD_HTTP__LISTEN=unix:{}\nBEARERD_GRPC__LISTEN=127.0.0.1:0\nBEARERD_HTTP__SOCKET_MODE=0660\nBEARERD_HTTP__SOCKET_GROUP=0",
        own.display()
    );
    let refused = as_a_stranger(&world, &here);
    assert_eq!(refused.status.code(), Some(78), "{}", said(&refused));
    assert!(
        said(&refused).contains("cannot be given to group 0: let bearerd's user be a member"),
        "{}",
        said(&refused)
    );
    assert!(!own.exists());
    world.finish();
}

/// Something that happens to a socket's path, and whether the daemon has to wait until it is free.
type Happening = (&'static str, fn(&Path), bool);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_path_that_is_lost_is_had_again_and_readiness_says_so_meanwhile() {
    let world = World::new(Scale::still()).await;
    let settings = world.toml(&world.state(), "state");
    let folder = world.path("run");
    std::fs::create_dir(&folder).unwrap();
    let was = world.path("state.sock");
    let path = folder.join("http.sock");
    let settings = settings.replace(was.to_str().unwrap(), path.to_str().unwrap());
    let daemon = Daemon::start(&world.write("state.toml", &settings), &world.captured).await;
    daemon.first_token().await;
    let happenings: [Happening; 3] = [
        ("removed", |path| std::fs::remove_file(path).unwrap(), false),
        (
            "swept away with its folder",
            |path| {
                std::fs::remove_dir_all(path.parent().unwrap()).unwrap();
                std::fs::create_dir(path.parent().unwrap()).unwrap();
            },
            false,
        ),
        (
            "taken by a file",
            |path| {
                std::fs::remove_file(path).unwrap();
                std::fs::write(path, "precious").unwrap();
            },
            true,
        ),
    ];
    for (what, happens, lost) in happenings {
        happens(&path);
        if lost {
            lost_until(&daemon, &path, || std::fs::remove_file(&path).unwrap()).await;
        }
        found(&daemon, &path, what).await;
    }
    // Another process has the name, and is frozen there.
    let other = world.start_beside("other").await;
    std::fs::rename(&other.socket, &path).unwrap();
    let theirs = std::fs::metadata(&path).unwrap().ino();
    other.signal(rustix::process::Signal::STOP);
    lost_until(&daemon, &path, || {
        assert_eq!(std::fs::metadata(&path).unwrap().ino(), theirs);
        other.kill();
    })
    .await;
    found(&daemon, &path, "taken by a process").await;
    assert!(
        world
            .captured
            .says("the socket's path does not lead here any more")
    );
    assert!(daemon.stop().await.success());
    assert!(!path.exists());
    world.finish();
}

/// Nobody finds the socket, and whoever asks is told, until this is done.
async fn lost_until(daemon: &Daemon, path: &Path, done: impl FnOnce()) {
    let address = format!("unix:{}", path.display());
    daemon.until_metric("bearerd_sockets_lost", 1.0).await;
    let ready = daemon.ask_admin("/readyz?verbose").await;
    assert_eq!(ready.status, 503, "{}", ready.text);
    assert!(
        ready
            .text
            .contains(&format!("sockets: not found: {address}")),
        "{}",
        ready.text
    );
    assert_eq!(
        daemon.status().await["sockets_lost"],
        serde_json::json!([address])
    );
    done();
    daemon.until_metric("bearerd_sockets_lost", 0.0).await;
    assert_eq!(daemon.ask_admin("/readyz").await.status, 200);
}

/// A caller gets the token through the socket, as soon as there is one.
async fn found(daemon: &Daemon, path: &Path, what: &str) {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        let asked = reqwest::Client::builder()
            .unix_socket(path)
            .no_proxy()
            .build()
            .unwrap();
        let asked = asked
            .get("http://localhost/v1/token")
            .header("x-bearerd-request", "true");
        match asked.send().await {
            Ok(answer) if answer.status() == 200 => return,
            _ => assert!(
                tokio::time::Instant::now() < deadline,
                "{what}: it is not found"
            ),
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        assert_eq!(daemon.token().await.status, 200);
    }
}
