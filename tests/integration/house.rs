//! The arrows between rooms point one way.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// What each room may use besides `token`, `clock` and `metrics`, which everything may. A room that is not named here has no right
/// to exist.
pub const ARROWS: &[(&str, &[&str])] = &[
    ("lib", &[]),
    ("main", &["cli"]),
    (
        "cli",
        &[
            "app",
            "client",
            "config",
            "issuer",
            "sandbox",
            "lifecycle",
            "telemetry",
            "tls",
            "listener",
            "record",
            "vend",
        ],
    ),
    (
        "app",
        &[
            "admin",
            "api",
            "caller",
            "config",
            "issuer",
            "keeper",
            "lifecycle",
            "listener",
            "record",
            "telemetry",
            "tls",
            "vend",
        ],
    ),
    ("client", &["listener"]),
    (
        "config",
        &["caller", "issuer", "listener", "record", "telemetry", "tls"],
    ),
    ("api", &["caller", "listener", "vend"]),
    (
        "admin",
        &["caller", "listener", "record", "telemetry", "vend"],
    ),
    ("caller", &["listener", "telemetry"]),
    ("keeper", &["budget", "issuer", "record", "vend"]),
    ("record", &["budget"]),
    ("vend", &[]),
    ("budget", &[]),
    ("issuer", &[]),
    ("listener", &[]),
    ("lifecycle", &[]),
    ("telemetry", &[]),
    ("tls", &[]),
    ("sandbox", &[]),
    ("token", &[]),
    ("clock", &[]),
    ("metrics", &[]),
];

const FOR_ALL: [&str; 3] = ["token", "clock", "metrics"];

/// Which rooms each room names, tests left out.
fn uses() -> BTreeMap<String, BTreeSet<String>> {
    let mut uses = BTreeMap::new();
    visit(
        Path::new(env!("CARGO_MANIFEST_DIR")).join("src").as_path(),
        None,
        &mut uses,
    );
    uses
}

fn visit(folder: &Path, room: Option<&str>, uses: &mut BTreeMap<String, BTreeSet<String>>) {
    for entry in fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
    {
        let name = entry.file_stem().unwrap().to_str().unwrap().to_owned();
        let of = room.unwrap_or(&name);
        if entry.is_dir() && name == "tests" {
            continue;
        }
        if entry.is_dir() {
            visit(&entry, Some(of), uses);
        } else if name != "tests" && entry.extension().is_some_and(|it| it == "rs") {
            let text = fs::read_to_string(&entry).unwrap();
            let code = text.split("#[cfg(test)]").next().unwrap();
            uses.entry(of.to_owned()).or_default().extend(named(code));
        }
    }
}

/// The rooms behind `crate::` or, in the binary, `bearerd::`.
fn named(code: &str) -> BTreeSet<String> {
    let mut rooms = BTreeSet::new();
    for line in code
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"))
    {
        for (at, prefix) in line
            .match_indices("crate::")
            .chain(line.match_indices("bearerd::"))
        {
            let rest = &line[at + prefix.len()..];
            assert!(
                !rest.starts_with('{'),
                "name each room on its own line: {line}"
            );
            let room: String = rest
                .chars()
                .take_while(|c| c.is_alphanumeric() || *c == '_')
                .collect();
            rooms.insert(room);
        }
    }
    rooms
}

#[test]
fn no_room_uses_one_above_or_beside_it() {
    for (room, used) in uses() {
        let (_, allowed) = ARROWS
            .iter()
            .find(|(name, _)| *name == room)
            .unwrap_or_else(|| panic!("no place for {room}"));
        for other in used.iter().filter(|other| **other != room) {
            let fine = allowed.contains(&other.as_str()) || FOR_ALL.contains(&other.as_str());
            assert!(fine, "{room} must not use {other}");
        }
    }
}

#[test]
fn the_allowed_arrows_lead_down() {
    let mut resting: BTreeSet<&str> = FOR_ALL.into();
    while resting.len() < ARROWS.len() {
        let next = ARROWS.iter().find(|(room, uses)| {
            !resting.contains(room) && uses.iter().all(|it| resting.contains(it))
        });
        let (room, _) =
            next.unwrap_or_else(|| panic!("a circle among {ARROWS:?}, above {resting:?}"));
        resting.insert(room);
    }
}

#[test]
fn only_the_root_and_the_command_line_know_the_settings() {
    let knowing = |room: &str| {
        uses()
            .into_iter()
            .filter(|(_, used)| used.contains(room))
            .map(|(name, _)| name)
            .collect::<Vec<_>>()
    };
    assert_eq!(knowing("config"), ["app", "cli"]);
    assert_eq!(knowing("app"), ["cli"]);
}

/// Where the wall time of a stamp is read, and how often. After a step of the wall clock it is false: what is shown comes from
/// `Stamp::shown`, `shown_expiry` and `shown_beside`. These ask for the wall time of now, decide by both clocks, or write down what
/// one of the three gave.
const WALL_TIMES: &[(&str, usize)] = &[
    ("admin/log.rs", 1),
    ("caller/audit.rs", 1),
    ("cli/ledger/show.rs", 2),
    ("issuer/truecaller.rs", 1),
    ("tls/credentials.rs", 1),
    ("tls/set.rs", 2),
    ("vend.rs", 1),
    ("vend/status.rs", 4),
];

/// These are about the clocks themselves.
const OF_CLOCKS: [&str; 2] = ["clock.rs", "record"];

#[test]
fn no_stamp_is_shown_as_it_was_stamped() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = BTreeMap::new();
    walls(&source, &source, &mut found);
    let known: BTreeMap<String, usize> = WALL_TIMES
        .iter()
        .map(|(file, times)| ((*file).to_owned(), *times))
        .collect();
    assert_eq!(
        found, known,
        "show a time by Stamp::shown, or say here why not"
    );
}

fn walls(source: &Path, folder: &Path, found: &mut BTreeMap<String, usize>) {
    for entry in fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
    {
        let name = entry.strip_prefix(source).unwrap().to_str().unwrap();
        let is_test = name.contains("tests") || name.contains("testing");
        if is_test || OF_CLOCKS.iter().any(|it| name.starts_with(it)) {
            continue;
        }
        if entry.is_dir() {
            walls(source, &entry, found);
            continue;
        }
        let text = fs::read_to_string(&entry).unwrap();
        let code = text.split("#[cfg(test)]").next().unwrap();
        // The sandbox is another program, with a wall clock of its own.
        let times = match name.starts_with("sandbox") {
            true => 0,
            false => code
                .split(".wall")
                .skip(1)
                .filter(|rest| {
                    !rest.starts_with(|it: char| it.is_alphanumeric() || "_(".contains(it))
                })
                .count(),
        };
        if times > 0 {
            found.insert(name.to_owned(), times);
        }
    }
}

#[test]
fn a_file_can_be_read_in_one_sitting() {
    let mut long = Vec::new();
    measure(
        Path::new(env!("CARGO_MANIFEST_DIR")).join("src").as_path(),
        &mut long,
    );
    assert!(
        long.is_empty(),
        "more than 400 lines before their tests: {long:?}"
    );
}

fn measure(folder: &Path, long: &mut Vec<String>) {
    for entry in fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
    {
        if entry.is_dir() {
            measure(&entry, long);
            continue;
        }
        let text = fs::read_to_string(&entry).unwrap();
        let lines = text.split("#[cfg(test)]").next().unwrap().lines().count();
        if lines > 400
            && entry.file_stem().unwrap() != "tests"
            && !entry.to_str().unwrap().contains("/tests/")
        {
            long.push(format!("{}: {lines}", entry.display()));
        }
    }
}
