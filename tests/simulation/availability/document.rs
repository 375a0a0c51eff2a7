//! The table in `tests/README.md` is the one that is measured here. `BLESS=1` writes it anew.

const BEGIN: &str = "<!-- availability -->\n";
const END: &str = "<!-- /availability -->";

/// Another machine's mathematics may move a fault by a nanosecond, and a figure by a little.
const NEAR: f64 = 0.5;

pub fn shows(table: &str) {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/README.md");
    let text = std::fs::read_to_string(path).unwrap();
    let (before, rest) = text.split_once(BEGIN).unwrap();
    let (shown, after) = rest.split_once(END).unwrap();
    let same = shown.lines().count() == table.lines().count()
        && shown
            .lines()
            .zip(table.lines())
            .all(|rows| is_row(rows.0, rows.1));
    if !same && std::env::var_os("BLESS").is_some() {
        std::fs::write(path, format!("{before}{BEGIN}{table}{END}{after}")).unwrap();
        return;
    }
    assert!(
        same,
        "the table of availability in tests/README.md is no longer true; write it anew with\n  BLESS=1 tests/run simulation availability\n\
         and read the difference.\n{table}"
    );
}

fn is_row(shown: &str, measured: &str) -> bool {
    let number = |cell: &str| cell.trim().trim_end_matches(" %").parse::<f64>().ok();
    let alike = |cells: (&str, &str)| match (number(cells.0), number(cells.1)) {
        (Some(one), Some(other)) => (one - other).abs() <= NEAR,
        _ => cells.0 == cells.1,
    };
    let (shown, measured) = (shown.split('|'), measured.split('|'));
    shown.clone().count() == measured.clone().count() && shown.zip(measured).all(alike)
}
