//! Every setting's value in force and where it came from, for `check` to show. It holds paths of key files, never keys.

use std::fmt::Write as _;
use std::path::PathBuf;

use serde_json::{Map, Value as Json, json};

use super::keys::{Fallback, KEYS};
use super::raw::Written;
use super::value::Value;
use super::{Config, Origin};
use crate::caller::rule::Named;

/// The settings in force.
#[derive(Clone, Debug)]
pub struct Effective {
    /// The file that was read, if any.
    pub file: Option<PathBuf>,
    /// Tells one set of keys from another.
    pub key_set: Option<String>,
    /// Every setting, in the order of [`KEYS`].
    pub settings: Vec<Shown>,
}

/// One setting in force.
#[derive(Clone, Debug)]
pub struct Shown {
    /// Its path.
    pub path: String,
    /// Where its value came from.
    pub origin: Origin,
    value: Option<Value>,
}

impl Effective {
    pub(super) fn new(written: &Written, config: &Config, file: Option<PathBuf>) -> Self {
        let pairs = config.keys.pairs.len();
        let paths = KEYS.iter().flat_map(|key| {
            let indexed = key.path.starts_with("upstream.keys.0.");
            let count = if indexed { pairs } else { 1 };
            (0..count).map(move |index| (key, key.path.replace(".0.", &format!(".{index}."))))
        });
        let named = |(key, path): (_, String)| match path.strip_prefix("callers.NAME.") {
            None => vec![(key, path)],
            Some(field) => {
                let path = |caller: &Named| format!("callers.{}.{field}", caller.name);
                config.callers.iter().map(|it| (key, path(it))).collect()
            }
        };
        let paths = paths.flat_map(named);
        let settings = paths.map(|(key, path)| match written.entry(&path) {
            Some(entry) => Shown {
                path,
                origin: entry.origin,
                value: Some(entry.value.clone()),
            },
            None => Shown {
                value: derived(&path, config),
                path,
                origin: match key.fallback {
                    Fallback::Derived(_) => Origin::Derived,
                    _ => Origin::Default,
                },
            },
        });
        Self {
            file,
            key_set: config.keys.read().ok().map(|keys| {
                let mint_url = config.issuer.mint_url.as_str();
                keys.fingerprint_at(mint_url)
            }),
            settings: settings.collect(),
        }
    }

    /// As a TOML file could say it, with each value's origin behind it.
    pub fn to_text(&self) -> String {
        let mut text = String::new();
        let file = self.file.as_ref().map(|file| file.display().to_string());
        let _ = writeln!(text, "# file: {}", file.as_deref().unwrap_or("none"));
        let _ = writeln!(
            text,
            "# key set: {}",
            self.key_set.as_deref().unwrap_or("none")
        );
        let mut section = String::new();
        for shown in self.in_sections() {
            let (parent, name) = shown.path.rsplit_once('.').unwrap_or(("", &shown.path));
            if parent != section {
                section = parent.to_owned();
                let _ = match parent.starts_with("upstream.keys.") {
                    true => writeln!(text, "\n[[upstream.keys]]"),
                    false => writeln!(text, "\n[{parent}]"),
                };
            }
            let _ = match &shown.value {
                Some(value) => {
                    let line = format!("{name} = {}", value.to_toml());
                    writeln!(text, "{line:<60} # {}", shown.origin.name())
                }
                None => writeln!(text, "# {name} is unset"),
            };
        }
        text
    }

    /// As one JSON object: `settings` by path, each with `value` and `from`.
    pub fn to_json(&self) -> Json {
        let settings: Map<String, Json> = self
            .settings
            .iter()
            .map(|shown| {
                let value = shown.value.as_ref().map(Value::to_json);
                (
                    shown.path.clone(),
                    json!({"value": value, "from": shown.origin.name()}),
                )
            })
            .collect();
        json!({"file": self.file, "key_set": self.key_set, "settings": settings})
    }

    /// A pair of key files belongs together, whatever the order of the table.
    fn in_sections(&self) -> Vec<&Shown> {
        let mut settings: Vec<&Shown> = self.settings.iter().collect();
        let section = |shown: &Shown| {
            shown
                .path
                .rsplit_once('.')
                .map(|(section, _)| section.to_owned())
        };
        let order: Vec<_> = settings.iter().map(|shown| section(shown)).collect();
        settings.sort_by_key(|shown| order.iter().position(|other| *other == section(shown)));
        settings
    }
}

/// The value in force where it follows from others.
fn derived(path: &str, config: &Config) -> Option<Value> {
    if let Some(rest) = path.strip_prefix("callers.") {
        let (name, field) = rest.split_once('.')?;
        let caller = config.callers.iter().find(|it| it.name == name)?;
        return match field {
            "may" => Some(Value::List(caller.may.words())),
            "burst" => Some(Value::Count(caller.rate?.burst.get())),
            _ => None,
        };
    }
    let rules = &config.rules;
    match path {
        "upstream.timeout" => Some(Value::Length(rules.timeout)),
        "budget.reserve" => Some(Value::Count(rules.budget.reserve)),
        "budget.in_flight" => Some(Value::Length(rules.budget.in_flight)),
        "refresh.lead" => Some(Value::Length(rules.lead)),
        "limits.peer_connections" => Some(Value::Count(config.bounds.peer_connections.get())),
        "limits.peer_burst" => Some(Value::Count(config.peers?.burst.get())),
        "clock.skew" => Some(Value::Length(rules.skew)),
        _ => None,
    }
}
