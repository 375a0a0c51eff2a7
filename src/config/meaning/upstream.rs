//! The account, its keys, and where its tokens are asked for.

use std::net::IpAddr;
use std::path::PathBuf;

use reqwest::Url;

use super::super::problems::one_line;
use super::super::raw::Written;
use super::permissions::wide_mode;
use crate::issuer::{Key, KeyError, KeyFiles, truecaller};
use crate::record::Rules;

/// Truecaller gives an account at most five keys.
const MOST_PAIRS: usize = 5;

const BASE_URL: &str = "upstream.base_url";
const MINT_PATH: &str = "upstream.mint_path";

/// An account enters a path and file texts, so it holds nothing that means something there.
pub(super) fn account(written: &mut Written, path: &str) -> Option<String> {
    if written.has_failed(path) {
        return None;
    }
    let Some(account) = written.text(path) else {
        written.problem(
            path,
            "it is missing; set the clientAccountId that Truecaller gave you",
        );
        return None;
    };
    let allowed = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    if is_placeholder(&account) {
        written.problem(
            path,
            "it is still the placeholder; set the clientAccountId that Truecaller gave you",
        );
        return None;
    }
    let wrong = if account.len() > 128 {
        Some("it is longer than 128 characters".to_owned())
    } else if account.bytes().all(|byte| byte == b'.') {
        Some("it is made of dots".to_owned())
    } else {
        let at = account.chars().position(|c| !allowed(c));
        at.map(|at| format!("character {} is not allowed", at + 1))
    };
    match wrong {
        Some(wrong) => {
            written.problem(
                path,
                format!("{wrong}; expected letters, digits, '-', '_' and '.'"),
            );
            None
        }
        None => Some(account),
    }
}

/// What people and documents write where the account is to come.
fn is_placeholder(account: &str) -> bool {
    let bare: String = account
        .chars()
        .filter(char::is_ascii_alphanumeric)
        .map(|c| c.to_ascii_lowercase())
        .collect();
    let known = [
        "changeme",
        "replaceme",
        "youraccount",
        "youraccountid",
        "yourclientaccountid",
        "clientaccountid",
    ];
    let nobody = !bare.is_empty() && bare.bytes().all(|byte| byte == b'0' || byte == b'x');
    account.starts_with('<') || known.contains(&bare.as_str()) || nobody
}

/// The pairs of key files, each read once. One of them must be there; the others may come later.
pub(super) fn keys(written: &mut Written, warnings: &mut Vec<String>) -> Option<KeyFiles> {
    let indexes = written.key_indexes();
    if written.has_failed("upstream.keys") {
        return None;
    }
    if indexes.is_empty() {
        let text = "there is none; add [[upstream.keys]] with key_id_file and api_key_file, or set \
                    BEARERD_UPSTREAM__KEYS__0__KEY_ID_FILE and BEARERD_UPSTREAM__KEYS__0__API_KEY_FILE";
        written.problem("upstream.keys", text);
        return None;
    }
    if indexes.len() > MOST_PAIRS
        || indexes
            .last()
            .is_some_and(|last| *last as usize >= MOST_PAIRS)
    {
        let text = format!(
            "Truecaller gives an account at most {MOST_PAIRS} keys; keep the pairs 0 to {}",
            MOST_PAIRS - 1
        );
        written.problem("upstream.keys", text);
        return None;
    }
    let absent = Absent {
        is_fatal: !indexes.iter().any(|index| is_there(written, *index)),
    };
    let mut pairs = Vec::new();
    // Up to the last one that was written: a gap has its own problem.
    for index in 0..=indexes.last().copied().unwrap_or(0) {
        if !indexes.contains(&index) {
            // Such as a second pair from the environment, without the file that names the first.
            let path = format!("upstream.keys.{index}");
            let text = format!(
                "nothing names this pair, and upstream.keys.{} is there; pairs are counted from 0 and without a gap: name this one, too, or \
                 count that one lower",
                indexes.range(index..).next().unwrap_or(&index)
            );
            written.problem(&path, text);
            pairs.push(None);
            continue;
        }
        let [id, key] = FILES.map(|file| {
            let path = format!("upstream.keys.{index}.{file}");
            key_file(written, &path, absent, warnings)
        });
        pairs.push(id.zip(key));
    }
    let pairs: Vec<_> = pairs.into_iter().collect::<Option<_>>()?;
    warnings.extend(oddities(&pairs));
    Some(KeyFiles { pairs })
}

/// What looks like a mistake in the pairs that are there, one line each.
fn oddities(pairs: &[(PathBuf, PathBuf)]) -> Vec<String> {
    let read = |pair: &(PathBuf, PathBuf)| {
        let alone = KeyFiles {
            pairs: vec![pair.clone()],
        };
        alone.read().ok().map(|keys| keys.pick(0).clone())
    };
    let keys: Vec<Option<Key>> = pairs.iter().map(read).collect();
    let mut told = Vec::new();
    for (index, key) in keys.iter().enumerate() {
        let Some(key) = key else { continue };
        let all = key.oddities().into_iter();
        told.extend(all.map(|what| format!("upstream.keys.{index}: {what}")));
        let same = |earlier: &Option<Key>| earlier.as_ref() == Some(key);
        if let Some(first) = keys[..index].iter().position(same) {
            told.push(format!(
                "upstream.keys.{index}: it is the same pair as upstream.keys.{first}; a refusal of one costs a slot for each; leave one out"
            ));
        }
    }
    told
}

/// The two files of a pair.
const FILES: [&str; 2] = ["key_id_file", "api_key_file"];

/// What a file that holds no key means: nothing can start without any pair, and with one the others may come later.
#[derive(Clone, Copy)]
struct Absent {
    is_fatal: bool,
}

/// True if both files of this pair hold a key.
fn is_there(written: &Written, index: u32) -> bool {
    let paths = FILES.map(|file| {
        let text = written.text(&format!("upstream.keys.{index}.{file}"))?;
        is_path(&text).then(|| PathBuf::from(text))
    });
    let [Some(id), Some(key)] = paths else {
        return false;
    };
    let alone = KeyFiles {
        pairs: vec![(id, key)],
    };
    alone.read().is_ok()
}

/// A path that is written, and what is wrong with the file there.
fn key_file(
    written: &mut Written,
    path: &str,
    absent: Absent,
    warnings: &mut Vec<String>,
) -> Option<PathBuf> {
    if written.entry(path).is_none() && !written.has_failed(path) {
        written.problem(
            path,
            "it is missing; each pair names two files, key_id_file and api_key_file",
        );
    }
    let file = file_path(written, path)?;
    let alone = KeyFiles {
        pairs: vec![(file.clone(), file.clone())],
    };
    if let Err(error) = alone.read() {
        if absent.is_fatal {
            written.problem(path, told(&error));
            return None;
        }
        let text =
            format!("{path}: {error}; its pair is left out until both of its files hold a key");
        warnings.push(one_line(&text));
        return Some(file);
    }
    if let Some(mode) = wide_mode(&file) {
        let text = format!(
            "{} can be read by others than its owner (mode {mode:04o}); chmod 600, or mount the Secret with defaultMode 0400",
            file.display()
        );
        if written.flag("upstream.strict_permissions") {
            written.problem(path, text);
            return None;
        }
        warnings.push(one_line(&format!("{path}: {text}")));
    }
    Some(file)
}

fn told(error: &KeyError) -> String {
    let mend = match error {
        KeyError::Unreadable { .. } => "; mount it there, or name another file",
        KeyError::NotAKey { .. } => "; write only the key into it, as one line of visible ASCII",
        KeyError::None => "",
    };
    format!("{error}{mend}")
}

/// Somebody may write a key instead of a file's path, so only what can be nothing but a path is ever repeated.
pub(super) fn file_path(written: &mut Written, path: &str) -> Option<PathBuf> {
    let text = written.text(path)?;
    if is_path(&text) {
        return Some(PathBuf::from(text));
    }
    if !written.has_failed(path) {
        let text = "not a path (it is not shown, in case it is the key itself); expected the path of a file that holds the key, \
                    beginning with / or ./";
        written.problem(path, text);
    }
    None
}

fn is_path(text: &str) -> bool {
    ["/", "./", "../"]
        .iter()
        .any(|start| text.starts_with(start))
}

/// The mint call, if everything that makes it is right.
pub(super) fn issuer(
    written: &mut Written,
    account: Option<&str>,
    rules: Option<&Rules>,
) -> Option<truecaller::Settings> {
    let base = base_url(written);
    let path = mint_path(written);
    let (base, path, account, rules) = (base?, path?, account?, rules?);
    let whole = format!(
        "{}{}",
        base.as_str().trim_end_matches('/'),
        path.replace("{account}", account)
    );
    let Ok(mint_url) = Url::parse(&whole) else {
        written.problem(MINT_PATH, "it gives no URL together with upstream.base_url");
        return None;
    };
    Some(truecaller::Settings {
        mint_url,
        timeout: rules.timeout,
        in_flight: rules.budget.in_flight,
        lifetime: rules.lifetime,
    })
}

fn base_url(written: &mut Written) -> Option<Url> {
    if written.has_failed(BASE_URL) {
        return None;
    }
    let url = Url::parse(&written.text(BASE_URL)?)
        .ok()
        .filter(Url::has_host);
    let Some(url) = url else {
        written.problem(
            BASE_URL,
            "not a URL; expected such as https://enterprise-portal-noneu.truecaller.com",
        );
        return None;
    };
    let local = |host: &str| {
        let address = host
            .trim_start_matches('[')
            .trim_end_matches(']')
            .parse::<IpAddr>();
        host == "localhost" || address.is_ok_and(|address| address.is_loopback())
    };
    let wrong = if !url.username().is_empty() || url.password().is_some() {
        "it holds a user or password; remove them, since keys come from files"
    } else if url.query().is_some() || url.fragment().is_some() {
        "it holds a query or a fragment; remove it"
    } else {
        match url.scheme() {
            "https" => return Some(url),
            "http" if url.host_str().is_some_and(local) => return Some(url),
            "http" => {
                "http:// would show the keys to the network; use https://, or a loopback address"
            }
            _ => "its scheme is not https (or http to a loopback address)",
        }
    };
    written.problem(BASE_URL, wrong);
    None
}

fn mint_path(written: &mut Written) -> Option<String> {
    if written.has_failed(MINT_PATH) {
        return None;
    }
    let path = written.text(MINT_PATH)?;
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"/-_.~".contains(&byte);
    let wrong = if !path.starts_with('/') {
        "it does not begin with /"
    } else if path.matches("{account}").count() > 1 {
        "it names {account} more than once"
    } else if !path.replacen("{account}", "", 1).bytes().all(allowed) {
        "it holds other characters than letters, digits and / - _ . ~ (and {account} once)"
    } else if path.split('/').any(|part| part == "." || part == "..") {
        "it holds . or .. as a part"
    } else {
        return Some(path);
    };
    written.problem(
        MINT_PATH,
        format!("{wrong}; expected such as /clients/{{account}}/token"),
    );
    None
}
