//! Makes what an issuer sends fit for a log: printable, short, and without a secret in any spelling.
//!
//! No list of spellings is kept. A word of an answer is shown only if it looks like a word of a sentence, which keys and tokens do
//! not, whatever they are encoded in. Then the letters and digits of all words are compared with those of the key in one row, so
//! that neither case, punctuation nor line breaks between its parts hide it. What is not shown becomes `…`.

use std::error::Error;

use serde::Deserialize;
use zeroize::Zeroizing;

use super::super::Key;

/// The maximum number of characters that are read of a slug or a message.
const MAX_CHARS: usize = 200;

/// The same for the causes of an error, which name hosts and addresses.
const MAX_CAUSES_CHARS: usize = 400;

/// The number of letters and digits in a row that a text may not share with a key.
const STRETCH: usize = 8;

/// The maximum number of digits and single letters in one answer: a key can be spelt with them, too.
const MAX_LOOSE: usize = 12;

const HIDDEN: &str = "…";

#[derive(Deserialize)]
struct Refusal {
    slug: Option<String>,
    message: Option<String>,
}

/// The status, the slug and the message of an answer that is no token. `key` is the one that was sent.
pub(super) fn refusal(status: u16, body: &[u8], key: &Key) -> String {
    let refusal = serde_json::from_slice::<Refusal>(body).ok();
    let (slug, message) = refusal.map_or((None, None), |it| (it.slug, it.message));
    let parts =
        [slug.as_deref(), message.as_deref()].map(|part| part.map(|part| words(part, MAX_CHARS)));
    let all = parts.iter().flatten().flatten().copied();
    let mut loose = MAX_LOOSE;
    let mut masked = Masked::new(all, |word| is_ordinary(word, &mut loose));
    masked.hide(key);
    let mut shown = status.to_string();
    let mut from = 0;
    for part in parts.iter().flatten().filter(|part| !part.is_empty()) {
        let to = from + part.len();
        shown.push_str(" / ");
        shown.push_str(&masked.shown(from..to));
        from = to;
    }
    shown
}

/// An error's causes in one line, or its own text if it has none. `key` is the one that was sent.
pub(super) fn causes(error: &(dyn Error + 'static), key: &Key) -> String {
    let causes = std::iter::successors(error.source(), |&cause| cause.source());
    let texts: Vec<String> = causes.map(ToString::to_string).collect();
    let text = match texts.is_empty() {
        true => error.to_string(),
        false => texts.join(": "),
    };
    // These are the words of this machine: addresses, names and numbers are what an operator needs.
    printable(&text, key)
}

/// The host that an intermediary leads to. `key` is the one that was sent.
pub(super) fn host(host: &str, key: &Key) -> String {
    printable(host, key)
}

/// The printable words of a text that show nothing of a key.
fn printable(text: &str, key: &Key) -> String {
    let words = words(text, MAX_CAUSES_CHARS);
    let count = words.len();
    let printable = |word: &str| word.bytes().all(|byte| byte.is_ascii_graphic());
    let mut masked = Masked::new(words, printable);
    masked.hide(key);
    masked.shown(0..count)
}

/// The words at the beginning of a text. A word that may have been cut is left out, since half of a key is not recognized.
fn words(text: &str, max_chars: usize) -> Vec<&str> {
    let end = text.char_indices().nth(max_chars).map(|(end, _)| end);
    let mut words: Vec<&str> = text[..end.unwrap_or(text.len())]
        .split_ascii_whitespace()
        .collect();
    if end.is_some() {
        words.pop();
        words.push(HIDDEN);
    }
    words
}

/// Words in a row, some of which are not shown.
struct Masked<'a>(Vec<(&'a str, bool)>);

impl<'a> Masked<'a> {
    fn new(
        words: impl IntoIterator<Item = &'a str>,
        mut is_shown: impl FnMut(&str) -> bool,
    ) -> Self {
        Self(words.into_iter().map(|it| (it, is_shown(it))).collect())
    }

    fn hide(&mut self, key: &Key) {
        for half in [&key.key_id, &key.api_key] {
            self.hide_secret(half.expose());
        }
    }

    /// Hides every word that takes part in a stretch of this secret.
    fn hide_secret(&mut self, secret: &str) {
        let secret = Zeroizing::new(plain(secret).collect::<Vec<u8>>());
        let mut text = Zeroizing::new(Vec::new());
        let mut origins = Vec::new();
        for (index, (word, _)) in self.0.iter().enumerate() {
            text.extend(plain(word));
            origins.resize(text.len(), index);
        }
        let length = secret.len().min(STRETCH);
        if length == 0 {
            return;
        }
        for (at, stretch) in text.windows(length).enumerate() {
            if secret.windows(length).any(|it| it == stretch) {
                for &origin in &origins[at..at + length] {
                    self.0[origin].1 = false;
                }
            }
        }
    }

    fn shown(&self, range: std::ops::Range<usize>) -> String {
        let shown = self.0[range]
            .iter()
            .map(|&(word, is_shown)| if is_shown { word } else { HIDDEN });
        let mut shown: Vec<&str> = shown.collect();
        // How many words were left out says something about them.
        shown.dedup_by(|one, other| *one == HIDDEN && *other == HIDDEN);
        shown.join(" ")
    }
}

/// The letters and digits of a text, all in lower case.
fn plain(text: &str) -> impl Iterator<Item = u8> {
    let letters = text.bytes().filter(u8::is_ascii_alphanumeric);
    letters.map(|byte| byte.to_ascii_lowercase())
}

/// True for a word of a sentence, with the punctuation that belongs to it: `api_key`, `(429):`, `/clients/{account}/token`.
fn is_ordinary(word: &str, loose: &mut usize) -> bool {
    const AROUND: &str = "\"'`()[]{}<>.,:;!?";
    const BETWEEN: &str = "-_./':=,{}";
    const MAX_LENGTH: usize = 64;
    let inner = word.trim_matches(|c| AROUND.contains(c));
    let pieces = inner.split(|c| BETWEEN.contains(c));
    let mut pieces = pieces.filter(|piece| !piece.is_empty());
    word.len() <= MAX_LENGTH && pieces.all(|piece| is_number(piece, loose) || is_letters(piece))
}

/// Up to four digits, or one letter, as long as there have not been too many of them.
fn is_number(piece: &str, loose: &mut usize) -> bool {
    let digits = piece.len() <= 4 && piece.bytes().all(|byte| byte.is_ascii_digit());
    let letter = piece.len() == 1 && piece.bytes().all(|byte| byte.is_ascii_alphabetic());
    if !(digits || letter) || piece.len() > *loose {
        return false;
    }
    *loose -= piece.len();
    true
}

/// Letters in one case, or in humps as in `clientAccountId`, none of which is longer than words are.
fn is_letters(piece: &str) -> bool {
    const LENGTHS: std::ops::RangeInclusive<usize> = 2..=16;
    if !piece.bytes().all(|byte| byte.is_ascii_alphabetic()) {
        return false;
    }
    if piece.bytes().all(|byte| byte.is_ascii_uppercase()) {
        return LENGTHS.contains(&piece.len());
    }
    let starts = (1..piece.len()).filter(|&at| piece.as_bytes()[at].is_ascii_uppercase());
    let bounds: Vec<usize> = std::iter::once(0)
        .chain(starts)
        .chain([piece.len()])
        .collect();
    let humps = bounds.len() - 1;
    let whole = bounds
        .windows(2)
        .all(|it| LENGTHS.contains(&(it[1] - it[0])));
    // Letters by chance have more capitals than names do.
    whole && humps <= 4 && piece.len() + 1 >= 3 * humps
}

#[cfg(test)]
mod tests;
