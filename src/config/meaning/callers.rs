//! Who is named, by what, and what they may do.

use std::num::NonZeroU32;

use super::super::problems::is_showable;
use super::super::raw::Written;
use crate::caller::rule::{LOCAL, Named, Rate, Right, Rights, San};

/// Every caller that the settings name, in the order of their names.
pub(super) fn callers(written: &mut Written) -> Vec<Named> {
    let names = written.caller_names();
    names
        .iter()
        .filter_map(|name| named(written, name))
        .collect()
}

fn named(written: &mut Written, name: &str) -> Option<Named> {
    let path = |field: &str| format!("callers.{name}.{field}");
    if !is_a_name(name) {
        let text = "its name is not right; expected small letters, digits, - and _, beginning with a letter, at most 24";
        written.problem(&format!("callers.{name}"), text);
        return None;
    }
    let caller = Named {
        name: name.to_owned(),
        uids: ids(written, &path("uids")),
        gids: ids(written, &path("gids")),
        sans: sans(written, &path("sans")),
        may: rights(written, &path("may")),
        rate: rate(written, &path("rate"), &path("burst")),
        streams: count(written, &path("streams")),
    };
    let by = ["uids", "gids", "sans"];
    if name == LOCAL {
        for field in by {
            if !written.is_written(&path(field)) {
                continue;
            }
            let text = format!(
                "{LOCAL} is whoever has no other name; give a caller with {field} another name"
            );
            written.problem(&path(field), text);
        }
    } else if by.iter().all(|field| written.list(&path(field)).is_empty())
        && !by.iter().any(|field| written.has_failed(&path(field)))
    {
        let text = format!(
            "nothing says who it is; add one of these lines to [callers.{name}]: uids = [1000], gids = [1000], sans = [\"orders.shop.svc\"]"
        );
        written.problem(&path("uids"), text);
    }
    Some(caller)
}

fn is_a_name(name: &str) -> bool {
    let plain =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_".contains(&byte);
    name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.len() <= 24
        && name.bytes().all(plain)
}

/// Numbers of users or groups.
pub(super) fn ids(written: &mut Written, path: &str) -> Vec<u32> {
    items(written, path, |text| {
        text.parse()
            .map_err(|_| "it is no number of a user or a group; expected such as 1000".to_owned())
    })
}

fn sans(written: &mut Written, path: &str) -> Vec<San> {
    items(written, path, |text| {
        text.parse()
            .map_err(|error: crate::caller::rule::SanError| error.to_string())
    })
}

fn rights(written: &mut Written, path: &str) -> Rights {
    if !written.is_written(path) {
        return Rights::all();
    }
    let right = |text: &str| {
        let found = Right::ALL.into_iter().find(|right| right.word() == text);
        found.ok_or_else(|| format!("it is none of {}", Right::ALL.map(Right::word).join(", ")))
    };
    items(written, path, right).into_iter().collect()
}

fn rate(written: &mut Written, rate: &str, burst: &str) -> Option<Rate> {
    let Some(per_second) = count(written, rate) else {
        if written.is_written(burst) && !written.has_failed(rate) {
            written.problem(
                burst,
                format!("it means nothing without {rate}; add it, or leave this out"),
            );
        }
        return None;
    };
    Some(Rate {
        per_second,
        burst: count(written, burst).unwrap_or(per_second),
    })
}

fn count(written: &Written, path: &str) -> Option<NonZeroU32> {
    NonZeroU32::new(written.count(path)?)
}

/// Reads each item; what is wrong is told with the item's number.
fn items<T>(written: &mut Written, path: &str, read: impl Fn(&str) -> Result<T, String>) -> Vec<T> {
    let mut found = Vec::new();
    for (index, text) in written.list(path).iter().enumerate() {
        match read(text) {
            Ok(item) => found.push(item),
            Err(why) => {
                let shown = if is_showable(text) {
                    format!(", {text:?},")
                } else {
                    String::new()
                };
                written.problem(path, format!("item {}{shown}: {why}", index + 1));
            }
        }
    }
    found
}
