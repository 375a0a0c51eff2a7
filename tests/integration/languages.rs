//! The documents' examples in other languages, run as they are written but for the ports. Those over TLS are run by
//! `tls::examples`.

use std::process::Command;

use rustix::process::Signal;

use crate::demo::Demo;
use crate::readme::blocks;
use crate::terminal::{Process, Said, sh};

/// A demo, and the documents' addresses made its own.
struct House {
    demo: Demo,
    http: String,
    grpc: String,
}

impl House {
    fn open() -> Self {
        let demo = Demo::start();
        let [http, ..] = demo.addresses();
        let grpc = demo.grpc();
        Self { demo, http, grpc }
    }

    /// The blocks of a language that need no certificate.
    fn examples(&self, language: &str) -> Vec<String> {
        let (_, port) = self.http.rsplit_once(':').unwrap();
        let blocks = blocks(language).into_iter();
        let blocks = blocks.filter(|it| !it.contains("ca.crt"));
        let ours = |text: String| {
            text.replace("127.0.0.1:7290", &self.http)
                .replace("127.0.0.1:7291", &self.grpc)
                .replace("\"127.0.0.1\", 7290", &format!("\"127.0.0.1\", {port}"))
        };
        blocks.map(ours).collect()
    }

    fn token(&self) -> String {
        let ask = format!(
            "curl -H 'X-Bearerd-Request: true' -H 'Accept: text/plain' http://{}/v1/token",
            self.http
        );
        sh(&ask, &[]).out.trim_end().to_owned()
    }

    /// Rotations go on meanwhile: what a program was given is one of the tokens before and after it.
    fn gives_the_token(&self, program: &str, script: &str) {
        let before = self.token();
        let mut command = Command::new(program);
        command.args([if program == "node" { "-e" } else { "-c" }, script]);
        let Said { code, out, err } = Process::start(command).end();
        assert_eq!((code, err.as_str()), (Some(0), ""), "{script}");
        let known = [before, self.token()].map(|token| format!("Bearer {token}"));
        let given = out.trim_end();
        assert!(known.iter().any(|it| it == given), "{program}");
    }

    fn close(self) {
        self.demo.process.signal(Signal::INT);
        assert_eq!(self.demo.process.end().code, Some(0));
    }
}

#[test]
fn python_gets_the_token() {
    let house = House::open();
    let examples = house.examples("python");
    let readers: Vec<&String> = examples.iter().filter(|it| !it.contains("grpc")).collect();
    assert!(!readers.is_empty());
    for example in readers {
        let script = format!("{example}\nprint(headers['Authorization'])");
        house.gives_the_token("python3", &script);
    }
    house.close();
}

#[test]
fn node_gets_the_token() {
    let house = House::open();
    let examples = house.examples("js");
    assert!(!examples.is_empty());
    for script in &examples {
        let (example, end) = script.trim_end().rsplit_once(';').unwrap();
        assert_eq!(end, "");
        let script = format!("{example}.then((headers) => console.log(headers.Authorization));");
        house.gives_the_token("node", &script);
    }
    house.close();
}

/// Makes the stubs by the command that is shown, but into another folder.
pub fn python_stubs() -> (String, tempfile::TempDir) {
    let root = env!("CARGO_MANIFEST_DIR");
    let python = format!("{root}/target/python/bin/python3");
    let stubs = tempfile::tempdir().unwrap();
    let folder = stubs.path().display();
    let blocks = blocks("sh");
    let mut lines = blocks.iter().flat_map(|block| block.lines());
    let shown = lines.find(|it| it.starts_with("python -m grpc_tools.protoc "));
    let command = shown.expect("a document shows how stubs are made");
    let command = command
        .replacen("python ", &format!("'{python}' "), 1)
        .replace("_out=.", &format!("_out='{folder}'"));
    let made = sh(&format!("cd '{root}'\n{command}\n"), &[]);
    assert_eq!(
        made.code,
        Some(0),
        "{made:?}; `tests/run integration` makes {python}"
    );
    (python, stubs)
}

#[test]
fn python_is_told_of_each_token_over_grpc() {
    let (python, stubs) = python_stubs();
    let house = House::open();
    let examples = house.examples("python");
    let example = examples.iter().find(|it| it.contains("grpc")).unwrap();
    let mut command = Command::new(python);
    command
        .args(["-c", example])
        .env("PYTHONPATH", stubs.path());
    let mut watcher = Process::start(command);
    watcher.until("two tokens", |it| {
        let told = it.out();
        (told.matches("generation 1").count() >= 2).then_some(())
    });
    drop(watcher);
    house.close();
}
