//! Which boot clock a boot time belongs to.
//!
//! A boot id alone does not say it: time namespaces (an OCI `timeOffsets`, a restored checkpoint)
//! share the id of their kernel and shift its boot clock. See `time_namespaces(7)`.

use std::io::ErrorKind;
use std::path::Path;
use std::{fmt, fs};

use serde::{Deserialize, Serialize};

/// Names one boot clock: boot times may be compared only under the same id.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct BootId(String);

impl BootId {
    /// Wraps an id that is known already.
    pub fn new(id: impl Into<String>) -> Self {
        Self(id.into())
    }

    /// The id of the boot clock that the kernel describes so; `None` if it does not say.
    ///
    /// Without an offset it is the bare boot id, as records of format 1.0 have it.
    pub fn identify(kernel: &KernelView) -> Option<Self> {
        let boot_id = uuid(&kernel.boot_id)?;
        let offset = match &kernel.time_namespace {
            TimeNamespace::Unsupported => None,
            TimeNamespace::Offsets(text) => boot_offset(text)?,
            TimeNamespace::Unknown => return None,
        };
        Some(Self(match offset {
            None => boot_id.to_owned(),
            Some((seconds, nanoseconds)) => format!("{boot_id}{seconds:+}.{nanoseconds:09}"),
        }))
    }

    /// An id that no other process has: boot times of other processes then mean nothing here, which
    /// is slower but safe.
    pub(super) fn unique() -> Self {
        Self(format!("process-{:016x}", fastrand::u64(..)))
    }
}

impl fmt::Display for BootId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What the kernel says of the calling process's boot clock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KernelView {
    /// The content of `/proc/sys/kernel/random/boot_id`; empty if it cannot be read.
    pub boot_id: String,
    /// The time namespace of the process.
    pub time_namespace: TimeNamespace,
}

/// The time namespace of a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TimeNamespace {
    /// The kernel has none (before Linux 5.6, or built without), so no clock is shifted.
    Unsupported,
    /// The content of `/proc/self/timens_offsets`.
    Offsets(String),
    /// It cannot be read.
    Unknown,
}

impl KernelView {
    /// Reads what the kernel says now.
    pub fn read() -> Self {
        Self {
            boot_id: fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default(),
            time_namespace: TimeNamespace::read(Path::new("/proc/self")),
        }
    }
}

impl TimeNamespace {
    fn read(process: &Path) -> Self {
        let namespaces = process.join("ns");
        match fs::read_link(namespaces.join("time")) {
            // The file shows the offsets of the namespace that children get. Before Linux 6.0 a
            // process may stay in another one.
            Ok(own)
                if fs::read_link(namespaces.join("time_for_children"))
                    .is_ok_and(|children| children == own) =>
            {
                fs::read_to_string(process.join("timens_offsets"))
                    .map_or(Self::Unknown, Self::Offsets)
            }
            Err(error) if error.kind() == ErrorKind::NotFound && namespaces.is_dir() => {
                Self::Unsupported
            }
            _ => Self::Unknown,
        }
    }
}

/// The text without its line's end if it is a UUID; a container runtime may put an empty file there.
fn uuid(text: &str) -> Option<&str> {
    let text = text.trim();
    let is_uuid = text.len() == 36
        && text.char_indices().all(|(at, c)| match at {
            8 | 13 | 18 | 23 => c == '-',
            _ => c.is_ascii_hexdigit(),
        });
    // A file of zeros is a placeholder, and the same on every machine.
    let is_nil = text.chars().all(|c| matches!(c, '0' | '-'));
    (is_uuid && !is_nil).then_some(text)
}

/// The offset of the boot clock in seconds and nanoseconds; `Some(None)` where it is zero, and
/// `None` where the text does not name it.
#[expect(
    clippy::option_option,
    reason = "no offset and no answer are not the same"
)]
fn boot_offset(offsets: &str) -> Option<Option<(i64, u32)>> {
    let mut lines = offsets.lines().map(str::split_ascii_whitespace);
    // Kernels write the clock's name; the first ones wrote its number (CLOCK_BOOTTIME is 7).
    let mut words = lines
        .find_map(|mut words| matches!(words.next(), Some("boottime" | "7")).then_some(words))?;
    let seconds: i64 = words.next()?.parse().ok()?;
    let nanoseconds: u32 = words.next()?.parse().ok()?;
    Some(((seconds, nanoseconds) != (0, 0)).then_some((seconds, nanoseconds)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    const BOOT: &str = "3a2f1c8e-0b1d-4c5e-9f60-718293a4b5c6";

    fn identified(boot_id: &str, time_namespace: TimeNamespace) -> Option<String> {
        let kernel = KernelView {
            boot_id: boot_id.to_owned(),
            time_namespace,
        };
        BootId::identify(&kernel).map(|id| id.to_string())
    }

    fn offsets(text: &str) -> TimeNamespace {
        TimeNamespace::Offsets(text.to_owned())
    }

    #[test]
    fn the_offset_of_the_boot_clock_is_a_part_of_its_identity() {
        let written = format!("{BOOT}\n");
        let with = |text: &str| identified(&written, offsets(text));
        let bare = Some(BOOT.to_owned());
        assert_eq!(identified(&written, TimeNamespace::Unsupported), bare);
        assert_eq!(
            with("monotonic           0         0\nboottime            0         0\n"),
            bare
        );
        // Only the monotonic clock is shifted, which nothing here reads.
        assert_eq!(
            with("monotonic       86400         0\nboottime            0         0\n"),
            bare
        );
        let day = with("monotonic           0         0\nboottime        86400         0\n");
        assert_eq!(day, Some(format!("{BOOT}+86400.000000000")));
        assert_eq!(
            with("1 0 0\n7 -3600 500000000\n"),
            Some(format!("{BOOT}-3600.500000000"))
        );
        assert_eq!(with("boottime 0 1\n"), Some(format!("{BOOT}+0.000000001")));
    }

    #[test]
    fn what_does_not_name_a_boot_clock_identifies_none() {
        let zero = || offsets("boottime 0 0\n");
        for boot_id in [
            "",
            "\n",
            "00000000-0000-0000-0000-000000000000",
            "here",
            &BOOT[1..],
        ] {
            assert_eq!(identified(boot_id, zero()), None, "{boot_id:?}");
        }
        for text in [
            "",
            "monotonic 0 0\n",
            "boottime\n",
            "boottime 1\n",
            "boottime x 0\n",
        ] {
            assert_eq!(identified(BOOT, offsets(text)), None, "{text:?}");
        }
        assert_eq!(identified(BOOT, TimeNamespace::Unknown), None);
        assert_ne!(BootId::unique(), BootId::unique());
    }

    #[test]
    fn a_process_whose_children_get_another_namespace_does_not_know_its_own() {
        let folder = tempfile::tempdir().unwrap();
        let process = folder.path();
        assert_eq!(TimeNamespace::read(process), TimeNamespace::Unknown);
        fs::create_dir(process.join("ns")).unwrap();
        assert_eq!(TimeNamespace::read(process), TimeNamespace::Unsupported);
        symlink("time:[1]", process.join("ns/time")).unwrap();
        fs::write(process.join("timens_offsets"), "boottime 0 0\n").unwrap();
        assert_eq!(TimeNamespace::read(process), TimeNamespace::Unknown);
        symlink("time:[2]", process.join("ns/time_for_children")).unwrap();
        assert_eq!(TimeNamespace::read(process), TimeNamespace::Unknown);
        fs::remove_file(process.join("ns/time_for_children")).unwrap();
        symlink("time:[1]", process.join("ns/time_for_children")).unwrap();
        assert_eq!(TimeNamespace::read(process), offsets("boottime 0 0\n"));
        fs::remove_file(process.join("timens_offsets")).unwrap();
        assert_eq!(TimeNamespace::read(process), TimeNamespace::Unknown);
    }
}
