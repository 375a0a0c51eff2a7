//! `tests/run` itself: what it asks, installs, waits for and counts on machines that lack something.

use std::io::{Write, stderr};
use std::process::Command;

#[test]
fn the_tests_prepare_a_machine_as_they_say() {
    let said = Command::new("python3")
        .args(["-B", "-m", "unittest", "discover", "--start-directory"])
        .arg("tests/integration/python")
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    let err = String::from_utf8_lossy(&said.stderr);
    assert!(said.status.success(), "{err}");
    for line in err.lines().filter(|it| it.starts_with("cannot run here: ")) {
        writeln!(stderr(), "{line}").unwrap();
    }
}
