use super::*;
use crate::record::tests::lived;
use crate::record::tests::machine::Seen;
use crate::record::tests::register::conforms;
use crate::record::tests::register::model::{Shelf, conforms_in_random_histories};
use std::os::unix::fs::symlink;
use std::task::{Context, Waker};

struct Folder {
    temporary: tempfile::TempDir,
}

impl Folder {
    fn new() -> Self {
        let temporary = tempfile::tempdir().unwrap();
        Self { temporary }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.temporary.path().join(name)
    }

    fn open(&self) -> FileRegister {
        FileRegister::open(self.temporary.path()).unwrap()
    }

    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.temporary.path()).unwrap();
        let mut names: Vec<String> = entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }
}

/// Writes a record over whatever is there.
async fn write(register: &FileRegister) -> Version {
    let seen = register.load().await.unwrap().found.map(|it| it.1);
    match register.swap(seen, lived()).await {
        Swapped::Done(version) => version,
        other => panic!("{other:?}"),
    }
}

async fn swap_fails(register: &FileRegister, seen: Option<Version>) -> String {
    match register.swap(seen, lived()).await {
        Swapped::Unavailable(error) => error.to_string(),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_file_register_conforms() {
    let folder = Folder::new();
    conforms(Arc::new(folder.open()), Arc::new(folder.open())).await;
}

impl Shelf for Folder {
    // Every swap waits twice for the disk.
    const ONE_IN: u32 = 4;
    const WAKES: bool = true;

    fn seen() -> &'static Seen<&'static str> {
        static SEEN: Seen<&str> = Seen::new();
        &SEEN
    }

    fn empty() -> Self {
        Self::new()
    }

    fn open(&self) -> Arc<dyn Register> {
        Arc::new(Folder::open(self))
    }

    fn damage(&self, kept: Option<u64>) -> bool {
        let path = self.path("record.json");
        match kept {
            None => {
                let _was_there = fs::remove_file(path);
            }
            Some(thousandths) => {
                let file = OpenOptions::new().write(true).open(path).unwrap();
                let length = file.metadata().unwrap().len();
                // Without its last two bytes it is no record, whatever is left.
                let kept = (length * thousandths / 1000).min(length - 2);
                file.set_len(kept).unwrap();
            }
        }
        true
    }
}

#[test]
fn the_file_register_is_a_cell_in_random_histories() {
    conforms_in_random_histories::<Folder>();
}

#[tokio::test]
async fn only_the_owner_can_read_it_and_nothing_else_is_left_in_the_folder() {
    let folder = Folder::new();
    write(&folder.open()).await;
    for name in ["record.json", "record.lock"] {
        let mode = fs::metadata(folder.path(name)).unwrap().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
    assert_eq!(folder.names(), ["record.json", "record.lock"]);
}

#[tokio::test]
async fn a_leftover_of_a_crash_is_overwritten_whatever_its_mode() {
    for mode in [0o777, 0o644, 0o600, 0o400, 0o000] {
        let folder = Folder::new();
        let fresh = folder.path("record.json.new");
        fs::write(&fresh, "x".repeat(100_000)).unwrap();
        fs::set_permissions(&fresh, fs::Permissions::from_mode(mode)).unwrap();
        let register = folder.open();
        let version = write(&register).await;
        let about = fs::metadata(register.path()).unwrap();
        assert_eq!(about.mode() & 0o777, 0o600);
        let found = folder.open().load().await.unwrap().found;
        assert_eq!(found, Some((lived(), version)));
    }
}

#[tokio::test]
async fn a_link_in_place_of_a_file_is_never_followed() {
    let folder = Folder::new();
    let target = folder.path("target");
    fs::write(&target, "precious").unwrap();
    symlink(&target, folder.path("record.json.new")).unwrap();
    let register = folder.open();
    let _ = register.swap(None, lived()).await;
    assert_eq!(fs::read_to_string(&target).unwrap(), "precious");

    let folder = Folder::new();
    fs::write(folder.path("target"), &*lived().to_text()).unwrap();
    symlink(folder.path("target"), folder.path("record.json")).unwrap();
    let told = folder.open().load().await.unwrap_err().to_string();
    assert!(
        told.contains("read") && told.contains("record.json"),
        "{told}"
    );

    let folder = Folder::new();
    symlink(folder.path("target"), folder.path("record.lock")).unwrap();
    assert!(FileRegister::open(folder.temporary.path()).is_err());
    assert!(!folder.path("target").exists());
}

#[tokio::test]
async fn a_torn_file_is_moved_aside_and_explained_and_never_overwrites_an_earlier_one() {
    let folder = Folder::new();
    let register = folder.open();
    let text = lived().to_text();
    for (number, length) in [(1, 0), (2, 100), (3, text.len() / 2)] {
        fs::write(register.path(), &text[..length]).unwrap();
        let loaded = register.load().await.unwrap();
        assert!(loaded.found.is_none());
        let told = loaded.moved_aside.unwrap();
        assert!(
            told.contains(&format!("torn-{number}")) && told.contains("not a whole record"),
            "{told}"
        );
        assert!(!told.contains("secret-"), "{told}");
        let aside = fs::read(folder.path(&format!("record.json.torn-{number}"))).unwrap();
        assert_eq!(aside, text[..length]);
        assert!(register.load().await.unwrap().moved_aside.is_none());
    }
    write(&register).await;
}

#[tokio::test]
async fn a_torn_file_is_not_swapped_over_and_not_moved_without_the_lock() {
    let folder = Folder::new();
    let register = folder.open();
    let version = write(&register).await;
    fs::write(register.path(), "{").unwrap();
    assert!(matches!(
        register.swap(Some(version), lived()).await,
        Swapped::Conflict
    ));
    let lock = File::open(folder.path("record.lock")).unwrap();
    lock.lock().unwrap();
    assert!(register.load().await.is_err());
    assert_eq!(fs::read_to_string(register.path()).unwrap(), "{");
    drop(lock);
    assert!(register.load().await.unwrap().moved_aside.is_some());
}

#[tokio::test]
async fn a_file_larger_than_any_record_is_read_no_further_and_moved_aside() {
    let folder = Folder::new();
    let register = folder.open();
    let mut text = vec![b' '; 3 << 20];
    text.extend_from_slice(&lived().to_text());
    fs::write(register.path(), text).unwrap();
    assert!(register.load().await.unwrap().moved_aside.is_some());
}

#[tokio::test]
async fn a_deleted_file_is_an_empty_register() {
    let folder = Folder::new();
    let register = folder.open();
    let version = write(&register).await;
    fs::remove_file(register.path()).unwrap();
    assert!(register.load().await.unwrap().found.is_none());
    assert!(matches!(
        register.swap(Some(version), lived()).await,
        Swapped::Conflict
    ));
    write(&register).await;
}

#[tokio::test]
async fn a_newer_format_is_refused_and_left_alone() {
    let folder = Folder::new();
    let register = folder.open();
    fs::write(register.path(), "{\"format\": \"2.0\"}").unwrap();
    let told = register.load().await.unwrap_err().to_string();
    assert!(
        told.contains("format 2.0") && told.contains("newer bearerd"),
        "{told}"
    );
    for seen in [None, Some(version_of(b"{\"format\": \"2.0\"}"))] {
        swap_fails(&register, seen).await;
    }
    assert_eq!(
        fs::read_to_string(register.path()).unwrap(),
        "{\"format\": \"2.0\"}"
    );
}

#[tokio::test]
async fn a_lock_that_another_holds_makes_a_swap_give_up_and_harm_nothing() {
    let folder = Folder::new();
    let register = folder.open();
    let version = write(&register).await;
    let lock = File::open(folder.path("record.lock")).unwrap();
    lock.lock().unwrap();
    let told = swap_fails(&register, Some(version.clone())).await;
    assert!(
        told.contains("record.lock") && told.contains("held it for a second"),
        "{told}"
    );
    let found = register.load().await.unwrap().found;
    assert_eq!(found, Some((lived(), version)), "reading takes no lock");
}

#[tokio::test]
async fn what_cannot_be_written_leaves_the_record_as_it_was() {
    let folder = Folder::new();
    let register = folder.open();
    let version = write(&register).await;
    fs::create_dir(folder.path("record.json.new")).unwrap();
    let told = swap_fails(&register, Some(version.clone())).await;
    assert!(
        told.starts_with("write ") && told.contains("record.json"),
        "{told}"
    );
    assert_eq!(
        register.load().await.unwrap().found,
        Some((lived(), version))
    );
}

#[test]
fn folders_that_cannot_serve_are_refused_with_a_remedy() {
    let refused = |path: &Path| {
        FileRegister::open(path)
            .err()
            .expect("it cannot serve")
            .to_string()
    };
    let folder = Folder::new();
    fs::write(folder.path("file"), "").unwrap();
    let told = refused(&folder.path("file/state"));
    assert!(
        told.contains("cannot be made") && told.contains("make it, owned by"),
        "{told}"
    );
    let told = refused(Path::new("/proc/self"));
    assert!(
        told.contains("cannot be written") && told.contains("give it to the user"),
        "{told}"
    );
}

#[test]
fn an_inspection_finds_what_an_opening_would_and_leaves_nothing() {
    let folder = Folder::new();
    let about = || fs::metadata(folder.path("")).unwrap();
    let before = (about().mtime(), about().mtime_nsec());
    let register = FileRegister::inspect(&folder.path("")).unwrap();
    assert_eq!(folder.names(), [""; 0]);
    assert_eq!(
        before,
        (about().mtime(), about().mtime_nsec()),
        "not even for a moment"
    );
    assert_eq!(register.path(), folder.path("record.json"));
    let missing = FileRegister::inspect(&folder.path("a/b")).unwrap();
    assert_eq!((folder.names(), missing.owner()), (vec![], None));

    // Under a daemon that writes at this moment, too.
    folder.open();
    let lock = File::open(folder.path("record.lock")).unwrap();
    lock.lock().unwrap();
    FileRegister::inspect(&folder.path("")).unwrap();
    assert_eq!(folder.names(), ["record.lock"]);
    let us = rustix::process::geteuid().as_raw();
    let owner = register.owner().unwrap();
    assert_eq!(owner, (folder.path("record.lock").as_path(), us));

    let refused = |path: &Path| FileRegister::inspect(path).err().unwrap().to_string();
    let told = refused(Path::new("/proc/bearerd"));
    assert!(
        told.contains("/proc/bearerd cannot be made (No such file"),
        "{told}"
    );
    let told = refused(Path::new("/proc/self"));
    assert!(told.contains("/proc/self cannot be written"), "{told}");
    let told = refused(&folder.path("record.lock/below"));
    assert!(told.contains("cannot be made (Not a directory"), "{told}");
}

#[test]
fn a_lock_that_cannot_be_opened_is_named_itself() {
    let folder = Folder::new();
    // Even root cannot open a link that is not followed.
    std::os::unix::fs::symlink("elsewhere", folder.path("record.lock")).unwrap();
    for refused in [FileRegister::open, FileRegister::inspect] {
        let told = refused(&folder.path("")).err().unwrap().to_string();
        let begin = format!(
            "{} cannot be opened for writing",
            folder.path("record.lock").display()
        );
        assert!(told.starts_with(&begin), "{told}");
    }
}

#[test]
fn a_missing_folder_is_made_for_its_owner_alone() {
    let folder = Folder::new();
    FileRegister::open(&folder.path("a/b")).unwrap();
    for made in ["a", "a/b"] {
        assert_eq!(
            fs::metadata(folder.path(made)).unwrap().mode() & 0o777,
            0o700
        );
    }
}

#[test]
fn daemons_that_start_at_once_do_not_take_the_folder_for_unwritable() {
    let folder = Folder::new();
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..25 {
                    folder.open();
                }
            });
        }
    });
    assert_eq!(folder.names(), ["record.lock"]);
}

#[tokio::test(start_paused = true)]
async fn the_writes_of_others_wake_and_our_own_do_not() {
    let folder = Folder::new();
    let (ours, theirs) = (folder.open(), folder.open());
    let mut version = write(&ours).await;
    let soon = Duration::from_secs(2);
    for _ in 0..3 {
        assert!(tokio::time::timeout(soon, ours.changed()).await.is_err());
        version = write(&theirs).await;
        assert!(tokio::time::timeout(soon, ours.changed()).await.is_ok());
        assert!(
            tokio::time::timeout(soon, ours.changed()).await.is_ok(),
            "until it is read"
        );
        ours.load().await.unwrap();
    }
    fs::remove_file(ours.path()).unwrap();
    assert!(tokio::time::timeout(soon, ours.changed()).await.is_ok());
    assert!(matches!(
        ours.swap(Some(version), lived()).await,
        Swapped::Conflict
    ));
}

#[test]
fn what_nobody_was_told_wakes_whoever_waits() {
    let folder = Folder::new();
    let register = folder.open();
    let one_thread = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .max_blocking_threads(1)
        .build();
    one_thread.unwrap().block_on(async {
        write(&register).await;
        fs::remove_file(register.path()).unwrap();
        // The only thread is busy, so the load begins after its caller has left; then it sees that the file is gone.
        let (set_free, busy) = std::sync::mpsc::channel::<()>();
        tokio::task::spawn_blocking(move || busy.recv());
        let mut left = register.load();
        let looked = left.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        assert!(looked.is_pending());
        drop(left);
        drop(set_free);
        tokio::task::spawn_blocking(|| ()).await.unwrap();
        let woken = tokio::time::timeout(Duration::from_secs(2), register.changed()).await;
        assert!(woken.is_ok());
    });
}
