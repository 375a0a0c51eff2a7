//! A layer between the real daemon and the C library: full disks, failing syncs, other wall clocks, and freezes at chosen calls.
//!
//! `interposer.c` is built once with the machine's C compiler and loaded by `LD_PRELOAD`. The daemon's files, sockets and wall
//! clock go through the C library and so through it; its boot clock does not, since rustix reads that without the library.

use std::ffi::OsString;
use std::fs::{self, File};
use std::os::unix::fs::{FileExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use rustix::io::Errno;
use tempfile::TempDir;

use crate::harness::{Daemon, World};

/// What can be switched, by its place on the board. The numbers are those of `interposer.c`.
#[derive(Clone, Copy, Debug)]
pub enum Switch {
    /// Nanoseconds that the wall clock is set forward, or back.
    Wall = 0,
    /// Bytes that may still be written to the record's files; negative for any number.
    Room = 1,
    /// What syncing a file fails with.
    FileSync = 2,
    /// What syncing the folder fails with.
    FolderSync = 3,
    /// What renaming the record's file fails with.
    Rename = 4,
    /// What opening for writing, renaming and removing fail with.
    ReadOnly = 5,
    /// The call at which the process stops itself, once.
    StopAt = 6,
    /// Syncing a file does not return until this is mended.
    Hang = 7,
    /// The number of the logged call, counted from one, behind which the process kills itself as by `kill -9`; for a connection and
    /// what is sent on it, before which.
    DieAt = 8,
}

const PLACES: u64 = 9;

/// A call at which the daemon stops itself as by `SIGSTOP`.
#[derive(Clone, Copy, Debug)]
pub enum Call {
    /// The record was renamed into its place.
    Commit = 1,
    /// The connection to the issuer is under way.
    Connect = 2,
}

const LIBRARY: &str = "interposer.so";

/// The switches of one daemon, and the log of its calls.
pub struct Interposer {
    folder: TempDir,
    board: File,
}

impl Interposer {
    /// Everything passes.
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        // What LD_PRELOAD lists ends at a space, which the path of the repository may hold.
        symlink(library(), folder.path().join(LIBRARY)).unwrap();
        let board = File::create(folder.path().join("board")).unwrap();
        board.set_len(PLACES * 8).unwrap();
        let new = Self { folder, board };
        new.set(Switch::Room, -1);
        new
    }

    pub fn set(&self, switch: Switch, value: i64) {
        self.board
            .write_all_at(&value.to_ne_bytes(), switch as u64 * 8)
            .unwrap();
    }

    pub fn fail(&self, switch: Switch, with: Errno) {
        self.set(switch, with.raw_os_error().into());
    }

    pub fn mend(&self, switch: Switch) {
        self.set(switch, 0);
    }

    /// Sets the daemon's wall clock this far forward, or back, of the true one.
    pub fn set_wall(&self, seconds: i64) {
        self.set(Switch::Wall, seconds * 1_000_000_000);
    }

    pub fn stop_at(&self, call: Call) {
        self.set(Switch::StopAt, call as i64);
    }

    /// The calls about the record and to the issuer so far, one a line.
    pub fn calls(&self) -> Vec<String> {
        let text = fs::read_to_string(self.folder.path().join("calls")).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    /// What makes a program run behind this.
    pub fn environment(&self) -> [(&'static str, OsString); 2] {
        [
            ("LD_PRELOAD", self.folder.path().join(LIBRARY).into()),
            ("INTERPOSER", self.folder.path().into()),
        ]
    }

    /// Starts a daemon behind this, and waits until it serves.
    pub async fn start(&self, world: &World, name: &str) -> Daemon {
        let toml = world.toml(&world.state(), name);
        self.start_with(world, name, &toml, &[]).await
    }

    /// The same with other settings, or with more in its environment.
    pub async fn start_with(
        &self,
        world: &World,
        name: &str,
        toml: &str,
        more: &[(&str, &Path)],
    ) -> Daemon {
        let mut command = serve(&world.write(&format!("{name}.toml"), toml));
        command.envs(self.environment()).envs(more.iter().copied());
        Daemon::spawn(command, &world.captured).await
    }
}

/// The daemon's command line, in an empty environment.
pub fn serve(settings: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bearerd"));
    command
        .args(["serve", "--config"])
        .arg(settings)
        .env_clear();
    command
}

/// The library, built once.
fn library() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let fresh = folder.join(format!("interposer-{}.so", std::process::id()));
        let built = Command::new("cc")
            .args([
                "-O1", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-o",
            ])
            .arg(&fresh)
            .arg(concat!(
                env!("CARGO_MANIFEST_DIR"),
                "/tests/faults/interposer.c"
            ))
            .arg("-ldl")
            .status()
            .unwrap();
        assert!(built.success(), "the interposer is not built");
        let library = folder.join(LIBRARY);
        fs::rename(fresh, &library).unwrap();
        library
    })
}
