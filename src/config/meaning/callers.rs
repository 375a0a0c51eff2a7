//! Who is named, by what, and what they may do.

use std::fmt::Display;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};

use super::super::problems::is_showable;
use super::super::raw::Written;
use super::tls::Doors;
use crate::caller::audit;
use crate::caller::rule::{LOCAL, Named, OPERATOR, Rate, Right, Rights, San};
use crate::listener::{Address, OVERFLOW, Overflow};

/// Every caller that the settings name, in the order of their names.
pub(super) fn callers(written: &mut Written) -> Vec<Named> {
    let names = written.caller_names();
    let callers: Vec<Named> = names
        .iter()
        .filter_map(|name| named(written, name))
        .collect();
    distinct(written, &callers, "uids", |it| &it.uids);
    distinct(written, &callers, "gids", |it| &it.gids);
    distinct(written, &callers, "sans", |it| &it.sans);
    callers
}

/// Nobody can be two callers.
fn distinct<T: PartialEq + Display>(
    written: &mut Written,
    callers: &[Named],
    field: &str,
    of: impl Fn(&Named) -> &Vec<T>,
) {
    for (index, caller) in callers.iter().enumerate() {
        for item in of(caller) {
            let mut others = callers[..index].iter();
            let Some(other) = others.find(|other| of(other).contains(item)) else {
                continue;
            };
            let text = format!(
                "{item} is one of callers.{}.{field} already; name it once",
                other.name
            );
            written.problem(&format!("callers.{}.{field}", caller.name), text);
        }
    }
}

/// Whoever names processes by their user, and leaves a port open to all of them, may not know it.
pub(super) fn told_apart(
    callers: &[Named],
    doors: &Doors<'_>,
    certified: bool,
    warnings: &mut Vec<String>,
) {
    let by_owner = |caller: &&Named| !caller.uids.is_empty() || !caller.gids.is_empty();
    let Some(named) = callers.iter().find(by_owner) else {
        return;
    };
    let local = callers.iter().find(|it| it.name == LOCAL);
    let gets_tokens = |may: Rights| may.include(Right::Vend) || may.include(Right::Watch);
    if !local.is_none_or(|it| gets_tokens(it.may)) {
        return;
    }
    let http = ("http.listen", doors.http.listen.as_slice(), doors.http.tls);
    let grpc = doors
        .grpc
        .map(|it| ("grpc.listen", it.listen.as_slice(), it.tls));
    for (path, listen, secured) in [Some(http), grpc].into_iter().flatten() {
        let open = |it: &&Address| match it {
            Address::Tcp { .. } => !(certified && secured.covers(it)),
            Address::Unix(_) => false,
        };
        if let Some(port) = listen.iter().find(open) {
            warnings.push(format!(
                "{path}: {port} gives the token to every process of this machine, though callers.{} is known by its user or group: \
                 write may = [] under [callers.{LOCAL}], or listen on unix: sockets only",
                named.name
            ));
        }
    }
}

/// How fast each other machine may ask.
pub(super) fn peers(written: &mut Written) -> Option<Rate> {
    rate(written, "limits.peer_rate", "limits.peer_burst")
}

/// Where it is told what callers and operators did.
pub(super) fn audit(written: &mut Written) -> audit::Settings {
    let file = written.text("audit.file");
    if !written.flag("audit.enabled") {
        if file.is_some() && !written.has_failed("audit.enabled") {
            let text = "it means nothing with audit.enabled = false; leave one of them out";
            written.problem("audit.file", text);
        }
        return audit::Settings::Off;
    }
    let Some(file) = file else {
        return audit::Settings::Log;
    };
    if !["/", "./", "../"].iter().any(|it| file.starts_with(it)) {
        let text = "not a path; expected the path of a file, beginning with / or ./";
        written.problem("audit.file", text);
        return audit::Settings::Log;
    }
    let file = PathBuf::from(file);
    if !file.parent().is_some_and(Path::is_dir) {
        let text = "its folder is not there; make it, or name a file in another one";
        written.problem("audit.file", text);
    } else if file.is_dir() {
        written.problem("audit.file", "it is a folder; name a file in it");
    }
    audit::Settings::File(file)
}

fn named(written: &mut Written, name: &str) -> Option<Named> {
    let path = |field: &str| format!("callers.{name}.{field}");
    if !is_a_name(name) {
        let text = "its name is not right; expected small letters, digits, - and _, beginning with a letter, at most 24";
        written.problem(&format!("callers.{name}"), text);
        return None;
    }
    if name == OPERATOR {
        let text = "that is what the audit calls those who reach the admin listeners; give this caller another name";
        written.problem(&format!("callers.{name}"), text);
        return None;
    }
    let caller = Named {
        name: name.to_owned(),
        uids: users(written, &path("uids")),
        gids: groups(written, &path("gids")),
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

/// Numbers of users.
pub(super) fn users(written: &mut Written, path: &str) -> Vec<u32> {
    let is_nobody = |uid| OVERFLOW.is_user(uid);
    ids(written, path, "user", is_nobody, Overflow::UID_FILE)
}

/// Numbers of groups.
pub(super) fn groups(written: &mut Written, path: &str) -> Vec<u32> {
    let is_nobody = |gid| OVERFLOW.is_group(gid);
    ids(written, path, "group", is_nobody, Overflow::GID_FILE)
}

fn ids(
    written: &mut Written,
    path: &str,
    what: &str,
    is_nobody: impl Fn(u32) -> bool,
    file: &str,
) -> Vec<u32> {
    items(written, path, |text| match text.parse() {
        Err(_) => Err("it is no number of a user or a group; expected such as 1000".to_owned()),
        Ok(u32::MAX) => Err(format!(
            "it means no {what} to the kernel; name another one"
        )),
        Ok(id) if is_nobody(id) => Err(format!(
            "in a user namespace the kernel shows it of every process whose {what} is not mapped ({file}), so it would let all of \
             those in; run the process as a {what} of its own, and name that one"
        )),
        Ok(id) => Ok(id),
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
