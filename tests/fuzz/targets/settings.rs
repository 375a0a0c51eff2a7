//! The settings: a TOML file, then a zero byte and `NAME=value` or `--path=value` for each variable and flag.
//!
//! `{id}` and `{key}` stand for files with a key, `{secret}` for a key that somebody pasted. Whatever is written, everything that is
//! wrong is told at once, on one line each, and no secret is shown; what is accepted keeps the rules between the settings.

use std::cell::RefCell;
use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use bearerd::config::{self, Flag, Problems, Reading, Sources};
use bearerd::listener::Address;
use tempfile::TempDir;
use toml::Value;

/// A key as Truecaller makes them, and nothing that a message could hold by chance.
const SECRET: &str = "QzXjWvKyQpZxJwVkYqXzPjWvKyZqXpJw93b14f6e";

/// The name of a setting that nobody writes.
const UNKNOWN: &str = "zzqqxx";

/// A folder with two files that hold a key, and the settings.
struct Desk {
    folder: TempDir,
}

impl Desk {
    fn new() -> Self {
        let desk = Self { folder: folder() };
        for name in ["id", "key"] {
            let path = desk.folder.path().join(name);
            fs::write(&path, SECRET).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        }
        desk
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// With the placeholders filled in.
    fn filled(&self, text: &[u8]) -> Vec<u8> {
        let mut filled = Vec::with_capacity(text.len() + 100);
        let mut rest = text;
        while let Some((first, after)) = rest.split_first() {
            let fills = [
                ("{id}", self.path("id")),
                ("{key}", self.path("key")),
                ("{secret}", SECRET.into()),
            ];
            let fill = fills
                .into_iter()
                .filter(|_| *first == b'{')
                .find(|(name, _)| rest.starts_with(name.as_bytes()));
            if let Some((name, fill)) = fill {
                filled.extend_from_slice(fill.to_str().unwrap().as_bytes());
                rest = &rest[name.len()..];
            } else {
                filled.push(*first);
                rest = after;
            }
        }
        filled
    }

    fn read(&self, written: &Written) -> Result<Reading, Problems> {
        let path = self.path("bearerd.toml");
        fs::write(&path, &written.file).unwrap();
        config::read(&Sources::new(
            Some(path),
            written.environment.clone(),
            written.flags.clone(),
        ))
    }
}

#[derive(Clone)]
struct Written {
    file: Vec<u8>,
    environment: Vec<(OsString, OsString)>,
    flags: Vec<Flag>,
}

impl Written {
    fn parse(data: &[u8], desk: &Desk) -> Self {
        let data = desk.filled(data);
        let mut parts = data.split(|&byte| byte == 0);
        let mut written = Self {
            file: parts.next().unwrap_or_default().to_vec(),
            environment: Vec::new(),
            flags: Vec::new(),
        };
        for part in parts.take(8) {
            let (name, value) = super::cut(part, b"=");
            match name.strip_prefix(b"--") {
                Some(path) => {
                    let [path, value] =
                        [path, value].map(|it| String::from_utf8_lossy(it).into_owned());
                    written.flags.push(Flag::new("--flag", path, value));
                }
                None => {
                    let pair = [name, value].map(|it| OsString::from_vec(it.to_vec()));
                    written.environment.push(pair.into());
                }
            }
        }
        written
    }

    /// The file as TOML reads it, if it does.
    fn table(&self) -> Option<toml::Table> {
        std::str::from_utf8(&self.file).ok()?.parse().ok()
    }

    /// True if a key stands where only a path can stand: a path is repeated, whatever it is.
    fn has_secret_path(&self) -> bool {
        let from_file = self
            .table()
            .is_some_and(|table| holds_secret_path(&Value::Table(table)));
        let values = self
            .environment
            .iter()
            .map(|(_, value)| value.to_string_lossy().into_owned());
        from_file
            || values
                .chain(self.flags.iter().map(|flag| flag.text.clone()))
                .any(|text| text.split(',').any(is_secret_path))
    }
}

fn holds_secret_path(value: &Value) -> bool {
    match value {
        Value::String(text) => is_secret_path(text),
        Value::Array(items) => items.iter().any(holds_secret_path),
        Value::Table(table) => table.values().any(holds_secret_path),
        _ => false,
    }
}

fn is_secret_path(text: &str) -> bool {
    let text = text.trim();
    let starts = ["/", "./", "../", "unix:"];
    starts.iter().any(|start| text.starts_with(start)) && super::repeats(text, SECRET, 25).is_some()
}

/// In memory, where there is such a place: a disk would cost more than all the rest.
fn folder() -> TempDir {
    let memory = tempfile::tempdir_in("/dev/shm");
    memory.or_else(|_| tempfile::tempdir()).unwrap()
}

thread_local! {
    static DESK: RefCell<Desk> = RefCell::new(Desk::new());
}

pub fn settings(data: &[u8]) {
    // Devices are not to be played with.
    if ["/dev", "/proc", "/sys"]
        .iter()
        .any(|it| data.windows(it.len()).any(|place| place == it.as_bytes()))
    {
        return;
    }
    DESK.with_borrow(|desk| {
        let written = Written::parse(data, desk);
        let reading = desk.read(&written);
        let before = match &reading {
            Ok(reading) => {
                keeps_the_rules(reading);
                is_shown_as_it_could_be_written(desk, &written, reading);
                Problems::default()
            }
            Err(problems) => {
                are_told_well(&written, problems);
                problems.clone()
            }
        };
        one_more_mistake_is_one_more_problem(desk, &written, &before);
    });
}

fn are_told_well(written: &Written, problems: &Problems) {
    assert!(!problems.0.is_empty(), "what is refused has a reason");
    for problem in &problems.0 {
        let told = problem.to_string();
        assert!(
            !problem.place.is_empty() && !problem.text.is_empty(),
            "{told:?}"
        );
        assert!(!told.chars().any(char::is_control), "one line: {told:?}");
        assert!(
            super::repeats(&told, SECRET, 25).is_none() || written.has_secret_path(),
            "a secret is shown: {told}"
        );
    }
}

/// What holds between the settings wherever they are accepted.
fn keeps_the_rules(reading: &Reading) {
    let config = &reading.config;
    let (rules, budget) = (&config.rules, &config.rules.budget);
    assert!(rules.lifetime > rules.lead);
    assert_eq!(config.short_lead, rules.lead < budget.period());
    assert!(budget.reserve < budget.limit.get());
    assert!(rules.timeout * 2 <= budget.in_flight);
    assert!(!config.http.listen.is_empty() && config.http.listen.iter().all(Address::is_local));
    assert!(
        !config.account.is_empty()
            && config
                .account
                .bytes()
                .all(|it| it.is_ascii_alphanumeric() || b"-_.".contains(&it))
    );
    let url = &config.issuer.mint_url;
    let host = url.host_str().unwrap().trim_matches(['[', ']']);
    let local = host == "localhost"
        || host
            .parse::<std::net::IpAddr>()
            .is_ok_and(|ip| ip.is_loopback());
    assert!(
        url.scheme() == "https" || (url.scheme() == "http" && local),
        "{url}"
    );
    assert!(url.username().is_empty() && url.password().is_none() && url.query().is_none());
    let pairs = config.keys.pairs.len();
    assert!((1..=5).contains(&pairs) && config.keys.read().is_ok());
    assert!(
        config
            .warnings
            .iter()
            .all(|it| !it.chars().any(char::is_control))
    );
}

/// What `check` prints of the settings that somebody wrote, reads back to the same settings.
fn is_shown_as_it_could_be_written(desk: &Desk, written: &Written, reading: &Reading) {
    let text = reading.effective.to_text();
    let is_written = |line: &&str| !line.ends_with("# derived") && !line.ends_with("# default");
    let text: Vec<&str> = text.lines().filter(is_written).collect();
    let again = Written {
        file: text.join("\n").into_bytes(),
        environment: Vec::new(),
        flags: Vec::new(),
    };
    let again = desk
        .read(&again)
        .unwrap_or_else(|problems| panic!("{problems}\n{}\n{:?}", text.join("\n"), written.file));
    let values = |reading: &Reading| {
        let shown = reading.effective.to_json()["settings"].clone();
        let shown = shown.as_object().unwrap().clone();
        shown
            .into_iter()
            .map(|(path, it)| (path, it["value"].clone()))
            .collect::<Vec<_>>()
    };
    assert_eq!(values(&again), values(reading));
}

/// Nothing that is wrong hides anything else: an unknown setting more is one problem more.
fn one_more_mistake_is_one_more_problem(desk: &Desk, written: &Written, before: &Problems) {
    if written
        .table()
        .is_none_or(|table| table.contains_key(UNKNOWN))
    {
        return;
    }
    let mut more = written.clone();
    more.file = format!("{UNKNOWN} = 1\n").into_bytes();
    more.file.extend_from_slice(
        written
            .file
            .strip_prefix(b"\xef\xbb\xbf")
            .unwrap_or(&written.file),
    );
    let problems = desk.read(&more).expect_err("an unknown setting is refused");
    let (ours, others): (Vec<_>, Vec<_>) = problems
        .0
        .into_iter()
        .partition(|problem| problem.place == UNKNOWN);
    assert_eq!(ours.len(), 1);
    assert_eq!(others.len(), before.0.len(), "{others:?}\n{before:?}");
    assert!(
        others.iter().all(|problem| before.0.contains(problem)),
        "{others:?}\n{before:?}"
    );
}
