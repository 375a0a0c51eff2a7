use super::*;

use proptest::prelude::*;

use crate::token::Secret;

const ID: &str = "0b0eec47-6b80-4f3a-b9a1-4a3bfa1ec0de";
const API: &str = "91c173bb-28d8-4030-9722-8663ff9589f3";
const OTHER: &str = "5d9c68c6-c50e-4a61-8f4f-2c963f66afa6";
const TOKEN: &str = "a1i02TTOKPZw9qkcW3YfGd7m5XsLbRvN8uJhE4tCyQ6gBnAzVxKoDpMiFrSl0eHj";

fn key(key_id: &str, api_key: &str) -> Key {
    Key {
        key_id: Secret::new(key_id.into()),
        api_key: Secret::new(api_key.into()),
    }
}

/// What is shown of a body as it was sent.
fn of_body(body: &str) -> String {
    refusal(400, body.as_bytes(), &key(ID, API))
}

/// What is shown of these texts.
fn of(slug: &str, message: &str) -> String {
    let body = serde_json::json!({"slug": slug, "message": message});
    of_body(&body.to_string())
}

#[test]
fn an_operator_reads_the_slug_and_the_message() {
    for (slug, message) in [
        ("invalid-input", "api_key is required"),
        (
            "forbidden-error",
            "not authorized. please contact your admin.",
        ),
        (
            "too_many_requests",
            "A limit of 10 in 30 minutes (429): retry after 1800, please!",
        ),
        (
            "NOT_FOUND",
            "no clientAccountId, keyId or UserNotFoundException at /clients/{account}/token",
        ),
        (
            "x",
            "Error: status=401, see \"re-authentication\" at our.docs",
        ),
    ] {
        assert_eq!(of(slug, message), format!("400 / {slug} / {message}"));
    }
    assert_eq!(of_body(r#"{"slug":"only"}"#), "400 / only");
    assert_eq!(of_body(r#"{"slug":null,"message":""}"#), "400");
    for body in ["", "oops", "[]", r#"{"slug":7}"#, r#"{"message":["x"]}"#] {
        assert_eq!(of_body(body), "400", "{body}");
    }
}

#[test]
fn text_is_printable_and_short() {
    let shown = of(
        "a\u{202e}b",
        "one\u{0}two\u{1b}[31m drei\u{2028}vier f\u{fc}nf\nsix\u{85}",
    );
    assert_eq!(shown, "400 / … / …");
    assert_eq!(of("x", "one\ntwo\tthree"), "400 / x / one two three");
    let shown = of(&"slug ".repeat(1000), &"word ".repeat(1000));
    assert!(shown.len() < 420 && shown.ends_with("word …"), "{shown}");
}

fn base64(text: &str) -> String {
    const DIGITS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::new();
    for chunk in text.as_bytes().chunks(3) {
        let bits =
            chunk.iter().fold(0, |all, &it| all << 8 | u32::from(it)) << (8 * (3 - chunk.len()));
        let digits =
            (0..=chunk.len()).map(|at| DIGITS[(bits >> (18 - 6 * at) & 63) as usize] as char);
        out.extend(digits);
    }
    out
}

fn each(text: &str, spell: impl Fn(u8) -> String) -> String {
    text.bytes().map(spell).collect()
}

/// A secret in the spellings in which somebody could echo it, or a part of it.
fn spellings(secret: &str) -> Vec<String> {
    let plain = secret.replace('-', "");
    let half = plain.len() / 2;
    let spaced = |every: usize, with: &str| -> String {
        let pieces: Vec<&[u8]> = plain.as_bytes().chunks(every).collect();
        let pieces: Vec<&str> = pieces
            .iter()
            .map(|it| std::str::from_utf8(it).unwrap())
            .collect();
        pieces.join(with)
    };
    let mut all = vec![
        secret.to_owned(),
        secret.to_uppercase(),
        plain.clone(),
        plain.to_uppercase(),
        plain[..half].to_owned(),
        plain[half..].to_owned(),
        plain[..12].to_owned(),
        secret.chars().rev().collect(),
        secret.replace('-', "\u{2011}"),
        secret.replace('-', "&#45;"),
        base64(secret),
        base64(&format!("x{secret}")),
        base64(&format!("{ID}:{secret}")),
        each(secret, |it| format!("%{it:02x}")),
        each(secret, |it| format!("%{it:02X} ")),
        each(secret, |it| format!("{it:02x}")),
        each(secret, |it| format!("\\u{it:04x}")),
        each(secret, |it| format!("&#{it};")),
        format!("key={secret}"),
        format!("{{'key':'{secret}'}}"),
        format!("https://x/?key={secret}&y"),
        format!("{}{secret}", "word ".repeat(33)),
        format!("{}{secret}", "word ".repeat(38)),
    ];
    for with in [
        "\u{0}",
        "\u{1}\u{2}",
        "\u{200b}",
        "\u{ad}",
        ".",
        "_",
        "/",
        ", ",
        "\n",
        " ",
        "\r\n\t",
    ] {
        all.extend([1, 2, 3, 4, 8].map(|every| spaced(every, with)));
    }
    all
}

/// The longest stretch of the secret that is shown, in letters and digits of either case.
fn longest(shown: &str, secret: &str) -> usize {
    let letters = |text: &str| plain(text).collect::<Vec<u8>>();
    let (shown, secret) = (letters(shown), letters(secret));
    let shares = |length: usize| {
        let mut stretches = secret.windows(length);
        stretches.any(|it| shown.windows(length).any(|other| other == it))
    };
    (1..=secret.len())
        .take_while(|&length| shares(length))
        .last()
        .unwrap_or(0)
}

#[test]
fn a_key_is_recognized_in_any_spelling_and_wherever_it_stands() {
    for secret in [ID, API] {
        for spelling in spellings(secret) {
            let half = spelling.chars().count() / 2;
            let first: String = spelling.chars().take(half).collect();
            let second: String = spelling.chars().skip(half).collect();
            for shown in [
                of("invalid-input", &format!("the key {spelling} is wrong")),
                of(&spelling, "the key is wrong"),
                of(&first, &second),
            ] {
                let longest = longest(&shown, secret);
                assert!(longest < STRETCH, "{spelling:?} is shown as {shown:?}");
                let encoded = [base64(secret), each(secret, |it| format!("{it:02x}"))];
                for text in encoded {
                    assert!(
                        self::longest(&shown, &text) < STRETCH,
                        "{spelling:?}: {shown:?}"
                    );
                }
            }
        }
    }
}

#[test]
fn keys_and_tokens_that_were_not_sent_are_no_words_either() {
    for secret in [OTHER, TOKEN] {
        for spelling in spellings(secret) {
            // Who breaks up what we do not know, by spaces, wants it to be shown.
            if spelling.contains([' ', '\n'])
                && !spelling.starts_with("word")
                && !spelling.contains('%')
            {
                continue;
            }
            let shown = of(
                "invalid-input",
                &format!("instead of {spelling} came nothing"),
            );
            let longest = longest(&shown, secret);
            assert!(longest < STRETCH, "{spelling:?} is shown as {shown:?}");
        }
    }
}

#[test]
fn escapes_in_the_json_hide_nothing() {
    let escaped = each(API, |it| format!("\\u{it:04x}"));
    let half = format!(
        "{}{}",
        &API[..9],
        each(&API[9..], |it| format!("\\u{it:04X}"))
    );
    for echoed in [escaped, half] {
        let shown = of_body(&format!(
            r#"{{"slug":"invalid-input","message":"no key {echoed} here"}}"#
        ));
        assert_eq!(shown, "400 / invalid-input / no key … here");
        let shown = of_body(&format!(
            r#"{{"slug":"{echoed}","\u006dessage":"{echoed}"}}"#
        ));
        assert_eq!(shown, "400 / … / …");
    }
}

#[test]
fn a_key_that_is_made_of_words_is_recognized_too() {
    let key = key("the-key-id", "the-api-key");
    let body =
        r#"{"slug":"invalid-input","message":"api_key the-api-key of The Key\nId is wrong"}"#;
    let shown = refusal(400, body.as_bytes(), &key);
    assert_eq!(shown, "400 / invalid-input / api_key … of … is wrong");
    // One of no letters is no word, and hides none.
    let shown = refusal(
        401,
        br#"{"slug":"x","message":"bad +-+"}"#,
        &self::key("+-+", "?"),
    );
    assert_eq!(shown, "401 / x / bad …");
}

#[derive(Debug, thiserror::Error)]
#[error("{text}")]
struct Cause {
    text: String,
    source: Option<Box<Self>>,
}

#[test]
fn an_error_is_told_with_its_causes_and_without_the_key() {
    let cause = |text: &str, source| Cause {
        text: text.into(),
        source,
    };
    let last = cause(
        "certificate is only valid for DnsName(\"91C173BB28D840309722.x\")",
        None,
    );
    let middle = cause(
        "10.0.0.1:443:\u{1b}[2J Connection refused (os error 111)",
        Some(Box::new(last)),
    );
    let all = cause("not shown", Some(Box::new(middle)));
    let shown = causes(&all, &key(ID, API));
    assert_eq!(
        shown,
        "… Connection refused (os error 111): certificate is only valid for …"
    );
    assert_eq!(causes(&cause("alone", None), &key(ID, API)), "alone");
    let long = causes(&cause(&"abc ".repeat(5000), None), &key(ID, API));
    assert!(long.len() < 410 && long.ends_with("abc …"), "{long}");
}

proptest! {
    #[test]
    fn whatever_comes_is_one_short_line(slug in any::<String>(), message in any::<String>()) {
        let shown = of(&slug, &message);
        prop_assert!(shown.chars().all(|c| c == '…' || c.is_ascii_graphic() || c == ' '));
        prop_assert!(shown.chars().count() < 420);
    }

    #[test]
    fn no_stretch_of_a_key_is_shown_however_it_is_broken_up(
        key in "[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}",
        breaks in proptest::collection::vec("[ -/:-@\\[-`{-~\n\u{0}\u{e9}]{0,3}", 36),
        upper in proptest::collection::vec(any::<bool>(), 36),
    ) {
        let spelt: String = key.chars().zip(breaks).zip(upper).map(|((c, with), upper)| {
            let c = if upper { c.to_ascii_uppercase() } else { c };
            format!("{c}{with}")
        }).collect();
        let body = serde_json::json!({"slug": "x", "message": spelt});
        let shown = refusal(400, body.to_string().as_bytes(), &self::key("id", &key));
        prop_assert!(longest(&shown, &key) < STRETCH, "{spelt:?}: {shown:?}");
    }
}
