//! What fuzzing found to be interesting, replayed: every file of `tests/fuzz/corpus` holds what its target asserts of all bytes.

use std::fs;
use std::path::Path;

#[path = "../fuzz/targets.rs"]
mod targets;

/// Runs a target on every file of its folder. The last name that is printed is the one that fails.
fn replay(name: &str, target: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fuzz/corpus")
        .join(name);
    let mut files: Vec<_> = fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    assert!(!files.is_empty(), "{} is empty", folder.display());
    for file in files {
        println!("{}", file.display());
        target(&fs::read(&file).unwrap());
    }
}

#[test]
fn settings_that_were_found() {
    replay("settings", targets::settings);
}

#[test]
fn records_that_were_found() {
    replay("record", targets::record);
}

#[test]
fn answers_that_were_found() {
    replay("answer", targets::answer);
}

#[test]
fn requests_that_were_found() {
    replay("http", targets::http);
}

#[test]
fn reports_that_were_found() {
    replay("report", targets::report);
}
