//! The bench measures what it says. Only a run of it on a machine at rest says what bearerd costs.

use std::process::Command;

fn python(arguments: &[&str]) {
    let said = Command::new("python3")
        .arg("-B")
        .args(arguments)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    let (out, err) = (
        String::from_utf8_lossy(&said.stdout),
        String::from_utf8_lossy(&said.stderr),
    );
    assert!(said.status.success(), "{arguments:?}\n{out}\n{err}");
}

#[test]
fn the_bench_judges_and_reads_as_it_should() {
    python(&[
        "-m",
        "unittest",
        "discover",
        "--start-directory",
        "tests/bench",
    ]);
}

/// What needs neither yardsticks nor tools, with numbers that show nothing but that it works.
#[test]
fn the_bench_measures_this_daemon() {
    let binary = env!("CARGO_BIN_EXE_bearerd");
    let mut arguments = vec!["tests/bench/run", "--smoke", "--binary", binary];
    arguments.extend([
        "start",
        "resident",
        "idle_connections",
        "idle_cpu",
        "hostile_upstreams",
        "binary",
    ]);
    python(&arguments);
}
