//! What was written, in every layer: defaults, then the file, then the environment, then flags. Each value is read by its kind.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs;
use std::time::Duration;

use toml::de::DeTable;
use toml::{Table, Value as Toml};

use super::hints;
use super::keys::{self, Fallback, KEYS, PREFIX};
use super::problems::{Problems, is_name, shown_name};
use super::value::Value;
use super::{CONFIG_VARIABLE, Origin, Sources};
use crate::telemetry::Format;

/// One value and where it came from.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) value: Value,
    pub(super) origin: Origin,
    /// What to call it in a problem: its path, variable or flag.
    pub(super) place: String,
}

/// All that was written, the later layer over the earlier, and what could not be read.
#[derive(Default)]
pub(super) struct Written {
    entries: BTreeMap<String, Entry>,
    /// Paths and sections with something that could not be read: what depends on them is not judged.
    failed: BTreeSet<String>,
    /// The file could not be read at all.
    unread: bool,
    /// What such a file says of `log.format`, as far as it can be made out.
    salvaged_format: Option<Format>,
    pub(super) problems: Problems,
}

impl Written {
    /// Reads all layers.
    pub(super) fn read(sources: &Sources) -> Self {
        let mut written = Self::default();
        for key in KEYS {
            if let Fallback::Value(text) = key.fallback {
                written.put(
                    key.path,
                    Origin::Default,
                    key.path,
                    Value::from_text(key, text),
                );
            }
        }
        written.read_file(sources);
        written.read_environment(sources);
        for flag in &sources.flags {
            if let Some(key) = keys::find(&flag.path) {
                written.put(
                    &flag.path,
                    Origin::Flag,
                    &flag.name,
                    Value::from_text(key, &flag.text),
                );
            }
        }
        written
    }

    fn put(&mut self, path: &str, origin: Origin, place: &str, value: Result<Value, String>) {
        match value {
            Ok(value) => {
                let entry = Entry {
                    value,
                    origin,
                    place: place.to_owned(),
                };
                self.entries.insert(path.to_owned(), entry);
            }
            Err(text) => {
                self.failed.insert(path.to_owned());
                self.problems.add(place, text);
            }
        }
    }

    fn read_file(&mut self, sources: &Sources) {
        let Some(path) = sources.file() else { return };
        let name = path.display().to_string();
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(why) => {
                self.unread = true;
                return self
                    .problems
                    .add(name, format!("the settings cannot be read ({why})"));
            }
        };
        match text.parse::<Table>() {
            Ok(table) => self.walk_sections(&table),
            Err(error) => {
                self.unread = true;
                self.salvaged_format = salvaged_format(&text);
                let place = format!("{name}:{}", position(&text, error.span()));
                let twice = hints::of_duplicate(&text, error.span())
                    .filter(|_| error.message().contains("duplicate key"));
                let what = twice.unwrap_or_else(|| {
                    let why = error.message();
                    format!("{why}; the line is not shown, since it may hold a secret")
                });
                self.problems.add(place, format!("not TOML: {what}"));
            }
        }
    }

    fn walk_sections(&mut self, table: &Table) {
        for (name, value) in table {
            self.walk(name, name, value);
        }
    }

    /// `name` is the last part of `path`.
    fn walk(&mut self, path: &str, name: &str, value: &Toml) {
        if !is_name(name) {
            let parent = path.rsplit_once(name).map_or("", |(parent, _)| parent);
            return self.unknown(&format!("{parent}{}", shown_name(name)), name);
        }
        if let Some(key) = keys::find(path) {
            return self.put(path, Origin::File, path, Value::from_toml(key, value));
        }
        match value {
            Toml::Array(pairs) if path == "upstream.keys" => {
                for (index, pair) in pairs.iter().enumerate() {
                    self.walk(&format!("{path}.{index}"), &index.to_string(), pair);
                }
            }
            Toml::Table(_) if path == "upstream.keys" => {
                let text = "one table; expected a list of pairs: write [[upstream.keys]], in double brackets";
                self.fail_below(path, text);
            }
            Toml::Array(_) if path == "callers" => {
                let text = "a list; each caller is a table with its name: write [callers.NAME], in single brackets";
                self.fail_below(path, text);
            }
            _ if is_nameless_caller(path) && !value.is_table() => {
                let text = "callers have names: write it under [callers.NAME]";
                self.fail_below(path, text);
            }
            Toml::Table(table) if keys::is_section(path) => {
                for (name, value) in table {
                    self.walk(&format!("{path}.{name}"), name, value);
                }
            }
            _ if keys::is_section(path) => {
                self.fail_below(
                    path,
                    &format!("a single value; expected a section: [{path}]"),
                );
            }
            _ => self.unknown(path, name),
        }
    }

    fn fail_below(&mut self, section: &str, text: &str) {
        self.failed.insert(section.to_owned());
        self.problems.add(section, text);
    }

    fn unknown(&mut self, path: &str, name: &str) {
        if is_secret_name(name) {
            return self.problems.add(path, SECRET_IN_SETTINGS);
        }
        let hint = hints::of_path(path);
        self.problems
            .add(path, format!("there is no such setting; {hint}"));
    }

    fn read_environment(&mut self, sources: &Sources) {
        for (name, value) in &sources.environment {
            if name == CONFIG_VARIABLE || is_service_link(name, value) {
                continue;
            }
            let found = path_of(name).and_then(|path| keys::find(&path).map(|key| (path, key)));
            let Some((path, key)) = found else {
                self.unknown_variable(name);
                continue;
            };
            let read = value.to_str().map_or_else(
                || Err(format!("it is not UTF-8; expected {}", key.expected())),
                |text| Value::from_text(key, text),
            );
            self.put(&path, Origin::Environment, name, read);
        }
    }

    fn unknown_variable(&mut self, name: &str) {
        let short = name.strip_prefix(PREFIX).unwrap_or(name);
        if is_secret_name(&short.to_lowercase()) {
            return self.problems.add(shown_variable(name), SECRET_IN_SETTINGS);
        }
        let hint = hints::of_variable(name);
        self.problems.add(
            shown_variable(name),
            format!("there is no such setting; {hint}"),
        );
    }
}

/// What is in force, by path.
impl Written {
    /// The value that holds, if one was written or has a default.
    pub(super) fn entry(&self, path: &str) -> Option<&Entry> {
        self.entries.get(path)
    }

    /// How problems are told. It is right whatever else is wrong; text if it is wrong itself.
    pub(super) fn log_format(&self) -> Format {
        const PATH: &str = "log.format";
        if self.failed.contains(PATH) || self.failed.contains("log") {
            return Format::Text;
        }
        let salvaged = self.salvaged_format.filter(|_| !self.is_written(PATH));
        let written = || Format::named(&self.text(PATH)?);
        salvaged.or_else(written).unwrap_or_default()
    }

    pub(super) fn flag(&self, path: &str) -> bool {
        matches!(
            self.entries.get(path),
            Some(Entry {
                value: Value::Flag(true),
                ..
            })
        )
    }

    pub(super) fn count(&self, path: &str) -> Option<u32> {
        match self.entries.get(path)?.value {
            Value::Count(count) => Some(count),
            _ => None,
        }
    }

    pub(super) fn length(&self, path: &str) -> Option<Duration> {
        match self.entries.get(path)?.value {
            Value::Length(length) => Some(length),
            _ => None,
        }
    }

    pub(super) fn text(&self, path: &str) -> Option<String> {
        match &self.entries.get(path)?.value {
            Value::Text(text) => Some(text.clone()),
            _ => None,
        }
    }

    pub(super) fn list(&self, path: &str) -> Vec<String> {
        match self.entries.get(path) {
            Some(Entry {
                value: Value::List(items),
                ..
            }) => items.clone(),
            _ => Vec::new(),
        }
    }

    /// True if something was written there, rather than left to its default.
    pub(super) fn is_written(&self, path: &str) -> bool {
        self.entries
            .get(path)
            .is_some_and(|entry| entry.origin != Origin::Default)
    }

    /// True if what was written there could not be read: it has its problem already.
    pub(super) fn has_failed(&self, path: &str) -> bool {
        let sections = path.match_indices('.').map(|(at, _)| &path[..at]);
        self.unread
            || sections
                .chain([path])
                .any(|path| self.failed.contains(path))
    }

    /// The indexes of the keys that were written, in order.
    pub(super) fn key_indexes(&self) -> BTreeSet<u32> {
        let all = self.entries.keys().chain(&self.failed);
        let indexes = all.filter_map(|path| {
            let (index, _) = path.strip_prefix("upstream.keys.")?.split_once('.')?;
            index.parse().ok()
        });
        indexes.collect()
    }

    /// The names of the callers about which something was written, in order.
    pub(super) fn caller_names(&self) -> BTreeSet<String> {
        let all = self.entries.keys().chain(&self.failed);
        let names = all.filter_map(|path| path.strip_prefix("callers.")?.split_once('.'));
        names.map(|(name, _)| name.to_owned()).collect()
    }

    /// Says what is wrong with the value in force at `path`.
    pub(super) fn problem(&mut self, path: &str, text: impl Into<String>) {
        let place = self
            .entries
            .get(path)
            .map_or(path, |entry| &entry.place)
            .to_owned();
        self.failed.insert(path.to_owned());
        self.problems.add(place, text);
    }
}

const SECRET_IN_SETTINGS: &str = "keys come from files only, and what is written here is not used; put it into a file, name the file in \
     upstream.keys (key_id_file, api_key_file), and replace a key that others could read here";

/// True for `callers.uids` and the like.
fn is_nameless_caller(path: &str) -> bool {
    let field = path.strip_prefix("callers.");
    field.is_some_and(|field| keys::find(&format!("callers.NAME.{field}")).is_some())
}

/// Reads `log.format` in a file that is not TOML elsewhere.
fn salvaged_format(text: &str) -> Option<Format> {
    let (table, _told_already) = DeTable::parse_recoverable(text);
    let log = table.get_ref().get("log")?.get_ref();
    Format::named(log.get("format")?.get_ref().as_str()?)
}

/// Names under which somebody may paste a key.
fn is_secret_name(name: &str) -> bool {
    let name = name.to_lowercase();
    let words = [
        "api_key", "apikey", "api-key", "key_id", "keyid", "key-id", "secret", "token", "password",
        "bearer",
    ];
    let exact = name.rsplit("__").next().unwrap_or_default();
    words.contains(&exact) || exact.ends_with("_secret") || exact.ends_with("_password")
}

/// `BEARERD_UPSTREAM__KEYS__0__KEY_ID_FILE` is `upstream.keys.0.key_id_file`.
fn path_of(name: &str) -> Option<String> {
    let rest = name.strip_prefix(PREFIX)?;
    let upper = |byte: u8| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_';
    rest.bytes()
        .all(upper)
        .then(|| rest.to_lowercase().replace("__", "."))
}

fn shown_variable(name: &str) -> String {
    let rest = name.strip_prefix(PREFIX).unwrap_or_default();
    if rest.split("__").all(is_name) {
        name.to_owned()
    } else {
        format!("{PREFIX}{}", shown_name(""))
    }
}

/// Kubernetes tells every container of the services in its namespace; those of a service named `bearerd` or `bearerd-…` begin
/// as our variables do, and none of ours has such a name.
fn is_service_link(name: &str, value: &OsStr) -> bool {
    let Some(rest) = name
        .strip_prefix("BEARERD")
        .filter(|rest| !rest.contains("__"))
    else {
        return false;
    };
    let is_url = value.to_str().is_some_and(|value| value.contains("://"));
    let of_a_port = |(_, port): (&str, &str)| {
        let number = port.strip_prefix('_').unwrap_or_default();
        (port.is_empty() && is_url) || number.starts_with(|c: char| c.is_ascii_digit())
    };
    rest.ends_with("_SERVICE_HOST")
        || rest.ends_with("_SERVICE_PORT")
        || rest.contains("_SERVICE_PORT_")
        || rest.split_once("_PORT").is_some_and(of_a_port)
}

/// `line:column`, counted from one.
fn position(text: &str, span: Option<std::ops::Range<usize>>) -> String {
    let start = span.map_or(0, |span| span.start).min(text.len());
    let before = text.get(..start).unwrap_or(text);
    let line = before.matches('\n').count() + 1;
    let column = before
        .rsplit('\n')
        .next()
        .unwrap_or_default()
        .chars()
        .count()
        + 1;
    format!("{line}:{column}")
}
