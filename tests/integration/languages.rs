//! The README's examples in other languages, run as they are written but for the ports.

use std::process::Command;

use rustix::process::Signal;

use crate::demo::Demo;
use crate::readme::blocks;
use crate::terminal::{Process, Said, sh};

/// A demo, and the README's addresses made its own.
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

    /// The blocks of a language, which end with a word to say.
    fn examples(&self, language: &str) -> Vec<String> {
        let (_, port) = self.http.rsplit_once(':').unwrap();
        let blocks = blocks(language).into_iter();
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
    let [first, _] = &house.examples("python")[..] else {
        panic!("there are two")
    };
    let script = format!("{first}\nprint(headers['Authorization'])");
    house.gives_the_token("python3", &script);
    house.close();
}

#[test]
fn node_gets_the_token() {
    let house = House::open();
    let [script] = &house.examples("js")[..] else {
        panic!("there is one")
    };
    let (example, end) = script.trim_end().rsplit_once(';').unwrap();
    assert_eq!(end, "");
    let script = format!("{example}.then((headers) => console.log(headers.Authorization));");
    house.gives_the_token("node", &script);
    house.close();
}

#[test]
fn python_is_told_of_each_token_over_grpc() {
    let root = env!("CARGO_MANIFEST_DIR");
    let python = format!("{root}/target/python/bin/python3");
    let stubs = tempfile::tempdir().unwrap();
    let folder = stubs.path().display();
    let made = sh(
        &format!(
            "'{python}' -m grpc_tools.protoc -I '{root}/proto' --python_out='{folder}' --grpc_python_out='{folder}' \
             '{root}/proto/bearerd/v1/token_service.proto'"
        ),
        &[],
    );
    assert_eq!(
        made.code,
        Some(0),
        "{made:?}; `tests/run integration` makes {python}"
    );
    let house = House::open();
    let mut command = Command::new(python);
    command
        .args(["-c", &house.examples("python")[1]])
        .env("PYTHONPATH", stubs.path());
    let mut watcher = Process::start(command);
    watcher.until("two tokens", |it| {
        let told = it.out();
        (told.matches("generation 1").count() >= 2).then_some(())
    });
    drop(watcher);
    house.close();
}
