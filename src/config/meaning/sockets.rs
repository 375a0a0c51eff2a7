//! Who may connect to Unix sockets.

use std::fs;
use std::path::Path;

use super::super::raw::Written;
use super::super::{Admin, Grpc, Http};
use crate::caller::rule::Named;
use crate::listener::{Address, SocketAccess, open_folder};

/// Where the names of groups are. No other source is asked: an empty image has none, and a directory service would need one.
const GROUPS: &str = "/etc/group";

/// The mode and group of a section's sockets.
pub(super) fn access(written: &mut Written, section: &str) -> SocketAccess {
    let (mode_path, group_path) = (
        format!("{section}.socket_mode"),
        format!("{section}.socket_group"),
    );
    let access = SocketAccess {
        mode: mode(written, &mode_path).unwrap_or(SocketAccess::default().mode),
        group: group(written, &group_path),
    };
    let judged = !written.has_failed(&mode_path) && access.group.is_some();
    if judged && access.mode & 0o020 == 0 {
        let text = format!(
            "{mode_path} is {:04o}, with which no group may connect; add {mode_path} = \"0660\", or leave this out",
            access.mode
        );
        written.problem(&group_path, text);
    }
    access
}

fn mode(written: &mut Written, path: &str) -> Option<u32> {
    let text = written.text(path)?;
    let digits = text.strip_prefix("0o").unwrap_or(&text);
    let octal = (3..=4).contains(&digits.len()) && digits.bytes().all(|it| it.is_ascii_digit());
    let mode = octal.then(|| u32::from_str_radix(digits, 8).ok()).flatten();
    let wrong = match mode {
        Some(mode) if mode > 0o777 => "it is above 0777",
        Some(mode) if mode & 0o222 == 0 => "with it nobody may connect",
        Some(mode) => return Some(mode),
        None => "it is no mode",
    };
    written.problem(
        path,
        format!("{wrong}; expected three or four octal digits, such as \"0660\""),
    );
    None
}

fn group(written: &mut Written, path: &str) -> Option<u32> {
    let text = written.text(path)?;
    if let Ok(number) = text.parse::<u32>() {
        // The last number means no group to the system.
        return (number != u32::MAX).then_some(number);
    }
    let groups = fs::read_to_string(GROUPS).unwrap_or_default();
    let found = number_of(&text, &groups);
    if found.is_none() {
        let text = format!(
            "there is no such group in {GROUPS}; expected the name of one that is there, or a number, which is all that an image \
             without that file knows"
        );
        written.problem(path, text);
    }
    found
}

/// The number of the group with this name, in a text as `/etc/group` is.
fn number_of(name: &str, groups: &str) -> Option<u32> {
    let mut lines = groups.lines().map(|line| line.split(':'));
    lines.find_map(|mut fields| (fields.next()? == name).then(|| fields.nth(1)?.parse().ok())?)
}

/// What may be so but lets in more than most people mean.
pub(super) fn warnings(
    http: &Http,
    grpc: Option<&Grpc>,
    admin: Option<&Admin>,
    callers: &[Named],
    warnings: &mut Vec<String>,
) {
    let named = callers
        .iter()
        .any(|caller| !caller.uids.is_empty() || !caller.gids.is_empty());
    let grpc = grpc.map(|it| ("grpc", it.listen.as_slice(), it.socket, named));
    let operators = admin.map(|it| {
        let named = !it.uids.is_empty() || !it.gids.is_empty();
        ("admin", it.listen.as_slice(), it.socket, named)
    });
    let sections = [("http", http.listen.as_slice(), http.socket, named)];
    for (section, listen, socket, named) in sections.into_iter().chain(grpc).chain(operators) {
        let mut paths = listen.iter().filter_map(unix).peekable();
        if socket.is_for_everybody() && !named && paths.peek().is_some() {
            let mend = match section {
                "admin" => "set admin.uids or admin.gids",
                _ => "name callers by uids or gids",
            };
            warnings.push(format!(
                "{section}.socket_mode: with {:04o} every user of this machine may connect; {mend}, or take 0660 and socket_group",
                socket.mode
            ));
        }
        for folder in paths.filter_map(open_folder) {
            warnings.push(format!(
                "{section}.listen: every user of this machine may write to {}, and so put a socket of their own in the place of this \
                 one; chmod o-w, or choose another folder",
                folder.display()
            ));
        }
    }
    // Root reaches every socket anyway: it is named alone for what changes the record, which no port answers.
    if let Some(admin) =
        admin.filter(|it| it.uids.iter().any(|uid| *uid != 0) || !it.gids.is_empty())
        && let Some(port) = admin.listen.iter().find(|it| unix(it).is_none())
    {
        warnings.push(format!(
            "admin.uids and admin.gids are about Unix sockets only: whoever reaches {port} is answered all the same"
        ));
    }
}

fn unix(address: &Address) -> Option<&Path> {
    match address {
        Address::Unix(path) => Some(path),
        Address::Tcp { .. } => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_is_found_by_its_whole_name() {
        let groups = "root:x:0:\nwww-data:x:33:nginx,bearerd\nbroken\nwww:x:34:\n";
        assert_eq!(number_of("www-data", groups), Some(33));
        assert_eq!(number_of("www", groups), Some(34));
        assert_eq!(number_of("nginx", groups), None);
        assert_eq!(number_of("broken", groups), None);
        assert_eq!(number_of("x", groups), None);
    }
}
