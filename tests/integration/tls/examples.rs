//! The documents' examples with a client certificate, run as they are written but for the address.

use std::process::Command;

use super::{Desk, certificates, first_token};
use crate::harness::Daemon;
use crate::languages::python_stubs;
use crate::readme::blocks;
use crate::terminal::{Process, Said, sh};

/// A daemon and the files of a caller, under the names that the documents use.
struct Gateway {
    desk: Desk,
    daemon: Daemon,
}

impl Gateway {
    async fn open() -> Self {
        let desk = Desk::new().await;
        desk.write("ca.crt", &desk.root.certificate);
        let wanted = certificates::caller(&["orders.shop.svc"], &[]);
        let pair = desk.root.issue(&wanted);
        desk.write("orders.crt", &pair.certificate);
        desk.write("orders.key", &pair.key);
        let daemon = desk.start().await;
        first_token(&daemon, &desk.by(&desk.root, "http/1.1")).await;
        Self { desk, daemon }
    }

    /// The example with this daemon's address, for which its certificate is.
    fn ours(&self, text: &str) -> String {
        let port = |address: &str| address.rsplit_once(':').unwrap().1.to_owned();
        let (http, grpc) = (port(&self.daemon.http), port(&self.daemon.grpc));
        text.replace("bearerd.shop.svc:7290", &format!("localhost:{http}"))
            .replace("bearerd.shop.svc:7291", &format!("localhost:{grpc}"))
            .replace(
                "\"bearerd.shop.svc\", 7290",
                &format!("\"localhost\", {http}"),
            )
            .replace(
                "host: \"bearerd.shop.svc\", port: 7290",
                &format!("host: \"localhost\", port: {http}"),
            )
    }

    fn examples(&self, language: &str) -> Vec<String> {
        let blocks = blocks(language).into_iter();
        let over_tls = blocks.filter(|it| it.contains("ca.crt"));
        let ours: Vec<String> = over_tls.map(|it| self.ours(&it)).collect();
        assert!(!ours.is_empty(), "{language}");
        ours
    }

    /// Runs a program in the folder of the files; returns what it printed.
    async fn run(&self, mut command: Command) -> String {
        command.current_dir(self.desk.folder.path());
        let ended = tokio::task::spawn_blocking(|| Process::start(command).end());
        let Said { code, out, err } = ended.await.unwrap();
        assert_eq!((code, err.as_str()), (Some(0), ""));
        out.trim_end().to_owned()
    }

    async fn close(self) {
        assert!(self.daemon.stop().await.success());
        self.desk.finish(&[]);
    }
}

#[tokio::test]
async fn curl_has_the_token_with_a_client_certificate() {
    let gateway = Gateway::open().await;
    let mut asked = 0;
    for block in gateway.examples("sh") {
        let folder = gateway.desk.folder.path().display().to_string();
        let lines = block.lines().filter(|it| it.starts_with("curl "));
        let lines: Vec<String> = lines.map(str::to_owned).collect();
        asked += lines.len();
        let script = format!("cd '{folder}'\n{}\n", lines.join("\n"));
        let said = tokio::task::spawn_blocking(move || sh(&script, &[]));
        let said = said.await.unwrap();
        assert_eq!(said.code, Some(0), "{said:?}");
        let fine = said.statuses().iter().all(|it| ["200", "202"].contains(it));
        assert!(fine && said.statuses().len() == lines.len(), "{said:?}");
    }
    assert!(asked >= 2, "{asked}");
    gateway.close().await;
}

#[tokio::test]
async fn python_and_node_have_the_token_with_a_client_certificate() {
    let gateway = Gateway::open().await;
    let examples = gateway.examples("python");
    let over_http = examples.iter().find(|it| !it.contains("grpc")).unwrap();
    let mut python = Command::new("python3");
    python.args(["-c", &format!("{over_http}\nprint(len(token()))")]);
    assert_eq!(gateway.run(python).await, "64");

    let [script] = &gateway.examples("js")[..] else {
        panic!("there is one")
    };
    let (example, _) = script.trim_end().rsplit_once(';').unwrap();
    let mut node = Command::new("node");
    let script = format!("{example}.then((headers) => console.log(headers.Authorization.length));");
    node.args(["-e", &script]);
    assert_eq!(gateway.run(node).await, "71");
    gateway.close().await;
}

#[tokio::test]
async fn python_has_the_token_over_grpc_with_a_client_certificate() {
    let (python, stubs) = python_stubs();
    let gateway = Gateway::open().await;
    let examples = gateway.examples("python");
    let over_grpc = examples.iter().find(|it| it.contains("grpc")).unwrap();
    let mut command = Command::new(python);
    let script = format!("{over_grpc}\nprint(len(answer.token.access_token))");
    command
        .args(["-c", &script])
        .env("PYTHONPATH", stubs.path());
    assert_eq!(gateway.run(command).await, "64");
    gateway.close().await;
}
