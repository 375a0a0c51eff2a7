//! The demo: what it prints works, and nothing is left of it.

use std::fs;
use std::path::{Path, PathBuf};

use rustix::process::Signal;
use tempfile::TempDir;

use crate::terminal::{Process, bearerd, run, sh};

/// A demo on ports of the system's choice, with its folder in a place of its own.
pub struct Demo {
    pub process: Process,
    /// Where temporary folders are made.
    pub place: TempDir,
}

const PORTS: [&str; 9] = [
    "demo",
    "--http-listen",
    "127.0.0.1:0",
    "--grpc-listen",
    "127.0.0.1:0",
    "--admin-listen",
    "127.0.0.1:0",
    "--sandbox-listen",
    "127.0.0.1:0",
];

impl Demo {
    /// Starts one and waits until it has told how it can be used.
    pub fn start() -> Self {
        let place = tempfile::tempdir().unwrap();
        // It needs nothing of the machine: no home, no certificate roots.
        let environment = [
            ("TMPDIR", place.path().to_str().unwrap()),
            ("SSL_CERT_FILE", "/nowhere"),
            ("SSL_CERT_DIR", "/nowhere"),
        ];
        let mut process = Process::start(bearerd(&PORTS, &environment));
        process.until("the first token", |it| {
            it.err().contains("  live until ").then_some(())
        });
        Self { process, place }
    }

    /// The commands that it prints.
    pub fn commands(&self) -> Vec<String> {
        let said = self.process.err();
        let commands = said.lines().filter_map(|line| line.strip_prefix("  "));
        commands.map(str::to_owned).collect()
    }

    /// The addresses for callers, operators and at the sandbox, as the commands name them.
    pub fn addresses(&self) -> [String; 3] {
        ["/v1/token", "/readyz", "/_sandbox"].map(|path| {
            let said = self.process.err();
            let (before, _) = said.split_once(path).unwrap();
            before.rsplit_once("http://").unwrap().1.to_owned()
        })
    }

    /// Where it vends over gRPC.
    pub fn grpc(&self) -> String {
        let said = self.process.err();
        let (_, after) = said.split_once("Over gRPC, at ").unwrap();
        after
            .split(|it: char| it.is_whitespace() || it == ',')
            .next()
            .unwrap()
            .to_owned()
    }

    fn folders(place: &Path) -> Vec<PathBuf> {
        let entries = fs::read_dir(place).unwrap();
        entries.map(|entry| entry.unwrap().path()).collect()
    }
}

/// The keys and the token in the demo's folder.
fn secrets(folder: &Path) -> [String; 3] {
    let read = |name: &str| fs::read_to_string(folder.join(name)).unwrap();
    let record: serde_json::Value = serde_json::from_str(&read("state/record.json")).unwrap();
    let token = record["token"]["secret"].as_str().unwrap().to_owned();
    [read("key_id"), read("api_key"), token]
}

#[test]
fn what_it_prints_works_and_nothing_is_left_of_it() {
    let demo = Demo::start();
    let commands = demo.commands();
    assert_eq!(commands.len(), 5, "{commands:?}");
    let said = sh(&commands.join("\n"), &[]);
    assert_eq!(said.code, Some(0), "{said:?}");
    assert_eq!(
        said.statuses(),
        ["200", "200", "200", "200", "200"],
        "{said:?}"
    );
    let page = demo.process.err();
    let page = page.split_once("browser at ").unwrap().1;
    let page = page.split(',').next().unwrap();
    assert_eq!(sh(&format!("curl {page}"), &[]).statuses(), ["200"]);
    let [folder] = &Demo::folders(demo.place.path())[..] else {
        panic!("a demo has one folder");
    };
    assert!(
        demo.process.err().contains(folder.to_str().unwrap()),
        "it says where its record is"
    );
    let secrets = secrets(folder);

    demo.process.signal(Signal::INT);
    let said = demo.process.end();
    assert_eq!((said.code, said.out.as_str()), (Some(0), ""));
    assert!(
        secrets.iter().all(|secret| !said.err.contains(secret)),
        "it says a secret"
    );
    assert!(said.err.contains("draining"), "{}", said.err);
    assert_eq!(Demo::folders(demo.place.path()), Vec::<PathBuf>::new());
}

#[test]
fn a_signal_during_the_start_leaves_nothing_either() {
    let place = tempfile::tempdir().unwrap();
    let environment = [("TMPDIR", place.path().to_str().unwrap())];
    let mut process = Process::start(bearerd(&PORTS, &environment));
    process.until("the folder is there", |_| {
        (!Demo::folders(place.path()).is_empty()).then_some(())
    });
    process.signal(Signal::INT);
    assert_eq!(process.end().code, Some(0));
    assert_eq!(Demo::folders(place.path()), Vec::<PathBuf>::new());
}

#[test]
fn a_second_demo_says_in_one_line_why_it_cannot_begin() {
    let demo = Demo::start();
    let [http, admin, sandbox] = demo.addresses();
    for (flag, place, address) in [
        ("--http-listen", 2, &http),
        ("--admin-listen", 6, &admin),
        ("--sandbox-listen", 8, &sandbox),
    ] {
        let mut arguments = PORTS;
        arguments[place] = address;
        let said = run(&arguments, &[]);
        assert_eq!((said.code, said.out.as_str()), (Some(1), ""), "{flag}");
        assert_eq!(said.err.lines().count(), 1, "{}", said.err);
        assert!(
            said.err.contains(address.as_str()) && said.err.contains("in use"),
            "{}",
            said.err
        );
        let hint = format!("is a demo or a daemon running already? {flag} names another address");
        let sandbox = "is a demo running already? --sandbox-listen names another address";
        assert!(
            said.err.contains(&hint) || said.err.contains(sandbox),
            "{}",
            said.err
        );
    }
    demo.process.signal(Signal::TERM);
    assert_eq!(demo.process.end().code, Some(0));
}

#[test]
fn it_needs_neither_tcp_for_callers_nor_an_admin_address() {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().to_str().unwrap();
    let socket = format!("unix:{path}/http.sock");
    let arguments = [
        "demo",
        "--http-listen",
        &socket,
        "--grpc-listen",
        "",
        "--admin-listen",
        "",
        "--sandbox-listen",
        "127.0.0.1:0",
    ];
    let mut process = Process::start(bearerd(&arguments, &[("TMPDIR", path)]));
    process.until("the first token", |it| {
        it.err().contains("  live until ").then_some(())
    });
    let demo = Demo { process, place };
    let commands = demo.commands();
    assert_eq!(commands.len(), 4, "{commands:?}");
    let said = sh(&commands.join("\n"), &[]);
    assert_eq!(said.statuses(), ["200"; 4], "{said:?}");
    demo.process.signal(Signal::INT);
    assert_eq!(demo.process.end().code, Some(0));
}

#[test]
fn without_a_place_for_its_folder_it_says_so() {
    let said = run(&PORTS, &[("TMPDIR", "/proc/nowhere")]);
    assert_eq!((said.code, said.err.lines().count()), (Some(1), 1));
    assert!(said.err.contains("TMPDIR"), "{}", said.err);
}
