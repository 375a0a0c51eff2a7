//! Lines of coloured words, cut to a width, that cannot move a terminal's cursor.

use std::fmt::Write as _;

/// What words say beside themselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tone {
    Plain,
    Dim,
    Good,
    Warn,
    Bad,
}

impl Tone {
    fn code(self) -> Option<&'static str> {
        match self {
            Self::Plain => None,
            Self::Dim => Some("2"),
            Self::Good => Some("32"),
            Self::Warn => Some("33"),
            Self::Bad => Some("1;31"),
        }
    }
}

/// Words of one tone.
pub(super) type Span = (Tone, String);

/// Where the values begin, behind their labels.
pub(super) const INDENT: usize = 10;

/// A text of more lines than this is no message.
const MOST_LINES: usize = 4;

/// A page that is being written.
pub(super) struct Page {
    text: String,
    width: usize,
    colour: bool,
}

impl Page {
    pub(super) fn new(width: usize, colour: bool) -> Self {
        Self {
            text: String::new(),
            width: width.max(40),
            colour,
        }
    }

    pub(super) fn width(&self) -> usize {
        self.width
    }

    pub(super) fn text(self) -> String {
        self.text
    }

    /// A label and words of one tone. What must be seen has a loud label, too.
    pub(super) fn line(&mut self, label: &str, text: impl Into<String>, tone: Tone) {
        let label_tone = if tone == Tone::Bad { tone } else { Tone::Dim };
        self.spans(label, label_tone, &[(tone, text.into())]);
    }

    /// The same over as many lines as it takes, for what must be read to its end.
    pub(super) fn wrapped(&mut self, label: &str, text: &str, tone: Tone) {
        let room = self.width - INDENT;
        let mut lines = vec![String::new()];
        for word in text.split_whitespace() {
            let last = lines.len() - 1;
            let length = lines[last].chars().count();
            if length > 0 && length + 1 + word.chars().count() > room {
                lines.push(word.to_owned());
            } else {
                let gap = if length > 0 { " " } else { "" };
                lines[last].push_str(&format!("{gap}{word}"));
            }
        }
        for (index, line) in lines.iter().take(MOST_LINES).enumerate() {
            self.line(if index == 0 { label } else { "" }, line.as_str(), tone);
        }
    }

    /// A quiet label and words of many tones.
    pub(super) fn words(&mut self, label: &str, spans: &[Span]) {
        self.spans(label, Tone::Dim, spans);
    }

    fn spans(&mut self, label: &str, tone: Tone, spans: &[Span]) {
        let mut all = vec![(tone, format!("{label:<INDENT$}"))];
        all.extend_from_slice(spans);
        for (_, text) in &mut all {
            *text = text.replace(char::is_control, " ");
        }
        while let Some((_, text)) = all.last_mut() {
            text.truncate(text.trim_end().len());
            if !text.is_empty() {
                break;
            }
            all.pop();
        }
        let length: usize = all.iter().map(|(_, text)| text.chars().count()).sum();
        let (mut left, cut) = match length > self.width {
            true => (self.width - 1, "…"),
            false => (length, ""),
        };
        for (tone, text) in &all {
            let fits: String = text.chars().take(left).collect();
            left -= fits.chars().count();
            self.put(*tone, &fits);
        }
        self.text.push_str(cut);
        self.text.push('\n');
    }

    fn put(&mut self, tone: Tone, text: &str) {
        match tone
            .code()
            .filter(|_| self.colour && !text.trim().is_empty())
        {
            Some(code) => {
                let _ = write!(self.text, "\x1b[{code}m{text}\x1b[0m");
            }
            None => self.text.push_str(text),
        }
    }
}
