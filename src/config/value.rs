//! One value as it was written, read by its kind.

use std::time::Duration;

use serde_json::Value as Json;

use super::keys::{Key, Kind, LENGTHS};
use super::problems::shown;

/// A value of one of the kinds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Value {
    Flag(bool),
    Count(u32),
    Length(Duration),
    Text(String),
    List(Vec<String>),
}

impl Value {
    /// Reads what a TOML file holds. The error says what is wrong and what was expected.
    pub(super) fn from_toml(key: &Key, written: &toml::Value) -> Result<Self, String> {
        use toml::Value as Toml;
        match (key.kind, written) {
            (Kind::Flag, Toml::Boolean(flag)) => Ok(Self::Flag(*flag)),
            (Kind::Count { .. }, Toml::Integer(count)) => counted(key, &count.to_string()),
            (Kind::Length | Kind::Choice(_) | Kind::Text(_), Toml::String(text)) => {
                Self::from_text(key, text)
            }
            (Kind::Length, Toml::Integer(count)) => Err(format!(
                "{count} has no unit; expected {}, in quotes",
                key.expected()
            )),
            (Kind::Numbers(_), Toml::Array(items)) => numbers(key, items),
            (Kind::List(_), Toml::Array(items)) => {
                let texts = items.iter().map(|item| item.as_str().map(str::to_owned));
                let texts: Option<Vec<String>> = texts.collect();
                texts
                    .map(Self::List)
                    .ok_or_else(|| format!("an item is not a text; expected {}", key.expected()))
            }
            (Kind::List(_) | Kind::Numbers(_), Toml::String(_)) => Err(format!(
                "a single text; expected {}, in brackets: [\"…\"]",
                key.expected()
            )),
            (_, other) => Err(format!(
                "{} {}; expected {}",
                article(other.type_str()),
                other.type_str(),
                key.expected()
            )),
        }
    }

    /// Reads what the environment or a flag holds.
    pub(super) fn from_text(key: &Key, text: &str) -> Result<Self, String> {
        let wrong = || {
            Err(format!(
                "{} is wrong; expected {}",
                shown(text),
                key.expected()
            ))
        };
        match key.kind {
            Kind::Flag => match text {
                "true" => Ok(Self::Flag(true)),
                "false" => Ok(Self::Flag(false)),
                _ => wrong(),
            },
            Kind::Count { .. } => counted(key, text),
            Kind::Length => length(key, text),
            Kind::Choice(words) if words.contains(&text) => Ok(Self::Text(text.to_owned())),
            Kind::Choice(words) => Err(no_choice(key, words, text)),
            Kind::Text(_) if text.is_empty() => {
                Err(format!("it is empty; expected {}", key.expected()))
            }
            Kind::Text(_) => Ok(Self::Text(text.to_owned())),
            Kind::List(_) | Kind::Numbers(_) => {
                let items = text
                    .split(',')
                    .map(str::trim)
                    .filter(|item| !item.is_empty());
                Ok(Self::List(items.map(str::to_owned).collect()))
            }
        }
    }

    /// As it could be written in a TOML file.
    pub(super) fn to_toml(&self) -> String {
        match self {
            Self::List(items) => {
                let items: Vec<String> = items.iter().map(|item| quoted(item)).collect();
                format!("[{}]", items.join(", "))
            }
            Self::Text(text) => quoted(text),
            Self::Length(length) => quoted(&written(*length)),
            Self::Flag(flag) => flag.to_string(),
            Self::Count(count) => count.to_string(),
        }
    }

    pub(super) fn to_json(&self) -> Json {
        match self {
            Self::Flag(flag) => (*flag).into(),
            Self::Count(count) => (*count).into(),
            Self::Length(length) => written(*length).into(),
            Self::Text(text) => text.as_str().into(),
            Self::List(items) => items.as_slice().into(),
        }
    }
}

/// A length as people write it: `33m`.
pub(super) fn written(length: Duration) -> String {
    humantime::format_duration(length).to_string()
}

/// JSON's escapes are TOML's too.
fn quoted(text: &str) -> String {
    Json::from(text).to_string()
}

fn article(noun: &str) -> &'static str {
    if noun.starts_with(['a', 'i']) {
        "an"
    } else {
        "a"
    }
}

fn counted(key: &Key, text: &str) -> Result<Value, String> {
    let Kind::Count { least, most } = key.kind else {
        return Err(format!("expected {}", key.expected()));
    };
    let count = text
        .parse()
        .ok()
        .filter(|count| (least..=most).contains(count));
    count
        .map(Value::Count)
        .ok_or_else(|| format!("{} is wrong; expected {}", shown(text), key.expected()))
}

fn numbers(key: &Key, items: &[toml::Value]) -> Result<Value, String> {
    use toml::Value as Toml;
    let text = |item: &Toml| match item {
        Toml::Integer(number) => Some(number.to_string()),
        Toml::String(text) => Some(text.clone()),
        _ => None,
    };
    let texts: Option<Vec<String>> = items.iter().map(text).collect();
    texts
        .map(Value::List)
        .ok_or_else(|| format!("an item is not a number; expected {}", key.expected()))
}

fn length(key: &Key, text: &str) -> Result<Value, String> {
    // Whatever is longer than this is no length, and humantime may overflow on it.
    let short = text.bytes().filter(u8::is_ascii_digit).count() <= 15;
    let length = short
        .then(|| humantime::parse_duration(text).ok())
        .flatten();
    let in_range = length.filter(|length| LENGTHS.contains(length));
    in_range.map(Value::Length).ok_or_else(|| {
        let why = match length {
            Some(Duration::ZERO) => "is no time at all",
            Some(length) if length < *LENGTHS.start() => "is too short",
            Some(_) => "is too long",
            None if text.bytes().all(|byte| byte.is_ascii_digit()) => "has no unit",
            None => "is not a length of time",
        };
        format!("{} {why}; expected {}", shown(text), key.expected())
    })
}

fn no_choice(key: &Key, words: &[&str], text: &str) -> String {
    if key.path == "record.register" && ["redis", "kubernetes"].contains(&text) {
        return format!(
            "\"{text}\" is not in this version; expected {}",
            key.expected()
        );
    }
    let near = |word: &&&str| strsim::osa_distance(text, word) <= 2;
    let hint = words.iter().find(near);
    let hint = hint.map_or_else(String::new, |word| format!("; did you mean {word}?"));
    format!(
        "{} is wrong; expected {}{hint}",
        shown(text),
        key.expected()
    )
}
