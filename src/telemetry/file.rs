//! A file that lines are appended to, and that others may move away at any time.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{Access, OFlags, access, fcntl_getfl, fcntl_setfl};
use rustix::io::Errno;

use super::queue::{LastLines, Queue};

/// So many lines may wait to be written: more than a log has at once, since all watches may end together.
const LINES: usize = 8192;

/// So many failures in a row are worth a warning each.
const WARNINGS: u32 = 3;

/// Lines on their way into a file of their own. Nobody waits for the disk: what it does not take in time, or at all, is counted, and
/// told in the file once it takes lines again. The last lines are waited for when this is dropped, but not long.
pub struct LineFile {
    queue: Queue,
    _last: LastLines,
}

impl LineFile {
    /// Opens the file, which is made for its owner alone if it is not there. `missed` makes the line that says how many are missing.
    pub fn open(path: &Path, missed: impl Fn(u64) -> String + Send + 'static) -> io::Result<Self> {
        let file = Appended::open(path)?;
        let (queue, last) = Queue::start("lines", LINES, file, missed)?;
        Ok(Self { queue, _last: last })
    }

    /// Sends one line, its end included, on its way.
    pub fn write(&self, line: Vec<u8>) {
        self.queue.send(line);
    }
}

/// Whether the file could be opened, as far as can be told without making it.
pub fn could_open(path: &Path) -> io::Result<()> {
    match access(path, Access::WRITE_OK) {
        Err(Errno::NOENT) => {
            let folder = path.parent().unwrap_or(Path::new("/"));
            Ok(access(folder, Access::WRITE_OK | Access::EXEC_OK)?)
        }
        found => Ok(found?),
    }
}

/// The file itself. Before each line it is looked for under its name, and opened again if something else, or nothing, is there.
struct Appended {
    path: PathBuf,
    file: File,
    /// The device and the inode.
    id: (u64, u64),
    /// The last line is there only in part.
    torn: bool,
    failures: u32,
}

impl Appended {
    fn open(path: &Path) -> io::Result<Self> {
        let (file, id) = open(path)?;
        Ok(Self {
            path: path.to_owned(),
            file,
            id,
            torn: false,
            failures: 0,
        })
    }

    /// Goes on in a new file if this one was moved away. Where none can be made, it goes on in the old one.
    fn follow(&mut self) {
        let found = fs::metadata(&self.path).map(|it| (it.dev(), it.ino()));
        if found.is_ok_and(|id| id == self.id) {
            return;
        }
        if let Ok((file, id)) = open(&self.path) {
            (self.file, self.id, self.torn) = (file, id, false);
        }
    }

    fn append(&mut self, line: &[u8]) -> io::Result<()> {
        self.follow();
        if self.torn {
            self.file.write_all(b"\n")?;
            self.torn = false;
        }
        let mut rest = line;
        while !rest.is_empty() {
            match self.file.write(rest) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => rest = &rest[written..],
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    self.torn = rest.len() < line.len();
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    fn tell(&mut self, written: &io::Result<()>) {
        let file = self.path.display();
        match written {
            Ok(()) if self.failures > 0 => {
                tracing::info!(%file, "lines can be written again");
                self.failures = 0;
            }
            Ok(()) => {}
            Err(error) => {
                self.failures = self.failures.saturating_add(1);
                if self.failures <= WARNINGS {
                    tracing::warn!(%file, %error, "a line could not be written");
                } else {
                    tracing::debug!(%file, %error, "a line could not be written");
                }
            }
        }
    }
}

/// Nobody waits for a reader: a pipe without one is refused. Writing to one that is read may wait for it again.
fn open(path: &Path) -> io::Result<(File, (u64, u64))> {
    #[expect(
        clippy::cast_possible_wrap,
        reason = "the flag is a small positive number"
    )]
    let no_wait = OFlags::NONBLOCK.bits() as i32;
    let mut options = OpenOptions::new();
    options.append(true).create(true).mode(0o600);
    let file = options.custom_flags(no_wait).open(path)?;
    fcntl_setfl(&file, fcntl_getfl(&file)? - OFlags::NONBLOCK)?;
    let found = file.metadata()?;
    Ok((file, (found.dev(), found.ino())))
}

/// Each call is one whole line.
impl Write for Appended {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let written = self.append(line);
        self.tell(&written);
        written.map(|()| line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::os::unix::fs::PermissionsExt;

    use rustix::fs::{CWD, FileType, Mode, mknodat};
    use rustix::io::Errno;

    fn text(path: &Path) -> String {
        fs::read_to_string(path).unwrap()
    }

    #[test]
    fn a_file_that_was_moved_away_or_removed_is_made_anew_for_its_owner_alone() {
        let folder = tempfile::tempdir().unwrap();
        let (path, moved) = (folder.path().join("lines"), folder.path().join("lines.1"));
        let mut file = Appended::open(&path).unwrap();
        file.write_all(b"one\n").unwrap();
        fs::rename(&path, &moved).unwrap();
        file.write_all(b"two\n").unwrap();
        assert_eq!(
            (text(&moved), text(&path)),
            ("one\n".into(), "two\n".into())
        );
        fs::remove_file(&path).unwrap();
        file.write_all(b"three\n").unwrap();
        assert_eq!(text(&path), "three\n");
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        drop(file);
        // What is there is kept.
        let mut file = Appended::open(&path).unwrap();
        file.write_all(b"four\n").unwrap();
        assert_eq!(text(&path), "three\nfour\n");
    }

    #[test]
    fn whether_a_file_could_be_opened_is_told_without_making_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lines");
        could_open(&path).unwrap();
        assert!(!path.exists());
        fs::write(&path, "one\n").unwrap();
        could_open(&path).unwrap();
        assert_eq!(text(&path), "one\n");
        let error = could_open(&folder.path().join("no/lines")).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn a_pipe_that_nobody_reads_is_refused_at_once_and_one_that_is_read_makes_writers_wait() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pipe");
        mknodat(CWD, &path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        let error = Appended::open(&path).err().unwrap();
        assert_eq!(error.raw_os_error(), Some(Errno::NXIO.raw_os_error()));
        let reader = rustix::fs::open(&path, OFlags::RDONLY | OFlags::NONBLOCK, Mode::empty());
        let file = Appended::open(&path).unwrap();
        assert!(!fcntl_getfl(&file.file).unwrap().contains(OFlags::NONBLOCK));
        drop(reader);
    }

    #[test]
    fn where_no_new_file_can_be_made_the_old_one_goes_on() {
        let folder = tempfile::tempdir().unwrap();
        let (place, moved) = (folder.path().join("place"), folder.path().join("moved"));
        fs::create_dir(&place).unwrap();
        let mut file = Appended::open(&place.join("lines")).unwrap();
        fs::rename(&place, &moved).unwrap();
        file.write_all(b"one\n").unwrap();
        assert_eq!(text(&moved.join("lines")), "one\n");
        fs::create_dir(&place).unwrap();
        file.write_all(b"two\n").unwrap();
        assert_eq!(text(&place.join("lines")), "two\n");
    }

    #[test]
    fn after_a_line_that_was_cut_off_the_next_one_is_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lines");
        let mut file = Appended::open(&path).unwrap();
        file.write_all(b"on").unwrap();
        file.torn = true;
        file.write_all(b"two\n").unwrap();
        file.write_all(b"three\n").unwrap();
        assert_eq!(text(&path), "on\ntwo\nthree\n");
    }
}
