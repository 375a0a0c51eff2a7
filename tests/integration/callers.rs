//! Who may ask, over real sockets: callers by user and group, and what each may do.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::harness::{Scale, World};

/// A user that this test is not.
const STRANGER: u32 = 65_534;

/// What curl got.
#[derive(Debug)]
struct Got {
    status: u16,
    text: String,
}

impl Got {
    /// The last word of a problem's type.
    fn problem(&self) -> String {
        let document: Value = serde_json::from_str(&self.text).unwrap();
        let kind = document["type"].as_str().unwrap();
        kind.rsplit(':').next().unwrap().to_owned()
    }
}

/// Asks for the token through this socket, as this user if the test may become another.
async fn ask_as(uid: u32, socket: &str) -> Got {
    let mut command = Command::new("curl");
    command
        .args(["--silent", "--show-error", "--write-out", "\n%{http_code}"])
        .args(["--header", "X-Bearerd-Request: true"])
        .args(["--unix-socket", socket, "http://localhost/v1/token"])
        .env_remove("HOME");
    if rustix::process::getuid().is_root() {
        command.uid(uid).gid(uid);
    }
    let said = tokio::task::spawn_blocking(move || command.output().unwrap());
    let said = said.await.unwrap();
    assert!(said.status.success(), "{said:?}");
    let out = String::from_utf8(said.stdout).unwrap();
    let (text, status) = out.rsplit_once('\n').unwrap();
    Got {
        status: status.parse().unwrap(),
        text: text.to_owned(),
    }
}

/// Lets every user of the machine knock.
fn open_to_all(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

#[tokio::test]
async fn a_user_that_no_rule_names_gets_no_token_through_a_socket() {
    let own = rustix::process::getuid().as_raw();
    let mut world = World::new(Scale::still()).await;
    world.settings(&format!("[callers.orders]\nuids = [{own}]"));
    let daemon = world.start().await;
    let token = daemon.first_token().await;
    let socket = Path::new(&daemon.socket);
    open_to_all(socket.parent().unwrap(), 0o755);
    open_to_all(socket, 0o666);
    let named = ask_as(own, &daemon.socket).await;
    assert_eq!(named.status, 200, "{named:?}");
    assert!(named.text.contains(&token.access_token()));
    if rustix::process::getuid().is_root() {
        let stranger = ask_as(STRANGER, &daemon.socket).await;
        assert_eq!(
            (stranger.status, &*stranger.problem()),
            (403, "unknown_caller")
        );
        world.captured.add("the stranger's answer", &stranger.text);
        let counted = "bearerd_callers_refused_total{reason=\"unknown_caller\"}";
        assert_eq!(daemon.metric(counted).await, 1.0);
    }
    assert!(daemon.stop().await.success());
    world.finish();
}

#[tokio::test]
async fn where_others_are_named_the_tests_own_user_is_a_stranger() {
    let other = rustix::process::getuid().as_raw() + 1;
    let mut world = World::new(Scale::still()).await;
    world.settings(&format!(
        "[callers.orders]\nuids = [{other}]\ngids = [{other}]"
    ));
    let daemon = world.start().await;
    daemon.first_token().await;
    let got = ask_as(rustix::process::getuid().as_raw(), &daemon.socket).await;
    assert_eq!((got.status, &*got.problem()), (403, "unknown_caller"));
    world.captured.add("the stranger's answer", &got.text);
    assert!(daemon.stop().await.success());
    world.finish();
}
