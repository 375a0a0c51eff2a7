//! What a caller has already, and how long it would wait for something else: `If-None-Match` and `Prefer`.

use std::time::Duration;

use hyper::HeaderMap;
use hyper::header::{HeaderName, HeaderValue, IF_NONE_MATCH};

static PREFER: HeaderName = HeaderName::from_static("prefer");

/// The longest wait, in seconds; whoever asks for more gets this much.
const LONGEST_WAIT: u8 = 60;

/// How long a caller would wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Wait(u8);

/// The wait that a caller prefers cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BadWait;

impl Wait {
    /// The preference of RFC 7240, if there is one. Only its first mention counts.
    ///
    /// # Errors
    /// [`BadWait`] if it is not a number of seconds: its caller would believe that it waits.
    pub(super) fn of(headers: &HeaderMap) -> Result<Option<Self>, BadWait> {
        let values = headers.get_all(&PREFER);
        let preferences = values
            .iter()
            .flat_map(|value| value.as_bytes().split(|&byte| byte == b','));
        for preference in preferences {
            let head = preference.split(|&byte| byte == b';').next();
            let mut pair = head.unwrap_or_default().splitn(2, |&byte| byte == b'=');
            let name = pair.next().unwrap_or_default().trim_ascii();
            if name.eq_ignore_ascii_case(b"wait") {
                let value = pair.next().unwrap_or_default().trim_ascii();
                let wait = seconds(value).map(Self).ok_or(BadWait)?;
                return Ok(Some(wait));
            }
        }
        Ok(None)
    }

    pub(super) fn length(self) -> Duration {
        Duration::from_secs(self.0.into())
    }

    /// What `Preference-Applied` says.
    pub(super) fn applied(self) -> HeaderValue {
        HeaderValue::try_from(format!("wait={}", self.0)).expect("a number makes a header value")
    }
}

/// Whole seconds up to the longest wait; they may stand in quotes.
fn seconds(value: &[u8]) -> Option<u8> {
    let digits = match value {
        [b'"', inner @ .., b'"'] => inner,
        bare => bare,
    };
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let number = digits.iter().fold(0_u64, |number, digit| {
        number
            .saturating_mul(10)
            .saturating_add((digit - b'0').into())
    });
    Some(u8::try_from(number).map_or(LONGEST_WAIT, |it| it.min(LONGEST_WAIT)))
}

/// The entity tags a caller has, as it sent them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Tags(Box<[u8]>);

impl Tags {
    /// A copy of what the headers say, for whoever has to wait longer than the headers live.
    pub(super) fn of(headers: &HeaderMap) -> Self {
        let mut all = Vec::new();
        for value in headers.get_all(IF_NONE_MATCH) {
            if !all.is_empty() {
                all.push(b',');
            }
            all.extend_from_slice(value.as_bytes());
        }
        Self(all.into())
    }

    /// True if this tag is among them.
    pub(super) fn name(&self, tag: &HeaderValue) -> bool {
        list_names(&self.0, tag.as_bytes())
    }
}

/// True if the headers name this tag.
pub(super) fn names(headers: &HeaderMap, tag: &HeaderValue) -> bool {
    let values = headers.get_all(IF_NONE_MATCH);
    values
        .iter()
        .any(|value| list_names(value.as_bytes(), tag.as_bytes()))
}

/// The weak comparison of RFC 9110: a list names a tag whatever is weak; `*` names all. What is not a list of tags names none
/// from the fault on.
fn list_names(mut list: &[u8], tag: &[u8]) -> bool {
    if list.trim_ascii() == b"*" {
        return true;
    }
    let tag = strong(tag);
    loop {
        list = list.trim_ascii_start();
        if let [b',', rest @ ..] = list {
            list = rest;
            continue;
        }
        let [b'"', rest @ ..] = strong(list) else {
            return false;
        };
        let Some(end) = rest.iter().position(|&byte| byte == b'"') else {
            return false;
        };
        let (inner, rest) = (&rest[..end], &rest[end + 1..]);
        if tag.len() == inner.len() + 2 && &tag[1..=inner.len()] == inner {
            return true;
        }
        list = rest;
    }
}

/// A tag without the sign of its weakness.
fn strong(tag: &[u8]) -> &[u8] {
    tag.strip_prefix(b"W/").unwrap_or(tag)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn wait_of(values: &[&str]) -> Result<Option<u8>, BadWait> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(PREFER.clone(), HeaderValue::from_str(value).unwrap());
        }
        Wait::of(&headers).map(|wait| wait.map(|it| it.0))
    }

    #[test]
    fn a_wait_is_read_as_the_rfc_says() {
        type Case<'a> = (&'a [&'a str], Result<Option<u8>, BadWait>);
        let table: &[Case<'_>] = &[
            (&[], Ok(None)),
            (&["wait=0"], Ok(Some(0))),
            (&["wait=30"], Ok(Some(30))),
            (&["WAIT = \"30\""], Ok(Some(30))),
            (&["respond-async, wait=5; foo=bar"], Ok(Some(5))),
            (&["respond-async", "wait=5"], Ok(Some(5))),
            (&["wait=60"], Ok(Some(60))),
            (&["wait=61"], Ok(Some(60))),
            (&["wait=99999999999999999999999"], Ok(Some(60))),
            (&["wait=5, wait=6"], Ok(Some(5))),
            (&["wait=x, wait=6"], Err(BadWait)),
            (&["wait=5s"], Err(BadWait)),
            (&["wait"], Err(BadWait)),
            (&["wait="], Err(BadWait)),
            (&["wait=-1"], Err(BadWait)),
            (&["wait=1.5"], Err(BadWait)),
            (&["await=5"], Ok(None)),
            (&["return=minimal"], Ok(None)),
        ];
        for (values, expected) in table {
            assert_eq!(wait_of(values), *expected, "{values:?}");
        }
        assert_eq!(Wait(7).applied(), "wait=7");
    }

    #[test]
    fn tags_are_compared_weakly() {
        let ours = HeaderValue::from_static("W/\"5-abcdef01\"");
        for list in [
            "W/\"5-abcdef01\"",
            "\"5-abcdef01\"",
            "*",
            " * ",
            "\"a\", W/\"b,c\" ,\"5-abcdef01\"",
            ",, W/\"5-abcdef01\",",
        ] {
            assert!(list_names(list.as_bytes(), ours.as_bytes()), "{list}");
        }
        for list in [
            "",
            "W/\"4-abcdef01\"",
            "5-abcdef01",
            "\"5-abcdef01",
            "\"\"",
            "w/\"5-abcdef01\"",
            "x \"5-abcdef01\"",
            "\"*\"",
            "W/W/\"5-abcdef01\"",
        ] {
            assert!(!list_names(list.as_bytes(), ours.as_bytes()), "{list}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_in_the_conditions_do_harm(values in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..60), 0..4)) {
            let tag = HeaderValue::from_static("W/\"5-abcdef01\"");
            let mut headers = HeaderMap::new();
            for value in values.iter().filter_map(|it| HeaderValue::from_bytes(it).ok()) {
                headers.append(PREFER.clone(), value.clone());
                headers.append(IF_NONE_MATCH, value);
            }
            if let Ok(Some(wait)) = Wait::of(&headers) {
                prop_assert!(wait.0 <= LONGEST_WAIT);
            }
            let _ = (names(&headers, &tag), Tags::of(&headers).name(&tag));
        }

        #[test]
        fn a_list_that_holds_the_tag_names_it(others in proptest::collection::vec("[!#-~]{0,9}", 0..5), at in 0_usize..5) {
            let mut tags: Vec<_> = others.iter().map(|it| format!("\"{it}\"")).collect();
            tags.insert(at.min(tags.len()), "\"5-abcdef01\"".into());
            prop_assert!(list_names(tags.join(", ").as_bytes(), b"W/\"5-abcdef01\""));
        }
    }
}
