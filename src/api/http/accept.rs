//! Which form of the token a caller takes: the `Accept` header, with its wildcards and weights.

use hyper::HeaderMap;
use hyper::header::{ACCEPT, HeaderValue};

/// A form of the token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// The JSON document.
    Json,
    /// The bare token.
    Text,
}

/// The form the caller likes best, JSON if it does not mind. None if it takes neither.
pub(super) fn form(headers: &HeaderMap) -> Option<Form> {
    let mut values = headers.get_all(ACCEPT).iter();
    let first = match values.next() {
        None => return Some(Form::Json),
        Some(only) if values.next().is_none() => only.as_bytes(),
        Some(_) => return weigh(headers.get_all(ACCEPT).iter().map(HeaderValue::as_bytes)),
    };
    match first {
        b"*/*" | b"application/json" => Some(Form::Json),
        b"text/plain" => Some(Form::Text),
        other => weigh(std::iter::once(other)),
    }
}

/// How well a form is liked, by the most specific range that speaks of it: its rank, and its weight in thousandths.
#[derive(Clone, Copy, Default)]
struct Liking {
    rank: u8,
    weight: u16,
}

impl Liking {
    fn hear(&mut self, rank: u8, weight: u16) {
        if rank > self.rank || (rank == self.rank && weight > self.weight) {
            *self = Self { rank, weight };
        }
    }
}

fn weigh<'a>(values: impl Iterator<Item = &'a [u8]>) -> Option<Form> {
    let (mut json, mut text) = (Liking::default(), Liking::default());
    let mut understood = false;
    for element in values.flat_map(|value| value.split(|&byte| byte == b',')) {
        let mut parts = element.split(|&byte| byte == b';');
        let range = parts.next().unwrap_or_default().trim_ascii();
        // Java's own client asks for `*` beside `*/*`.
        let range = if range == b"*" { b"*/*" } else { range };
        let Some(slash) = range.iter().position(|&byte| byte == b'/') else {
            continue;
        };
        let weight = weight(parts);
        understood = true;
        let (kind, subtype) = (&range[..slash], &range[slash + 1..]);
        let is = |name: &str, sub: &str| {
            kind.eq_ignore_ascii_case(name.as_bytes())
                && subtype.eq_ignore_ascii_case(sub.as_bytes())
        };
        if is("*", "*") {
            json.hear(1, weight);
            text.hear(1, weight);
        } else if is("application", "*") {
            json.hear(2, weight);
        } else if is("text", "*") {
            text.hear(2, weight);
        } else if is("application", "json") {
            json.hear(3, weight);
        } else if is("text", "plain") {
            text.hear(3, weight);
        }
    }
    match (json.weight, text.weight) {
        // A header that says nothing is as good as none.
        _ if !understood => Some(Form::Json),
        (0, 0) => None,
        (json, text) if json >= text => Some(Form::Json),
        _ => Some(Form::Text),
    }
}

/// The weight among a range's parameters, in thousandths. A missing or malformed one is 1000.
fn weight<'a>(mut parameters: impl Iterator<Item = &'a [u8]>) -> u16 {
    let weight = parameters.find_map(|parameter| match parameter.trim_ascii() {
        [b'q' | b'Q', b'=', value @ ..] => Some(thousandths(value)),
        _ => None,
    });
    weight.flatten().unwrap_or(1000)
}

/// `0`, `0.5`, `.5`, `0.125`, `1`, `1.000`: at most three digits behind the point, 1 at most.
fn thousandths(value: &[u8]) -> Option<u16> {
    let (whole, digits) = match value {
        [b'.', digits @ ..] if matches!(digits.len(), 1..=3) => (&b'0', digits),
        [whole] => (whole, &[][..]),
        [whole, b'.', digits @ ..] if digits.len() <= 3 => (whole, digits),
        _ => return None,
    };
    let whole = match whole {
        b'0' => 0,
        b'1' => 1000,
        _ => return None,
    };
    let mut rest = 0;
    for place in 0..3 {
        let digit = digits.get(place).copied().unwrap_or(b'0');
        if !digit.is_ascii_digit() {
            return None;
        }
        rest = rest * 10 + u16::from(digit - b'0');
    }
    Some(whole + rest).filter(|weight| *weight <= 1000)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn form_of(values: &[&str]) -> Option<Form> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(ACCEPT, HeaderValue::from_str(value).unwrap());
        }
        form(&headers)
    }

    #[test]
    fn the_form_is_the_one_the_caller_likes_best() {
        let table: &[(&[&str], Option<Form>)] = &[
            (&[], Some(Form::Json)),
            (&["*/*"], Some(Form::Json)),
            (&["application/json"], Some(Form::Json)),
            (&["text/plain"], Some(Form::Text)),
            (&["Text/Plain; charset=utf-8"], Some(Form::Text)),
            (&["text/*"], Some(Form::Text)),
            (&["application/*"], Some(Form::Json)),
            (&["text/plain, application/json"], Some(Form::Json)),
            (&["text/plain, */*;q=0.1"], Some(Form::Text)),
            (
                &["application/json;q=0.5, text/plain;q=0.6"],
                Some(Form::Text),
            ),
            (
                &["application/json; q=0.5", "text/plain;Q=0.501"],
                Some(Form::Text),
            ),
            (&["*/*, application/json;q=0"], Some(Form::Text)),
            (&["*/*;q=0.9, text/*;q=0, text/plain;q=1"], Some(Form::Text)),
            (&["text/html, image/*"], None),
            (&["application/json;q=0"], None),
            (&["*/*;q=0.000"], None),
            (
                &["text/html,application/xhtml+xml,*/*;q=0.8"],
                Some(Form::Json),
            ),
            (&[""], Some(Form::Json)),
            (&["nonsense"], Some(Form::Json)),
            (&["text/plain;q=2"], Some(Form::Text)),
            (
                &["text/plain;q=0.1, application/json;q=.2"],
                Some(Form::Json),
            ),
            (
                &["text/plain;q=.3, application/json;q=0.25"],
                Some(Form::Text),
            ),
            (
                &["text/plain;q=0.1234, application/json;q=0.9"],
                Some(Form::Text),
            ),
            (
                &["text/plain;q=0.9, application/json;q=."],
                Some(Form::Json),
            ),
            // Java 8 and 11.
            (
                &["text/html, image/gif, image/jpeg, *; q=.2, */*; q=.2"],
                Some(Form::Json),
            ),
            (&["*"], Some(Form::Json)),
            (&["*/*;charset=utf-8"], Some(Form::Json)),
            (&["*/*;v=b3;q=.1"], Some(Form::Json)),
            (&["*/*;q=high"], Some(Form::Json)),
            (&["*/*;q=1.0000"], Some(Form::Json)),
            (&[", ,text/plain,"], Some(Form::Text)),
        ];
        for (values, expected) in table {
            assert_eq!(form_of(values), *expected, "{values:?}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_in_accept_do_harm(values in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..60), 0..4)) {
            let mut headers = HeaderMap::new();
            for value in values.iter().filter_map(|it| HeaderValue::from_bytes(it).ok()) {
                headers.append(ACCEPT, value);
            }
            let _ = form(&headers);
        }

        #[test]
        fn whoever_accepts_json_at_full_weight_gets_json(other in "[a-z*/;=0-9. ]{0,30}") {
            prop_assert_eq!(form_of(&[&format!("{other}, application/json")]), Some(Form::Json));
        }
    }
}
