//! Finds secrets in texts, however they are spelt.
//!
//! A text is reduced to its letters and digits in lower case, once as it is and once with its escapes decoded. So case, punctuation,
//! line breaks and control characters hide nothing, and a part of a secret is found as well as the whole.

use std::collections::HashSet;

/// So many letters and digits in a row give a secret away.
const STRETCH: usize = 12;

/// Stretches of secrets, as they are, in base64, in hexadecimal and as a list of bytes.
pub struct Spellings {
    stretches: HashSet<Vec<u8>>,
    /// How the stretches begin; most texts begin otherwise.
    beginnings: Box<[bool; 1 << 16]>,
}

impl Spellings {
    pub fn of(secrets: &[String]) -> Self {
        let mut all = Self {
            stretches: HashSet::new(),
            beginnings: Box::new([false; 1 << 16]),
        };
        for secret in secrets {
            all.add(secret);
            all.add(&each(secret, |it| format!("{it:02x}")));
            all.add(&each(secret, |it| it.to_string()));
            // Whatever stands before it moves it by up to two bytes, and spoils the digits at both ends.
            for before in ["", "x", "xx"] {
                let digits = base64(&format!("{before}{secret}"));
                let end = digits.len() - 2;
                all.add(&digits[(2 * before.len()).min(end)..end]);
            }
        }
        all
    }

    /// Some parts of it, such that twice their length of the secret cannot show without one of them; or all of a short one.
    fn add(&mut self, spelling: &str) {
        let letters = plain(spelling);
        let length = letters.len().min(STRETCH);
        let ends = letters.windows(length.max(1)).last();
        for stretch in letters.chunks_exact(length.max(1)).chain(ends) {
            // Half a word would be found everywhere.
            if stretch.len() == STRETCH {
                self.beginnings[beginning(stretch)] = true;
                self.stretches.insert(stretch.to_vec());
            }
        }
    }

    /// True if the text holds a secret or a part of one.
    pub fn are_in(&self, text: &str) -> bool {
        let escaped = text.contains(['\\', '%', '&']);
        self.are_in_letters(&plain(text))
            || (escaped && self.are_in_letters(&plain(&decoded(text))))
    }

    fn are_in_letters(&self, letters: &[u8]) -> bool {
        let mut windows = letters.windows(STRETCH);
        windows.any(|it| self.beginnings[beginning(it)] && self.stretches.contains(it))
    }
}

fn beginning(letters: &[u8]) -> usize {
    usize::from(letters[0]) << 8 | usize::from(letters[1])
}

fn plain(text: &str) -> Vec<u8> {
    let letters = text.bytes().filter(u8::is_ascii_alphanumeric);
    letters.map(|it| it.to_ascii_lowercase()).collect()
}

/// The text without `\n` and the like, and with `\u0061`, `\x61`, `\u{61}`, `%61`, `&#97;` and `&#x61;` decoded.
fn decoded(text: &str) -> String {
    const FORMS: [(&str, u32, &str); 6] = [
        ("\\u{", 16, "}"),
        ("\\u", 16, ""),
        ("\\x", 16, ""),
        ("&#x", 16, ";"),
        ("&#", 10, ";"),
        ("%", 16, ""),
    ];
    let mut out = String::new();
    let mut rest = text;
    'text: while let Some(c) = rest.chars().next() {
        for (begin, radix, end) in FORMS {
            let Some(behind) = rest.strip_prefix(begin) else {
                continue;
            };
            let length = match (begin, end) {
                (_, end) if !end.is_empty() => behind.find(end),
                ("\\u", _) => Some(4),
                _ => Some(2),
            };
            let digits = length.and_then(|length| behind.get(..length));
            let code = digits.and_then(|it| u32::from_str_radix(it, radix).ok());
            if let (Some(digits), Some(c)) = (digits, code.and_then(char::from_u32)) {
                out.push(c);
                rest = &behind[digits.len() + end.len()..];
                continue 'text;
            }
        }
        let short = ["\\n", "\\r", "\\t", "\\b", "\\f", "\\0"];
        if short.iter().any(|escape| rest.starts_with(escape)) {
            rest = &rest[2..];
            continue;
        }
        out.push(c);
        rest = &rest[c.len_utf8()..];
    }
    out
}

/// Each byte in this spelling, one behind the other.
pub fn each(text: &str, spell: impl Fn(u8) -> String) -> String {
    text.bytes().map(spell).collect()
}

pub fn base64(text: &str) -> String {
    const DIGITS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let digits = |chunk: &[u8]| -> String {
        let bits = chunk.iter().fold(0, |all, &it| all << 8 | usize::from(it));
        let bits = bits << (8 * (3 - chunk.len()));
        let digit = |at| char::from(DIGITS[bits >> (18 - 6 * at) & 63]);
        (0..=chunk.len()).map(digit).collect()
    };
    text.as_bytes().chunks(3).map(digits).collect()
}
