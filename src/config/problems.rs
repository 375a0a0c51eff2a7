//! What is wrong with the settings, all of it at once, without a value that could be a secret.

use std::fmt;

/// One thing that is wrong, where it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The setting's path, environment variable or flag, or the file's place.
    pub place: String,
    /// What is wrong, what was expected and how to mend it, on one line.
    pub text: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.text)
    }
}

/// Everything that is wrong; never empty where it is an error.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Problems(pub Vec<Problem>);

impl Problems {
    pub(super) fn add(&mut self, place: impl Into<String>, text: impl Into<String>) {
        let problem = Problem {
            place: one_line(&place.into()),
            text: one_line(&text.into()),
        };
        // A list may trip twice over the same thing.
        if !self.0.contains(&problem) {
            self.0.push(problem);
        }
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.0.iter().enumerate() {
            let end = if index == 0 { "" } else { "\n" };
            write!(f, "{end}{problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}

/// A text that may hold a path, and a path may hold anything, made fit for one line.
pub(super) fn one_line(text: &str) -> String {
    let safe = |c: char| if c.is_control() { ' ' } else { c };
    text.chars().map(safe).collect()
}

/// The longest text that is repeated to whoever wrote it: Truecaller's keys and tokens are longer.
const MOST_SHOWN: usize = 24;

/// Repeats a short and harmless text; of any other only its length is told, since it may be a key in the wrong place.
pub(super) fn shown(text: &str) -> String {
    if is_showable(text) {
        format!("\"{text}\"")
    } else {
        format!(
            "what is written ({} characters, not shown)",
            text.chars().count()
        )
    }
}

/// True for a text that is too short to be a key.
pub(super) fn is_showable(text: &str) -> bool {
    text.len() <= MOST_SHOWN && text.chars().all(|c| c.is_ascii_graphic() || c == ' ')
}

/// Repeats the name of a key that is not known, if it looks like one.
pub(super) fn shown_name(name: &str) -> String {
    if is_name(name) {
        name.to_owned()
    } else {
        "(a name that is not shown)".to_owned()
    }
}

/// True for what the name of a setting could be.
pub(super) fn is_name(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
    !name.is_empty() && name.len() <= MOST_SHOWN && name.bytes().all(plain)
}
