//! The record as text: one line of JSON per field, versioned, and the only place where a token is written down.

use serde::{Deserialize, Deserializer};
use serde_json::Value;
use zeroize::Zeroizing;

use super::Record;

/// The newest format that this version writes: `major.minor`.
pub const FORMAT: (u32, u32) = (1, 1);

/// Why a text is no record.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    /// It is not a whole record: cut off, empty or changed by something else.
    #[error("it is not a whole record ({why})")]
    Torn {
        /// Where the reading stopped; never a part of the text.
        why: String,
    },
    /// It was written by a newer version, and must be left alone.
    #[error("it has the newer format {found}")]
    NewerFormat {
        /// The format that it names.
        found: String,
    },
}

impl Record {
    /// The text of this record. It holds the token, so it is wiped when dropped.
    pub fn to_text(&self) -> Zeroizing<Vec<u8>> {
        // What grows leaves a copy behind; a slot takes some three hundred bytes.
        let room = 16 * 1024 + 512 * self.ledger.len();
        let mut text = Zeroizing::new(Vec::with_capacity(room));
        serde_json::to_writer_pretty(&mut *text, self)
            .expect("a record has only text keys and finite numbers");
        text.push(b'\n');
        text
    }

    /// Reads what [`Record::to_text`] wrote, and what newer minor formats write.
    pub fn parse(text: &[u8]) -> Result<Self, Unreadable> {
        let torn = |error: &serde_json::Error| Unreadable::Torn {
            // serde_json's own text may quote the value that it tripped over.
            why: format!(
                "{:?} at line {}, column {}",
                error.classify(),
                error.line(),
                error.column()
            )
            .to_lowercase(),
        };
        match serde_json::from_slice::<Self>(text) {
            Ok(record) if record.format.0 > FORMAT.0 => Err(Unreadable::NewerFormat {
                found: format!("{}.{}", record.format.0, record.format.1),
            }),
            Ok(record) if record.counts_too_high() => Err(Unreadable::Torn {
                why: "a number in it is out of range".into(),
            }),
            Ok(record) => Ok(record),
            Err(error) => Err(newer_format(text).unwrap_or_else(|| torn(&error))),
        }
    }
}

/// What is counted starts at a Unix second or at one, and rises by one: no such number ever comes near this.
const MOST_COUNTED: u64 = 1 << 53;

impl Record {
    fn counts_too_high(&self) -> bool {
        let of_slots = self.ledger.iter().map(|slot| slot.attempt.0);
        let of_token = self.token.as_ref().map(|token| token.generation.0);
        let counted = [self.generation.0, self.revision].into_iter();
        let mut counted = counted.chain(of_token).chain(of_slots);
        counted.any(|number| number > MOST_COUNTED)
    }
}

/// A text that cannot be read but names a newer format is not torn.
fn newer_format(text: &[u8]) -> Option<Unreadable> {
    let document: Value = serde_json::from_slice(text).ok()?;
    let found = document.get("format")?.as_str()?;
    (format::parse(found)? > FORMAT).then(|| Unreadable::NewerFormat {
        found: found.to_owned(),
    })
}

/// `"1.0"`.
pub(super) mod format {
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn parse(text: &str) -> Option<(u32, u32)> {
        let (major, minor) = text.split_once('.')?;
        Some((major.parse().ok()?, minor.parse().ok()?))
    }

    pub(in super::super) fn serialize<S: Serializer>(
        format: &(u32, u32),
        out: S,
    ) -> Result<S::Ok, S::Error> {
        out.collect_str(&format_args!("{}.{}", format.0, format.1))
    }

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<(u32, u32), D::Error> {
        let text = String::deserialize(from)?;
        parse(&text)
            .ok_or_else(|| D::Error::custom("a format is two numbers with a dot between them"))
    }
}

/// What may be nothing, but must be said: a field that is missing would mean that more may be spent.
pub(super) fn required<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    from: D,
) -> Result<Option<T>, D::Error> {
    Option::deserialize(from)
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
pub(super) fn is_zero(number: &u32) -> bool {
    *number == 0
}

pub(super) use crate::clock::nanoseconds;

/// A length that an older format does not have, in whole nanoseconds.
pub(super) mod maybe_nanoseconds {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer};

    #[expect(clippy::ref_option, reason = "serde's signature")]
    pub(in super::super) fn serialize<S: Serializer>(
        length: &Option<Duration>,
        out: S,
    ) -> Result<S::Ok, S::Error> {
        super::nanoseconds::serialize(&length.unwrap_or_default(), out)
    }

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Option<Duration>, D::Error> {
        Ok(Option::<u64>::deserialize(from)?.map(Duration::from_nanos))
    }
}

/// The token with its secret opened.
pub(super) mod kept_token {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use crate::clock::Stamp;
    use crate::token::{Generation, Secret, Token};

    #[derive(Serialize)]
    struct Written<'a> {
        generation: Generation,
        secret: &'a str,
        issued_at: Stamp,
        refresh_at: Stamp,
        expires_at: Stamp,
    }

    #[derive(Deserialize)]
    struct Read {
        generation: Generation,
        secret: String,
        issued_at: Stamp,
        refresh_at: Stamp,
        expires_at: Stamp,
    }

    #[expect(clippy::ref_option, reason = "serde's signature")]
    pub(in super::super) fn serialize<S: Serializer>(
        token: &Option<Token>,
        out: S,
    ) -> Result<S::Ok, S::Error> {
        let written = token.as_ref().map(|token| Written {
            generation: token.generation,
            secret: token.secret.expose(),
            issued_at: token.issued_at,
            refresh_at: token.refresh_at,
            expires_at: token.expires_at,
        });
        written.serialize(out)
    }

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Option<Token>, D::Error> {
        let read = Option::<Read>::deserialize(from)?;
        let token = read.map(|read| Token {
            generation: read.generation,
            secret: Secret::new(read.secret),
            issued_at: read.issued_at,
            refresh_at: read.refresh_at,
            expires_at: read.expires_at,
        });
        // What no issuer can have given is not vended; the rest of the record is worth keeping without it.
        Ok(token.filter(|token| token.secret.could_be_token()))
    }
}
