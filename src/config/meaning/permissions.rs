//! Whether others than the process's own user can read its secrets or write to its folders.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::process::{getegid, getgroups};

const SETGID: u32 = 0o2000;
const STICKY: u32 = 0o1000;

/// The mode of a secret file that others than its owner can read. Links are followed: Secret
/// volumes are made of them.
pub(super) fn wide_mode(file: &Path) -> Option<u32> {
    let about = fs::metadata(file).ok()?;
    let mode = about.mode() & 0o777;
    let excess = excess(mode, is_own_group(about.gid(), file));
    (excess != 0).then_some(mode)
}

/// What a secret file's mode should not have. Kubernetes adds the group's read bit for `fsGroup`,
/// which has no other member.
fn excess(mode: u32, own_group: bool) -> u32 {
    mode & if own_group { 0o037 } else { 0o077 }
}

/// True for the process's own group. A supplementary group is often shared with other users; in the
/// set-group-id folder of a volume it is the `fsGroup` of this pod.
fn is_own_group(gid: u32, file: &Path) -> bool {
    if gid == getegid().as_raw() {
        return true;
    }
    let folder = fs::canonicalize(file).ok();
    let folder = folder.as_deref().and_then(Path::parent);
    let in_volume = folder
        .and_then(|folder| fs::metadata(folder).ok())
        .is_some_and(|about| about.mode() & SETGID != 0 && about.gid() == gid);
    in_volume && getgroups().is_ok_and(|all| all.iter().any(|it| it.as_raw() == gid))
}

/// Who may write to this folder beside its owner, in words, and its mode.
pub(super) fn other_writers(folder: &Path) -> Option<(String, u32)> {
    let about = fs::metadata(folder).ok()?;
    let mode = about.mode() & 0o7777;
    let writers = writers(mode, about.gid(), getegid().as_raw())?;
    Some((writers, mode))
}

/// Not of a volume as Kubernetes makes it for a pod's group, such as 2777: whoever has that mounted
/// was given it.
fn writers(mode: u32, group: u32, own: u32) -> Option<String> {
    if mode & (SETGID | STICKY) != 0 {
        return None;
    }
    if mode & 0o002 != 0 {
        return Some("every user of this machine".to_owned());
    }
    (mode & 0o020 != 0 && group != own).then(|| format!("group {group}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_of_its_own_may_read_a_secret_and_nobody_else_may() {
        for (mode, own, others) in [
            (0o600, 0, 0),
            (0o400, 0, 0),
            (0o440, 0, 0o040),
            (0o640, 0, 0o040),
            (0o660, 0o020, 0o060),
            (0o644, 0o004, 0o044),
            (0o604, 0o004, 0o004),
        ] {
            assert_eq!(excess(mode, true), own, "{mode:o}");
            assert_eq!(excess(mode, false), others, "{mode:o}");
        }
    }

    #[test]
    fn a_folder_is_told_of_if_others_may_write_to_it_and_no_volume() {
        let everybody = Some("every user of this machine".to_owned());
        assert_eq!(writers(0o777, 7, 7), everybody);
        assert_eq!(writers(0o702, 7, 7), everybody);
        assert_eq!(writers(0o770, 8, 7), Some("group 8".to_owned()));
        for quiet in [0o770, 0o755, 0o700, 0o2777, 0o1777, 0o2775, 0o3777] {
            assert_eq!(writers(quiet, 7, 7), None, "{quiet:o}");
        }
        assert_eq!(writers(0o2770, 8, 7), None);
    }
}
