//! The documents are true: every command in them runs, their tables are the program's own, and their links lead somewhere.
//!
//! Commands run as they are written but for this: `cargo run --release --` is the binary that was built for the tests; a demo that
//! the test starts, on ports of the system's choice, stands for `127.0.0.1:7290`, `:7292` and `:7299`; settings of the test's own
//! stand for `/etc/bearerd/bearerd.toml`; what needs another machine is parsed and counted by `elsewhere`; and `tests/run` is only
//! looked at.

mod commands;
mod elsewhere;
mod links;
mod rooms;
mod settings;
mod tables;
mod words;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use serde_json::Value;

use crate::harness::{Scale, World};
use crate::terminal::golden;

fn place(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(name)
}

/// The text of one document, by its path in the repository.
pub fn document(name: &str) -> String {
    fs::read_to_string(place(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// The paths of all documents. The README comes first: what others show may need what it began.
fn documents() -> Vec<String> {
    let mut found = BTreeSet::new();
    for entry in fs::read_dir(place("")).unwrap() {
        add(&entry.unwrap().path(), &mut found);
    }
    for folder in ["src", "proto", "deploy", "tests", "findings"] {
        visit(&place(folder), &mut found);
    }
    assert!(found.remove("README.md"));
    std::iter::once("README.md".to_owned())
        .chain(found)
        .collect()
}

fn visit(folder: &Path, found: &mut BTreeSet<String>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() && path.file_name().is_some_and(|it| it != "target") {
            visit(&path, found);
        } else {
            add(&path, found);
        }
    }
}

fn add(path: &Path, found: &mut BTreeSet<String>) {
    if path.extension().is_some_and(|it| it == "md") {
        let name = path.strip_prefix(place("")).unwrap();
        found.insert(name.to_str().unwrap().to_owned());
    }
}

/// The fenced blocks of one language, in all documents.
pub fn blocks(language: &str) -> Vec<String> {
    documents()
        .iter()
        .flat_map(|name| blocks_of(name, language))
        .collect()
}

/// The fenced blocks of one language in a document.
pub fn blocks_of(name: &str, language: &str) -> Vec<String> {
    let text = document(name);
    let parts = text.split("\n```").skip(1).step_by(2);
    parts
        .filter_map(|block| block.strip_prefix(language)?.strip_prefix('\n'))
        .map(str::to_owned)
        .collect()
}

/// The code spans of a document, outside its fenced blocks.
fn spans(name: &str) -> Vec<String> {
    let text = document(name);
    let prose = text.split("\n```").step_by(2);
    prose
        .flat_map(|part| part.split('`').skip(1).step_by(2))
        .map(str::to_owned)
        .collect()
}

/// Holds the part of a document between two marks to what it should be.
fn generated(name: &str, mark: &str, table: &str) {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _held = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let text = document(name);
    let (begin, end) = (format!("<!-- {mark} -->\n"), format!("<!-- /{mark} -->"));
    let (before, rest) = text.split_once(&begin).expect("the mark is there");
    let (found, after) = rest.split_once(&end).expect("what begins, ends");
    let whole = format!("{before}{begin}{table}{end}{after}");
    golden(place(name).to_str().unwrap(), table, found, &whole);
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

#[test]
fn lines_can_be_read() {
    for name in documents() {
        for (number, line) in document(&name).lines().enumerate() {
            let length = line.chars().count();
            assert!(
                length <= 170 || line.starts_with(['|', '{']),
                "{name}:{}: {length} characters",
                number + 1
            );
        }
    }
}

#[test]
fn the_readme_is_read_to_the_end() {
    let bytes = document("README.md").len();
    assert!(bytes <= 10 * 1024, "{bytes} bytes");
}
