//! The settings: their table, and every example of them.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;

use bearerd::config::{Fallback, KEYS, Key, Kind};

use super::{blocks, blocks_of, generated};
use crate::terminal::run;
use crate::tls::certificates::{Authority, server};

#[test]
fn the_settings_are_the_programs_own() {
    let mut table =
        "| key | default | for example | what may be written | environment: `BEARERD_…` | what for |\n|---|---|---|---|---|---|\n".to_owned();
    for key in KEYS {
        let environment = key.env();
        table.push_str(&format!(
            "| `{}` | {} | `{}` | {} | `{}` | {} |\n",
            key.path,
            default(key),
            sample(key),
            values(key),
            environment.strip_prefix("BEARERD_").unwrap(),
            key.help
        ));
    }
    generated("deploy/settings.md", "settings", &table);
}

fn default(key: &Key) -> String {
    match key.fallback {
        Fallback::Value("") => "none".into(),
        Fallback::Value(text) => format!("`{text}`"),
        Fallback::Derived(text) => text.into(),
        Fallback::Required => "**required**".into(),
        Fallback::Unset => "unset".into(),
    }
}

fn values(key: &Key) -> String {
    match key.kind {
        Kind::Flag => "`true`, `false`".into(),
        Kind::Count { least, most } => format!("{least} to {most}"),
        Kind::Length => "length of time".into(),
        Kind::Choice(words) => format!("`{}`", words.join("`, `")),
        Kind::Text(what) => what.into(),
        Kind::List(what) | Kind::Numbers(what) => format!("list of {what}"),
    }
}

/// Examples of what has no default that could be written in a file.
const SAMPLES: &[(&str, &str)] = &[
    (
        "upstream.account",
        "\"91c173bb-28d8-4030-9722-8663ff9589f3\"",
    ),
    ("upstream.timeout", "\"5s\""),
    (
        "upstream.keys.0.key_id_file",
        "\"/etc/bearerd/keys/key_id\"",
    ),
    (
        "upstream.keys.0.api_key_file",
        "\"/etc/bearerd/keys/api_key\"",
    ),
    ("budget.reserve", "3"),
    ("budget.in_flight", "\"60s\""),
    ("budget.spacing", "\"10s\""),
    ("refresh.lead", "\"50m\""),
    ("clock.skew", "\"30s\""),
    ("http.hosts", "[\"bearerd.shop.svc\"]"),
    ("grpc.hosts", "[\"bearerd.shop.svc\"]"),
    ("admin.hosts", "[\"bearerd.shop.svc\"]"),
    (
        "http.listen",
        "[\"localhost:7290\", \"unix:/run/bearerd/http.sock\"]",
    ),
    (
        "grpc.listen",
        "[\"localhost:7291\", \"unix:/run/bearerd/grpc.sock\"]",
    ),
    (
        "admin.listen",
        "[\"localhost:7292\", \"unix:/run/bearerd/admin.sock\"]",
    ),
    ("http.socket_mode", "\"0660\""),
    ("grpc.socket_mode", "\"0660\""),
    ("admin.socket_mode", "\"0660\""),
    ("http.socket_group", "\"2000\""),
    ("grpc.socket_group", "\"2000\""),
    ("admin.socket_group", "\"2000\""),
    ("admin.uids", "[1000]"),
    ("admin.gids", "[2000]"),
    ("limits.peer_connections", "1024"),
    ("limits.peer_rate", "500"),
    ("limits.peer_burst", "1000"),
    ("tls.certificate_file", "\"/etc/bearerd/tls/tls.crt\""),
    ("tls.key_file", "\"/etc/bearerd/tls/tls.key\""),
    ("tls.client_ca_file", "\"/etc/bearerd/tls/ca.crt\""),
    ("callers.NAME.uids", "[1000]"),
    ("callers.NAME.gids", "[2000]"),
    ("callers.NAME.sans", "[\"orders.shop.svc\"]"),
    ("callers.NAME.may", "[\"vend\", \"watch\"]"),
    ("callers.NAME.rate", "200"),
    ("callers.NAME.burst", "400"),
    ("callers.NAME.streams", "4"),
    ("audit.file", "\"/var/log/bearerd/audit.log\""),
    ("sandbox.account", "\"demo\""),
    ("sandbox.key_id_file", "\"/etc/bearerd/keys/key_id\""),
    ("sandbox.api_key_file", "\"/etc/bearerd/keys/api_key\""),
];

/// What a file could say.
fn sample(key: &Key) -> String {
    if let Some((_, text)) = SAMPLES.iter().find(|(path, _)| *path == key.path) {
        return (*text).to_owned();
    }
    match (key.kind, key.fallback) {
        (Kind::Flag, _) => "true".into(),
        (Kind::Count { .. }, Fallback::Value(text)) => text.into(),
        (_, Fallback::Value(text)) if !text.is_empty() => format!("{text:?}"),
        _ => panic!("{} needs a sample", key.path),
    }
}

/// A folder with whatever the examples name.
struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let authority = Authority::new("root");
        let pair = authority.issue(&server());
        for (name, text) in [
            ("key_id", "a-key_id"),
            ("api_key", "a-api_key"),
            ("tls.crt", &pair.certificate),
            ("tls.key", &pair.key),
            ("ca.crt", &authority.certificate),
        ] {
            let path = folder.path().join(name);
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        }
        Self(folder)
    }

    /// Checks settings whose files lie here; returns what was said of them.
    fn check(&self, text: &str) -> String {
        let here = self.0.path().display().to_string();
        let mut text = text.to_owned();
        for folder in [
            "/etc/bearerd/keys",
            "/etc/bearerd/tls",
            "/run/bearerd",
            "/var/log/bearerd",
            "/var/lib/bearerd",
        ] {
            text = text.replace(folder, &here);
        }
        let file = self.0.path().join("bearerd.toml");
        fs::write(&file, &text).unwrap();
        let file = file.display().to_string();
        let said = run(&["check", "--config", &file, "--state-folder", &here], &[]);
        assert_eq!(said.code, Some(0), "{text}\n{said:?}");
        said.err
    }
}

#[test]
fn the_example_settings_are_good() {
    let folder = Folder::new();
    let examples = blocks("toml");
    assert!(examples.len() >= 3);
    let whole = blocks_of("README.md", "toml");
    let upstream = whole.iter().find(|it| it.contains("[upstream]")).unwrap();
    for example in &examples {
        // What shows one thing only goes with the first example's account and keys.
        let said = match example.contains("[upstream]") {
            true => folder.check(example),
            false => folder.check(&format!("{upstream}\n{example}")),
        };
        assert!(!said.contains("warning: "), "{said}");
    }
}

#[test]
fn every_sample_of_the_table_is_taken_and_all_of_them_together() {
    let mut sections: BTreeMap<String, String> = BTreeMap::new();
    for key in KEYS {
        let path = key.path.replace("upstream.keys.0.", "[upstream.keys].");
        let path = path.replace("callers.NAME.", "callers.orders.");
        let (section, name) = path.rsplit_once('.').unwrap();
        let lines = sections.entry(section.to_owned()).or_default();
        lines.push_str(&format!("{name} = {}\n", sample(key)));
    }
    let sections = sections.iter();
    let file: String = sections
        .map(|(section, lines)| format!("[{section}]\n{lines}"))
        .collect();
    Folder::new().check(&file);
}
